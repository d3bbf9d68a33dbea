"""Whole numbers that a user gives."""

from operator import index
from typing import SupportsIndex

from inference.programs.program import ProgramError


def refuse_below(name: str, value: object, least: int) -> None:
    """Raises a ProgramError for what is no whole number of at least `least`."""
    if not isinstance(value, SupportsIndex) or index(value) < least:
        raise ProgramError(f"{name}: expected a whole number of at least {least}, got {value!r}.")
