"""How data of your own are read, where a file leaves that open: settings that a run records."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

LEVELS = 256
"""The most levels that are stored."""


@dataclass(frozen=True)
class Reading:
    """What a file leaves open: which row is a header, which columns are read and how, how many levels values have.

    Columns go by their names, or by their places from 1. Raises ValueError, naming the field.
    """

    header: bool | None = None
    """Whether the first row of a CSV names its columns; None: it does where none of its cells is a number."""
    columns: tuple[str, ...] = ()
    """The columns of a CSV that are read, in this order; or, each after a minus, those that are left out. () reads all."""
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns of texts that are read one-hot, and their values; () for those that the file has."""
    levels: int | None = None
    """Values are whole numbers from 0 to one less, of images or of a table; None: found, and a table has real numbers."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.header not in (None, True, False):
            raise ValueError(f"header: expected True, False or None, got {self.header!r}")
        if not _are_texts(self.columns):
            raise ValueError(f"columns: expected a tuple of names or places, got {self.columns!r}")
        if not isinstance(self.categories, Mapping) or not all(
            isinstance(name, str) and _are_texts(values) for name, values in self.categories.items()
        ):
            raise ValueError(f"categories: expected tuples of texts by columns, got {self.categories!r}")
        if self.levels is not None and not (type(self.levels) is int and 2 <= self.levels <= LEVELS):
            raise ValueError(f"levels: expected a whole number from 2 to {LEVELS}, got {self.levels!r}")

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> "Reading":
        """What `dataclasses.asdict` gave, come back from JSON. Raises ValueError for anything else."""
        categories = record.get("categories", {})
        columns = record.get("columns", [])
        if not isinstance(columns, list) or not isinstance(categories, dict):
            raise ValueError("reading: expected a list of columns, and categories by columns")
        found = {name: tuple(values) if isinstance(values, list) else values for name, values in categories.items()}
        return cls(record.get("header"), tuple(columns), found, record.get("levels"))

    @property
    def of_text(self) -> list[str]:
        """Those of its settings that only a file of text has."""
        given = {"header": self.header is not None, "columns": self.columns, "categories": self.categories}
        return [name for name, value in given.items() if value]


class Names(tuple[str, ...]):
    """The names of a table's columns, each of which goes by its name, or by its place from 1.

    A name is looked up at once, as tables can have a hundred thousand.
    """

    @cached_property
    def _places(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for place, name in enumerate(self):
            found.setdefault(name, []).append(place)
        return found

    def chosen(self, columns: Sequence[str]) -> list[int]:
        """Where the chosen columns stand: those named, or all but those named after a minus. Raises ValueError."""
        left_out = [name[1:] for name in columns if name.startswith("-") and name not in self._places]
        if left_out and len(left_out) < len(columns):
            raise ValueError(
                f"columns: expected those to read, or each after a minus those to leave out, got {', '.join(columns)}"
            )
        if not left_out:
            return [self.place_of(name) for name in columns] or list(range(len(self)))
        without = {self.place_of(name) for name in left_out}
        kept = [place for place in range(len(self)) if place not in without]
        if not kept:
            raise ValueError(f"columns: expected one at least, and all of {', '.join(self)} are left out")
        return kept

    def place_of(self, name: str) -> int:
        """Where a column stands that goes by its name or by its place from 1. Raises ValueError."""
        there = self._places.get(name, [])
        if len(there) == 1:
            return there[0]
        if there:
            several = " and ".join(str(place + 1) for place in there)
            raise ValueError(f"columns: {name!r} is the name of columns {several}; choose by place")
        if name.isascii() and name.isdigit() and 1 <= int(name) <= len(self):
            return int(name) - 1
        close = difflib.get_close_matches(name, self, n=1)
        shown = ", ".join(self[:8]) + (f" and {len(self) - 8} more" if len(self) > 8 else "")
        suggestion = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"columns: there is no column {name!r} among {shown}{suggestion}")

    def called(self, place: int) -> str:
        """What to call a column so that it is found again, on a command line too: its name, or its place from 1."""
        name = self[place]
        return (
            name if name and len(self._places[name]) == 1 and "," not in name and not name.isdigit() else str(place + 1)
        )


def _are_texts(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, str) for value in values)
