"""The exponential moving average of a module's weights and buffers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """A running average of a module's state; integer buffers, which cannot be averaged, follow the latest.

    Args:
        module: what is averaged.
        decay: the weight of the past, between 0 and 1. Early on, (1 + n) / (10 + n) is used where it is smaller, so
            that the average does not hold on to the initial weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"the decay of an average lies in [0, 1); got {decay}.")
        self.module, self.decay, self.count = module, decay, 0
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the module's present state."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        latest = self.module.state_dict()
        floating = [name for name, value in latest.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.state[name] for name in floating], [latest[name] for name in floating], 1.0 - decay)
        for name in latest.keys() - set(floating):
            self.state[name].copy_(latest[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A block in which the module has its average state."""
        latest = snapshot(self.module)
        restore(self.module, self.state)
        try:
            yield
        finally:
            restore(self.module, latest)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@torch.no_grad()
def restore(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Writes a state into a module's tensors, in place."""
    for name, value in module.state_dict().items():
        value.copy_(state[name])
