"""What a program's functions take, in the user's words."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager

from inference.programs.entries import Examples
from inference.programs.program import Program, ProgramError


@contextmanager
def explained_entries(program: Program, batch: Examples) -> Iterator[None]:
    """A block whose TypeError tells of a batch with more or fewer entries than the program takes, where that is why.

    Raises:
        ProgramError: model or guide can not be called with the entries of the batch.
    """
    try:
        yield
    except TypeError as error:
        for name in ("model", "guide"):
            takes = _refused(getattr(program, name), batch)
            if takes is not None:
                entries = f"{len(batch)} {'entry' if len(batch) == 1 else 'entries'}"
                raise ProgramError(
                    f"the batch has {entries}, and the {name} takes {takes}. A tuple or list is one batch, with an entry "
                    "for each argument; of several batches make one (torch.cat), or give them one after the other."
                ) from error
        raise


def _refused(function: object, batch: Examples) -> str | None:
    """The signature of a function that can not be called with these entries."""
    try:
        signature = inspect.signature(function)  # type: ignore[arg-type]  # what has no signature raises
    except (TypeError, ValueError):
        return None
    try:
        signature.bind(*batch)
    except TypeError:
        return str(signature.replace(return_annotation=signature.empty))
    return None
