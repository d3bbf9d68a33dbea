"""What the distributions over levels share: the support and `expand`."""

from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

Shape = torch.Size | list[int] | tuple[int, ...]


class LevelsDistribution(TorchDistribution):
    """A distribution over whole levels 0..levels-1, held as floats.

    Subclasses set their parameters as attributes, each named in `arg_constraints` with its number of event dimensions,
    before they call this constructor; their batch shapes are broadcast here.
    """

    levels: int

    def __init__(self, levels: int, event_shape: torch.Size, validate_args: bool | None = None) -> None:
        if levels < 2:
            raise ValueError(
                f"{type(self).__name__}: expected at least 2 levels, got {levels}; give the data's own number"
            )
        self.levels = levels
        dims = {name: constraint.event_dim for name, constraint in self.arg_constraints.items()}
        shapes = [_batch_shape(getattr(self, name), dims[name]) for name in dims]
        batch_shape = torch.broadcast_shapes(*shapes)
        self._expand_parameters(self, batch_shape)
        super().__init__(batch_shape, event_shape, validate_args=validate_args)

    def _expand_parameters(self, new: Self, batch_shape: torch.Size) -> None:
        for name, constraint in self.arg_constraints.items():
            value: Tensor = getattr(self, name)
            event = value.shape[value.ndim - constraint.event_dim :]
            setattr(new, name, value.expand(batch_shape + event))

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Self:
        """The same distribution over more batch dimensions; this one is left as it is."""
        new: Self = self._get_checked_instance(type(self), _instance)
        new.levels = self.levels
        self._expand_parameters(new, torch.Size(batch_shape))
        super(LevelsDistribution, new).__init__(torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> constraints.Constraint:
        """Whole numbers 0..levels-1."""
        return constraints.independent(constraints.integer_interval(0, self.levels - 1), self.event_dim)

    def _round(self, value: Tensor) -> Tensor:
        return (value + 0.5).floor().clamp(0, self.levels - 1)


def _batch_shape(value: Tensor, event_dim: int) -> torch.Size:
    return value.shape[: value.ndim - event_dim]
