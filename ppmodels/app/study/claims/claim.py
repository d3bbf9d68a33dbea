"""A claim of the paragraph, and its verdict as a rule gives it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ppmodels.app.study.tables import Cell, Table

HOLDS, FAILS, UNDECIDED = "holds here", "does not hold here", "not decided"
LEFT_OUT = "left out"
"""Of a part that the data have no such number for; it decides nothing."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """A statement that is decided by itself."""

    key: str
    label: str
    """In a word, where a phrase makes several statements; else empty."""
    statement: str
    verdict: str
    because: str


@dataclass(frozen=True)
class Claim:
    """What was claimed, what was measured of it, and what follows."""

    number: int
    name: str
    statement: str
    verdict: str
    parts: list[Part]
    rule: str
    """By which numbers it is decided, and how often that errs."""
    tables: list[Table]


def claim(number: int, name: str, statement: str, parts: Sequence[Part], rule: str, tables: Sequence[Table]) -> Claim:
    """A claim holds where all of its parts do; parts that are left out do not count."""
    told = {HOLDS: True, FAILS: False, UNDECIDED: None}
    found = [told[part.verdict] for part in parts if part.verdict != LEFT_OUT]
    return Claim(number, name, statement, verdict_of(every(found) if found else None), list(parts), rule, list(tables))


def verdict_of(decided: bool | None) -> str:
    """A decision in words."""
    return UNDECIDED if decided is None else HOLDS if decided else FAILS


def labelled(verdict: str) -> Cell:
    """A verdict as a cell."""
    return Cell(verdict, verdict=verdict)


def every(decided: Iterable[bool | None]) -> bool | None:
    """Whether all are true; None where that is open."""
    found = list(decided)
    return False if False in found else None if None in found else True


def leading(
    members: Sequence[Item], rivals: Sequence[Item], above: Callable[[Item, Item, float], bool], level: float
) -> bool | None:
    """Whether one of the members is above all rivals: true or false where that is shown, None where it is not.

    `above(one, other, level)` errs at most `level` of times. It is true where a member is above every rival, each by
    level / 2 over the number of members, as the largest of several is looked for; false where a rival is above every
    member, likewise. If one side is truly ahead the other is announced at most level / 2 of times, of equals either is at
    most `level` of times.
    """
    if any(all(above(one, other, level / 2 / len(members)) for other in rivals) for one in members):
        return True
    if any(all(above(other, one, level / 2 / len(rivals)) for one in members) for other in rivals):
        return False
    return None


def listed(names: Iterable[str]) -> str:
    """Names in a sentence."""
    *first, last = list(names) or ["none"]
    return f"{', '.join(first)} and {last}" if first else last
