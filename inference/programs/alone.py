"""One thread at a time runs programs: Pyro's stack of handlers and its parameter store are the process's."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from inference.programs.program import ProgramError

_LOCK = threading.RLock()
_HELD: list[str] = []
"""What the thread that has the lock is in, the outermost first."""


@contextmanager
def alone(what: str) -> Iterator[None]:
    """A block in which no other thread runs a program; blocks of one thread may lie within each other.

    Raises ProgramError where another thread is in such a block, as both would read each other's sites.
    """
    if not _LOCK.acquire(blocking=False):
        raise ProgramError(
            f"{what} was called while another thread is in {next(iter(_HELD), 'one')}. Programs run one at a time in a "
            "process, as Pyro's handlers are the process's: wait for it, or start a process of its own."
        )
    _HELD.append(f"{what} ({threading.current_thread().name})")
    try:
        yield
    finally:
        _HELD.pop()
        _LOCK.release()
