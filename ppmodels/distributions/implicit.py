"""A distribution that can be drawn from and has no density."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ppmodels.distributions.levels import Shape


class Implicit(TorchDistribution):
    """A distribution without a density: `draw()` returns its draws, tensors of `batch_shape + event_shape`.

    A generator's `forward(z)` returns one: `Implicit(lambda: network(z), (len(z),), shape)`. `draw` is called for samples
    alone, so observing one costs nothing. Draws carry gradients to what `draw` depends on. Raises ValueError for a
    draw of another shape.
    """

    arg_constraints: ClassVar = {}
    has_rsample = True
    has_log_prob = False
    """By this `inference` recognises an implicit distribution."""

    def __init__(self, draw: Callable[[], Tensor], batch_shape: Shape, event_shape: Shape) -> None:
        self.draw = draw
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    @constraints.dependent_property
    def support(self) -> constraints.Constraint:
        """Any real numbers."""
        return constraints.independent(constraints.real, self.event_dim)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws of shape `sample_shape + batch_shape + event_shape`, each call of `draw` with noise of its own."""
        shape = torch.Size(sample_shape)
        if not shape:
            return self._drawn()
        drawn = [self._drawn() for _ in range(shape.numel())]
        return torch.stack(drawn).unflatten(0, shape)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Self:
        """Itself, for its own batch shape; ValueError for any other, as `draw` has a fixed shape."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(
                f"an Implicit draws a batch of {tuple(self.batch_shape)}, and its plates ask for {tuple(batch_shape)}; "
                "make it draw one for each example"
            )
        return self

    def log_prob(self, value: Tensor) -> Tensor:
        """Raises NotImplementedError: there is none."""
        raise NotImplementedError(
            "an Implicit distribution has no density. Fit its program with Adversarial, which estimates density ratios, or "
            "give it an observation noise that has one."
        )

    def _drawn(self) -> Tensor:
        drawn, expected = self.draw(), self.shape()
        if drawn.shape != expected:
            raise ValueError(
                f"Implicit: expected its draw to have shape {tuple(expected)}, batch and event, got {tuple(drawn.shape)}"
            )
        return drawn
