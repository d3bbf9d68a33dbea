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
from ppmodels.nn.parameters import full_precision, positive, scale_parameters


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

    def expected(self, parameters: Tensor) -> Tensor:
        """About the mean of every value, before it is rounded to a level: `(batch, channel, …)`, quick to compute."""
        raise NotImplementedError(f"{type(self).__name__} has no `expected`, which DRAW's guide reads; write it")

    def marginal(self, examples: Tensor) -> Tensor:
        """Parameters `(outputs, …)` under which a value has about its distribution among examples `(n, channel, …)`."""
        raise NotImplementedError(f"{type(self).__name__} has no `marginal`, at which DRAW's canvas starts; write it")

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

    def expected(self, parameters: Tensor) -> Tensor:
        """The probabilities."""
        return full_precision(parameters).sigmoid()

    def marginal(self, examples: Tensor) -> Tensor:
        """The logits of the means, as if half an example more were on and half off."""
        on, off = examples.sum(0), (1 - examples).sum(0)
        return ((on + 0.5) / (off + 0.5)).log()

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

    def expected(self, parameters: Tensor) -> Tensor:
        """The locations."""
        return self.split(full_precision(parameters), 2)[0]

    def marginal(self, examples: Tensor) -> Tensor:
        """Means, and standard deviations of at least a hundredth."""
        return torch.cat((examples.mean(0), scale_parameters(examples.std(0).clamp_min(0.01))))


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

    def expected(self, parameters: Tensor) -> Tensor:
        """The mean levels."""
        p = self.split(full_precision(parameters), self.levels).softmax(0)
        return torch.einsum("l,l...->...", torch.arange(self.levels, device=p.device, dtype=p.dtype), p)

    def marginal(self, examples: Tensor) -> Tensor:
        """The logarithms of the levels' shares, as if each level had been seen half a time more."""
        counts = torch.cat([(examples == level).sum(0) for level in range(self.levels)])
        shares = (counts + 0.5) / (len(examples) + 0.5 * self.levels)
        return shares.to(examples.dtype).log()

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

    def expected(self, parameters: Tensor) -> Tensor:
        """The locations, cut to the range."""
        half = (self.levels - 1) / 2
        return (half + half * self.split(full_precision(parameters), 2)[0]).clamp(0, self.levels - 1)

    def marginal(self, examples: Tensor) -> Tensor:
        """Means, and standard deviations of at least half a level."""
        half = (self.levels - 1) / 2
        scale = examples.std(0).clamp_min(0.5) / half
        return torch.cat((examples.mean(0) / half - 1, scale_parameters(scale)))


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
        logits, loc, scale, coefficients = self._by_component(parameters)
        half = (self.levels - 1) / 2
        return DiscretizedLogisticMixture(
            logits.squeeze(2), self._located(loc), half / self.components * positive(scale), self.levels, coefficients
        )

    def expected(self, parameters: Tensor) -> Tensor:
        """The mean of the components' locations, cut to the range; how channels move each other is left out."""
        logits, loc, _, _ = self._by_component(full_precision(parameters))
        return (logits.softmax(1) * self._located(loc).clamp(0, self.levels - 1)).sum(1)

    def marginal(self, examples: Tensor) -> Tensor:
        """Components where they are of themselves, each with the share of the values in its part of the range."""
        n, channels, *size = examples.shape
        part = (examples * self.components / self.levels).floor()
        counts = torch.stack([(part == each).sum((0, 1)) for each in range(self.components)])
        shares = (counts + 0.5) / (n * channels + 0.5 * self.components)
        parameters = examples.new_zeros(self.components, self.outputs(channels) // self.components, *size)
        parameters[:, 0] = shares.log()
        return parameters.flatten(0, 1)

    def _by_component(self, parameters: Tensor) -> tuple[Tensor, ...]:
        """Logits, locations, scales and coefficients, `(batch, component, …, height, width)` each."""
        channels = self._channels(parameters.shape[1])
        pairs = channels * (channels - 1) // 2
        return parameters.unflatten(1, (self.components, -1)).split([1, channels, channels, pairs], 2)

    def _located(self, loc: Tensor) -> Tensor:
        """Locations in levels: parameters of 0 are spread over the range."""
        half = (self.levels - 1) / 2
        centre = torch.arange(self.components, device=loc.device, dtype=loc.dtype) + 0.5
        return (2 * half / self.components * centre)[:, None, None, None] + half * loc

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
