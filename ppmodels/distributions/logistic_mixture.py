"""The discretised mixture of logistics over images (Salimans et al., 2017)."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from ppmodels.distributions.levels import LevelsDistribution, Shape

_SCALES = (1e-12, 1e30)
"""The derivative by a scale is a distance over its square, which float32 must hold."""
_FAR = 1e34
"""An edge at infinity. It stays finite because 0 * inf is NaN: a gradient that is 0 here must survive the chain rule."""


class DiscretizedLogisticMixture(LevelsDistribution):
    """Images whose pixels are mixtures of logistics rounded to levels (Salimans et al., 2017, arXiv 1701.05517).

    The event is an image `(channel, height, width)`. `logits` are `(..., K, height, width)`: one mixture component per
    pixel, shared by its channels. `loc` and `scale` are `(..., K, channel, height, width)`, in units of one level. A
    level k has the mass between k-1/2 and k+1/2; the first and last level take the tails. `coefficients`
    `(..., K, channel * (channel - 1) / 2, height, width)`, ordered (1←0), (2←0), (2←1), …, shift a channel's loc by
    each earlier channel's observed distance from the middle level. A scale below 1e-12 levels counts as that, one above
    1e30 likewise. Raises ValueError for shapes that do not agree.
    """

    arg_constraints: ClassVar = {
        "logits": constraints.independent(constraints.real, 3),
        "loc": constraints.independent(constraints.real, 4),
        "scale": constraints.independent(constraints.positive, 4),
        "coefficients": constraints.independent(constraints.real, 4),
    }

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        levels: int,
        coefficients: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        _check_shapes(logits, loc, scale, coefficients)
        self.logits, self.loc, self.scale = logits, loc, scale
        self.coefficients = loc[..., :0, :, :] if coefficients is None else coefficients
        super().__init__(levels, loc.shape[-3:], validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of each image `(..., channel, height, width)`, in nats; ValueError outside the support."""
        if self._validate_args:
            self._validate_sample(value)
        value = value.unsqueeze(-4)
        first, last = value <= 0, value >= self.levels - 1
        # Whole numbers plus a half are exact floats, so a level and its neighbour see the very same edge.
        lower, upper = torch.where(first, -_FAR, value - 0.5), torch.where(last, _FAR, value + 0.5)
        inside = (~(first | last)).to(value.dtype)
        loc = self._shifted(value)
        steepness = self.scale.clamp(*_SCALES).reciprocal()
        # log(σ(b) - σ(a)) = log σ(b) + log σ(-a) + log(1 - exp(a - b)), and b - a is the steepness. At the first level
        # σ(a) is 0, at the last 1 - σ(b) is: one term is then 0 of itself, and the last must be left out.
        log_p = logsigmoid((upper - loc) * steepness) + logsigmoid((loc - lower) * steepness)
        log_p = log_p + inside * (-torch.expm1(-steepness)).log()
        return (log_p.sum(-3) + self.logits.log_softmax(-3)).logsumexp(-3).sum((-2, -1))

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Images of shape `sample_shape + batch_shape + (channel, height, width)`."""
        shape = torch.Size(sample_shape)
        noise = self.logits.new_empty(shape + self.logits.shape).exponential_()
        chosen = (self.logits - noise.log()).argmax(-3)[..., None, None, :, :]
        loc, scale, coefficients = (
            _component(value.expand(shape + value.shape), chosen) for value in (self.loc, self.scale, self.coefficients)
        )
        uniform = torch.rand_like(loc)
        noisy = loc + scale * (uniform.log() - (-uniform).log1p())
        channels: list[Tensor] = []
        for channel, value in enumerate(noisy.unbind(-3)):
            channels.append(self._round(value + self._shift(coefficients, channels, channel)))
        return torch.stack(channels, -3)

    @property
    def mean(self) -> Tensor:
        """The expected levels, `(..., channel, height, width)`; NotImplementedError with coefficients."""
        if self.coefficients.shape[-3]:
            raise NotImplementedError(
                "mean of DiscretizedLogisticMixture: expected independent channels, got coefficients between them, "
                "under which it has no closed form; average draws instead: sample((100,)).mean(0)"
            )
        exceed = torch.zeros_like(self.loc)
        for level in range(1, self.levels):
            exceed = exceed + ((self.loc - (level - 0.5)) / self.scale).sigmoid()
        return (exceed * self.logits.softmax(-3).unsqueeze(-3)).sum(-4)

    def _shifted(self, value: Tensor) -> Tensor:
        if not self.coefficients.shape[-3]:
            return self.loc
        seen = list(value.unbind(-3))
        locs = [loc + self._shift(self.coefficients, seen, channel) for channel, loc in enumerate(self.loc.unbind(-3))]
        return torch.stack(torch.broadcast_tensors(*locs), -3)

    def _shift(self, coefficients: Tensor, seen: list[Tensor], channel: int) -> Tensor | float:
        if not coefficients.shape[-3]:
            return 0.0
        start, middle = channel * (channel - 1) // 2, (self.levels - 1) / 2
        own = coefficients[..., start : start + channel, :, :].unbind(-3)
        return sum((weight * (level - middle) for weight, level in zip(own, seen, strict=False)), 0.0)


def _component(value: Tensor, chosen: Tensor) -> Tensor:
    index = chosen.expand(*chosen.shape[:-4], 1, *value.shape[-3:])
    return value.gather(-4, index).squeeze(-4)


def _check_shapes(logits: Tensor, loc: Tensor, scale: Tensor, coefficients: Tensor | None) -> None:
    components, channels, height, width = loc.shape[-4:]
    pairs = channels * (channels - 1) // 2
    expected = {
        "logits": (logits, (components, height, width)),
        "scale": (scale, (components, channels, height, width)),
    }
    if coefficients is not None:
        expected["coefficients"] = (coefficients, (components, pairs, height, width))
    for name, (value, shape) in expected.items():
        if tuple(value.shape[-len(shape) :]) != shape:
            raise ValueError(
                f"{name}: expected {shape} on the right, to agree with a loc of shape {tuple(loc.shape)}, "
                f"got {tuple(value.shape)}; reshape it"
            )
