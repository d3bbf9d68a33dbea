"""Errors of dtypes in the user's words: which entries of a batch do not go with a program's parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from itertools import chain

import torch
from torch import Tensor, nn

from inference.programs.entries import Examples, named
from inference.programs.program import ProgramError

_WORDS = ("dtype", "scalar type", "input type", "not implemented for")
"""What torch's errors about dtypes have in common."""


def dtypes_of(module: object) -> set[torch.dtype]:
    """The dtypes of a module's floating-point parameters and buffers."""
    return {tensor.dtype for tensor in _floats(module).values()}


def widest_dtype(module: object) -> torch.dtype:
    """The widest of these; float32 at least, in which scheduled numbers are kept."""
    return reduce(torch.promote_types, dtypes_of(module), torch.float32)


@contextmanager
def explained_dtypes(module: object, batch: Examples) -> Iterator[None]:
    """A block whose error of dtypes names the entries of the batch that do not go with a module's parameters.

    Raises:
        ProgramError: torch raises an error of dtypes, and such entries there are, or parameters of several dtypes.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        explanation = _explanation(module, batch) if any(word in said.lower() for word in _WORDS) else None
        if explanation is None:
            raise
        raise ProgramError(f"{explanation} (torch: {said})") from error


def _explanation(module: object, batch: Examples) -> str | None:
    floats, name, held_by = _floats(module), type(module).__name__, "the parameters are"
    by_dtype = {tensor.dtype: place for place, tensor in floats.items()}
    if len(by_dtype) > 1:
        shown = ", ".join(sorted(f"{place!r} is {_short(dtype)}" for dtype, place in by_dtype.items()))
        return (
            f"the {name} has parameters of several dtypes: {shown}. Make them one: .double() or .float() of the module."
        )
    if not by_dtype:  # as an AutoGuide has none before its first run: what the program makes is of torch's default
        by_dtype, held_by = {torch.get_default_dtype(): ""}, "what a program without parameters makes is"
    strange = {place: tensor.dtype for place, tensor in named(batch).items() if tensor.dtype not in by_dtype}
    # Whole numbers, such as labels, are told only where no other entry can be meant.
    entries = {place: dtype for place, dtype in strange.items() if dtype.is_floating_point} or strange
    if not entries:
        return None
    held, theirs = _short(*by_dtype), next(iter(entries.values()))
    shown = ", ".join(f"{place} is {_short(dtype)}" for place, dtype in entries.items())
    other = f"; or convert the module: .to({theirs})" if floats and theirs.is_floating_point else ""
    return (
        f"the batch and the {name} have different dtypes: {shown}, and {held_by} {held}. Convert the data: "
        f"x.to(torch.{held}) of a tensor, x.astype('{held}') of an array{other}."
    )


def _floats(module: object) -> dict[str, Tensor]:
    if not isinstance(module, nn.Module):
        return {}
    tensors = chain(module.named_parameters(), module.named_buffers())
    return {name: tensor for name, tensor in tensors if tensor.is_floating_point()}


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
