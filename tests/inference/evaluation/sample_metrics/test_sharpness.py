"""The energy of edges, where it is known."""

import math

import pytest
import torch
from torch import Tensor

from inference.evaluation.sample_metrics.sharpness import gradient_energy, high_frequencies, sharpness


def white(n: int, seed: int, side: int = 16) -> Tensor:
    return torch.randn(n, 1, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_mean_of_two_neighbours_is_blurred_by_a_known_amount() -> None:
    """Of white noise of variance 1, differences along the axis go from 2 to ½, across it from 2 to 1."""
    blurred = (white(800, 0) + white(800, 0).roll(1, 3)) / 2
    found = sharpness(blurred, white(800, 1)).gradient
    assert found.value == pytest.approx(math.log(1.5 / 4), abs=0.02)
    assert found.low < found.value < found.high < found.low + 0.1


def test_contrast_counts_by_its_square() -> None:
    images = white(50, 0)
    found = sharpness(0.5 * images, images)
    assert found.gradient.value == pytest.approx(math.log(0.25), abs=1e-12)
    assert found.high_frequency.value == pytest.approx(math.log(0.25), abs=1e-12)


def test_a_wave_is_high_or_low() -> None:
    column = torch.arange(32, dtype=torch.float64)
    slow, fast = ((2 * math.pi * f * (column + 0.5)).cos().expand(1, 1, 32, 32) for f in (2 / 32, 12 / 32))
    assert float(high_frequencies(slow)) == pytest.approx(0, abs=1e-12)
    assert float(high_frequencies(fast)) == pytest.approx(0.5, abs=1e-12), "the mean square of a cosine"


def test_smooth_edges_are_no_high_frequencies() -> None:
    ramp = torch.arange(32, dtype=torch.float64).expand(1, 1, 32, 32)
    assert float(high_frequencies(ramp)) < 1e-3 * float(ramp.var())


def test_gradients_are_differences_of_both_axes() -> None:
    image = torch.tensor([[[[0.0, 1.0], [2.0, 5.0]]]])
    assert float(gradient_energy(image)) == pytest.approx((4 + 16) / 2 + (1 + 9) / 2)


def test_alike_images_are_as_sharp_and_the_interval_says_how_sure() -> None:
    inside = 0
    for seed in range(200):
        found = sharpness(white(40, 2 * seed, 6), white(40, 2 * seed + 1, 6), seed).gradient
        inside += found.low <= 0 <= found.high
    assert 174 <= inside < 200, "0.95 of 200, but once in a million"


def test_what_has_no_sharpness_is_said() -> None:
    with pytest.raises(ValueError, match="all images are flat"):
        sharpness(white(4, 0), torch.ones(4, 1, 16, 16))
    assert sharpness(torch.ones(4, 1, 16, 16), white(4, 0)).gradient.value == -math.inf
    with pytest.raises(ValueError, match="at least two pixels a side"):
        sharpness(torch.ones(4, 3), torch.ones(4, 3))
