"""`compare`: runs of the same data by their best numbers for log p(x)."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference import Estimator, Evaluation
from inference.evaluation.estimators import EXACT
from ppmodels.app.computing import computing
from ppmodels.app.experiment import Experiment, restored
from ppmodels.app.run import Run
from ppmodels.app.scoring import best_of, scoring_of, with_particles
from ppmodels.app.trust import approved


@dataclass(frozen=True)
class RankedRun:
    """A run in a comparison, with the estimate that it is ranked by."""

    run: Run
    estimate: str
    result: Evaluation

    def ahead_of(self, other: "RankedRun") -> tuple[float, float]:
        """The paired mean difference, this run's number less the other's, and its standard error, in nats."""
        return self.result.difference(other.result, self.estimate, other.estimate)


def compare(
    runs: Sequence[Run],
    split: str = "test",
    particles: int | None = None,
    limit: int | None = None,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    estimators: Mapping[str, Estimator] | None = None,
    trust: bool = False,
) -> list[RankedRun]:
    """Runs by the best number that each recipe has for log p(x) on the same examples, the best run first.

    That number is the exact one where there is one, and else the last of `estimators`, or of the recipe's bounds. Raises
    ProgramError for runs that were not trained on the same kind of data, and for bounds of different settings.
    """
    approved(runs, trust)  # all of them, before anything of the first is executed
    found: list[RankedRun] = []
    for run in runs:
        experiment = restored(run, data, folder, device, trust)
        with computing(experiment, threads, progress):
            scoring = scoring_of(experiment, with_particles(_own_or(experiment, estimators), particles), seed)
            name = best_of(scoring.estimators)
            best = dataclasses.replace(scoring, estimators={name: scoring.estimators[name]})
            result = best.result(experiment, split, limit, seed, progress)
        found.append(RankedRun(run, name, result))
    found.sort(key=lambda each: each.result.mean(each.estimate), reverse=True)
    for other in found[1:]:
        found[0].ahead_of(other)  # refuses what can not be compared, before anything is shown
    return found


def _own_or(experiment: Experiment, estimators: Mapping[str, Estimator] | None) -> dict[str, Estimator]:
    """The estimators that a comparison may use of a run: the recipe's own, or the given ones beside an exact one."""
    own = experiment.recipe.estimators
    if estimators is None:
        return dict(own)
    return {name: each for name, each in own.items() if each.kind == EXACT} | dict(estimators)
