"""Validation: when a run ends, which weights it keeps, and what is scored."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

from inference import SVI, Estimate, Objective, Pair, Player, Step, Validation, adam, fit, predictive
from tests.problems import LinearGaussian

X = LinearGaussian.data(4)


class Counted(LinearGaussian):
    """A program with a weight besides."""

    def __init__(self) -> None:
        super().__init__()
        self.count = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))


class Down(Objective):
    """Pulls the weight down by one at every step."""

    def __init__(self) -> None:
        super().__init__(Counted())

    def players(self) -> dict[str, Player]:
        return {"loss": Player([self.program.count], lambda batch: self.program.count * 1.0)}

    def check(self, batch: Tensor) -> None: ...


def _step() -> Step:
    return Step(Down(), lambda parameters: torch.optim.SGD(parameters, lr=1.0))


class Scores:
    """Validation scores by how often the program's weight was moved."""

    kind = "exact"

    def __init__(self, *scores: float) -> None:
        self.scores = scores

    @property
    def settings(self) -> dict[str, str | int | float]:
        return {}

    def __call__(self, program: Counted, batch: tuple[Tensor, ...]) -> Estimate:
        moved = round(-program.count.item())
        score = self.scores[moved - 1] if moved else 0.0
        return Estimate(torch.full((4,), score), torch.zeros(4))


@pytest.mark.parametrize(
    ("scores", "patience", "steps", "best"),
    [
        ((1.0, 0.0, 0.0, 0.0, 9.0, 9.0, 9.0, 9.0), 3, 4, 1),
        ((0.0, 2.0, 1.0, 1.0, 3.0, 0.0, 0.0, 0.0), 3, 8, 5),  # an improvement begins the count anew
        ((0.0, 2.0, 2.0, 2.0, 2.0, 9.0, 9.0, 9.0), 3, 5, 2),  # as good is no better
        ((math.nan, -5.0, math.nan, -6.0, -4.0, math.nan, math.nan, 9.0), 2, 4, 2),  # nor is what is not finite
        ((1.0, 0.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0), 1, 2, 1),
        ((1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0), None, 8, 8),
    ],
    ids=["from the first", "anew", "ties", "not finite", "patience of one", "none"],
)
def test_a_run_ends_after_so_many_scores_without_improvement(
    scores: tuple[float, ...], patience: int | None, steps: int, best: int
) -> None:
    step = _step()
    validation = Validation(X, every=1, patience=patience, estimator=Scores(*scores))
    found = fit(step, X, 8, validation=validation, progress=False)
    assert found.steps == steps
    assert found.stopped == ("finished" if patience is None else "early stopping")
    assert found.best == {"step": best, "score": scores[best - 1]}
    assert step.objective.program.count.item() == -best  # the weights of that step


def test_scores_are_taken_every_so_many_steps_and_at_the_end() -> None:
    validation = Validation(X, every=3, estimator=Scores(*range(8)))
    found = fit(_step(), X, 8, validation=validation, record_every=100, progress=False)
    assert [row["step"] for row in found.history if "validation" in row] == [3, 6, 8]


def test_all_batches_of_a_validation_count() -> None:
    class Means(Scores):
        def __call__(self, program: Counted, batch: tuple[Tensor, ...]) -> Estimate:
            return Estimate(batch[0][:, 0], torch.zeros(len(batch[0])))

    found = fit(
        _step(),
        X,
        1,
        validation=Validation([X[:1], X[1:3], X[3:]], every=1, estimator=Means()),
        progress=False,
    )
    assert found.best is not None
    assert found.best["score"] == pytest.approx(X[:, 0].mean().item())


def test_data_and_records_go_on_with_the_count_of_the_step() -> None:
    asked: list[int] = []
    step = _step()
    rows = []
    for _ in range(2):
        rows += fit(step, lambda count: asked.append(count) or X, 3, record_every=1, progress=False).history
    assert asked == [0, 1, 2, 3, 4, 5]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_held_out_data_of_what_all_examples_share_are_scored_by_the_predictive_density() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(mean, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    x = torch.randn(9, dtype=torch.float64)
    for guide in (AutoNormal, AutoMultivariateNormal):
        program = Pair(model, guide)
        validation = Validation([X[:1, 0], X[1:, 0]], every=4, estimator=predictive(3))
        found = fit(Step(SVI(program), adam(1e-2)), x, 8, validation=validation, progress=False)
        assert found.best is not None
        assert math.isfinite(found.best["score"])
