"""A distribution over images whose values are drawn one after another, each given those before it."""

import warnings
from collections.abc import Iterator
from math import prod
from typing import Any, ClassVar, Protocol, Self

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import constraints
from tqdm import tqdm  # type: ignore[import-untyped]

from ppmodels.distributions.levels import Shape

PixelIndex = tuple[slice, slice, int, int]
"""The index of the values to be drawn next in a batch of images: all examples, some channels, a row and a column."""


class Factors(Protocol):
    """What an Autoregressive is made of: p(x) = ∏ᵢ p(xᵢ | x_<i), all factors at once or one after another.

    x is `(n, *shape)`; `context` is `(n, *context_shape)`, or None. No factor depends on its own value or a later one.
    """

    shape: tuple[int, int, int]
    levels: int
    context_shape: tuple[int, ...]
    positions: int
    """How many conditionals there are to draw from, one after another."""

    def conditionals(self, x: Tensor, context: Tensor | None) -> TorchDistributionMixin:
        """The conditional of every pixel given the values in x, as one distribution over images, batch shape `(n,)`."""

    def incremental(self, x: Tensor, context: Tensor | None) -> Iterator[tuple[PixelIndex, Tensor]]:
        """The places in the order in which they are drawn, each with its conditional's parameters `(n, parameters)`.

        The caller writes values at a place into x before it asks for the next.
        """

    def draw(self, parameters: Tensor) -> Tensor:
        """Values `(n, channel)` of a pixel, of every channel, from its conditional's parameters."""

    def blank(self, n: int) -> Tensor:
        """`(n, *shape)` of zeros, where the parameters are."""


