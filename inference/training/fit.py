"""The one training loop."""

import json
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from operator import index
from pathlib import Path
from typing import SupportsIndex

import numpy as np
import torch
from pyro.distributions.util import is_validation_enabled
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from inference.evaluation.estimators import Estimator, Importance
from inference.evaluation.evaluate import evaluate, subject_of
from inference.evaluation.likelihood import likelihood_of
from inference.evaluation.passes import WHAT_REPEATS, Data, batches_of, no_batches
from inference.programs.bounds import elbo
from inference.programs.check import check_data
from inference.programs.entries import Examples, leaves, rows_of
from inference.programs.noise import own_noise
from inference.programs.program import Batch, ProgramError, evaluating
from inference.programs.units import in_units, log_jacobian_of, refuse_partial_observation
from inference.training.average import State, snapshot
from inference.training.feed import ended_early, feed_of, is_function_of_the_step
from inference.training.progress import shown
from inference.training.signals import remembered
from inference.training.step import Step

Callback = Callable[[Step, dict[str, Tensor]], object]
"""Called after every step with its metrics; the run ends where one returns True."""


_OUT_OF_BATCHES = "out of batches"


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
        _refuse_below("every", self.every, 1)
        if self.patience is not None:
            _refuse_below("patience", self.patience, 1)


@dataclass
class Fitted:
    """The result of `fit`."""

    steps: int
    """Steps taken by this run."""
    stopped: str
    """finished, early stopping, interrupted, callback, or out of batches."""
    seconds: float
    history: list[dict[str, float]]
    """The metrics that were recorded, by step; losses in nats per example (of the dataset, without a batch plate)."""
    best: dict[str, float] | None = None
    """The step and score (nats, as `Evaluation.mean`) of this run's best validation, whose weights the program now has."""


def fit(
    step: Step,
    batches: Callable[[int], Batch] | Data,
    steps: int,
    *,
    validation: Validation | None = None,
    callbacks: Sequence[Callback] = (),
    metrics: str | Path | None = None,
    record_every: int = 20,
    progress: bool = True,
    signals: Sequence[signal.Signals] = (signal.SIGINT,),
) -> Fitted:
    """Takes `steps` steps; checks the program on the first batch; Ctrl-C ends the run after the step under way.

    The program ends with the best weights where there is a validation, else with the averaged ones where `step` keeps an
    average. Further steps go on from the weights of the last one: two runs of ten steps are one of twenty.

    Args:
        step: the objective with its optimizers; its count goes on from where it stands.
        batches: a function of the step, which repeats exactly; one batch, used at every step; or an iterable (a list, a
            loader, a generator function), which is started again when it ends, and need not repeat exactly. Where they carry
            a `log_jacobian`, as batches of standardised data do, losses are reported in the data's own units.
        steps: how many.
        validation: a periodic score, with early stopping.
        callbacks: called after every step; one that returns True ends the run.
        metrics: a JSON-lines file to which the recorded metrics go, written anew.
        record_every: steps between two rows of the history.
        progress: whether to show a progress display.
        signals: those that end the run after the step under way, so that no step is left half done; a second one acts
            at once. By default Ctrl-C alone: who ends a process by SIGTERM does not expect it to go on after `fit`.

    A UserWarning says so where the batches end before the steps, as those of a generator do.

    Raises:
        ProgramError: there is no batch, what `check` finds on the first one, what `Step` refuses of later ones, or a number
            out of range.
        NonFinite: a loss, gradient or weight is not finite; the parameters are those from before that step.
    """
    _refuse_below("steps", steps, 0)
    _refuse_below("record_every", record_every, 1)
    feed, log_jacobian = feed_of(batches), log_jacobian_of(batches)
    jacobians: dict[str, float] = {}
    fitted = Fitted(steps=0, stopped="finished", seconds=0.0, history=[])
    keeper = _Best(step, validation)
    observed = _Observed(step, known=hasattr(batches, "description"))
    began = time.perf_counter()
    with shown(steps, progress) as display, _log(metrics) as record, remembered(*signals) as came:
        for done in range(1, steps + 1):
            batch = feed(step.count)
            if batch is None:
                if done == 1:
                    raise no_batches(batches)
                fitted.stopped = _OUT_OF_BATCHES
                break
            if done == 1:
                step.prepare(batch)
                jacobians = _jacobians(step, batch, log_jacobian) if log_jacobian else {}
                keeper.rehearse()
            observed.look_at(batch)
            values = in_units(step(batch), jacobians)
            fitted.steps = done
            last = done == steps
            row = {"step": float(step.count)}
            if last or done == 1 or step.count % record_every == 0:
                row |= {name: float(value) for name, value in (values | step.monitor(batch)).items()}
                row["seconds"] = time.perf_counter() - began
                display.update(done, _shown(row))
            if validation is not None and (last or step.count % validation.every == 0):
                row["validation"] = keeper.score()
            if len(row) > 1:
                fitted.history.append(row)
                record(row)
            answers = [call(step, values) for call in callbacks]
            fitted.stopped = _reason_to_stop(came() is not None, keeper, answers)
            if fitted.stopped != "finished":
                break
    if fitted.steps:
        fitted.best = keeper.keep()
    fitted.seconds = time.perf_counter() - began
    if fitted.stopped == _OUT_OF_BATCHES:
        warnings.warn(ended_early(batches, fitted.steps, steps), stacklevel=2)
    return fitted


