"""Numbers as they are shown: a cell holds the text that all three files print, and the number that it was made of."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ppmodels.app.study.measurement import Missing, Number
from ppmodels.app.study.uncertain import Uncertain

NONE = "—"


@dataclass(frozen=True)
class Cell:
    """A place of a table."""

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    missing: str = ""
    """Why there is no number."""
    verdict: str = ""
    """Where the cell is a verdict, which one."""


@dataclass(frozen=True)
class Table:
    """A table with a caption; its first column names the rows."""

    name: str
    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    numeric: list[bool] = field(default_factory=list)
    """Of each column, whether it is of numbers, which stand under one another."""


def table(
    name: str, caption: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]], notes: Iterable[str] = ()
) -> Table:
    """A table whose missing cells point to their reasons below it."""
    reasons: dict[str, int] = {}
    told = []
    for row in rows:
        assert len(row) == len(columns), (name, [cell.text for cell in row])
        for cell in row:
            if cell.missing:
                reasons.setdefault(cell.missing, len(reasons) + 1)
        told.append([_pointing(cell, reasons) for cell in row])
    found = [f"[{number}] {reason}" for reason, number in reasons.items()]
    numeric = [any(row[column].value is not None for row in told) for column in range(len(columns))]
    return Table(name, caption, list(columns), told, [*notes, *found], numeric)


def _pointing(cell: Cell, reasons: dict[str, int]) -> Cell:
    if not cell.missing:
        return cell
    return Cell(f"{cell.text} [{reasons[cell.missing]}]", missing=cell.missing)


def text(words: object) -> Cell:
    """Words."""
    return Cell(str(words))


def count(number: int | None) -> Cell:
    """A whole number."""
    return Cell(NONE) if number is None else Cell(f"{number:,}", float(number))


def none(reason: str) -> Cell:
    """In place of a number, with the reason below the table."""
    return Cell(NONE, missing=reason)


def plain(value: float | None, digits: int) -> Cell:
    """A number without an error."""
    return Cell(NONE) if value is None else Cell(signed(value, digits), value)


def with_error(value: Uncertain) -> Cell:
    """value ± standard error, as far as the error lets digits count."""
    digits = digits_of(value.error)
    found = value.number()
    return Cell(f"{signed(value.value, digits)} ± {signed(value.error, digits)}", value.value, found.low, found.high)


def interval(number: Number | Missing) -> Cell:
    """value [low, high]."""
    if isinstance(number, Missing):
        return none(number.missing)
    digits = digits_of((number.high - number.low) / 2)
    value, low, high = (signed(each, digits) for each in (number.value, number.low, number.high))
    return Cell(f"{value} [{low}, {high}]", number.value, number.low, number.high)


def share(number: Number | Missing) -> Cell:
    """The same of a share, whose interval does not leave 0 to 1."""
    if isinstance(number, Missing):
        return none(number.missing)
    return interval(Number(number.value, max(0.0, number.low), min(1.0, number.high)))


def probability(value: float, bound: str = "") -> Cell:
    """A probability; small and large ones as bounds."""
    said = "< 0.0001" if value < 1e-4 else "> 0.9999" if value > 1 - 1e-4 else f"{bound}{value:.2g}"
    return Cell(said, value)


def seconds(value: float) -> Cell:
    """A time, in a unit of its size."""
    return Cell(duration(value), value)


def duration(value: float) -> str:
    """A time in words."""
    for limit, unit, size in ((1e-3, "µs", 1e-6), (1.0, "ms", 1e-3), (120.0, "s", 1.0), (7200.0, "min", 60.0)):
        if value < limit:
            return f"{value / size:.3g} {unit}"
    return f"{value / 3600:.3g} h"


def signed(value: float, digits: int) -> str:
    """A number with so many decimals and a minus that is as wide as a digit; what rounds to 0 has no sign."""
    said = f"{value:,.{digits}f}"
    return said.replace("-", "−") if any(each in "123456789" for each in said) else said.removeprefix("-")


def digits_of(error: float) -> int:
    """The decimals that show two digits of an error."""
    if not math.isfinite(error) or error <= 0:
        return 2
    return min(6, max(0, 1 - math.floor(math.log10(error))))
