"""What a command prints, and how its errors end it."""

import errno
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from ppmodels.app.signals import Terminated, raised
from ppmodels.app.streams import failure
from ppmodels.app.terminal import printable


@contextmanager
def clean() -> Iterator[None]:
    """A block whose errors of the user are printed in one line: exit code 2 for what can not be found, else 1.

    These are errors that `inference` and `ppmodels` themselves raise, those of the system, and memory that does not
    suffice; any other keeps its traceback. Signals end it with 128 and their number.
    """
    try:
        with raised():
            yield
    except (KeyboardInterrupt, Terminated) as ended:
        number = ended.number if isinstance(ended, Terminated) else signal.SIGINT
        show(f"ended by {signal.Signals(number).name}", err=True)
        raise typer.Exit(128 + number) from None
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        line = _of_memory(error) or _of_the_system(error) or (str(error) if _is_ours(error) else None)
        if line is None:
            raise
        nowhere = isinstance(error, OSError) and error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
        missing = nowhere or isinstance(error, FileNotFoundError) or type(error).__name__ == "UnknownRecipe"
        show(f"error: {line}", err=True)
        raise typer.Exit(2 if missing else 1) from None


def printed() -> None:
    """Raises OSError where what was asked for could not be printed; a reader that has left did not want the rest."""
    error = failure(sys.stdout)
    if error is not None and not isinstance(error, BrokenPipeError):
        raise OSError(error.errno, error.strerror, "standard output")


def wrote(run: Path, pictures: Any) -> None:
    """Prints which pictures were written into a run, and why others were not. Raises ValueError where there is none."""
    if not pictures.files:
        raise ValueError("; ".join(pictures.notes))
    say(pictures.notes)
    show("wrote " + ", ".join(str(run / name) for name, contents in pictures.files.items() if contents is not None))


def say(notes: list[str]) -> None:
    """Prints notes on standard error."""
    for note in notes:
        show(f"note: {note}", err=True)


def show(line: str, err: bool = False) -> None:
    """Prints one line, whatever stands in it."""
    print(printable(line), file=sys.stderr if err else sys.stdout)


def show_table(table: str) -> None:
    """Prints the lines of a table."""
    for line in table.splitlines():
        show(line)


_PERMITTED = "choose a place where you may read and write, or change its permissions"
_ROOM = "make room, or choose another disk"
_REMEDIES = {
    errno.EACCES: _PERMITTED,
    errno.EPERM: _PERMITTED,
    errno.EROFS: "choose another place, which can be written",
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another disk",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "choose a place that is no loop of links",
}
"""What there is to do about an error of the system."""


def _of_the_system(error: Exception) -> str | None:
    """What the system says of a file, or of there being no place for one."""
    if not isinstance(error, OSError) or error.strerror is None:
        return None
    said = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    remedy = _REMEDIES.get(error.errno or 0)
    return said if remedy is None else f"{said}; {remedy}"


def _of_memory(error: Exception) -> str | None:
    """That memory does not suffice, and for how much where that is told: in numpy's words, or torch's."""
    said = str(error)
    full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _ALLOCATING in said
    if not full:
        return None
    asked = re.search(r"allocate ([0-9.]+) ?(bytes|[KMGTPE]iB)", said)
    amount = "what was to be computed" if asked is None else f"{float(asked[1]):,.10g} {asked[2]} at once"
    return (
        f"the memory does not suffice for {amount}; take a smaller model, smaller batches (--batch-size) or fewer draws"
    )


_ALLOCATING = "can't allocate memory"


def _is_ours(error: Exception) -> bool:
    if isinstance(error, RuntimeError | MemoryError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).split(".")[0] in ("inference", "ppmodels")
