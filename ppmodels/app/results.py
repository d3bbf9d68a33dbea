"""What a command found out, in its run's folder: numbers, tables and figures, which are replaced together."""

import warnings
from collections.abc import Callable
from typing import Any

from inference.training.files import write_together
from ppmodels.app import plots
from ppmodels.app.pictures import Files, attempted
from ppmodels.app.run import Run


def figure(name: str, make: Callable[[], Any]) -> Files:
    """A figure by its name; one that can not be drawn is told by a warning."""
    made = attempted(name, 0, lambda: {name: plots.png(make())})
    for note in made.notes:
        warnings.warn(note, stacklevel=3)
    return {name: made.files.get(name)}


def write_results(run: Run, files: Files) -> None:
    """Writes them in the place of earlier ones, all or none; what can not be written is told by a warning."""
    try:
        write_together(run.folder, files)
    except OSError as error:
        warnings.warn(f"{error.filename} could not be written: {error.strerror}", stacklevel=3)
