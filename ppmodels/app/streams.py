"""Standard output and error that no command fails by: a run is worth more than a line about it."""

import io
import os
import sys
from typing import TextIO


class _Forgiving(io.FileIO):
    """A file whose first failure is kept in `error`, and which takes everything after it without a word."""

    error: OSError | None = None

    def write(self, data) -> int:  # type: ignore[no-untyped-def, override]  # a buffer of any kind
        if self.error is None:
            try:
                return super().write(data) or 0
            except OSError as error:
                self.error = error
        return len(data)


def forgive() -> None:
    """Gives this process a standard output and error that can be closed, full, broken or of few letters."""
    if sys.platform == "win32":  # where a console is no file
        return
    for number, name in ((1, "stdout"), (2, "stderr")):
        given: TextIO | None = getattr(sys, name)
        if given is None:  # closed before we began; a file that is opened later must not get its number
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        raw = _Forgiving(number, "w", closefd=False)
        encoding = "utf-8" if given is None else given.encoding
        # Of a line only what the encoding lacks is replaced.
        text = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "replace", line_buffering=True)
        setattr(sys, name, text)


def failure(stream: object) -> OSError | None:
    """Why a stream of `forgive` could not be written to, if so."""
    return getattr(getattr(getattr(stream, "buffer", None), "raw", None), "error", None)
