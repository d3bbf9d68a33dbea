"""What every autoregressive image model shares: its likelihood, its conditioning, and the program."""

from collections.abc import Iterator, Sequence
from itertools import product

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.distributions.util import is_validation_enabled
from torch import Tensor, nn

from ppmodels.distributions.autoregressive import Autoregressive, PixelIndex
from ppmodels.nn.causal.convolution import Mask, MaskedConv
from ppmodels.nn.causal.layer import Causal, ReLU, SamplingInputs
from ppmodels.nn.encoders import Standardise, image_shape
from ppmodels.nn.heads import Head, make_head


class AutoregressiveModel(nn.Module):
    """p(x), or p(x | context), as a product over pixels in raster order and, in a pixel, over its colour channels in order.

    `forward(context)` returns the distribution, an Autoregressive; `model` observes x under it, and `guide` has nothing
    to draw, so that the ELBO is log p(x). x is `(batch, *shape)`, float, whole levels 0..levels-1.

    `context` is the length of a vector, or the shape (channel, height, width) of a map of the image's size; `classes`,
    in its place, is how many labels there are, which are then the context, int64. `likelihood` is a head, or its name
    for `make_head`. Under a head whose channels depend on each other (the mixture of logistics) the network takes a
    pixel as one step.

    Subclasses set `network`, a function of images `(n, channel, height, width)` in [-1, 1] and of `self.maps` context
    maps, or None, to `self.outputs` parameters a pixel, of `self.ordered` colour channels in order. A Causal network has
    incremental sampling; any other module is run whole for every value that is drawn.
    """

    network: nn.Module

    def __init__(
        self,
        shape: Sequence[int],
        levels: int,
        context: int | Sequence[int],
        classes: int,
        likelihood: Head | str | None,
    ) -> None:
        super().__init__()
        self.shape, self.levels, self.classes = image_shape(shape), levels, classes
        if not isinstance(levels, int) or levels < 2:
            raise ValueError(
                f"levels: expected a whole number of at least 2, got {levels}; real numbers have no levels"
            )
        if classes and context:
            raise ValueError(f"context: expected none beside classes={classes}, which are the context, got {context}")
        self.context_shape = _context_shape(classes or context, self.shape)
        self.maps = self.context_shape[0] if self.context_shape else 0
        self.head = likelihood if isinstance(likelihood, Head) else make_head(levels, likelihood)
        if self.head.levels != levels:
            raise ValueError(
                f"likelihood: expected a head of {levels} levels, as the model has, got {type(self.head).__name__} of "
                f"{self.head.levels or 'real numbers'}; build it with the data's levels"
            )
        self.outputs = self.head.outputs(self.shape[0])
        self.ordered = self.shape[0] if self.head.factorised else 1
        self.positions = self.ordered * self.shape[1] * self.shape[2]
        self.standardise = Standardise.for_levels(levels)

    def forward(self, context: Tensor | None = None) -> Autoregressive:
        """The distribution over images given the context `(…, *context_shape)`, or labels `(…,)`.

        ValueError for a context that does not fit.
        """
        if self.classes and context is not None:
            context = self._one_hot(context)
        if (context is None) == bool(self.context_shape) or (
            context is not None and context.shape[-len(self.context_shape) :] != self.context_shape
        ):
            raise ValueError(
                f"context: expected {_described(self.context_shape, self.classes)}, got "
                f"{'none' if context is None else tuple(context.shape)}; call the model with it, or build it with context=…"
            )
        like = next(self.parameters())
        if context is not None and context.dtype != like.dtype:
            raise ValueError(f"context: expected {like.dtype}, as the parameters are, got {context.dtype}; convert it")
        return Autoregressive(self, context)

    def model(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Observes x, and returns it (or a draw of it, where the observation is lifted)."""
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(
                f"x: expected images {self.shape} (channel, height, width), got shape {tuple(x.shape)}; pass a batch of "
                "them, or build the model with their shape"
            )
        expected = (len(x), *(() if self.classes else self.context_shape))
        if context is not None and tuple(context.shape) != expected:
            raise ValueError(f"context: expected shape {expected}, one for each image in x, got {tuple(context.shape)}")
        with pyro.plate("data", len(x)):
            drawn: Tensor = pyro.sample("x", self(context), obs=x)
        return drawn

    def guide(self, x: Tensor, context: Tensor | None = None) -> None:
        """Nothing: there are no latent variables."""

    def conditionals(self, x: Tensor, context: Tensor | None) -> TorchDistributionMixin:
        """Every pixel's conditional, given the values in x; see `Autoregressive.conditionals`."""
        found: TorchDistributionMixin = self.head(self.network(self.standardise(x), self._maps(context)))
        return found

    def incremental(self, x: Tensor, context: Tensor | None) -> Iterator[tuple[PixelIndex, Tensor]]:
        """Incremental sampling: each pixel's index and its conditional's parameters, in the order in which x is filled."""
        if not isinstance(self.network, Causal):
            yield from self.passes(x, context)
            return
        channels, height, width = self.shape
        size = channels // self.ordered
        layers = self.network.incremental(SamplingInputs(len(x), width, self._maps(context)))
        hidden = x.new_zeros(len(x), channels)
        for row in range(height):
            layers.row()
            for column in range(width):
                pixel = hidden
                for channel in range(0, channels, size):
                    place = (slice(None), slice(channel, channel + size), row, column)
                    yield place, layers.pixel(column, pixel)
                    pixel = self.standardise(x[:, :, row, column])
                layers.known(column, pixel)

    def passes(self, x: Tensor, context: Tensor | None) -> Iterator[tuple[PixelIndex, Tensor]]:
        """What `incremental` yields, by a full pass for each value: slow, but right for any network."""
        channels, height, width = self.shape
        size = channels // self.ordered
        for row, column, channel in product(range(height), range(width), range(0, channels, size)):
            parameters = self.network(self.standardise(x), self._maps(context))[:, :, row, column]
            yield (slice(None), slice(channel, channel + size), row, column), parameters

    def draw(self, parameters: Tensor) -> Tensor:
        """Values of a pixel from its conditional's parameters."""
        return self.head.draw(parameters)

    def blank(self, n: int) -> Tensor:
        """`(n, *shape)` of zeros, where the parameters are."""
        like = next(self.parameters())
        return torch.zeros(n, *self.shape, device=like.device, dtype=like.dtype)

    def _one_hot(self, labels: Tensor) -> Tensor:
        like = next(self.parameters())
        if not isinstance(labels, Tensor) or labels.is_floating_point():
            raise ValueError(
                f"context: expected int64 labels 0..{self.classes - 1}, got {getattr(labels, 'dtype', labels)}"
            )
        # Reading values makes a device wait, so it is part of Pyro's validation and switched off with it.
        if is_validation_enabled() and bool(((labels < 0) | (labels >= self.classes)).any()):
            raise ValueError(
                f"context: expected labels 0..{self.classes - 1}, got {int(labels.min())}..{int(labels.max())}; "
                "renumber them, or build the model with more classes"
            )
        return (labels.unsqueeze(-1) == torch.arange(self.classes, device=labels.device)).to(like.dtype)

    def _maps(self, context: Tensor | None) -> Tensor | None:
        """The context as maps `(n, maps, height or 1, width or 1)`."""
        return context[..., None, None] if context is not None and len(self.context_shape) == 1 else context


def read_out(features: int, outputs: int, channels: int) -> list[Causal]:
    """The last layers: two 1×1 convolutions, each after a rectifier."""
    return [
        ReLU(),
        MaskedConv(features, features, 1, Mask.B, channels),
        ReLU(),
        MaskedConv(features, outputs, 1, Mask.B, channels, outputs // channels),
    ]


def _context_shape(context: int | Sequence[int], image: tuple[int, int, int]) -> tuple[int, ...]:
    shape = ((context,) if context else ()) if isinstance(context, int) else tuple(context)
    if len(shape) not in (0, 1, 3) or any(size < 1 for size in shape):
        raise ValueError(
            f"context: expected the length of a vector, or (channel, height, width) of a map, got {context}"
        )
    if len(shape) == 3 and shape[1:] != image[1:]:
        raise ValueError(f"context: expected a map of the image's size {image[1:]}, got {shape}; resize it")
    return shape


def _described(shape: tuple[int, ...], classes: int) -> str:
    if classes:
        return f"labels 0..{classes - 1}, one for each image"
    return f"the shape (…, {', '.join(map(str, shape))})" if shape else "none"
