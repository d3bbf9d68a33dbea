"""A table of your own: a CSV file of numbers, with or without a header."""

import csv
import math
from pathlib import Path

import numpy as np

from ppmodels.data.assemble import Raw

_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


def own_table(path: Path) -> Raw:
    """Every column of a comma-separated file as a feature, float64 `(n, features)`; no column is taken for a label.

    The first row is a header if none of its cells is a number. Raises ValueError, naming row (line of the file, from 1)
    and column, at a cell that is missing or no finite number, and at a row of another length.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected comma-separated text in UTF-8, but it can not be read ({error})") from error
    names = None
    if lines and not any(_is_number(cell) or _is_missing(cell) for cell in lines[0][1]):
        names = lines.pop(0)[1]
    if not lines:
        raise ValueError(f"{path}: expected rows of numbers, got {'a header alone' if names else 'an empty file'}")
    width = len(names or lines[0][1])
    rows = [_numbers(row, width, line, names, path) for line, row in lines]
    return Raw(np.array(rows, dtype=np.float64), columns=tuple(name.strip() for name in names or ()))


def _numbers(row: list[str], width: int, line: int, names: list[str] | None, path: Path) -> list[float]:
    if len(row) != width:
        raise ValueError(f"{path}: expected {width} columns as in the first row, got {len(row)} in row {line}")
    try:
        numbers = [float(cell) for cell in row]
        if all(map(math.isfinite, numbers)):
            return numbers
    except ValueError:
        pass
    column, cell = next((at, cell) for at, cell in enumerate(row) if not (_is_number(cell) and _is_finite(cell)))
    place = f"row {line}, column {column + 1}" + (f" ({names[column]})" if names else "")
    if _is_missing(cell):
        raise ValueError(f"{path}: missing value {cell!r} in {place}; drop the row or fill it in")
    if _is_number(cell):
        raise ValueError(f"{path}: expected a finite number in {place}, got {cell!r}; drop the row or fill it in")
    hint = (
        "; separate columns by commas" if ";" in cell or "\t" in cell else "; remove the column or encode it as numbers"
    )
    raise ValueError(f"{path}: expected a number in {place}, got {cell!r}{hint}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return not _is_missing(cell)


def _is_finite(cell: str) -> bool:
    return math.isfinite(float(cell))


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING
