"""How a command computes: on how many threads, which it says."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from inference.training.progress import tell
from ppmodels.app.experiment import Experiment
from ppmodels.app.terminal import printable
from ppmodels.app.threads import computing_on, suitable

ROWS = 2000
"""How many examples × particles an estimator runs at once."""


@contextmanager
def computing(experiment: Experiment, threads: int | None, progress: bool, rows: int = ROWS) -> Iterator[None]:
    """A block that computes with the given number of threads, or one that suits so many rows at once, and prints it."""
    chosen = suitable(parameters_of(experiment.program), rows, experiment.device) if threads is None else threads
    with computing_on(chosen):
        if progress:
            why = "" if threads is not None else ", by the size of the model; --threads N sets another number"
            say(f"{chosen} thread{'s' if chosen > 1 else ''}{why}")
        yield


def split_for(experiment: Experiment, split: str | None, progress: bool) -> str:
    """The split that is asked for; else that whose examples the guide serves, which is said where it is not the test one."""
    if split is not None or not experiment.fits_rows:
        return split or "test"
    if progress:
        say("the train split, as the guide was fitted to these very examples; --split NAME takes another")
    return "train"


def parameters_of(program: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in program.parameters())


def say(line: str) -> None:
    """Prints a line on standard error; a path in it can hold any character."""
    tell(printable(line))
