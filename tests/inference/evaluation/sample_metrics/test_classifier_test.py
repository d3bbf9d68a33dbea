"""The classifier two-sample test, where the answer is known."""

import math

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from inference.evaluation.sample_metrics.classifier_test import classifier_test


def normal(n: int, seed: int, features: int = 2) -> Tensor:
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.slow
def test_equal_samples_are_told_apart_no_more_often_than_stated() -> None:
    found = [classifier_test(normal(60, 2 * seed), normal(60, 2 * seed + 1), seed) for seed in range(200)]
    assert sum(each.p_value <= 0.05 for each in found) <= binom.isf(1e-6, 200, 0.05)
    accuracy = torch.tensor([each.accuracy.value for each in found])
    assert abs(float(accuracy.mean()) - 0.5) < 5 * float(accuracy.std()) / 200**0.5


def test_equal_samples_cost_what_not_knowing_costs() -> None:
    found = classifier_test(normal(400, 0, 20), normal(400, 1, 20))
    assert found.log_loss.value == pytest.approx(math.log(2), abs=0.03)
    assert found.p_value > 1e-3
    assert found.detectable == pytest.approx(0.5 + 2.4865 * 0.5 / math.sqrt(800), abs=1e-4)


def test_a_shift_is_found_nearly_as_often_as_can_be() -> None:
    """Two normals whose means are 2 apart: the best accuracy is Φ(1) = 0.841."""
    x = normal(1000, 0)
    found = classifier_test(x + torch.tensor([2.0, 0.0]), normal(1000, 1))
    assert 0.841 - 0.045 < found.accuracy.value < 0.841 + 0.04
    assert found.p_value < 1e-9
    assert found.log_loss.high < math.log(2)


def test_a_scale_is_found() -> None:
    found = classifier_test(1.8 * normal(400, 0), normal(400, 1))
    assert found.p_value < 1e-6
    assert found.accuracy.low > 0.5


def test_the_sizes_are_made_equal() -> None:
    found = classifier_test(normal(60, 0), normal(300, 1))
    assert abs(found.accuracy.value - 0.5) < 0.25, "always saying 'data' would be right in 300 of 360"


def test_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="too few to train a classifier; give at least 50"):
        classifier_test(normal(49, 0), normal(300, 1))
