"""How a player's loss becomes gradients: by autograd at every step, or by a graph that is traced once."""

from collections.abc import Callable

import pyro
import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from inference.objective import Player
from inference.program import ProgramError

Differentiate = Callable[[Player, tuple[Tensor, ...]], Tensor]
"""Gives a player's loss on a batch, and leaves its gradients in the `.grad` of its parameters."""


def backward(player: Player, batch: tuple[Tensor, ...]) -> Tensor:
    """Runs the program and its backward pass; the gradient reaches that player's parameters alone."""
    loss = player.loss(batch)
    loss.backward(inputs=player.parameters)
    return loss.detach()


class Traced:
    """Runs the program once for each shape of batch and from then on the arithmetic that it did, gradients included.

    The handlers and autograd's bookkeeping, much of a small step, are gone; the noise is the same, and the numbers are but
    for the rounding of operations that the graph spells out. What Python decided in that one run is fixed: loops,
    branches, floats, the training mode. Schedules that live in buffers, as an objective's do, are read at every step.

    Raises:
        ProgramError: the program looks at values (`.item()`, `if tensor:`), which no graph can follow.
    """

    def __init__(self) -> None:
        self._graphs: dict[tuple[object, ...], GraphModule] = {}

    def __call__(self, player: Player, batch: tuple[Tensor, ...]) -> Tensor:
        key = (player.loss, *((tensor.shape, tensor.dtype, tensor.device) for tensor in batch))
        if key not in self._graphs:
            self._graphs[key] = _graph(player, batch)
        with torch.no_grad():
            loss, *gradients = self._graphs[key](*batch)
        for parameter, gradient in zip(player.parameters, gradients, strict=True):
            parameter.grad = gradient
        return loss


def _graph(player: Player, batch: tuple[Tensor, ...]) -> GraphModule:
    def differentiated(*examples: Tensor) -> tuple[Tensor, ...]:
        loss = player.loss(examples)
        return loss.detach(), *torch.autograd.grad(loss, player.parameters, allow_unused=True)

    # Fake tensors draw no noise and train no running average while the program is being traced.
    tracer = make_fx(differentiated, tracing_mode="fake", _allow_non_fake_inputs=True)
    try:
        with pyro.validation_enabled(False):  # it looks at values
            return tracer(*batch)
    except RuntimeError as error:
        raise ProgramError(
            f"the program cannot be traced ({type(error).__name__}): it looks at values "
            "while it runs. Use the default, Step(..., differentiate=backward)."
        ) from error
