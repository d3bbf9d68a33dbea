"""The columns of a table that are read from text: numbers, and categories that become columns of 0 and 1."""

import math
import re
import reprlib
from array import array
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from ppmodels.data.assemble import Array, Raw
from ppmodels.data.memory import OF_NUMBER, refuse_beyond, room_for
from ppmodels.data.reading import Names, Reading

_MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
_NO_VALUE = -1
"""The code of an empty cell."""
_INDEX = re.compile(r"|index|id|unnamed: \d+", re.IGNORECASE)
"""The names of a column that may count the rows; pandas writes one without a name."""


@dataclass
class Columns:
    """The columns that are read, and what was read of them so far."""

    path: Path
    reading: Reading
    header: bool
    names: Names
    chosen: list[int]
    """The places of the columns that are read."""
    codes: dict[int, "_Codes"]
    """Of those that are categories, the values by place."""
    numbers: list[int]
    """The places of the others."""
    remarks: tuple[str, ...]
    cells: "array[float]"
    room: int
    """As many cells as memory takes."""
    count: int = 0

    @classmethod
    def of(cls, path: Path, first: list[str], reading: Reading) -> "Columns":
        header = _is_header(first) if reading.header is None else reading.header
        names = Names(cell.strip() if header else f"x{place}" for place, cell in enumerate(first))
        try:
            chosen = names.chosen(reading.columns)
            codes = {names.place_of(name): _Codes(values) for name, values in reading.categories.items()}
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if absent := [names[place] for place in codes if place not in chosen]:
            raise ValueError(f"{path}: categories: {', '.join(absent)} are not among the columns that are read")
        numbers = [place for place in chosen if place not in codes]
        remarks = (_not_a_header(first),) if reading.header is None and not header and _are_consecutive(first) else ()
        return cls(path, reading, header, names, chosen, codes, numbers, remarks, array("d"), room_for(8 + OF_NUMBER))

    def add(self, row: list[str], line: int) -> None:
        """Adds a row, that line of the file."""
        if len(row) != len(self.names):
            raise ValueError(
                f"{self.path}: expected {len(self.names)} columns as in the first row, got {len(row)} in row {line}"
            )
        try:
            found = [float(row[place]) for place in self.numbers]
            whole = all(map(math.isfinite, found)) and _is_plain("".join(row[place] for place in self.numbers))
        except ValueError:
            whole = False
        self.cells.extend(found if whole else self._with_missing(row, line))
        for place, codes in self.codes.items():
            if not codes.add(row[place].strip()):
                known = ", ".join(list(codes.values)[:8]) + (", …" if len(codes.values) > 8 else "")
                came = reprlib.repr(row[place])
                raise ValueError(f"{self.path}: expected {known} in {self._place(line, place)}, got {came}")
        self.count += 1
        if self.count * (len(self.numbers) + sum(len(codes.values) for codes in self.codes.values())) > self.room:
            cells = self.room + 1
            refuse_beyond(self.path, f"its first {self.count:,} rows are", 8 * cells, OF_NUMBER * cells)

    def _with_missing(self, row: list[str], line: int) -> list[float]:
        """The numbers of a row, NaN where a cell is missing. Raises ValueError where one is neither."""
        cells = [row[place] for place in self.numbers]
        missing = [_is_missing(cell) for cell in cells]
        if not all(gone or _is_finite(cell) for gone, cell in zip(missing, cells, strict=True)):
            raise ValueError(f"{self.path}: {self._refused(row, line)}")
        if self.count == 0 and not self.header and self.reading.header is None:  # as pandas writes names 0, 1, …
            place = self.numbers[missing.index(True)]
            raise ValueError(
                f"{self.path}: missing value {row[place]!r} in {self._place(line, place)}, the first: if that row names the "
                "columns, --header; if it is data, --no-header"
            )
        return [math.nan if gone else float(cell) for gone, cell in zip(missing, cells, strict=True)]

    def raw(self) -> Raw:
        """The table, once all rows are read."""
        if not self.count:
            raise ValueError(
                f"{self.path}: expected rows of numbers, got {'a header alone' if self.header else 'an empty file'}"
            )
        if empty := [self.names[place] for place, codes in self.codes.items() if not codes.values]:
            raise ValueError(f"{self.path}: categories: {', '.join(empty)} has no value in any row; leave it out")
        of_numbers = np.frombuffer(self.cells, dtype=np.float64).reshape(self.count, len(self.numbers))
        self._refuse_an_index(of_numbers)
        names: tuple[str, ...] = ()
        if self.header or self.reading.columns or self.codes:
            names = tuple(chain.from_iterable(self._titles(place) for place in self.chosen))
        columns = tuple(map(self._called, self.chosen)) if self.reading.columns else ()
        categories = {self._called(place): tuple(sorted(codes.values)) for place, codes in self.codes.items()}
        return Raw(
            of_numbers if not self.codes else self._one_hot(of_numbers),
            columns=names,
            reading=replace(self.reading, columns=columns, categories=categories),
            remarks=self.remarks,
        )

    def _titles(self, place: int) -> list[str]:
        name = self.names[place]
        return [f"{name}={value}" for value in sorted(self.codes[place].values)] if place in self.codes else [name]

    def _one_hot(self, of_numbers: Array) -> Array:
        of_column = {place: of_numbers[:, at : at + 1] for at, place in enumerate(self.numbers)}
        return np.concatenate(
            [self.codes[place].one_hot() if place in self.codes else of_column[place] for place in self.chosen], 1
        )

    def _refuse_an_index(self, of_numbers: Array) -> None:
        """Raises where a column that nobody chose counts the rows, and is called as if it did."""
        if not self.header or (self.reading.columns and not self.reading.columns[0].startswith("-")):
            return
        for at, place in enumerate(self.numbers):
            if _INDEX.fullmatch(self.names[place]) and _counts_on(of_numbers[:, at]):
                name = f" ({self.names[place]})" if self.names[place] else ", which has no name,"
                raise ValueError(
                    f"{self.path}: column {place + 1}{name} numbers the rows and tells nothing else of them; leave it out: "
                    f"{self._without([place])}, or name all columns that are to be read"
                )

    def _refused(self, row: list[str], line: int) -> str:
        """Why a row is refused."""
        wrong = [place for place in self.numbers if not (_is_missing(row[place]) or _is_finite(row[place]))]
        place, cell = wrong[0], row[wrong[0]]
        where, came = self._place(line, place), reprlib.repr(cell)
        header = "; if that row names the columns: --header" if self.count == 0 and not self.header else ""
        if _is_number(cell):
            return f"expected a finite number in {where}, got {came}; drop the row or fill it in"
        if re.fullmatch(r"\s*[-+]?[\d_.,]+\s*", cell):
            return f"expected a number in {where}, got {came}; write it without _ and with a point, as 1000.5"
        if len(self.names) == 1:
            return f"expected a number in {where}, got {came}; separate columns by commas, semicolons or tabs"
        texts = [each for each in wrong if not _is_number(row[each])]
        nameless = [each for each in self.numbers if not self.names[each]]  # as pandas writes its index
        others = f" (and so in {len(texts) - 1} more columns of that row)" if len(texts) > 1 else ""
        without, named = self._without(nameless + texts), ",".join(map(self._called, texts))
        return (
            f"expected a number in {where}, got {came}{others}; leave what is no number out: {without}, or read it as "
            f"categories, one-hot: --categories {named}{header}"
        )

    def _place(self, line: int, place: int) -> str:
        return f"row {line}, column {place + 1}" + (f" ({self.names[place]})" if self.header else "")

    def _without(self, left_out: list[int]) -> str:
        """The option by which columns are left out."""
        if self.reading.columns and not self.reading.columns[0].startswith("-"):
            return "name the others alone by --columns"
        before = sorted(set(range(len(self.names))) - {*self.chosen})
        return "--columns=" + ",".join(f"-{self._called(place)}" for place in [*before, *left_out])

    def _called(self, place: int) -> str:
        return self.names.called(place) if self.header else str(place + 1)


