"""The metrics of a run in a file of JSON lines."""

import json
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

Row = dict[str, float]
"""Metrics of one step, by name."""


@contextmanager
def metrics_file(path: str | Path | None, rows: Iterable[Row] = ()) -> Iterator["MetricsFile"]:
    """Writes a file anew, with these rows and a line for each that comes; nothing where there is no path."""
    if path is None:
        yield MetricsFile(None)
        return
    # Unbuffered: nothing is left to write, and to fail, when the file is closed.
    with open(path, "wb", buffering=0) as file:
        written = MetricsFile(file)
        written.begin_again(rows)
        yield written


class MetricsFile:
    """Rows in a file, a line for each. A disk that fills up ends the file, with a warning, and not the run."""

    def __init__(self, file: FileIO | None) -> None:
        self._file, self._works = file, file is not None

    def record(self, row: Row) -> None:
        """Adds a row; a number that is not finite, which JSON lacks, becomes null."""
        if self._file is not None and self._works:
            line = json.dumps({name: value if math.isfinite(value) else None for name, value in row.items()}) + "\n"
            self._works = _written(self._file, line.encode())

    def begin_again(self, rows: Iterable[Row]) -> None:
        """Writes these rows in place of all before."""
        if self._file is not None:
            self._file.seek(0)
            with suppress(OSError):  # a pipe or a terminal has no length
                self._file.truncate(0)
        for row in rows:
            self.record(row)


def _written(file: FileIO, line: bytes) -> bool:
    """Whether a line could be written, whole; what is left of one that could not is taken back."""
    end = file.tell()
    try:
        done = file.write(line)
        if done == len(line):
            return True
        file.write(line[done:])  # says why
        return True
    except OSError as error:
        warnings.warn(f"{file.name}: no more metrics are written, and training goes on: {error.strerror}", stacklevel=4)
        with suppress(OSError):
            file.truncate(end)
        return False
