"""Numbers that a user gives."""

import math
from numbers import Real
from operator import index
from typing import TypeGuard

from inference.programs.program import ProgramError

_LARGEST = 2**63 - 1


def refuse_below(name: str, value: object, least: int, why: str = "") -> None:
    """Raises a ProgramError for what is no whole number of at least `least`; `why` says why it is that one."""
    if not least <= _whole(value) <= _LARGEST:
        raise ProgramError(f"{name}: expected a whole number of at least {least}{why and f', {why}'}, got {value!r}.")


def refuse_outside(name: str, value: object, low: float, high: float, why: str = "") -> None:
    """Raises a ProgramError for what is no number between `low` and `high`, both left out; `why` says what to give."""
    if not is_number(value) or not low < value < high:
        ends = f"between {low:g} and {high:g}" if math.isfinite(low + high) else f"above {low:g}"
        ends = ends if math.isfinite(low) else "that is finite"
        raise ProgramError(f"{name}: expected a number {ends}{why and f', {why}'}, got {value!r}.")


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a real number: no text, no tensor, and neither True nor False."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _whole(value: object) -> int:
    """The whole number that a value is; one below all that can be asked for where it is none, as True is none."""
    try:
        return -_LARGEST if isinstance(value, bool) else index(value)  # type: ignore[arg-type]  # that is what is asked
    except TypeError:
        return -_LARGEST
