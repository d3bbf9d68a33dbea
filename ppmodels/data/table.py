"""A table of your own: a text file of numbers, separated by commas, semicolons or tabs, with or without a header."""

import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import TextIO

from ppmodels.data.assemble import Raw
from ppmodels.data.columns import Columns
from ppmodels.data.memory import refuse_beyond, room_for
from ppmodels.data.reading import Reading

_DELIMITERS = "\t;,"
_OF_CHARACTER = 64
"""The bytes that a character of a line takes at most, in the line and in its cells."""


def own_table(path: Path, reading: Reading) -> Raw:
    """The chosen columns of a text file as features, float64 `(n, features)`; no column is taken for a label.

    The first row is a header if none of its cells is a number, or as `reading` says. Columns of categories become as many
    columns of 0 and 1 as they have values. A cell that is missing is NaN. Raises ValueError, naming row (line of the file,
    from 1) and column, at a cell that is neither missing nor a finite number, and at a row of another length.
    """
    try:
        with _opened(path) as file:
            lines = _lines(path, file)
            head: list[str] = []
            while sum(map(bool, map(str.strip, head))) < 2 and (line := next(lines, "")):
                head.append(line)
            rows = csv.reader(chain(head, lines), delimiter=_delimiter(head))
            first = next(filter(None, rows), None)
            if first is None:
                raise ValueError(f"{path}: expected rows of numbers, got an empty file")
            table = Columns.of(path, first, reading)
            if not table.header:
                table.add(first, rows.line_num)
            for row in rows:
                if row:
                    table.add(row, rows.line_num)
            return table.raw()
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}: expected text in UTF-8, its columns separated by commas, semicolons or tabs, but it can not be read "
            f"({error})"
        ) from error


def _opened(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8-sig")
    return path.open(newline="", encoding="utf-8-sig")


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """The lines of a file, none of which takes more memory than there is."""
    longest = room_for(_OF_CHARACTER + 1)
    while line := file.readline(longest):
        if len(line) == longest and not line.endswith("\n"):
            refuse_beyond(path, "a line has more than", longest + 1, _OF_CHARACTER * (longest + 1))
        yield line


def _delimiter(head: list[str]) -> str:
    """What separates the first rows into equally many cells, more than one."""
    for delimiter in _DELIMITERS:
        with suppress(csv.Error):  # a cell that is too long, where it is another that separates
            widths = [len(row) for row in csv.reader(head, delimiter=delimiter) if row]
            if widths and widths[0] > 1 and len(set(widths)) == 1:
                return delimiter
    return ","
