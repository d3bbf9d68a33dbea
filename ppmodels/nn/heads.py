"""Heads: from the last layer of a network to the distribution of an image or a vector.

A head takes parameters `(batch, outputs, height, width)`, or `(batch, outputs)` for a vector, and returns a distribution
over examples `(channel, height, width)` or `(features,)`. `head.outputs(channels)` says how many a network must give.
Parameters in half precision are cast to float32, so that log-probabilities are in float32 under autocast.
"""

from abc import ABC, abstractmethod
from math import isqrt
from typing import ClassVar

import torch
from pyro.distributions import Bernoulli, Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ppmodels.distributions import CategoricalLevels, DiscretizedLogisticMixture, DiscretizedNormal
from ppmodels.nn.parameters import full_precision, positive


class Head(nn.Module, ABC):
    """A likelihood: how many parameters it needs, and the distribution that they give.

    Subclasses set `levels` and write `outputs` and `build`, which gets parameters of at least float32. A number of
    outputs that does not fit, or a tensor that is neither images nor vectors, is a ValueError.
    """

    factorised: ClassVar[bool] = True
    """Whether a pixel's channels are independent given its parameters."""
    levels: int | None
    """How many whole levels its values have; None for real numbers."""

    @abstractmethod
    def outputs(self, channels: int) -> int:
        """How many parameters a pixel of so many channels, or a vector of so many features, needs."""

    @abstractmethod
    def build(self, parameters: Tensor) -> TorchDistributionMixin:
        """The distribution of an example, given `parameters`."""

    def forward(self, parameters: Tensor) -> TorchDistributionMixin:
        """The distribution of examples, batch shape `(batch,)`."""
        if parameters.ndim not in (2, 4):
            raise ValueError(
                f"{type(self).__name__}: expected parameters (batch, outputs, height, width) or (batch, outputs), "
                f"got shape {tuple(parameters.shape)}; reshape the network's last layer"
            )
        return self.build(full_precision(parameters))

    def draw(self, parameters: Tensor) -> Tensor:
        """Values `(batch, channel)` of one pixel, from its parameters `(batch, outputs)`."""
        drawn: Tensor = self(parameters[..., None, None]).sample()
        return drawn[..., 0, 0]

    def split(self, parameters: Tensor, parts: int) -> Tensor:
        """Parameters `(batch, parts * channels, …)` as `(parts, batch, channels, …)`."""
        if parameters.shape[1] % parts:
            raise ValueError(
                f"{type(self).__name__}: expected a multiple of {parts} outputs, got {parameters.shape[1]}; "
                "give the network head.outputs(channels) of them"
            )
        return parameters.unflatten(1, (parts, -1)).movedim(1, 0)


class BernoulliHead(Head):
    """Binary values, one logit each."""

    levels = 2

    def outputs(self, channels: int) -> int:
        """One for each channel."""
        return channels

    def build(self, parameters: Tensor) -> TorchDistributionMixin:
        """Bernoulli of the logits."""
        return Bernoulli(logits=parameters).to_event(parameters.ndim - 1)

    def draw(self, parameters: Tensor) -> Tensor:
        """Values of one pixel, without the cost of a distribution."""
        p = full_precision(parameters).sigmoid()
        return (torch.rand_like(p) < p).to(p.dtype)


class NormalHead(Head):
    """Real values under a normal density, its scale learned for each value; a density, never comparable with levels."""

    levels = None

    def outputs(self, channels: int) -> int:
        """Location and scale of each channel."""
        return 2 * channels

    def build(self, parameters: Tensor) -> TorchDistributionMixin:
        """Normal with a scale of at least 1e-4."""
        loc, scale = self.split(parameters, 2)
        return Normal(loc, positive(scale)).to_event(loc.ndim - 1)


class CategoricalHead(Head):
    """Levels with a free probability each."""

    levels: int

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def outputs(self, channels: int) -> int:
        """A logit for each level of each channel."""
        return self.levels * channels

    def build(self, parameters: Tensor) -> TorchDistributionMixin:
        """CategoricalLevels of the logits."""
        logits = self.split(parameters, self.levels).movedim(0, -1)
        return CategoricalLevels(logits).to_event(parameters.ndim - 1)

    def draw(self, parameters: Tensor) -> Tensor:
        """Values of one pixel, without the cost of a distribution: the largest of the logits plus Gumbel noise."""
        logits = full_precision(parameters).unflatten(1, (self.levels, -1))
        noise = torch.empty_like(logits).exponential_().log_()
        return (logits - noise).argmax(1).to(logits.dtype)


