"""Encoders: from an example to the approximate posterior q(z | x) of a vector z."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ppmodels.nn.mlp import MLP
from ppmodels.nn.parameters import normal_vector


class Standardise(nn.Module):
    """(x - loc) / scale, with `loc` and `scale` that broadcast to an example, held as buffers."""

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("loc", loc.clone())
        self.register_buffer("scale", scale.clone())

    @classmethod
    def for_levels(cls, levels: int | None) -> "Standardise":
        """Levels 0..levels-1 to [-1, 1]; real numbers (None) as they are."""
        middle, half = (0.0, 1.0) if levels is None else ((levels - 1) / 2, (levels - 1) / 2)
        return cls(torch.tensor(middle), torch.tensor(half))

    def forward(self, x: Tensor) -> Tensor:
        """The standardised example, of the shape of x."""
        return (x - self.loc) / self.scale


class Encoder(nn.Module, ABC):
    """q(z | x), or q(z | x, context) where `context` is not 0: a distribution over z, batch `(batch,)`, event `(latent,)`.

    Levels are scaled to [-1, 1] first; give `standardise` for a table. Subclasses write `infer`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        latent: int,
        context: int = 0,
        standardise: Standardise | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.latent, self.context = tuple(shape), latent, context
        self.standardise = standardise or Standardise.for_levels(levels)

    @abstractmethod
    def infer(self, x: Tensor, context: Tensor) -> TorchDistributionMixin:
        """q(z | x, context) of a standardised x; context is `(batch, 0)` where there is none."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> TorchDistributionMixin:
        """q(z | x, context) for x `(batch, *shape)` and context `(batch, context)`; ValueError for other shapes."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x: expected (batch, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}; "
                "reshape it, or build the encoder for this shape"
            )
        if context is None:
            context = x.new_zeros(len(x), 0)
        if tuple(context.shape) != (len(x), self.context):
            raise ValueError(
                f"context: expected shape {(len(x), self.context)}, got {tuple(context.shape)}; "
                "give `context` the number of columns when building the encoder, and such a tensor when calling it"
            )
        return self.infer(self.standardise(x), context)


class MLPEncoder(Encoder):
    """A normal q(z | x) with diagonal covariance and scales above 1e-4, from a multilayer perceptron."""

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        latent: int,
        hidden: Sequence[int] = (200, 200),
        context: int = 0,
        standardise: Standardise | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__(shape, levels, latent, context, standardise)
        self.network = MLP((prod(shape) + context, *hidden, 2 * latent), activation)

    def infer(self, x: Tensor, context: Tensor) -> TorchDistributionMixin:
        """Independent normals."""
        return normal_vector(self.network(torch.cat((x.flatten(1), context), 1)))


class ConvEncoder(Encoder):
    """A normal q(z | x) with diagonal covariance and scales above 1e-4, from convolutions that halve the image each time.

    `shape` is `(channel, height, width)` of any size: a side of n becomes ⌈n / 2⌉.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        latent: int,
        features: Sequence[int] = (32, 64),
        context: int = 0,
        standardise: Standardise | None = None,
    ) -> None:
        super().__init__(shape, levels, latent, context, standardise)
        channels, height, width = image_shape(shape)
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, *features)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
            height, width = halved(height), halved(width)
        self.convolutions = nn.Sequential(*layers)
        last = features[-1] if features else channels
        self.last = nn.Linear(last * height * width + context, 2 * latent)

    def infer(self, x: Tensor, context: Tensor) -> TorchDistributionMixin:
        """Independent normals."""
        return normal_vector(self.last(torch.cat((self.convolutions(x).flatten(1), context), 1)))


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """`shape` as (channel, height, width); ValueError for a table's."""
    if len(shape) != 3:
        raise ValueError(f"shape: expected (channel, height, width), got {tuple(shape)}; choose an MLP for vectors")
    channels, height, width = shape
    return channels, height, width


def halved(side: int) -> int:
    """The side of an image after a convolution of stride 2."""
    return (side + 1) // 2
