"""Generators: networks of z, or of x and noise, whose draws have no density."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from ppmodels.distributions import Implicit
from ppmodels.nn.encoders import Standardise, halved, image_shape
from ppmodels.nn.mlp import MLP
from ppmodels.nn.parameters import full_precision


class Generator(nn.Module):
    """x = network(z) as an implicit distribution: it can be drawn, and has no density.

    `network` takes z `(batch, inputs)` to as many numbers as an example of `shape` has. Real numbers (`levels` None) are its
    output itself; levels are its sigmoid times levels - 1, between the whole levels, which rounding gives.
    """

    def __init__(self, network: nn.Module, inputs: int, shape: Sequence[int], levels: int | None) -> None:
        super().__init__()
        self.network, self.inputs, self.shape, self.levels = network, inputs, tuple(shape), levels

    def forward(self, z: Tensor) -> Implicit:
        """The distribution of x given z, batch `(batch,)`, event `shape`."""
        return Implicit(lambda: self.generated(z), (len(z),), self.shape)

    def generated(self, z: Tensor) -> Tensor:
        """x, `(batch, *shape)`."""
        raw = full_precision(self.network(z).reshape(len(z), *self.shape))
        return raw if self.levels is None else (self.levels - 1) * raw.sigmoid()


class MLPGenerator(Generator):
    """A generator that is a multilayer perceptron, for images and tables."""

    def __init__(
        self,
        inputs: int,
        shape: Sequence[int],
        levels: int | None,
        hidden: Sequence[int] = (256, 256),
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__(MLP((inputs, *hidden, prod(shape)), activation), inputs, shape, levels)


class ConvGenerator(Generator):
    """Transposed convolutions that double the image each time (DCGAN; Radford et al., 2016, arXiv 1511.06434).

    `shape` is `(channel, height, width)` of any size: ⌈n / 2⌉ is taken back to n. `features` are the maps before a doubling;
    `normalise` makes the layer that follows so many maps, and `nn.Identity` leaves it out.
    """

    def __init__(
        self,
        inputs: int,
        shape: Sequence[int],
        levels: int | None,
        features: Sequence[int] = (128, 64),
        normalise: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        channels, *size = image_shape(shape)
        sizes = [(size[0], size[1])]
        for _ in features:
            sizes.append((halved(sizes[-1][0]), halved(sizes[-1][1])))
        sizes.reverse()
        first = (features[0], *sizes[0])
        layers: list[nn.Module] = [nn.Linear(inputs, prod(first)), nn.Unflatten(1, first)]
        for (before, after), small, large in zip(pairwise((*features, channels)), sizes, sizes[1:], strict=False):
            layers += [normalise(before), nn.ReLU(), _to(large, small, before, after)]
        super().__init__(nn.Sequential(*layers), inputs, shape, levels)


class NoiseEncoder(nn.Module):
    """An implicit q(z | x): a multilayer perceptron of x and of noise, so that q can have any shape.

    Mescheder et al. (2017, arXiv 1701.04722). `forward(x)` returns a distribution, batch `(batch,)`, event `(latent,)`.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        latent: int,
        noise: int = 16,
        hidden: Sequence[int] = (256, 256),
        activation: Callable[[], nn.Module] = nn.SiLU,
        standardise: Standardise | None = None,
    ) -> None:
        super().__init__()
        self.latent, self.noise = latent, noise
        self.standardise = standardise or Standardise.for_levels(levels)
        self.network = MLP((prod(shape) + noise, *hidden, latent), activation)

    def forward(self, x: Tensor) -> Implicit:
        """q(z | x) for x `(batch, *shape)`."""

        def draw() -> Tensor:
            flat = self.standardise(x).flatten(1)
            return full_precision(self.network(torch.cat((flat, flat.new_empty(len(x), self.noise).normal_()), 1)))

        return Implicit(draw, (len(x),), (self.latent,))


def _to(large: tuple[int, int], small: tuple[int, int], before: int, after: int) -> nn.ConvTranspose2d:
    # A kernel of 4 gives 2n, and one of 3 gives 2n - 1: every pixel then has as many neighbours as its kind.
    kernel = tuple(4 if to == 2 * of else 3 for to, of in zip(large, small, strict=True))
    return nn.ConvTranspose2d(before, after, (kernel[0], kernel[1]), stride=2, padding=1)
