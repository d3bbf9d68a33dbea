"""The checkpoints of one run: saved while it is trained, and gone on from."""

import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from inference.evaluation.passes import Data, no_batches
from inference.programs.entries import Examples, leaves, named
from inference.programs.program import Batch, ProgramError
from inference.training import checkpoint_files as files
from inference.training import step_state
from inference.training.checkpoint import Checkpoint
from inference.training.feed import feed_of, repeats
from inference.training.files import flocked
from inference.training.fitted import Fitted
from inference.training.saved import Saved, differences, plain
from inference.training.step import NonFinite, Step
from inference.training.validation import Best


class Checkpointing:
    """What `fit` does about checkpoints: it goes on from the newest, writes new ones, and goes back.

    Args:
        checkpoint: where and how often; None saves nothing.
        step, keeper, fitted: the parts of the run, which are saved and restored.
        batches: of the run.
    """

    def __init__(
        self,
        checkpoint: Checkpoint | None,
        step: Step,
        keeper: Best,
        fitted: Fitted,
        batches: Callable[[int], Batch] | Data,
    ) -> None:
        self.checkpoint, self.step, self.keeper, self.fitted, self.batches = checkpoint, step, keeper, fitted, batches
        self._back_to: Path | None = None
        self._start = step.count
        self._settings: dict[str, Any] = {}
        self._environment: dict[str, Any] = {}
        self._saved_at = time.perf_counter()
        self._saved: int | None = None
        self.closing: dict[str, float] | None = None
        """The row of the last step, where none is due there: of a run that ends with it, and of none that goes on."""

    def resume(self, steps: int) -> None:
        """Goes on from the newest checkpoint that is whole and this run's, if the folder holds any.

        Raises:
            ProgramError: all that it holds are refused, each for its reason; or step or checkpoint have come too far.
        """
        if self.checkpoint is None:
            return
        refused: list[str] = []
        anew = self._saved is None
        for folder in files.in_order(self.checkpoint.path):
            try:
                found = files.read(folder)
                first = self._prepared_for(found)
                if anew:
                    self._refuse_too_far(found, steps)
                self._restore(found, first)  # what one that is refused here has written, the next one writes over
            except files.Refused as error:
                refused.append(str(error))
                continue
            if refused:
                warnings.warn(f"{' '.join(refused)} The one before is taken: {folder}.", stacklevel=3)
            if anew:
                self._tell_differences(found)
                self._tell_inexact()
            return
        if refused:
            raise ProgramError(
                f"{' '.join(refused)} No checkpoint in {self.checkpoint.path} is left to go on from: name another folder, "
                "or remove this one to start anew."
            )

    def begin(self, batch: Examples) -> None:
        """Saves the state before the first step, of a run that has just been prepared; a disk that is full says so here."""
        if self.checkpoint is None or self._saved is not None:
            return
        self._look(batch)
        self._tell_inexact()
        self._write("under way")

    def after_step(self, stopped: str | None) -> None:
        """Saves where it is time, or where the run ends; a disk that is full is a warning, and ends nothing."""
        checkpoint = self.checkpoint
        if checkpoint is None:
            return
        late = time.perf_counter() - self._saved_at >= checkpoint.seconds
        due = late if isinstance(checkpoint.every, str) else self.fitted.steps % checkpoint.every == 0
        if not due and stopped is None:
            return
        try:
            self._write(stopped or "under way")
        except OSError as error:
            self._saved_at = time.perf_counter()
            warnings.warn(
                f"{error.filename}: no checkpoint is written, and training goes on: {error.strerror}", stacklevel=3
            )

    def go_back(self, error: NonFinite, batch: Examples) -> bool:
        """Saves what led to a step that is not finite; whether the run has gone back and can go on, more slowly."""
        checkpoint, failed = self.checkpoint, self.step.count
        if checkpoint is None:
            return False
        self._write_evidence(error, batch)
        there, rollbacks = files.in_order(checkpoint.path), [*self.fitted.rollbacks]
        if checkpoint.rollback is None or len(rollbacks) >= checkpoint.rollback.times or not there:
            return False
        if there[0] == self._back_to and len(there) > 1:  # its weights are finite, and lead to what is not
            files.remove(there[0])
        self.resume(self.fitted.steps)
        self._back_to = files.in_order(checkpoint.path)[0]
        slowdown = checkpoint.rollback.factor ** (len(rollbacks) + 1)
        self.step.slowdown = slowdown
        self.fitted.rollbacks[:] = [*rollbacks, {"step": failed, "back_to": self.step.count, "slowdown": slowdown}]
        warnings.warn(
            f"{error} Back to step {self.step.count}, with {slowdown:g} of the learning rate "
            f"({len(rollbacks) + 1} of {checkpoint.rollback.times}).",
            stacklevel=3,
        )
        return True

    def _prepared_for(self, found: files.Contents) -> Examples:
        """The first batch of the run that was saved, on which the step is prepared. Raises Refused for another run's."""
        try:
            run = found.parts["run"].record
            numbers: list[Any] = [run["start"], run["steps"], found.parts["step"].record["count"]]
        except (LookupError, TypeError):
            numbers = [None]
        if not all(isinstance(each, int) and each >= 0 for each in numbers):
            raise files.Refused(f"{found.folder} is damaged: it does not say how far its run had come.")
        first = feed_of(self.batches)(numbers[0])
        if first is None:
            raise no_batches(self.batches)
        self.step.prepare(first)
        if not self._settings:
            self._look(first)
        others = list(differences(found.settings, self._settings))
        if others:
            shown = "; ".join(others[:4]) + (f"; and {len(others) - 4} more" if len(others) > 4 else "")
            raise files.Refused(f"{found.folder} is of another run: {shown}.")
        return first

    def _look(self, batch: Examples) -> None:
        self._settings = settings_of(self.step, self.keeper, self.batches)
        self._environment = environment_of(batch)

    def _restore(self, found: files.Contents, first: Examples) -> None:
        run, fitted = found.parts["run"].record, self.fitted
        try:
            step_state.restore(self.step, found.parts["step"], first)
            self.keeper.restore(found.parts["best"])
            fitted.steps, fitted.seconds, fitted.history[:] = run["steps"], run["seconds"], run["history"]
            fitted.rollbacks[:] = run["rollbacks"]
            self.closing = run.get("closing")  # which earlier versions kept in the history
            self._start = run["start"]
        except (LookupError, TypeError, AttributeError) as error:
            raise files.Refused(f"{found.folder} is damaged: {type(error).__name__}: {error}.") from error
        self._saved, self._saved_at = fitted.steps, time.perf_counter()

    def _parts(self, stopped: str) -> dict[str, Saved]:
        fitted = self.fitted
        run = {
            "start": self._start,
            "steps": fitted.steps,
            "stopped": stopped,
            "seconds": fitted.seconds,
            "rollbacks": fitted.rollbacks,
            "rate": self._rate(),
            "history": fitted.history,
            "closing": self.closing,
        }
        return {"step": step_state.saved(self.step), "best": self.keeper.saved(), "run": Saved({}, run)}

    def _rate(self) -> float | None:
        """What the schedule has given for the last step, as far as a schedule can be known by a number."""
        schedule, count = self.step.learning_rate, self.step.count
        return None if schedule is None or count == 0 else float(schedule(count - 1))

    def _write(self, stopped: str) -> None:
        assert self.checkpoint is not None
        if self._saved == self.fitted.steps and stopped == "under way":
            return
        folder = self.checkpoint.path / files.name_of(self.step.count)
        files.write(files.Contents(folder, self._settings, self._environment, self._parts(stopped)))
        self._saved, self._saved_at = self.fitted.steps, time.perf_counter()
        older = [path for path in files.in_order(folder.parent) if (files.count_of(path.name) or 0) <= self.step.count]
        for path in older[self.checkpoint.keep :]:
            files.remove(path)

    def _write_evidence(self, error: NonFinite, batch: Examples) -> None:
        """The state before a step that is not finite, and its batch, for whoever looks into it; the error names them."""
        assert self.checkpoint is not None
        exact = not error.moved or self._repeat_up_to(self.step.count)
        folder = self.checkpoint.path / files.evidence_name(self.step.count)
        record = {"message": str(error), "indices": error.indices, "optimizers_are_of_the_step_before": exact}
        evidence = Saved(named(batch), record)
        parts = {**self._parts("not finite"), "batch": evidence}
        try:
            files.write(files.Contents(folder, self._settings, self._environment, parts))
        except OSError as full:
            warnings.warn(
                f"{folder}: what led to a step that is not finite is not saved: {full.strerror}", stacklevel=4
            )
        else:
            error.args = (f"{error} Its batch and the state before it are in {folder}.",)

    def _repeat_up_to(self, count: int) -> bool:
        """Takes the steps since the newest checkpoint again, up to `count`, so that optimizers, too, are as they were.

        Whether that was possible. A copy of the optimizers at every step would cost more than a step that fails.
        """
        assert self.checkpoint is not None
        if not repeats(self.batches):
            return False
        shared = step_state.saved(self.step)
        before = Saved({name: value.clone() for name, value in shared.tensors.items()}, shared.record)
        first = feed_of(self.batches)(self._start)
        assert first is not None  # it has been seen
        try:
            found = files.read(files.in_order(self.checkpoint.path)[0])
            step_state.restore(self.step, found.parts["step"], first)
            feed = feed_of(self.batches, found.parts["run"].record["steps"])
            while self.step.count < count:
                batch = feed(self.step.count)
                assert batch is not None  # of batches that repeat
                self.step(batch)
        except (ProgramError, LookupError, TypeError):  # damaged, or a callback had changed what these steps are
            step_state.restore(self.step, before, first)
            return False
        return True

    def _refuse_too_far(self, found: files.Contents, steps: int) -> None:
        count, taken = found.parts["step"].record["count"], found.parts["run"].record["steps"]
        if self.step.count > count:
            raise ProgramError(
                f"the step has a count of {self.step.count}, and the newest checkpoint of {count}: to go on from it would "
                "undo what this step has learnt. Make a new Step, or name another folder for a run of its own."
            )
        if taken > steps:
            raise ProgramError(
                f"steps={steps}: the run in {found.folder.parent} has taken {taken} already, which count. Ask for more, or "
                "name another folder for a run of its own."
            )

    def _tell_differences(self, found: files.Contents) -> None:
        others = list(differences(found.environment, self._environment))
        others += differences(
            found.parts["run"].record.get("rate"), self._rate(), "the factor on the learning rate at its last step"
        )
        if others:
            warnings.warn(
                f"the run goes on, but not to the bit as if it had never been interrupted: {'; '.join(others)}.",
                stacklevel=4,
            )

    def _tell_inexact(self) -> None:
        """Says at the start what a run that is resumed will not repeat."""
        lost = step_state.not_kept(self.step.objective)
        reasons = [f"{', '.join(lost)}: no tensor, and not saved"] * bool(lost)
        if not repeats(self.batches):
            reasons.append(
                f"the batches are a {type(self.batches).__name__}, which starts anew; a function of the step goes on"
            )
        if reasons:
            warnings.warn(f"a run that is resumed will not be the same to the bit: {'; '.join(reasons)}.", stacklevel=4)


