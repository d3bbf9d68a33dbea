"""Checkpoints: where a run is saved while it is trained, how often, and what is done about a step that is not finite."""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from inference.programs.numbers import refuse_below
from inference.programs.program import ProgramError
from inference.training.checkpoint_files import Refused, in_order, read

_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}


class Latest(NamedTuple):
    """How far a run has come, by its newest checkpoint."""

    folder: Path
    steps: int
    """Steps taken by the run."""
    stopped: str
    """As in `Fitted`; "under way" where the run had not ended."""


@dataclass(frozen=True)
class Rollback:
    """Goes back to the last checkpoint where a step is not finite, with smaller learning rates."""

    times: int = 3
    """How often in a run; after that `NonFinite` is raised."""
    factor: float = 0.5
    """What every learning rate is multiplied by, each time."""

    def __post_init__(self) -> None:
        refuse_below("times", self.times, 1)
        if not (isinstance(self.factor, int | float) and 0.0 < self.factor < 1.0):
            raise ProgramError(f"factor: expected a number between 0 and 1, got {self.factor!r}; 0.5 halves the rates.")


@dataclass(frozen=True)
class Checkpoint:
    """Where `fit` saves a run, and from where it goes on: `fit(step, batches, 10_000, checkpoint=Checkpoint("run"))`.

    The same call goes on from the newest checkpoint in the folder, where it holds any, and starts a run where it holds none.
    On the same machine, with the same versions, device and number of threads, the run ends with the bits of one that was
    never interrupted: weights, buffers, optimizers, averages, validation and history. For that the batches are one batch,
    a list, or a function of the step; a warning says what can not be exact. Callbacks keep no state here.

    A checkpoint is a folder, `step-000001000`, of safetensors and JSON under a manifest of SHA-256 digests, which has its
    name only once it is whole. It holds the best weights of a validation, too. Nothing is unpickled.
    """

    folder: str | Path
    """One for each run; made where it is missing."""
    every: str | int = "5 min"
    """A time ("30 s", "5 min", "1 h"), or a number of steps."""
    keep: int = 2
    """How many checkpoints stay."""
    rollback: Rollback | None = None
    """What is done about a step that is not finite; None raises `NonFinite`."""

    def __post_init__(self) -> None:
        if not isinstance(self.folder, str | Path) or not str(self.folder):
            raise ProgramError(f"folder: expected the path of a folder, one for each run, got {self.folder!r}.")
        if not isinstance(self.rollback, Rollback | None):
            raise ProgramError(f"rollback: expected Rollback(times=…, factor=…), or None, got {self.rollback!r}.")
        refuse_below("keep", self.keep, 1)
        if not isinstance(self.every, str):
            refuse_below("every", self.every, 1)
        elif not 0.0 < self.seconds < math.inf:
            raise ProgramError(
                f'every: expected a time such as "30 s", "5 min" or "1 h", or a number of steps; got {self.every!r}.'
            )

    @property
    def seconds(self) -> float:
        """The time between two checkpoints; infinite where steps are counted, 0 where `every` is no time."""
        if not isinstance(self.every, str):
            return math.inf
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(s|min|h)\s*", self.every)
        return float(found[1]) * _SECONDS[found[2]] if found else 0.0

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(os.path.expanduser(self.folder))

    def latest(self) -> Latest | None:
        """How far the run has come, by the newest checkpoint that is whole; None where there is none."""
        for folder in in_order(self.path):
            try:
                record = read(folder).parts["run"].record
                return Latest(folder, int(record["steps"]), str(record["stopped"]))
            except (Refused, LookupError, TypeError, ValueError):
                continue
        return None