class Autoregressive(TorchDistribution):
    """p(x) = ∏ᵢ p(xᵢ | x_<i) over images of whole levels (van den Oord et al., 2016, arXiv 1601.06759).

    The event is an image `(channel, height, width)`, float; the batch shape is that of `context` without the context's
    own dimensions, or `()`. Log-probabilities are exact, in nats, from one parallel pass. Draws go pixel by pixel, in
    raster order with channels innermost, with a progress bar where that takes long. A model's `forward` returns one.
    Raises ValueError for images of another size and, under validation, for values that are not levels.
    """

    arg_constraints: ClassVar = {}

    def __init__(self, factors: Factors, context: Tensor | None = None, validate_args: bool | None = None) -> None:
        self.factors, self.context = factors, context
        own = len(factors.context_shape)
        batch_shape = torch.Size() if context is None else context.shape[: context.ndim - own]
        super().__init__(batch_shape, torch.Size(factors.shape), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=3)
    def support(self) -> constraints.Constraint:
        """Whole numbers 0..levels-1."""
        return constraints.independent(constraints.integer_interval(0, self.factors.levels - 1), 3)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Self:
        """The same distribution over more batch dimensions; this one is left as it is."""
        new: Self = self._get_checked_instance(type(self), _instance)
        new.factors, shape = self.factors, torch.Size(batch_shape)
        new.context = None if self.context is None else self.context.expand(shape + self.factors.context_shape)
        super(Autoregressive, new).__init__(shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Exact log p of each image `(..., channel, height, width)`, in nats, from one pass."""
        shape = self._shape_of(value)
        if not shape.numel():
            return value.new_zeros(shape)
        images = self._rows(value, shape)
        return self.factors.conditionals(images, self._contexts(shape)).log_prob(images).reshape(shape)

    def conditionals(self, x: Tensor) -> TorchDistributionMixin:
        """p(xᵢ | x_<i) at every pixel, given the values of x: what `log_prob` sums, as one distribution over images.

        Its batch is that of x in one dimension. Of Bernoulli and categorical pixels, `conditionals(x).base_dist` has
        one for each value, and `conditionals(x).base_dist.log_prob(x)` has the nats of each value of x.
        """
        shape = self._shape_of(x)
        return self.factors.conditionals(self._rows(x, shape), self._contexts(shape))

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Images of shape `sample_shape + batch_shape + (channel, height, width)`, drawn pixel by pixel.

        Memory, beside the images: for each image, a few rows of every layer's activations.
        """
        shape = torch.Size(sample_shape) + self.batch_shape
        x = self.factors.blank(prod(shape))
        self._fill(x, torch.zeros_like(x, dtype=torch.bool), self._contexts(shape))
        return x.reshape(shape + self.event_shape)

    def complete(self, x: Tensor, mask: Tensor) -> Tensor:
        """x `(..., channel, height, width)` with draws where `mask` is False: it broadcasts to x, True where x is known.

        Draws are exact, of the unknown values given the known, where all known values come first, in raster
        order with channels innermost. A later one is kept, but the draws before it can not know it, and a UserWarning
        says so; likewise where a pixel is known in part and its channels are drawn at once, as of a mixture of logistics.
        """
        shape = self._shape_of(x, checked=False)
        full = shape + self.event_shape
        try:
            known = mask.to(device=x.device, dtype=torch.bool).expand(full)
        except RuntimeError:
            raise ValueError(
                f"mask: expected a shape that broadcasts to {tuple(full)}, x's, got {tuple(mask.shape)}; "
                "it is True where x is known"
            ) from None
        x = torch.where(known, x.expand(full), x.new_zeros(()))
        self._check_values(x)
        x, known = self._rows(x, shape).clone(), self._rows(known, shape)
        at_once = self._fill(x, known, self._contexts(shape))
        reason = "some known values come after values to be drawn, in raster order with channels innermost"
        if at_once or not _comes_first(known):
            reason = reason if not at_once else "some pixels are known in part, and their channels are drawn at once"
            warnings.warn(
                f"complete: {reason}, so these are no exact draws given all that is known: each is given what comes before",
                stacklevel=2,
            )
        return x.reshape(full)

    @torch.no_grad()
    def _fill(self, x: Tensor, known: Tensor, context: Tensor | None) -> bool:
        """Draws the values that are not known into x `(n, *shape)`.

        Returns whether a pixel whose channels are drawn at once was known in part; its draw ignores the known part.
        """
        if not len(x):
            return False
        # One read of the device for all pixels: which need no draw, which nothing but draws, which are known in part.
        all_known, any_known = known.all(0).tolist(), known.any(0).tolist()
        in_part = (known.any(1) & ~known.all(1)).any(0).tolist()
        at_once = False
        conditionals = self.factors.incremental(x, context)
        count = self.factors.positions
        for place, parameters in tqdm(conditionals, "values drawn", count, delay=2.0, disable=None, leave=False):
            _, channels, row, column = place
            wanted = range(self.event_shape[0])[channels]
            if all(all_known[channel][row][column] for channel in wanted):
                continue
            drawn = self.factors.draw(parameters)[:, channels]
            some_known = any(any_known[channel][row][column] for channel in wanted)
            x[place] = torch.where(known[place], x[place], drawn) if some_known else drawn
            at_once |= len(wanted) > 1 and in_part[row][column]
        return at_once

    def _shape_of(self, value: Tensor, checked: bool = True) -> torch.Size:
        """The batch shape of value and this distribution together."""
        if tuple(value.shape[-3:]) != tuple(self.event_shape):
            raise ValueError(
                f"x: expected images {tuple(self.event_shape)} (channel, height, width), got shape {tuple(value.shape)}; "
                "reshape it, or build the model with its shape"
            )
        dtype = self.factors.blank(0).dtype
        if value.is_floating_point() and value.dtype != dtype:
            raise ValueError(f"x: expected {dtype}, as the parameters are, got {value.dtype}; convert it, or the model")
        if checked:
            self._check_values(value)
        try:
            return torch.broadcast_shapes(value.shape[:-3], self.batch_shape)
        except RuntimeError:
            raise ValueError(
                f"x: expected a batch that broadcasts with {tuple(self.batch_shape)}, that of the context, got "
                f"{tuple(value.shape[:-3])}; give one context for each image"
            ) from None

    def _check_values(self, value: Tensor) -> None:
        top = self.factors.levels - 1
        if not value.is_floating_point():
            raise ValueError(f"x: expected levels as floats, got {value.dtype}; call x.float()")
        if not self._validate_args:
            return
        if bool(((value != value.round()) | (value < 0) | (value > top)).any()):
            raise ValueError(
                f"x: expected whole levels 0..{top}, got values between {float(value.min()):g} and "
                f"{float(value.max()):g}, {int((value != value.round()).sum())} of them not whole; "
                "scale and round them, or build the model with the data's number of levels"
            )

    def _rows(self, value: Tensor, shape: torch.Size) -> Tensor:
        return value.expand(shape + self.event_shape).reshape(-1, *self.event_shape)

    def _contexts(self, shape: torch.Size) -> Tensor | None:
        if self.context is None:
            return None
        own = self.factors.context_shape
        return self.context.expand(shape + own).reshape(-1, *own)


def _comes_first(known: Tensor) -> bool:
    """Whether in each image `(n, channel, height, width)` no known value comes after an unknown one, in drawing order."""
    ordered = known.permute(0, 2, 3, 1).flatten(1)
    unknown_so_far = (~ordered).cumsum(1) > 0
    return not bool((ordered & unknown_so_far).any())
