"""The one training loop."""

import signal
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from pyro.distributions.util import is_validation_enabled
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from inference.evaluation.passes import Data, no_batches
from inference.programs.alone import alone
from inference.programs.check import check_data
from inference.programs.entries import Examples, leaves, rows_of
from inference.programs.numbers import refuse_below
from inference.programs.program import Batch, ProgramError
from inference.programs.units import LogJacobian, added_to, in_units, log_jacobian_of, refuse_partial_observation
from inference.training.checkpoint import Checkpoint
from inference.training.checkpointing import Checkpointing, claimed
from inference.training.feed import ended_early, feed_of, is_function_of_the_step
from inference.training.fitted import Fitted
from inference.training.metrics_file import metrics_file
from inference.training.progress import shown
from inference.training.signals import remembered
from inference.training.step import NonFinite, Step
from inference.training.validation import Best, Validation

Callback = Callable[[Step, dict[str, Tensor]], object]
"""Called after every step with its metrics; the run ends where one returns True."""


_OUT_OF_BATCHES = "out of batches"


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
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Takes `steps` steps; checks the program on the first batch; Ctrl-C ends the run after the step under way.

    The program ends with the best weights where there is a validation, else with the averaged ones where `step` keeps an
    average. Further steps go on from the weights of the last one: two runs of ten steps are one of twenty.

    Args:
        step: the objective with its optimizers; its count goes on from where it stands.
        batches: a function of the step, which repeats exactly; one batch, used at every step; or an iterable (a list, a
            loader, a generator function), which is started again when it ends, and need not repeat exactly. Where they carry
            a `log_jacobian`, as batches of standardised data do, losses are reported in the data's own units.
        steps: how many; those that a checkpoint has taken are among them.
        validation: a periodic score, with early stopping.
        callbacks: called after every step; one that returns True ends the run.
        metrics: a JSON-lines file to which the recorded metrics go, written anew; with those up to a checkpoint first.
        record_every: steps between two rows of the history.
        progress: whether to show a progress display.
        signals: those that end the run after the step under way, so that no step is left half done; a second one acts
            at once. By default Ctrl-C alone: who ends a process by SIGTERM does not expect it to go on after `fit`.
        checkpoint: where the run is saved, and from where it goes on.

    A UserWarning says so where the batches end before the steps, as those of a generator do.

    Raises:
        ProgramError: another thread runs a program, there is no batch, what `check` finds on the first one, what `Step`
            refuses of later ones, a number out of range, or a checkpoint that is damaged or of another run, where no other
            is left.
        NonFinite: a loss, gradient or weight is not finite; the parameters are those from before that step. What led to
            it is saved where there is a checkpoint.
        OSError: the first checkpoint can not be written.
    """
    refuse_below("steps", steps, 0)
    refuse_below("record_every", record_every, 1)
    if not all(map(callable, callbacks)):
        raise ProgramError(f"callbacks: expected functions of the step and its metrics, got {callbacks!r}.")
    log_jacobian = log_jacobian_of(batches)
    told: _Told = _as_they_are
    fitted = Fitted(steps=0, stopped="finished", seconds=0.0, history=[])
    keeper = Best(step, validation)
    kept = Checkpointing(checkpoint, step, keeper, fitted, batches)
    observed = _Observed(step, known=hasattr(batches, "description"))
    with alone("fit"), claimed(checkpoint), remembered(*signals) as came:
        kept.resume(steps)
        begun, began = fitted.steps, time.perf_counter() - fitted.seconds
        feed, prepared = feed_of(batches, begun), False
        fitted.stopped = _reason_to_stop(False, keeper, [])
        with shown(steps, progress, begun) as display, metrics_file(metrics, fitted.history) as written:
            while fitted.steps < steps and fitted.stopped == "finished":
                batch = feed(step.count)
                if batch is None:
                    if fitted.steps == 0:
                        raise no_batches(batches)
                    fitted.stopped = _OUT_OF_BATCHES
                    kept.after_step(fitted.stopped)
                    break
                if not prepared:
                    step.prepare(batch)
                    told = _as_they_are if log_jacobian is None else _in_units(step, batch, log_jacobian)
                    keeper.rehearse()
                    kept.begin(batch)
                    prepared = True
                observed.look_at(batch)
                try:
                    values = told(step(batch), batch)
                except NonFinite as error:
                    error.indices = _indices(batches, step.count)
                    if not kept.go_back(error, batch):
                        raise
                    feed = feed_of(batches, fitted.steps)
                    written.begin_again(fitted.history)
                    continue
                fitted.steps += 1
                fitted.seconds = time.perf_counter() - began
                last = fitted.steps == steps
                row = {"step": float(step.count)}
                recorded = fitted.steps == 1 or step.count % record_every == 0
                if last or recorded:
                    row |= _measured(step, batch, values) | {"seconds": fitted.seconds}
                    display.update(fitted.steps, _shown(row))
                if validation is not None and step.count % validation.every == 0:
                    row["validation"] = keeper.score()
                    recorded = True
                kept.closing = None if recorded else row if last else None
                if recorded:
                    fitted.history.append(row)
                    written.record(row)
                answers = [call(step, values) for call in callbacks]
                fitted.stopped = _reason_to_stop(came() is not None, keeper, answers)
                kept.after_step(fitted.stopped if last or fitted.stopped != "finished" else None)
            # After the checkpoint, as a run that is given more steps has no such row.
            if fitted.steps == steps and kept.closing is not None:
                row = kept.closing if validation is None else {**kept.closing, "validation": keeper.score()}
                fitted.history.append(row)
                written.record(row)
        if fitted.steps:
            fitted.best = keeper.keep()
    fitted.seconds = time.perf_counter() - began
    if fitted.stopped == _OUT_OF_BATCHES:
        warnings.warn(ended_early(batches, fitted.steps, steps), stacklevel=2)
    return fitted


def _measured(step: Step, batch: Examples, values: dict[str, Tensor]) -> dict[str, float]:
    """The numbers of a step that is recorded."""
    found = {name: float(value) for name, value in (values | step.monitor(batch)).items()}
    return found if step.slowdown == 1.0 else found | {"run/slowdown": step.slowdown}


def _indices(batches: object, step: int) -> list[int] | None:
    """The places in the data of the examples of a step, where the batches tell them."""
    indices = getattr(batches, "indices", None) if is_function_of_the_step(batches) else None
    return [int(each) for each in indices(step)] if callable(indices) else None


_Told = Callable[[dict[str, Tensor], Examples], dict[str, Tensor]]
"""The metrics of a step on a batch as they are reported."""


def _as_they_are(values: dict[str, Tensor], batch: Examples) -> dict[str, Tensor]:
    return values


def _in_units(step: Step, batch: Examples, log_jacobian: LogJacobian) -> _Told:
    """Takes what rescaled data add off each loss that is minus a log-density, once it is known that they are observed."""
    names = [name for name, player in step.objective.players().items() if player.log_density]
    if not names:
        return _as_they_are
    refuse_partial_observation(step.objective.program, batch, log_jacobian)
    one = step.objective.scope(batch).plate is None  # all of them are one example

    def told(values: dict[str, Tensor], batch: Examples) -> dict[str, Tensor]:
        return in_units(values, names, added_to(log_jacobian, batch, 1 if one else rows_of(batch)))

    return told


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


def _reason_to_stop(interrupted: bool, keeper: Best, answers: list[object]) -> str:
    if interrupted:
        return "interrupted"
    if keeper.exhausted:
        return "early stopping"
    return "callback" if any(map(_is_true, answers)) else "finished"


def _is_true(answer: object) -> bool:
    """Whether a callback returned True, NumPy's or torch's too; any other object does not end the run."""
    is_bool = isinstance(answer, bool | np.bool_) or getattr(answer, "dtype", None) in (torch.bool, np.dtype(bool))
    return is_bool and bool(answer)


def _shown(row: dict[str, float]) -> str:
    losses = {name: value for name, value in row.items() if name not in ("step", "seconds") and "/" not in name}
    return "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
