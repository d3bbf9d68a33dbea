"""A normal rounded to levels."""

from functools import reduce
from math import log, pi, sqrt
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import constraints

from ppmodels.distributions.levels import LevelsDistribution, Shape


class DiscretizedNormal(LevelsDistribution):
    """A normal variable rounded to the nearest level in 0..levels-1; scalar events, as floats.

    `loc` and `scale` are in units of one level. A level k has the mass between k-1/2 and k+1/2; the first and last
    level take the tails. Log-probabilities and their gradients are right to a few roundings at any positive scale. Where
    the type can not hold them, of a level very many scales away, they are as large as may be and still be summed.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: Tensor, scale: Tensor, levels: int, validate_args: bool | None = None) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(levels, torch.Size(), validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of each level in `value`, in nats; ValueError for a value outside the support."""
        if self._validate_args:
            self._validate_sample(value)
        return _log_mass(value, self.loc, self.scale, self.levels)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Levels of shape `sample_shape + batch_shape`."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self._round(self.loc + self.scale * self.loc.new_empty(shape).normal_())

    @property
    def mean(self) -> Tensor:
        """The expected level, `batch_shape`: the sum over k of P(x >= k)."""
        mean = torch.zeros_like(self.loc)
        for level in range(1, self.levels):
            mean = mean + torch.special.ndtr((self.loc - (level - 0.5)) / self.scale)
        return mean


def _log_mass(value: Tensor, loc: Tensor, scale: Tensor, levels: int) -> Tensor:
    tensors = torch.broadcast_tensors(value, loc, scale)
    log_p: Tensor = _LogMass.apply(*tensors, levels)  # type: ignore[no-untyped-call]  # torch leaves `apply` untyped
    return log_p


class _LogMass(torch.autograd.Function):
    """The log-mass of a level's bin. Its derivatives are E x / scale and E(x² - 1) / scale, x standard normal in the bin."""

    # By hand, because the chain rule meets 0 * inf at small scales, where the product is 0, or large and finite.
    @staticmethod
    def forward(value: Tensor, loc: Tensor, scale: Tensor, levels: int) -> Tensor:
        bin = _bin(value, loc, scale, levels)
        weights, _ = _quadrature(bin)
        inside = bin.width.log() + reduce(torch.add, weights).log() - 0.5 * bin.middle.square() - 0.5 * log(2 * pi)
        _, high, gap, *_ = _tails(bin)
        return _saturated(torch.where(bin.narrow, inside, torch.special.log_ndtr(high) + (-torch.expm1(-gap)).log()))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.levels = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        *tensors, levels = inputs
        value, loc, scale = (
            x if dim is None else x.movedim(dim, 0) for x, dim in zip(tensors, in_dims[:3], strict=True)
        )
        return _log_mass(value, loc, scale, levels), 0

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, loc, scale = ctx.saved_tensors
        bin = _bin(value, loc, scale, ctx.levels)
        weights, nodes = _quadrature(bin)
        mass = reduce(torch.add, weights)
        mean, square = (
            reduce(torch.add, (w * x**p for w, x in zip(weights, nodes, strict=True))) / mass for p in (1, 2)
        )
        low, high, gap, at_low, at_high = _tails(bin)
        # The density over the mass, at both ends of the bin.
        at_low = (at_low / torch.expm1(gap)).masked_fill(gap >= _NOTHING, 0)
        at_high = at_high / -torch.expm1(-gap)
        tilted = torch.where(bin.right, at_high - at_low, at_low - at_high)
        by_loc = torch.where(bin.narrow, mean, tilted) / scale
        by_scale = torch.where(bin.narrow, square - 1, low * at_low - high * at_high) / scale
        return None, gradient * _saturated(by_loc), gradient * _saturated(by_scale), None


class _Bin(NamedTuple):
    """A level's bin, less loc and over scale: from -inf of the first level, to inf of the last."""

    lower: Tensor
    middle: Tensor
    upper: Tensor
    width: Tensor
    right: Tensor
    """Whether it lies right of 0, where the digits of Φ are those of 1."""
    narrow: Tensor
    """Whether the density hardly changes over it, so that log Φ of both ends would share most of their digits."""


def _bin(value: Tensor, loc: Tensor, scale: Tensor, levels: int) -> _Bin:
    first, last = value <= 0, value >= levels - 1
    # Whole numbers plus a half are exact floats, so a level and its neighbour see the very same edge.
    lower = ((value - 0.5 - loc) / scale).masked_fill(first, -torch.inf)
    upper = ((value + 0.5 - loc) / scale).masked_fill(last, torch.inf)
    middle, width = 0.5 * (lower + upper), scale.reciprocal().masked_fill(first | last, torch.inf)
    return _Bin(lower, middle, upper, width, middle > 0, (width <= 0.5) & (middle.abs() * width <= 1))


_NODES, _WEIGHTS = (array.tolist() for array in np.polynomial.legendre.leggauss(6))


def _quadrature(bin: _Bin) -> tuple[list[Tensor], list[Tensor]]:
    """Six nodes in a narrow bin, and their shares of its mass over width and density in the middle (Gauss, Legendre).

    Their sum is right to 1e-15.
    """
    middle, width = bin.middle.masked_fill(~bin.narrow, 0), bin.width.masked_fill(~bin.narrow, 0.5)
    steps = [0.5 * node * width for node in _NODES]
    weights = [
        0.5 * weight * (-step * (middle + 0.5 * step)).exp() for weight, step in zip(_WEIGHTS, steps, strict=True)
    ]
    return weights, [middle + step for step in steps]


_NOTHING = 80.0
"""exp(-80) is nothing beside 1, and exp(80) is finite."""


def _tails(bin: _Bin) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The ends a < b of other bins, mirrored into the left tail, log Φ(b) - log Φ(a), and φ / Φ at both.

    Where the bin has but one end, or is narrow, something finite stands for what is not used: 0 * inf is NaN.
    """
    unused = bin.narrow | bin.width.isinf()
    low = torch.where(bin.right, -bin.upper, bin.lower).masked_fill(unused, -1)
    high = torch.where(bin.right, -bin.lower, bin.upper).masked_fill(bin.narrow, 1).clamp(max=1e4)
    at_low, at_high = _hazard(low), _hazard(high)
    # log Φ is log φ less log(φ / Φ), and log φ(b) - log φ(a) is -middle * width: nothing here loses its digits far out.
    gap = -0.5 * (low + high) * bin.width.masked_fill(unused, 0) + (at_low / at_high).log()
    gap = gap.masked_fill(unused, _NOTHING).nan_to_num(_NOTHING).clamp(max=_NOTHING)
    return low.masked_fill(gap >= _NOTHING, -1), high, gap, at_low, at_high


def _hazard(x: Tensor) -> Tensor:
    """φ(x) / Φ(x), at any distance from 0."""
    return sqrt(2 / pi) / torch.special.erfcx(-x / sqrt(2))


def _saturated(values: Tensor) -> Tensor:
    """What is too large for its type is as large as may be, and still be summed a million times."""
    largest = torch.finfo(values.dtype).max * 2.0**-20
    return values.clamp(-largest, largest)