class _Codes:
    """A column of texts as numbers of its values."""

    def __init__(self, values: tuple[str, ...]) -> None:
        self.values = {value: code for code, value in enumerate(values)}
        self._open = not values
        self._codes = array("q")

    def add(self, cell: str) -> bool:
        """Adds a cell; whether it is a value of the column."""
        if self._open and cell:
            self.values.setdefault(cell, len(self.values))
        code = self.values.get(cell) if cell else _NO_VALUE
        if code is not None:
            self._codes.append(code)
        return code is not None

    def one_hot(self) -> Array:
        """`(n, values)` of 0 and 1, the values in the order of their texts; NaN where the cell is empty."""
        ordered = [self.values[value] for value in sorted(self.values)]
        codes = np.array(self._codes)[:, None]
        found: Array = (codes == np.array(ordered)).astype(np.float64)
        return np.where(codes == _NO_VALUE, np.nan, found)


def _is_header(row: list[str]) -> bool:
    return not any(map(_is_number, row)) and not all(map(_is_missing, row))


def _counts_on(column: Array) -> bool:
    return bool(len(column) > 1 and (np.diff(column) > 0).all() and (column == np.rint(column)).all())


def _are_consecutive(row: list[str]) -> bool:
    """Whether the cells count on by 1, as names of columns do and data rarely."""
    return (
        len(row) > 1
        and all(cell.strip().isdecimal() and len(cell) < 16 for cell in row)
        and all(int(after) == int(before) + 1 for before, after in pairwise(row))
    )


def _not_a_header(row: list[str]) -> str:
    shown = ", ".join(row[:4]) + (", …" if len(row) > 4 else "")
    return f"the first row, {shown}, is read as data; if it names the columns: --header"


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return not _is_missing(cell) and _is_plain(cell)


def _is_finite(cell: str) -> bool:
    return _is_number(cell) and math.isfinite(float(cell))


def _is_plain(cell: str) -> bool:
    """Whether a number is one to other programs too: Python's has underscores, and the digits of all alphabets."""
    return cell.isascii() and "_" not in cell


def _is_missing(cell: str) -> bool:
    return cell.strip().lower() in _MISSING
