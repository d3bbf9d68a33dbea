"""What a program's functions take."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

from inference.programs.entries import Examples
from inference.programs.program import Program, ProgramError


def check_interface(program: Program, batch: Examples) -> None:
    """Raises a ProgramError where there is no model or guide, or they can not be called with the entries of a batch."""
    for part in ("model", "guide"):
        function = getattr(program, part, None)
        if not callable(function):
            raise ProgramError(
                f"a program has callable `model` and `guide`; this {type(program).__name__} has no `{part}`. Wrap Pyro "
                "functions as Pair(model, guide); a program without latents has a guide that draws nothing."
            )
        try:
            inspect.signature(function).bind(*batch)
        except TypeError as error:
            raise ProgramError(
                f"the {part} cannot be called with the batch's {len(batch)} entries ({error}); its signature is "
                f"{inspect.signature(function)}. Give the batch as many entries as model and guide take. (A tuple is one "
                "batch; where several are taken they go in a list, elsewhere make one of them: torch.cat.)"
            ) from None
        except ValueError:
            pass  # a callable without a signature is checked when it is called


@contextmanager
def explained_entries(program: Program, batch: Examples) -> Iterator[None]:
    """A block whose TypeError is `check_interface`'s where that finds why."""
    try:
        yield
    except TypeError:
        check_interface(program, batch)
        raise