class DiscretizedNormalHead(Head):
    """Levels under a rounded normal, its scale learned for each value."""

    levels: int

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def outputs(self, channels: int) -> int:
        """Location and scale of each channel."""
        return 2 * channels

    def build(self, parameters: Tensor) -> TorchDistributionMixin:
        """DiscretizedNormal; parameters of 0 stand for the middle level and a scale of a third of the range."""
        loc, scale = self.split(parameters, 2)
        half = (self.levels - 1) / 2
        normal = DiscretizedNormal(half + half * loc, half * positive(scale), self.levels)
        return normal.to_event(loc.ndim - 1)


class LogisticMixtureHead(Head):
    """Images under a discretised mixture of logistics, a channel conditioned on the earlier ones (arXiv 1701.05517)."""

    factorised = False
    levels: int

    def __init__(self, levels: int, components: int = 5) -> None:
        super().__init__()
        self.levels, self.components = levels, components

    def outputs(self, channels: int) -> int:
        """For each component a logit, location and scale of each channel, a coefficient for each pair of channels."""
        return self.components * (channels + 1) * (channels + 2) // 2

    def build(self, parameters: Tensor) -> TorchDistributionMixin:
        """DiscretizedLogisticMixture; where all parameters are 0 its components are spread over the range."""
        if parameters.ndim != 4:
            raise ValueError(
                f"LogisticMixtureHead: expected images, got parameters of shape {tuple(parameters.shape)}; "
                "for vectors choose CategoricalHead or DiscretizedNormalHead"
            )
        channels = self._channels(parameters.shape[1])
        pairs = channels * (channels - 1) // 2
        by_component = parameters.unflatten(1, (self.components, -1))
        logits, loc, scale, coefficients = by_component.split([1, channels, channels, pairs], dim=2)
        half = (self.levels - 1) / 2
        centre = torch.arange(self.components, device=loc.device, dtype=loc.dtype) + 0.5
        centre = (2 * half / self.components * centre)[:, None, None, None]
        return DiscretizedLogisticMixture(
            logits.squeeze(2),
            centre + half * loc,
            half / self.components * positive(scale),
            self.levels,
            coefficients,
        )

    def _channels(self, outputs: int) -> int:
        channels = (isqrt(8 * outputs // self.components + 1) - 3) // 2
        if channels < 1 or self.outputs(channels) != outputs:
            raise ValueError(
                f"LogisticMixtureHead: expected head.outputs(channels) outputs, such as {self.outputs(1)} for one "
                f"channel and {self.outputs(3)} for three, got {outputs}; change the network's last layer"
            )
        return channels


HEADS = ("bernoulli", "categorical", "discretized-normal", "logistic-mixture", "normal")


def make_head(levels: int | None, name: str | None = None) -> Head:
    """The head of that name, one of HEADS; by default the usual one for data of so many levels (None: real numbers).

    Real numbers get a normal density, 2 levels a Bernoulli, up to 32 a categorical, more a logistic mixture. Raises
    ValueError for an unknown name, and for a head that is no likelihood of such data.
    """
    if name is None:
        name = _usual(levels)
    if name not in HEADS:
        raise ValueError(f"likelihood: expected one of {', '.join(HEADS)}, got {name!r}")
    if levels is None:
        if name != "normal":
            raise ValueError(f"{name}: expected data of whole levels, got real numbers (levels=None); choose 'normal'")
        return NormalHead()
    if levels < 2:
        raise ValueError(f"levels: expected at least 2, or None for real numbers, got {levels}")
    if name == "normal":
        raise ValueError(
            f"normal: expected real numbers (levels=None), got {levels} levels, of which a density is no likelihood; "
            "choose 'discretized-normal'"
        )
    if name == "bernoulli":
        if levels != 2:
            raise ValueError(f"bernoulli: expected 2 levels, got {levels}; binarise the data, or choose 'categorical'")
        return BernoulliHead()
    heads = {
        "categorical": CategoricalHead,
        "discretized-normal": DiscretizedNormalHead,
        "logistic-mixture": LogisticMixtureHead,
    }
    return heads[name](levels)


def _usual(levels: int | None) -> str:
    if levels is None:
        return "normal"
    if levels == 2:
        return "bernoulli"
    return "categorical" if levels <= 32 else "logistic-mixture"
