"""A periodic score on held-out data, and the weights that were best by it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from inference.evaluation.estimators import Estimator, Importance
from inference.evaluation.evaluate import evaluate, subject_of
from inference.evaluation.likelihood import likelihood_of
from inference.evaluation.passes import WHAT_REPEATS, Data, batches_of, no_batches
from inference.programs.bounds import elbo
from inference.programs.noise import own_noise
from inference.programs.numbers import refuse_below
from inference.programs.program import ProgramError, evaluating
from inference.training.average import State, snapshot
from inference.training.feed import is_function_of_the_step
from inference.training.saved import Saved, plain
from inference.training.step import Step


@dataclass(frozen=True)
class Validation:
    """A periodic score on held-out data, of the averaged weights where an average is kept."""

    batches: Data
    every: int = 1000
    """Steps between two scores."""
    patience: int | None = None
    """Scores without improvement after which the run ends; None runs to the end. Either way the best weights are kept."""
    estimator: Estimator = field(default_factory=lambda: Importance(1, elbo))

    def __post_init__(self) -> None:
        if is_function_of_the_step(self.batches):
            raise ProgramError(
                "the batches of a validation are the same at every score, and a function of the step is not."
            )
        if isinstance(self.batches, Iterator):
            raise ProgramError(
                "the batches of a validation are scored again and again, and an iterator ends after the first time. "
                f"{WHAT_REPEATS}"
            )
        refuse_below("every", self.every, 1)
        if self.patience is not None:
            refuse_below("patience", self.patience, 1)


class Best:
    """Scores the program by the validation and keeps its best weights."""

    def __init__(self, step: Step, validation: Validation | None) -> None:
        self.step, self.validation = step, validation
        self.best: dict[str, float] | None = None
        self.state: State = {}
        self.since = 0

    def rehearse(self) -> None:
        """Scores one batch, or what takes all of them, so that what does not suit the program is refused before training."""
        if self.validation is None:
            return
        first = next(batches_of(self.validation.batches), None)
        if first is None:
            raise ProgramError(f"the validation: {no_batches(self.validation.batches)}")
        program = self.step.objective.program
        estimators = {"score": self.validation.estimator}
        with torch.no_grad(), evaluating(program), own_noise(0):
            per_example = likelihood_of(subject_of(program, estimators, first), first).per_example
        evaluate(program, first if per_example else self.validation.batches, estimators)

    def score(self) -> float:
        assert self.validation is not None
        program = self.step.objective.program
        with self.step.averaged():
            value = evaluate(program, self.validation.batches, {"score": self.validation.estimator}).mean("score")
            if math.isfinite(value) and (self.best is None or value > self.best["score"]):
                self.best, self.since = {"step": float(self.step.count), "score": value}, 0
                self.state = snapshot(program)
            else:
                self.since += 1
        return value

    @property
    def settings(self) -> dict[str, Any] | None:
        """What makes one score comparable with another."""
        if self.validation is None:
            return None
        estimator = self.validation.estimator
        return {"every": self.validation.every, "estimator": estimator.kind, **plain(estimator.settings)}

    def saved(self) -> Saved:
        """The best weights, their score, and how many scores have not reached it."""
        return Saved(self.state, {"best": self.best, "since": self.since})

    def restore(self, state: Saved) -> None:
        """Goes on from what was saved."""
        self.state, self.best, self.since = {**state.tensors}, state.record["best"], state.record["since"]

    @property
    def exhausted(self) -> bool:
        patience = self.validation.patience if self.validation is not None else None
        return patience is not None and self.since >= patience

    def keep(self) -> dict[str, float] | None:
        """Leaves the program with the best weights, or the averaged ones."""
        if self.best is not None:
            self.step.leave(self.state)
        elif self.step.average is not None:
            self.step.leave(self.step.average.state)
        return self.best
