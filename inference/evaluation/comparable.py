"""Which numbers for log p(x) can be compared, and in words why others can not."""

from collections.abc import Mapping

from inference.evaluation.estimators import EXACT
from inference.programs.bounds import LOWER_BOUND

Said = Mapping[str, str | int | float]
"""What a number was measured on, or an estimator's settings."""


def other_data(mine: Said, theirs: Said) -> str:
    """In what the data of two numbers differ; empty where they are the same.

    How they were standardised does not count, as all numbers are in the data's own units.
    """
    return _apart(mine, theirs, without="standardised")


def other_estimators(kind: str | None, settings: Said, other_kind: str | None, other_settings: Said) -> str:
    """In what the estimators of two numbers differ; empty where they compare, as an exact one and a lower bound do.

    Where chains start does not count, as a generator has the prior alone.
    """
    if {kind, other_kind} == {EXACT, LOWER_BOUND}:
        return ""
    return _apart({"kind": str(kind), **settings}, {"kind": str(other_kind), **other_settings}, without="start")


def _apart(mine: Said, theirs: Said, without: str) -> str:
    names = [name for name in {**mine, **theirs} if name != without and mine.get(name) != theirs.get(name)]
    return ", ".join(f"{name} {mine.get(name, 'not given')} against {theirs.get(name, 'not given')}" for name in names)
