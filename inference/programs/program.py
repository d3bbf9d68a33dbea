"""What a program is: a model and the guide that inverts it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import pyro
import torch
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints

from inference.programs.entries import Examples, leaves, named

Entry = Tensor | np.ndarray | None | Mapping[str, "Entry"]
"""A tensor or an array, which becomes a tensor of its dtype; None, as for `y` in `model(x, y=None)`; or these by name."""
Batch = Entry | tuple[Entry, ...]
"""Entries whose tensors share their first axis, the examples; a program is called as `model(*batch)`.

A mapping is one entry, and comes to the program as one dict. Numbers keep their dtype: arrays of floats are float64 by
default, and a float32 program wants `x.astype("float32")`.
"""


class ProgramError(ValueError):
    """What is wrong with a program or its batch: the site, what was expected, what came, what to do."""


class Program(Protocol):
    """A generative model and the guide that inverts it; structural, so no base class is needed.

    `model(*batch)` draws its sites in one plate over the batch, observes x and returns it. Without a plate that counts the
    examples, all the data are one example, to be given as one batch.
    `guide(*batch)` draws the model's latent sites by the same names; with no latents it draws nothing.
    """

    @property
    def model(self) -> Callable[..., Any]: ...

    @property
    def guide(self) -> Callable[..., Any]: ...


def as_batch(batch: Batch | list[Any]) -> Examples:
    """The batch as a tuple of tensors that share their first axis, None, and dicts of such entries.

    Raises:
        ProgramError: an entry is of another kind, there is no tensor, or the tensors disagree about the number of examples.
    """
    given = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
    examples = tuple(
        entry if isinstance(entry, Tensor) else _entry(f"batch[{place}]", entry) for place, entry in enumerate(given)
    )
    lengths = [tensor.shape[0] if tensor.dim() else 0 for tensor in leaves(examples)]
    if not lengths or min(lengths) == 0 or len(set(lengths)) != 1:
        shapes = {name: tuple(tensor.shape) for name, tensor in named(examples).items()}
        raise ProgramError(
            f"the tensors of a batch must share a first axis of at least one example; their shapes are "
            f"{shapes or 'none, as there is no tensor'}. (A tuple is one batch; several batches go in a list.)"
        )
    return examples


def is_entry(value: object) -> bool:
    """Whether a value can stand in a batch."""
    return value is None or isinstance(value, Tensor | np.ndarray | Mapping)


def _entry(name: str, value: Any) -> Any:
    """What a program is given for an entry."""
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, Mapping):
        return {key: _entry(f"{name}[{key!r}]", each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return _tensor(name, value)
    if isinstance(value, tuple | list) and any(map(is_entry, value)):
        raise ProgramError(
            f"{name} is a {type(value).__name__}, as in a list of batches, and one batch is taken here. Join them: "
            "torch.cat of their entries; or leave the brackets around it out."
        )
    raise ProgramError(
        f"{name} is a {type(value).__name__}; expected a tensor or a numpy array whose first axis counts the examples, "
        "None, or a dict of these. Convert it with torch.as_tensor, or leave it out."
    )


def _tensor(name: str, array: np.ndarray) -> Tensor:
    """A tensor on the memory of an array; on a copy where torch can not share it."""
    if isinstance(array, np.ma.MaskedArray):
        raise ProgramError(
            f"{name} is a masked array, whose mask a tensor does not have. Give the values and the mask as two entries: "
            "(x.filled(0), ~x.mask), and mask the site."
        )
    shared = array.flags.writeable and all(stride >= 0 for stride in array.strides)
    try:
        return torch.as_tensor(array if shared else array.copy())
    except (TypeError, ValueError) as error:
        raise ProgramError(
            f"{name} is an array of {array.dtype}, of which there are no tensors. Convert it to numbers: "
            "x.astype('float32')."
        ) from error


class _ParamSites(Messenger):
    """Answers `pyro.param` statements before they reach Pyro's global store."""

    def __init__(self, adopt: Callable[[str, Any, constraints.Constraint], Tensor]) -> None:
        super().__init__()
        self.adopt = adopt

    def _pyro_param(self, message: Any) -> None:
        # A PyroModule announces its own parameters by the same message, with a function that returns them.
        if message["value"] is None and message["fn"] == pyro.get_param_store().get_param:
            init = message["args"][1] if len(message["args"]) > 1 else None
            constraint = message["kwargs"].get("constraint", constraints.real)
            message["value"] = self.adopt(message["name"], init, constraint)


def _refuse(name: str, init: Any, constraint: constraints.Constraint) -> Tensor:
    if isinstance(init, nn.Parameter):  # pyro.module: the module keeps its own parameters
        return init
    raise ProgramError(
        f"pyro.param({name!r}) would write to Pyro's global store, where no optimizer here looks. "
        "Wrap the functions as Pair(model, guide), which adopts it, or make it an nn.Parameter of the program."
    )


@contextmanager
def without_store(adopt: Callable[[str, Any, constraints.Constraint], Tensor] = _refuse) -> Iterator[None]:
    """Runs Pyro code so that its parameters stay in their modules and the global store is never touched."""
    with pyro.settings.context(module_local_params=True), _ParamSites(adopt):
        yield


def localise(modules: Iterable[nn.Module]) -> None:
    """Lets PyroModules that were built under Pyro's default setting run with parameters of their own."""
    for module in modules:
        if isinstance(module, PyroModule) and not hasattr(module._pyro_context, "param_state"):
            module._pyro_context.param_state = {"params": {}, "constraints": {}}


def parameters(program: object) -> list[nn.Parameter]:
    """The trainable parameters of a program; empty where it is not a module."""
    if not isinstance(program, nn.Module):
        return []
    return [parameter for parameter in program.parameters() if parameter.requires_grad]


@contextmanager
def evaluating(program: object) -> Iterator[None]:
    """A block in which the program's modules are in eval mode; each has its own mode again afterwards."""
    modules = list(program.modules()) if isinstance(program, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextmanager
def buffers_kept(module: object) -> Iterator[None]:
    """A block in which a module may run in its own mode; running statistics and the like are afterwards as before."""
    buffers = list(module.buffers()) if isinstance(module, nn.Module) else []
    before = [buffer.detach().clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, kept in zip(buffers, before, strict=True):
                buffer.copy_(kept)
