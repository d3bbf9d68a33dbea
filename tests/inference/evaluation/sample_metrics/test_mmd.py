"""The maximum mean discrepancy and the kernel distance of features, where the answer is known."""

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from inference.evaluation.sample_metrics import mmd as subject
from inference.evaluation.sample_metrics.mmd import kid, mmd


def normal(n: int, seed: int, features: int = 2) -> Tensor:
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_weighted_pairs_are_those_of_repeated_rows_by_a_loop() -> None:
    x, y = normal(5, 0), normal(4, 1)
    a, b = torch.tensor([[2.0, 0, 1, 1, 1]]).double(), torch.tensor([[1.0, 3, 0, 0]]).double()
    kernel = subject._rational_quadratic(torch.cat((x, y)))
    found = subject._mmd2(kernel[:5, :5], kernel[:5, 5:], kernel[5:, 5:], a, b)

    def pairs(part: Tensor, counts: Tensor) -> Tensor:
        total, weight = torch.zeros(()).double(), 0.0
        for i in range(len(counts)):
            for j in range(len(counts)):
                if i != j:
                    total, weight = total + counts[i] * counts[j] * part[i, j], weight + float(counts[i] * counts[j])
        return total / weight

    across = sum(a[0, i] * b[0, j] * kernel[i, 5 + j] for i in range(5) for j in range(4)) / (a.sum() * b.sum())
    expected = pairs(kernel[:5, :5], a[0]) + pairs(kernel[5:, 5:], b[0]) - 2 * across
    assert float(found) == pytest.approx(float(expected), abs=1e-12)


def test_equal_samples_are_told_apart_no_more_often_than_stated() -> None:
    p_values = [mmd(normal(40, 2 * seed), normal(30, 2 * seed + 1), seed, 99).p_value for seed in range(200)]
    # At most this many of 200 below 0.05, but once in a million: a level of 0.17 would be caught half the time.
    assert sum(p <= 0.05 for p in p_values) <= binom.isf(1e-6, 200, 0.05)
    assert sum(p <= 0.5 for p in p_values) >= binom.ppf(1e-6, 200, 0.5), "nor is the test blind"


def test_the_estimator_has_no_bias() -> None:
    values = torch.tensor([mmd(normal(20, 2 * s), normal(25, 2 * s + 1), s, 1).score.value for s in range(300)])
    assert abs(float(values.mean())) < 5 * float(values.std()) / 300**0.5


@pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 1.6)])
def test_a_shift_and_a_scale_are_seen(shift: float, scale: float) -> None:
    found = mmd(shift + scale * normal(200, 0), normal(200, 1))
    assert found.p_value < 0.01
    assert found.score.low > 0


def test_kid_is_the_difference_of_three_moments() -> None:
    """With one feature (x y + 1)³ gives (m₃ - m₃')² + 3 (m₂ - m₂')² + 3 (m₁ - m₁')²."""
    shift = 0.6
    expected = (shift**3 + 3 * shift) ** 2 + 3 * shift**4 + 3 * shift**2
    found = kid(normal(20_000, 0, 1) + shift, normal(20_000, 1, 1), block=100)
    error = (found.high - found.low) / 2
    assert error < 0.5
    assert abs(found.value - expected) < 2.5 * error  # 5 standard errors


def test_kid_of_equal_samples_is_zero_in_the_mean() -> None:
    found = kid(normal(5000, 3, 8), normal(5000, 4, 8))
    assert abs(found.value) < 1.3 * (found.high - found.low)


def test_the_interval_of_kid_holds_what_it_says() -> None:
    inside = 0
    for seed in range(200):
        found = kid(normal(150, 2 * seed, 8), normal(150, 2 * seed + 1, 8), seed=seed)
        inside += found.low <= 0 <= found.high
    assert binom.isf(1 - 1e-6, 200, 0.95) <= inside, "three blocks a set, and Student's interval for them"
    assert inside < 200, "nor does it hold everything"


@pytest.mark.parametrize(("shift", "scale"), [(0.5, 1.0), (0.0, 1.6)])
def test_kid_sees_a_shift_and_a_scale(shift: float, scale: float) -> None:
    assert kid(shift + scale * normal(500, 0), normal(500, 1)).low > 0


def test_copies_of_the_data_are_no_nearer_than_alike() -> None:
    """A sample that stands in the data too would else count as a pair of its own: MMD² is below 0, and is not minus much."""
    data = normal(100, 0)
    found = mmd(data, data).score.value
    assert -0.2 < found < 0


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"expected the shape of the data, \(3,\) each, got \(2,\)"):
        mmd(normal(5, 0), normal(5, 1, 3))
    with pytest.raises(ValueError, match="real numbers beside data of whole levels"):
        mmd(normal(5, 0), normal(5, 1).round())
    with pytest.raises(ValueError, match="the same row"):
        mmd(torch.ones(4, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="at least two blocks"):
        kid(normal(60, 0), normal(60, 1))
    with pytest.raises(ValueError, match="samples: expected finite values, got 1"):
        mmd(torch.tensor([[0.0], [torch.nan]]), torch.zeros(3, 1))
