"""The exponential moving average of a module's weights, and copies of its state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from inference.programs.numbers import is_number
from inference.programs.program import ProgramError

State = dict[str, Tensor]
"""A copy of a module's parameters and buffers, by name."""


def refuse_decay(decay: object) -> None:
    """Raises a ProgramError for what is no decay of an average."""
    if not is_number(decay) or not 0.0 <= decay < 1.0:
        raise ProgramError(f"average: expected a number of at least 0 and below 1, got {decay!r}.")


class Average:
    """A running average of a module's parameters.

    Buffers are copied. They are no weights: an average of a spectral norm's vectors is no singular vector, and the
    running statistics of a BatchNorm are averages already. So are frozen parameters, which do not move.

    Args:
        module: what is averaged.
        decay: the weight of the past, between 0 and 1. Early on, (1 + n) / (10 + n) is used where it is smaller, so
            that the initial weights are soon forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        refuse_decay(decay)
        self.module, self.decay, self.count = module, decay, 0
        self.state = snapshot(module)

    @torch.no_grad()
    def update(self) -> None:
        """Updates the average by the module's present state; new tensors start from their value."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        moving: tuple[list[Tensor], list[Tensor]] = [], []
        for name, value in tensors_of(self.module).items():
            kept = self.state.get(name)
            if kept is None or (kept.shape, kept.dtype, kept.device) != (value.shape, value.dtype, value.device):
                self.state[name] = value.detach().clone()
            elif isinstance(value, nn.Parameter) and value.requires_grad and value.is_floating_point():
                moving[0].append(kept)
                moving[1].append(value)
            else:
                kept.copy_(value)
        if moving[0]:
            torch._foreach_lerp_(*moving, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which the module has its average state."""
        latest = snapshot(self.module)
        restore(self.module, self.state)
        try:
            yield
        finally:
            restore(self.module, latest)


def tensors_of(module: nn.Module) -> State:
    """A module's parameters and buffers, by name: its state without what `get_extra_state` adds and is no tensor."""
    return {name: value for name, value in module.state_dict(keep_vars=True).items() if isinstance(value, Tensor)}


def snapshot(module: nn.Module) -> State:
    """A copy of a module's weights and buffers."""
    return {name: value.detach().clone() for name, value in tensors_of(module).items()}


@torch.no_grad()
def restore(module: nn.Module, state: State) -> None:
    """Writes a state into a module's tensors, in place; tensors that the state lacks stay."""
    for name, value in tensors_of(module).items():
        if name in state:
            value.copy_(state[name])
