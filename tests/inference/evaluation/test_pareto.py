"""Pareto-smoothed weights against tails whose shape is known."""

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from inference.evaluation.pareto import effective_sample_size, smoothed, threshold


def _of_a_narrow_guide(scale: float, draws: int = 4000, examples: int = 200) -> Tensor:
    """Log-weights of q = N(0, scale² I) for p = N(0, I) in two dimensions: their tail has the shape 1 - scale²."""
    energy = torch.empty(draws, examples, dtype=torch.float64).exponential_()
    return 2 * math.log(scale) + (1 - scale**2) * energy


@pytest.mark.parametrize("scale", [0.5, 0.7, 0.9])
def test_the_shape_of_a_guide_that_is_too_narrow_is_known(scale: float) -> None:
    # k̂ shrinks to 0.5 as if ten of the 190 weights in the tail had that shape. The spread of one k̂ is below 0.15, of the
    # mean of 200 below 0.011; the fit's own bias is below 0.02. An error of 0.1 is caught.
    expected = (190 * (1 - scale**2) + 5) / 200
    assert float(smoothed(_of_a_narrow_guide(scale)).khat.mean()) == pytest.approx(expected, abs=0.08)


def test_weights_that_are_bounded_fall_off_faster_than_any_power() -> None:
    found = smoothed(_of_a_narrow_guide(1.3))
    assert (found.khat < 0).all()


def test_smoothing_keeps_the_mean_weight_and_all_but_the_tail() -> None:
    raw = _of_a_narrow_guide(0.7)
    found = smoothed(raw)
    mean = (torch.logsumexp(found.log_weights, 0) - math.log(4000)).exp()
    assert float(mean.mean()) == pytest.approx(1.0, abs=0.02)  # the spread of one is 0.03
    assert (((found.log_weights - raw).abs() > 1e-12).sum(0) <= 190).all()
    assert (found.log_weights <= raw.max(0).values + 1e-12).all()
    torch.testing.assert_close(raw, raw.clone())


def test_equal_weights_are_perfect() -> None:
    equal = torch.tensor([0.0, -1e4, 3.0]).repeat(100, 1)
    equal *= 1 + 1e-6 * torch.rand(100, 3)  # rounding
    assert smoothed(equal).khat.tolist() == [0.0, 0.0, 0.0]
    # A largest weight that repeats over the whole tail is far from no other: a guide of discrete values.
    two = torch.zeros(100, 1)
    two[:60] = -2.0
    found = smoothed(two)
    assert found.khat.tolist() == [0.0]
    torch.testing.assert_close(found.log_weights, two.double())
    assert smoothed(two[:, [0]].index_fill(0, torch.arange(98), -2.0)).khat.tolist() == [
        math.inf
    ]  # two draws of 100 rule


def test_examples_without_weight_are_infinitely_bad_and_do_not_touch_others() -> None:
    raw = _of_a_narrow_guide(0.7, examples=2)
    nothing = torch.full((4000, 1), -torch.inf, dtype=torch.float64)
    half = raw[:, :1].clone()
    half[::2] = -torch.inf
    found = smoothed(torch.cat([nothing, raw, half], 1))
    assert found.khat[0] == math.inf
    torch.testing.assert_close(found.khat[1:3], smoothed(raw).khat)
    assert found.khat[3].isfinite()
    assert effective_sample_size(nothing).tolist() == [0.0]


def test_what_is_no_weight_is_refused() -> None:
    for wrong in (math.nan, math.inf):
        weights = torch.zeros(50, 3)
        weights[4, 1] = wrong
        with pytest.raises(ValueError, match=r"examples \[1\] are NaN or \+inf"):
            smoothed(weights)
    with pytest.raises(ValueError, match="at least 25 draws to be fitted, got 24"):
        smoothed(torch.zeros(24, 1))


def test_effective_sample_size_of_gaussians() -> None:
    # q = N(m, 1) for p = N(0, 1): (E w)² / E w² = exp(-m²); q = N(0, s²): sqrt(2 s² - 1) / s².
    z = torch.randn(100_000, 1, dtype=torch.float64)
    for log_weights, fraction in (
        (-0.5 * z - 0.125, math.exp(-0.25)),
        ((1 - 1.5**2) * z.square() / 2, math.sqrt(3.5) / 2.25),
    ):
        assert float(effective_sample_size(log_weights)) / 100_000 == pytest.approx(fraction, rel=0.03)
    assert float(effective_sample_size(torch.zeros(7, 1))) == pytest.approx(7.0)


def test_the_threshold_grows_with_the_draws() -> None:
    assert threshold(100) == pytest.approx(0.5)
    assert threshold(1000) == pytest.approx(2 / 3)
    assert threshold(100_000) == 0.7


def test_arviz_is_imported_only_where_a_tail_is_fitted() -> None:
    script = "import sys, inference; assert 'arviz' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