def _jacobians(step: Step, batch: Examples, log_jacobian: float) -> dict[str, float]:
    """What rescaled data add to each loss that is minus a log-density, once it is known that all of them are observed."""
    names = [name for name, player in step.objective.players().items() if player.log_density]
    if not names:
        return {}
    refuse_partial_observation(step.objective.program, batch)
    rows = rows_of(batch) if step.objective.scope(batch).plate is None else 1  # that are one example
    return dict.fromkeys(names, rows * log_jacobian)


class _Observed:
    """The batches whose values have been looked at, where Pyro's validation, switched off, does not.

    Batches of a data set with a description are known: levels are checked when they are read, and real numbers by
    `check_data`, which the app calls before it trains.
    """

    def __init__(self, step: Step, known: bool) -> None:
        self.step, self.known = step, known
        self.versions: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def look_at(self, batch: Examples) -> None:
        """Raises a ProgramError where a batch that is new has values outside their support."""
        tensors = leaves(batch)
        if self.known or is_validation_enabled() or all(self.versions.get(each) == each._version for each in tensors):
            return
        check_data(self.step.objective.program, [batch])
        for each in tensors:
            self.versions[each] = each._version


class _Best:
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


def _reason_to_stop(interrupted: bool, keeper: _Best, answers: list[object]) -> str:
    if interrupted:
        return "interrupted"
    if keeper.exhausted:
        return "early stopping"
    return "callback" if any(map(_is_true, answers)) else "finished"


def _is_true(answer: object) -> bool:
    """Whether a callback returned True, NumPy's or torch's too; any other object does not end the run."""
    is_bool = isinstance(answer, bool | np.bool_) or getattr(answer, "dtype", None) in (torch.bool, np.dtype(bool))
    return is_bool and bool(answer)


def _refuse_below(name: str, value: int, least: int) -> None:
    if not isinstance(value, SupportsIndex) or index(value) < least:
        raise ProgramError(f"{name}: expected a whole number of at least {least}, got {value!r}.")


@contextmanager
def _log(path: str | Path | None) -> Iterator[Callable[[dict[str, float]], None]]:
    """Writes rows to a file, a line for each. A disk that fills up ends the file, with a warning, and not the run."""
    if path is None:
        yield lambda row: None
        return
    # Unbuffered: nothing is left to write, and to fail, when the file is closed.
    with open(path, "wb", buffering=0) as file:
        works = True

        def record(row: dict[str, float]) -> None:
            nonlocal works
            line = json.dumps({name: value if math.isfinite(value) else None for name, value in row.items()}) + "\n"
            if works:
                works = _written(file, line.encode())

        yield record


def _written(file: FileIO, line: bytes) -> bool:
    """Whether a line could be written, whole; what is left of one that could not is taken back."""
    end = file.tell()
    try:
        done = file.write(line)
        if done == len(line):
            return True
        file.write(line[done:])  # says why
        return True
    except OSError as error:
        warnings.warn(f"{file.name}: no more metrics are written, and training goes on: {error.strerror}", stacklevel=4)
        with suppress(OSError):
            file.truncate(end)
        return False


def _shown(row: dict[str, float]) -> str:
    losses = {name: value for name, value in row.items() if name not in ("step", "seconds") and "/" not in name}
    return "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
