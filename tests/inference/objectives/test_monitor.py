"""Metrics of adversarial training, against numbers computed by hand, and the warning of a mode collapse."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import Adversarial, Step, non_saturating, r1
from inference.objectives.adversarial.monitor import (
    PATIENCE,
    Collapse,
    accuracy,
    calibration,
    coverage_and_precision,
    diversity,
)

LINE = torch.arange(20.0).unsqueeze(1)
"""Neighbours among themselves: the 5th of an inner point is 3 away, that of an end 5."""


def test_accuracy_is_over_all_pairs_and_a_tie_is_half_right() -> None:
    q, p = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0, 3.0])
    # 1 > 0, 1 = 1, 1 < 3; 2 > 0, 2 > 1, 2 < 3
    torch.testing.assert_close(accuracy(q, p), torch.tensor((1 + 0.5 + 0 + 1 + 1 + 0) / 6))
    torch.testing.assert_close(accuracy(q, q), torch.tensor(0.5))


def test_a_true_ratio_is_calibrated_and_a_shifted_one_off_by_the_shift() -> None:
    """Normal(1, 1) against Normal(0, 1): E_p[q/p] = 1, with a standard error of 0.005 over 70,000 draws."""
    x = torch.randn(70_000, dtype=torch.float64)
    log_ratio = x - 0.5
    assert float(calibration(log_ratio)) == pytest.approx(0.0, abs=0.03)
    torch.testing.assert_close(calibration(log_ratio + 2), calibration(log_ratio) + 2)


def test_diversity_is_a_ratio_of_spreads() -> None:
    torch.testing.assert_close(diversity(LINE, 3 * LINE + 7), torch.tensor(3.0))
    torch.testing.assert_close(diversity(LINE, torch.ones(20, 1)), torch.tensor(0.0))


@pytest.mark.parametrize(
    ("drawn", "covered", "precise"),
    [
        (LINE, 1.0, 1.0),
        (torch.full((20, 1), 10.0), 7 / 20, 1.0),  # 7..13 have their 5th neighbour, 3 away, no nearer than 10
        (LINE + 100, 0.0, 0.0),
        (torch.cat((LINE[:10], LINE[10:] + 100)), 13 / 20, 0.5),  # 10..12 have 9 within 3
    ],
    ids=["the data", "one point", "elsewhere", "half elsewhere"],
)
def test_coverage_and_precision(drawn: Tensor, covered: float, precise: float) -> None:
    assert [float(share) for share in coverage_and_precision(LINE, drawn)] == pytest.approx([covered, precise])


def test_images_are_compared_as_vectors_and_few_examples_by_what_neighbours_there_are() -> None:
    x = torch.randn(3, 1, 4, 4)
    assert [float(share) for share in coverage_and_precision(x, x)] == [1.0, 1.0]
    assert math.isfinite(float(diversity(x, x)))


def _warned(collapse: Collapse, *record: float) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        collapse.monitor(*(torch.tensor(value) for value in record))
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("record", [(0.1, 0.9, 0.9), (1.0, 0.3, 0.9)], ids=["alike", "a part left out"])
def test_a_lasting_collapse_is_warned_of_once(record: tuple[float, float, float]) -> None:
    collapse = Collapse()
    messages = [message for _ in range(3 * PATIENCE) for message in _warned(collapse, *record)]
    assert len(messages) == 1
    assert "mode collapse?" in messages[0]
    assert f"precision {record[2]:.2f}, coverage {record[1]:.2f}" in messages[0]


@pytest.mark.parametrize("good", [(1.0, 0.9, 0.9), (1.0, 0.1, 0.2)], ids=["covering", "not yet like the data"])
def test_a_passing_one_is_not(good: tuple[float, float, float]) -> None:
    collapse = Collapse()
    for _ in range(5):
        for _ in range(PATIENCE - 1):
            assert not _warned(collapse, 0.1, 0.3, 0.9)
        assert not _warned(collapse, *good)
    for _ in range(3 * PATIENCE):
        assert not _warned(collapse, *good)


def test_repeated_examples_count_once() -> None:
    drawn = LINE + 0.5
    once, twice = (coverage_and_precision(data, drawn) for data in (LINE, LINE.repeat(10, 1)))
    assert [float(share) for share in twice] == [float(share) for share in once] == [1.0, 1.0]


class _Normed(nn.Module):
    """A critic with a BatchNorm, which separates data at 3 from draws at -3 by each batch's own statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(1), nn.Dropout(0.1)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * self.drop(self.norm(x)).squeeze(1)


class _Far(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(-3.0))

    def guide(self, x: Tensor) -> None: ...

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.mean.expand(len(x), 1), 0.1).to_event(1), obs=x)


def test_a_critic_is_judged_in_the_mode_that_it_is_trained_in_and_nothing_moves() -> None:
    x = 3 + 0.1 * torch.randn(64, 1)
    objective = Adversarial(_Far(), _Normed(), non_saturating, compare=("x",))
    objective.prepare(x)
    before, noise = {name: value.clone() for name, value in objective.state_dict().items()}, torch.get_rng_state()
    found = Step(objective).monitor(x)
    # Samples of q and of p are each normalised to mean 0, so that the critic as it is trained separates nothing; by
    # running statistics it separates all.
    assert float(found["critic/accuracy"]) == pytest.approx(0.5, abs=0.15)
    assert all(value.equal(before[name]) for name, value in objective.state_dict().items())
    assert torch.equal(torch.get_rng_state(), noise)
    objective.eval()
    assert float(Step(objective).monitor(x)["critic/accuracy"]) == 1.0


def test_examples_that_are_single_numbers_have_metrics_too() -> None:
    x = torch.randn(30)
    torch.testing.assert_close(diversity(x, 2 * x), torch.tensor(2.0))
    assert [float(share) for share in coverage_and_precision(x, x)] == [1.0, 1.0]
    q, p = {"x": x}, {"x": x + 1}
    torch.testing.assert_close(r1(2.0)(lambda values: 3 * values["x"], q, p), torch.tensor(9.0))
