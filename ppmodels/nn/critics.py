"""Critics: T(x), T(x, y), T(x, z) or T(z), one number for each example."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ppmodels.nn.encoders import Standardise, image_shape
from ppmodels.nn.mlp import MLP

Network = TypeVar("Network", bound=nn.Module)


def leaky() -> nn.Module:
    """The activation of DCGAN's critics."""
    return nn.LeakyReLU(0.2)


class MLPFeatures(nn.Module):
    """`width` features of an example by a multilayer perceptron, for images and tables."""

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        hidden: Sequence[int] = (256, 256),
        activation: Callable[[], nn.Module] = leaky,
    ) -> None:
        super().__init__()
        self.width = hidden[-1]
        self.standardise = Standardise.for_levels(levels)
        self.network = nn.Sequential(nn.Flatten(), MLP((prod(shape), *hidden), activation), activation())

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, width)` for x `(batch, *shape)`."""
        found: Tensor = self.network(self.standardise(x))
        return found


class ConvFeatures(nn.Module):
    """`width` features of an image by convolutions of stride 2 (DCGAN; Radford et al., 2016, arXiv 1511.06434).

    A dense layer of `width` units sees all positions at once: a critic that is linear in the convolutions is a sum over
    patches, and accepts strokes that make no digit. There is no batch normalisation: a critic would compare batches in
    place of examples, and its penalties would not be per example.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        features: Sequence[int] = (64, 128),
        width: int = 256,
        activation: Callable[[], nn.Module] = leaky,
    ) -> None:
        super().__init__()
        channels, *size = image_shape(shape)
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, *features)):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), activation()]
            size = [side // 2 for side in size]
        if not prod(size):
            raise ValueError(
                f"features: {len(features)} halvings leave nothing of an image of {tuple(shape)}; use fewer"
            )
        self.width = width
        self.standardise = Standardise.for_levels(levels)
        self.network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(features[-1] * prod(size), width), activation())

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, width)` for x `(batch, channel, height, width)`."""
        found: Tensor = self.network(self.standardise(x))
        return found


class Critic(nn.Module):
    """A critic T(x), linear in the features of x: `(batch,)`."""

    def __init__(self, features: MLPFeatures | ConvFeatures) -> None:
        super().__init__()
        self.features = features
        self.last = nn.Linear(features.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch,)`."""
        found: Tensor = self.last(self.features(x)).squeeze(1)
        return found


class ProjectionCritic(Critic):
    """A critic T(x, y) = T(x) + ⟨V y, features(x)⟩, y a class: `(batch,)` (Miyato & Koyama, 2018, arXiv 1802.05637)."""

    def __init__(self, features: MLPFeatures | ConvFeatures, classes: int) -> None:
        super().__init__(features)
        self.embedding = nn.Embedding(classes, features.width)
        nn.init.normal_(
            self.embedding.weight, std=0.01
        )  # at first the class counts little; not 0, which has no spectral norm

    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]  # inputs are given by the names in forward
        """`(batch,)`, for labels y `(batch,)`."""
        found = self.features(x)
        value: Tensor = self.last(found).squeeze(1) + (self.embedding(y) * found).sum(1)
        return value


class JointCritic(nn.Module):
    """A critic T(x, z), a multilayer perceptron of z and of the features of x: `(batch,)`."""

    def __init__(
        self,
        features: MLPFeatures | ConvFeatures,
        latent: int,
        hidden: Sequence[int] = (256, 256),
        activation: Callable[[], nn.Module] = leaky,
    ) -> None:
        super().__init__()
        self.features = features
        self.network = MLP((features.width + latent, *hidden, 1), activation)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch,)`, for z `(batch, latent)`."""
        found: Tensor = self.network(torch.cat((self.features(x), z), 1)).squeeze(1)
        return found


class CodeCritic(nn.Module):
    """A critic T(z) for an adversarial autoencoder: `(batch,)` (Makhzani et al., 2015, arXiv 1511.05644)."""

    def __init__(
        self, latent: int, hidden: Sequence[int] = (256, 256), activation: Callable[[], nn.Module] = leaky
    ) -> None:
        super().__init__()
        self.network = MLP((latent, *hidden, 1), activation)

    def forward(self, z: Tensor) -> Tensor:
        """`(batch,)`, for z `(batch, latent)`."""
        found: Tensor = self.network(z).squeeze(1)
        return found


def spectrally_normalised(network: Network) -> Network:
    """The network with every weight matrix divided by its largest singular value, so that T is Lipschitz by construction.

    Miyato et al. (2018, arXiv 1802.05957), by torch's own parametrisation; the network itself is changed and returned.
    """
    for layer in list(network.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.Embedding):
            spectral_norm(layer)
    return network
