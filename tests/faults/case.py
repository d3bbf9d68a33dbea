"""A fault as a row: what is done to a folder of a user's, and what must come of it."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Signal(NamedTuple):
    """A signal that is sent once there is a file of that pattern, which is not empty."""

    number: signal.Signals
    when: str


@dataclass(frozen=True)
class System:
    """What the system is like for one process."""

    environment: dict[str, str] = field(default_factory=dict)
    out: str = "file"
    """Standard output: a file, or full, closed, broken (a pipe without a reader)."""
    err: str = "file"
    encoding: str = "utf-8"
    memory: int | None = None
    """Megabytes that can be had beyond those in use."""
    file_size: int | None = None
    """The bytes that a file can have."""
    files: int | None = None
    """How many can be open."""
    unprivileged: bool = False
    """Whether root gives its rights up, to which permissions mean nothing."""
    folder: str = "."
    """Where the command line is typed."""
    disk: str = ""
    """A disk of its own is mounted on the folder `disk`: full (of 64 kB), or read-only (with what is there)."""


USUAL = System()


@dataclass(frozen=True)
class Case:
    """A row of a table of faults. The folder holds my_model.py, table.csv, `run` (trained of the two), `digits` (a VAE)."""

    done: str
    """What is done, in words."""
    does: str | tuple[str, ...] | Callable[[], object]
    """The command lines, one after another; or a function, whose error must be as fit for one line as theirs."""
    code: int
    """How it must end: 0 done, 1 refused, 2 not found or misused, 128 and the number of a signal; minus it where killed."""
    holds: tuple[str, ...] = ()
    """What must be said: in the one line of the error, or anywhere where there is none."""
    given: Callable[[Path], object] = lambda folder: None
    """Prepares the folder."""
    system: System = USUAL
    changes: tuple[str, ...] = ()
    """The patterns of the user's files that may be replaced; all others must be as they were."""
    sent: Signal | None = None
    absent: tuple[str, ...] = ()
    """What must not be said."""
    seconds: float = 60.0


def shown(case: Case) -> str:
    """The name of a row."""
    return case.done.encode("ascii", "backslashreplace").decode()
