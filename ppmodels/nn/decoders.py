"""Decoders: from a vector z to the likelihood p(x | z) of an example."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from ppmodels.nn.encoders import halved, image_shape
from ppmodels.nn.heads import Head
from ppmodels.nn.mlp import MLP


class MLPDecoder(nn.Module):
    """p(x | z) from a multilayer perceptron, for images `(channel, height, width)` and vectors `(features,)`."""

    def __init__(
        self,
        inputs: int,
        shape: Sequence[int],
        head: Head,
        hidden: Sequence[int] = (200, 200),
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.head = head
        self.layout = (head.outputs(shape[0]), *shape[1:])
        self.network = MLP((inputs, *hidden, prod(self.layout)), activation)

    def forward(self, z: Tensor) -> TorchDistributionMixin:
        """The head's distribution over x, given z `(batch, inputs)`."""
        return self.head(self.network(z).unflatten(1, self.layout))


class ConvDecoder(nn.Module):
    """p(x | z) from transposed convolutions that double the image each time, the mirror of ConvEncoder.

    `shape` is `(channel, height, width)` of any size: ⌈n / 2⌉ is taken back to n.
    """

    def __init__(self, inputs: int, shape: Sequence[int], head: Head, features: Sequence[int] = (64, 32)) -> None:
        super().__init__()
        channels, *size = image_shape(shape)
        sizes = [(size[0], size[1])]
        for _ in features:
            sizes.append((halved(sizes[-1][0]), halved(sizes[-1][1])))
        sizes.reverse()
        widths = (*features, head.outputs(channels))
        self.head = head
        self.layout = (widths[0], *sizes[0])
        self.first = nn.Linear(inputs, prod(self.layout))
        layers: list[nn.Module] = []
        for (before, after), small, large in zip(pairwise(widths), sizes, sizes[1:], strict=False):
            layers += [nn.ReLU(), _doubling(before, after, small, large)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> TorchDistributionMixin:
        """The head's distribution over x, given z `(batch, inputs)`."""
        return self.head(self.convolutions(self.first(z).unflatten(1, self.layout)))


def _doubling(before: int, after: int, small: tuple[int, int], large: tuple[int, int]) -> nn.ConvTranspose2d:
    # Stride 2, kernel 3 and padding 1 give 2n - 1; an even side needs one more row.
    height, width = (to - (2 * of - 1) for of, to in zip(small, large, strict=True))
    return nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=(height, width))
