"""The gradients of a player's loss: by autograd at every step, or by a graph that is traced once."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.fx import GraphModule

from inference.objectives.objective import Player
from inference.programs.entries import Examples, layout, leaves, refilled
from inference.programs.graphs import graph_of
from inference.programs.program import ProgramError, buffers_kept
from inference.training.cuda_graph import Replayed

Differentiate = Callable[[Player, Examples], Tensor]
"""Gives a player's loss on a batch, and leaves its gradients in the `.grad` of its parameters."""


def backward(player: Player, batch: Examples) -> Tensor:
    """Runs the program and its backward pass; the gradient reaches that player's parameters alone."""
    loss = player.loss(batch)
    loss.backward(inputs=player.parameters)
    return loss.detach()


class Traced:
    """Traces loss and gradients once for each batch shape and set of parameters, and then replays the graph.

    The time of Pyro's handlers and autograd, much of a small step, is saved; on a GPU the graph becomes a CUDA graph, which
    saves the time of Python too. The noise is the same, and so are the numbers up to rounding. What Python decided in that
    one run is fixed: loops, branches, floats, the training mode. Schedules in buffers, as an objective's are, are read at
    every step.

    Raises:
        ProgramError: the program reads values (`.item()`, `if tensor:`), which no graph can follow, or has an operation
            that does not survive tracing (nn.LSTM on a CPU).
    """

    def __init__(self) -> None:
        self._graphs: dict[tuple[object, ...], Graph] = {}

    def __call__(self, player: Player, batch: Examples) -> Tensor:
        shapes = layout(batch, lambda tensor: (tensor.shape, tensor.dtype, tensor.device))
        key = (player.loss, *map(id, player.parameters), shapes)
        fresh = key not in self._graphs
        if fresh:
            self._graphs[key] = self.made(_graph(player, batch))
        try:
            with torch.no_grad():
                loss, *gradients = self._graphs[key](*leaves(batch))
        except RuntimeError as error:
            if not fresh:
                raise
            raise ProgramError(
                f"the program was traced, but its graph does not run ({error}), as that of nn.LSTM on a CPU does not. "
                "Use the default, Step(..., differentiate=backward)."
            ) from error
        for parameter, gradient in zip(player.parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else _laid_out_as(parameter, gradient)
        return loss

    def made(self, graph: GraphModule) -> "Graph":
        """What is run at every step: the graph as it was traced."""
        return Replayed(graph)


def _laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """The gradient with its parameter's strides, as autograd gives it: torch's fused Adam (2.13) pairs them by memory."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)


class Compiled(Traced):
    """`Traced`, and the graph compiled by Inductor: for convolutional networks, whose first step then takes a minute.

    Its noise is another function of the seed and the step than the eager step's. Where there is no working C++
    compiler the graph is run as it was traced, with a warning.
    """

    def made(self, graph: GraphModule) -> "Graph":
        """The graph, compiled when it is first run."""
        with _settings_kept():
            compiled: Graph = torch.compile(graph, dynamic=False)
        return _Attempt(compiled, graph)


@contextmanager
def _settings_kept() -> Iterator[None]:
    """A block that may import Inductor, which switches off the validation of distributions and adds a warnings filter."""
    validated = Distribution._validate_args
    try:
        with warnings.catch_warnings():
            yield
    finally:
        Distribution.set_default_validate_args(validated)


class _Attempt:
    """Runs a compiled graph; or the graph itself, from the first run on, where it can not be compiled."""

    def __init__(self, compiled: "Graph", graph: GraphModule) -> None:
        self.graph: Graph = compiled
        self.instead: GraphModule | None = graph

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        if self.instead is None:
            return self.graph(*tensors)
        try:
            with _settings_kept():
                found = self.graph(*tensors)
        except Exception as error:
            names = [
                kind.__name__ for kind in type(error).__mro__
            ]  # by name: importing the module of the exception takes seconds
            if "BackendCompilerFailed" not in names:
                raise
            warnings.warn(f"the step is traced, but can not be compiled here: {error}", stacklevel=3)
            self.graph = self.instead
            found = self.graph(*tensors)
        self.instead = None
        return found


Graph = Callable[..., tuple[Tensor, ...]]
"""A loss and its gradients, as a function of the batch's tensors."""


def _graph(player: Player, batch: Examples) -> GraphModule:
    def differentiated(*tensors: Tensor) -> tuple[Tensor, ...]:
        loss = player.loss(refilled(batch, tensors))
        return loss.detach(), *torch.autograd.grad(loss, player.parameters, allow_unused=True)

    # A tensor that is no argument is no fake one: BatchNorm's count of batches would go up by one.
    with buffers_kept(getattr(player.loss, "__self__", None)):
        return graph_of(differentiated, leaves(batch))
