"""Jobs in processes of their own, so many at a time, each on one thread."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer

from ppmodels.app.cli.printing import clean

_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), "1"
)
_PAUSE = 0.05
"""Seconds between two looks at what is running."""


@dataclass(frozen=True)
class Job:
    """A Python module that is run in a process of its own."""

    name: str
    arguments: tuple[str, ...]
    """The module, and what it is given."""
    log: Path
    """The file to which it prints; another run of the job prints after what is there."""
    ready: Callable[[], bool] = lambda: True
    """Whether it can be begun; one that never can, as no other is left that it waits for, is left out."""


@dataclass
class Process:
    """A job under way, or one that has ended."""

    job: Job
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    """It took, once it has ended."""

    @property
    def code(self) -> int | None:
        """How it has ended; below 0 by a signal, None while it is under way."""
        return self.process.poll()

    def close(self) -> None:
        """Waits for its end, and lets go of what belongs to it."""
        assert self.process.stdin is not None
        self.process.wait()
        self.process.stdin.close()
        self.seconds = time.monotonic() - self.began

    def last_words(self) -> str:
        """What ended it: a signal, or what its last line says."""
        code = self.process.poll() or 0
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        lines = self.job.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with code {self.code} without a word"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    jobs: Sequence[Job],
    processes: int,
    ended: Callable[[Process], object],
    look: Callable[[Sequence[Process]], object],
    stopping: Callable[[], bool],
) -> bool:
    """Runs jobs, of those that are ready the first first; tells whether it came to the end, and was not stopped.

    Args:
        jobs: what is run.
        processes: how many at a time.
        ended: called with each that has ended by itself.
        look: called with those under way, now and then.
        stopping: whether to stop. Processes are then told by SIGTERM, and waited for.
    """
    waiting, running = list(jobs), list[Process]()
    with _killed_at_last(running):
        while not stopping():
            for job in list(waiting):
                if len(running) < processes and job.ready():
                    waiting.remove(job)
                    running.append(started(job))
            if not running:
                return True
            look(running)
            for each in [each for each in running if each.code is not None]:
                running.remove(each)
                each.close()
                ended(each)
            time.sleep(_PAUSE)
        for each in running:
            each.process.terminate()
        for each in running:
            each.process.wait()
        return False


@contextmanager
def at_work() -> Iterator[None]:
    """The whole of a job's process: it ends with the one that has started it, and an error of the user is its last line."""
    _end_with_the_starter()
    try:
        with clean():
            yield
    except typer.Exit as ended:
        sys.exit(ended.exit_code)


def _end_with_the_starter() -> None:
    """Has this process end as by SIGTERM once the one that has started it is there no more."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def started(job: Job) -> Process:
    """A job's process, in a session of its own: Ctrl-C is for the one who has started it, with whom it ends."""
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *job.arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **_ONE_THREAD},
            start_new_session=True,
        )
    return Process(job, process)


@contextmanager
def _killed_at_last(running: Sequence[Process]) -> Iterator[None]:
    """A block that leaves no process behind, whatever ends it."""
    try:
        yield
    finally:
        for each in running:
            each.process.kill()
            each.close()
