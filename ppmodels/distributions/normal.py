"""A normal rounded to levels."""

from math import pi, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from ppmodels.distributions.levels import LevelsDistribution, Shape


class DiscretizedNormal(LevelsDistribution):
    """A normal variable rounded to the nearest level in 0..levels-1; scalar events, as floats.

    `loc` and `scale` are in units of one level. A level k has the mass between k-1/2 and k+1/2; the first and last
    level take the tails. With scales of many levels the float32 log-probability of one level is a difference of
    nearly equal numbers: it errs by up to 1e-6 * scale nats, while the levels still sum to one.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}

    def __init__(self, loc: Tensor, scale: Tensor, levels: int, validate_args: bool | None = None) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(levels, torch.Size(), validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of each level in `value`, in nats; ValueError for a value outside the support."""
        if self._validate_args:
            self._validate_sample(value)
        lower, upper = self._edges(value)
        lower, upper = (lower - self.loc) / self.scale, (upper - self.loc) / self.scale
        # Φ(b) - Φ(a) = Φ(-a) - Φ(-b): taken in the left tail, where log Φ keeps its digits.
        right = lower + upper > 0
        low = torch.where(right, -upper, lower)
        high = torch.where(right, -lower, upper)
        log_high = log_normal_cdf(high)
        difference = log_high - log_normal_cdf(low)
        # log Φ is concave with slope above 1/2 left of 1/2, hence a floor that only rounding can reach.
        floor = 0.5 * self.scale.reciprocal().clamp(max=1)
        return log_high + (-torch.expm1(-torch.maximum(difference, floor))).log()

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


def log_normal_cdf(x: Tensor) -> Tensor:
    """log Φ(x), with a gradient that is right at any distance from 0."""
    value: Tensor = _LogNormalCDF.apply(x)  # type: ignore[no-untyped-call]  # torch leaves `apply` untyped
    return value


class _LogNormalCDF(torch.autograd.Function):
    # The gradient of torch.special.log_ndtr (2.13) is exp(-x²/2 - log Φ): 955 for 1000 at x = -1000, 0 or NaN further out.
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.special.log_ndtr(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None], x: Tensor) -> tuple[Tensor, int | None]:
        return log_normal_cdf(x), in_dims[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * sqrt(2 / pi) / torch.special.erfcx(-x / sqrt(2))
