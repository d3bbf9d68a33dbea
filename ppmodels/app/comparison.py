"""`compare`: runs of the same data by their best numbers for log p(x)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from inference import Estimator, Evaluation, ProgramError
from inference.evaluation.comparable import other_data, other_estimators
from inference.evaluation.estimators import EXACT
from ppmodels.app.computing import computing
from ppmodels.app.experiment import Experiment, restored
from ppmodels.app.run import Run
from ppmodels.app.scoring import best_of, estimators_of, scoring_of
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
    ProgramError, before anything is scored, for runs of different data and for bounds of different settings.
    """
    approved(runs, trust)  # all of them, before anything of the first is executed
    candidates = [
        _candidate(run, restored(run, data, folder, device, trust), estimators, split, particles) for run in runs
    ]
    _refuse_unlike(candidates, split, limit)  # before anything is scored
    found: list[RankedRun] = []
    for each in candidates:
        with computing(each.experiment, threads, progress):
            scoring = scoring_of(each.run, each.experiment, {each.estimate: each.estimator}, progress)
            result = scoring.result(each.experiment, split, limit, seed, progress)
        found.append(RankedRun(each.run, each.estimate, result))
    found.sort(key=lambda each: each.result.mean(each.estimate), reverse=True)
    for other in found[1:]:
        found[0].ahead_of(other)  # refuses what only the numbers show, before anything is shown
    return found


class _Candidate(NamedTuple):
    run: Run
    experiment: Experiment
    estimate: str
    estimator: Estimator

    def in_words(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.estimator.settings.items())
        return f"{self.run.folder} by {self.estimate}" + (f" ({settings})" if settings else "")


def _candidate(
    run: Run, experiment: Experiment, given: Mapping[str, Estimator] | None, split: str, particles: int | None
) -> _Candidate:
    """A run with the best of its estimators: an exact one of its own, else of the given ones, else of its own."""
    exact = {name: each for name, each in experiment.recipe.estimators.items() if each.kind == EXACT}
    chosen = exact | estimators_of(experiment, split, given, particles)
    name = best_of(chosen)
    return _Candidate(run, experiment, name, chosen[name])


def _refuse_unlike(candidates: Sequence[_Candidate], split: str, limit: int | None) -> None:
    """Raises ProgramError where numbers could not be compared: of other data, or bounds by other settings."""
    for one, other in combinations(candidates, 2):
        about = [each.experiment.in_order(split, limit=limit).description for each in (one, other)]
        if different := other_data(*about):
            raise ProgramError(
                f"{one.run.folder} and {other.run.folder} are of different data, whose numbers do not compare: {different}. "
                "Compare runs of the same data."
            )
        if other_estimators(
            *(one.estimator.kind, one.estimator.settings, other.estimator.kind, other.estimator.settings)
        ):
            generator = not (one.experiment.recipe.estimators and other.experiment.recipe.estimators)
            remedy = "annealed:N, which scores generators too" if generator else "iwae:N or annealed:N"
            raise ProgramError(
                f"{one.in_words()} and {other.in_words()} are numbers of different estimators, which do not "
                f"compare. Score all runs by one: --estimators {remedy}."
            )
