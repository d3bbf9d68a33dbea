"""What a command prints, and how its errors end it."""

import errno
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

    These are errors that `inference` and `ppmodels` themselves raise, and those of the system; any other keeps its
    traceback. Signals end it with 128 and their number.
    """
    try:
        with raised():
            yield
    except (KeyboardInterrupt, Terminated) as ended:
        number = ended.number if isinstance(ended, Terminated) else signal.SIGINT
        show(f"ended by {signal.Signals(number).name}", err=True)
        raise typer.Exit(128 + number) from None
    except (ValueError, OSError, ImportError) as error:
        line = _of_the_system(error) or (str(error) if _is_ours(error) else None)
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
    """Prints which pictures were written into a run, and why others were not; exit code 1 where there is none."""
    say(pictures.notes)
    if not pictures.files:
        raise typer.Exit(1)
    show("wrote " + ", ".join(str(run / name) for name in pictures.files))


def say(notes: list[str]) -> None:
    """Prints notes on standard error."""
    for note in notes:
        show(f"note: {note}", err=True)


def show(line: str, err: bool = False) -> None:
    """Prints one line, whatever stands in it."""
    typer.echo(printable(line), err=err)


def show_table(table: str) -> None:
    """Prints the lines of a table."""
    for line in table.splitlines():
        show(line)


def _of_the_system(error: Exception) -> str | None:
    """What the system says of a file, or of there being no place for one."""
    if not isinstance(error, OSError) or error.strerror is None:
        return None
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _is_ours(error: Exception) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).split(".")[0] in ("inference", "ppmodels")