@contextmanager
def claimed(checkpoint: Checkpoint | None) -> Iterator[None]:
    """A block in which no other run writes to the folder; what killed writes have left there is swept.

    Raises:
        ProgramError: another run has it.
        OSError: it can not be made.
    """
    if checkpoint is None:
        yield
        return
    if not isinstance(checkpoint, Checkpoint):
        raise ProgramError(f"checkpoint: expected Checkpoint(folder), got {checkpoint!r:.80}.")
    folder = checkpoint.path
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / files.LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        if not flocked(descriptor):
            raise ProgramError(
                f"{folder}: another run saves its checkpoints there. Name another folder, or wait for it."
            )
        files.sweep(folder)
        yield
    finally:
        os.close(descriptor)


def settings_of(step: Step, keeper: Best, batches: object) -> dict[str, Any]:
    """What a run is made of: two that agree in it are one run."""
    data = getattr(batches, "description", None)
    return {**step_state.settings_of(step), "validation": keeper.settings, "data": plain(data)}


def environment_of(batch: Examples) -> dict[str, Any]:
    """On what the last bits of a number depend, beside the run itself."""
    return {
        "torch": str(torch.__version__),
        "pyro": version("pyro-ppl"),
        "ppmodels": _own_version(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "device": str(leaves(batch)[0].device),
        "threads": torch.get_num_threads(),
    }


def _own_version() -> str:
    """That of the package that holds this code."""
    try:
        return version("ppmodels")
    except PackageNotFoundError:
        return "not installed as a package"
