"""How far a long computation has come: its parts tell whoever follows it.

Who follows is known by the block that is run, as Pyro's handlers are, and not by an argument: estimators of a user's own
need none, and a loop says what it does without knowing whose part it is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from itertools import accumulate, pairwise

Follower = Callable[[float, str], object]
"""Is told which fraction is done, from 0 to 1, and what is under way."""

_follower: ContextVar[Follower | None] = ContextVar("follower", default=None)


@contextmanager
def followed_by(follower: Follower) -> Iterator[None]:
    """A block whose stages are told to a follower."""
    before = _follower.set(follower)
    try:
        yield
    finally:
        _follower.reset(before)


def reached(done: float, what: str = "") -> None:
    """Tells that this fraction of what the block around does is done."""
    follower = _follower.get()
    if follower is not None:
        follower(done, what)


@contextmanager
def stage(begin: float, end: float, what: str = "") -> Iterator[None]:
    """A block that is the part from `begin` to `end` of what the block around does, both from 0 to 1."""
    above = _follower.get()
    if above is None:
        yield
        return

    def told(done: float, inner: str) -> None:
        above(begin + done * (end - begin), ", ".join(filter(None, (what, inner))))

    with followed_by(told):
        reached(0.0)
        yield
        reached(1.0)


def one_of(number: int, count: int | None, what: str) -> AbstractContextManager[None]:
    """A stage that is one of `count` equal ones, the first of which is number 0; None where nobody knows how many."""
    if count is None:
        return stage(0.0, 0.0, f"{what} {number + 1}")
    return stage(number / count, (number + 1) / count, f"{what} {number + 1} of {count}" if count > 1 else "")


def shares(works: Sequence[float]) -> list[tuple[float, float]]:
    """Where stages of so much work begin and end."""
    ends = [0.0, *accumulate(works)]
    return [(begin / ends[-1], end / ends[-1]) for begin, end in pairwise(ends)]
