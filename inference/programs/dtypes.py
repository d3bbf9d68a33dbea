"""Errors of dtypes in the user's words: which entries of a batch do not go with a program's parameters."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import nn

from inference.programs.entries import Examples, named
from inference.programs.program import ProgramError

_WORDS = ("dtype", "scalar type", "input type", "not implemented for")
"""What torch's errors about dtypes have in common."""


def dtypes_of(module: object) -> set[torch.dtype]:
    """The dtypes of a module's floating-point parameters and buffers."""
    tensors = chain(module.parameters(), module.buffers()) if isinstance(module, nn.Module) else ()
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point()}


@contextmanager
def explained_dtypes(program: object, batch: Examples) -> Iterator[None]:
    """A block whose error of dtypes names the entries of the batch that do not go with the program's parameters.

    Raises:
        ProgramError: torch raises an error of dtypes, and such entries there are.
    """
    try:
        yield
    except RuntimeError as error:
        said = str(error).partition("\n")[0]
        held, tensors = dtypes_of(program), named(batch)
        strange = {name: tensor.dtype for name, tensor in tensors.items() if tensor.dtype not in held}
        # Whole numbers, such as labels, are told only where no other entry can be meant.
        floats = {name: dtype for name, dtype in strange.items() if dtype.is_floating_point}
        if not held or not strange or not any(word in said.lower() for word in _WORDS):
            raise
        raise ProgramError(
            f"the batch and the program's parameters have different dtypes: {_shown(floats or strange)}; the parameters are "
            f"{_short(*held)} ({said}). Give both the same: x.float() of a tensor, x.astype('float32') of an array; or "
            "program.double() with float64 data."
        ) from error


def _shown(dtypes: dict[str, torch.dtype]) -> str:
    return ", ".join(f"{name} is {_short(dtype)}" for name, dtype in dtypes.items())


def _short(*dtypes: torch.dtype) -> str:
    return " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
