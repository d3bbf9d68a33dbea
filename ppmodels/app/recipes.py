"""The built-in recipes."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from torch import nn

from inference import ImportanceWeighted
from ppmodels.app.recipe import Recipe, bounds
from ppmodels.data import Dataset
from ppmodels.models import VAE
from ppmodels.nn import ConvDecoder, ConvEncoder, FlowEncoder, MLPDecoder, MLPEncoder, Standardise, make_head


def vae(data: Dataset, latent: int = 10, likelihood: str | None = None) -> nn.Module:
    """A VAE of two multilayer perceptrons."""
    decoder = MLPDecoder(latent, data.shape, make_head(data.levels, likelihood))
    return VAE(data.shape, data.levels, latent, decoder=decoder)


def conv_vae(
    data: Dataset, latent: int = 10, likelihood: str | None = None, features: Sequence[int] = (32, 64)
) -> nn.Module:
    """A VAE of two convolutional networks."""
    return VAE(
        data.shape,
        data.levels,
        latent,
        encoder=ConvEncoder(data.shape, data.levels, latent, features),
        decoder=ConvDecoder(latent, data.shape, make_head(data.levels, likelihood), tuple(reversed(features))),
    )


def conditional_vae(data: Dataset) -> nn.Module:
    """A VAE of p(x | y), y the class."""
    if not data.classes:
        raise ValueError(f"{data.name} has no labels, and this recipe's program is conditional on them; use vae-digits")
    return VAE(data.shape, data.levels, 10, classes=data.classes)


def flow_vae(data: Dataset) -> nn.Module:
    """A VAE whose q(z | x) is a normalising flow."""
    return VAE(data.shape, data.levels, 10, encoder=FlowEncoder(data.shape, data.levels, 10, transforms=2))


def burda_vae(data: Dataset) -> nn.Module:
    """The network of Burda et al. (2016, arXiv 1509.00519): one stochastic layer of 50, two of 200 tanh units a side."""
    # Centred on the mean image: 784 inputs that are nearly all -1 drive the first tanh units to their ends.
    top = (data.grey_levels or data.levels or 2) - 1
    mean = data.train.values.float().cpu().mean(0) / top
    centred = Standardise(mean, mean.new_tensor(0.5))
    encoder = MLPEncoder(data.shape, data.levels, 50, standardise=centred, activation=nn.Tanh)
    decoder = MLPDecoder(50, data.shape, make_head(data.levels), activation=nn.Tanh)
    for layer in (*encoder.network, *decoder.network):
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)  # torch's own is half as wide, which costs tanh units many epochs
            nn.init.zeros_(layer.bias)
    return VAE(data.shape, data.levels, 50, encoder=encoder, decoder=decoder)


def cosine(fraction: float) -> float:
    """From 1 down to 0.05 along half a cosine (after Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * fraction))


_FIVE = partial(ImportanceWeighted, particles=5)

_DIGITS = Recipe(
    program=vae,
    summary="VAE of the 8×8 digits in their 17 levels",
    steps=2000,
    batch_size=64,
    schedule=cosine,
    average=0.99,
    validate_every=200,
)
_MNIST = Recipe(
    program=burda_vae,
    summary="the one-layer VAE of Burda et al. (2016) on MNIST, binarised afresh for every batch",
    data="mnist",
    binarisation="dynamic",
    steps=36_000,
    batch_size=200,
    learning_rate=2e-3,
    average=0.999,
    schedule=cosine,
    traced=True,
    validate_every=5000,
)
_CONV = Recipe(
    program=partial(conv_vae, latent=32),
    summary="convolutional VAE of Fashion-MNIST in 256 levels, a mixture of logistics",
    data="fashion-mnist",
    steps=20_000,
    batch_size=100,
    clip=200.0,
    average=0.999,
    schedule=cosine,
    validate_every=2000,
    estimators=bounds(64),
)

RECIPES: dict[str, Recipe] = {
    "vae-digits": _DIGITS,
    "vae-digits-binary": replace(_DIGITS, summary="VAE of the digits, binarised", binarisation="dynamic", steps=4000),
    "iwae-digits": replace(
        _DIGITS, summary="the program of vae-digits, fitted by five weighted draws", objective=_FIVE, steps=1500
    ),
    "vae-conv-digits": replace(_DIGITS, program=conv_vae, summary="VAE of the digits with convolutions"),
    "vae-logistic-digits": replace(
        _DIGITS,
        program=partial(vae, likelihood="logistic-mixture"),
        summary="VAE of the digits under a discretised mixture of logistics",
        clip=200.0,
    ),
    "vae-normal-digits": replace(
        _DIGITS,
        program=partial(vae, likelihood="discretized-normal"),
        summary="VAE of the digits under a discretised normal",
        clip=200.0,
    ),
    "cvae-digits": replace(
        _DIGITS, program=conditional_vae, summary="VAE of the digits given their class", labelled=True
    ),
    "flow-vae-digits": replace(
        _DIGITS, program=flow_vae, summary="VAE of the digits with a spline flow as its guide (needs zuko)", steps=1000
    ),
    "vae-mnist": _MNIST,
    "iwae-mnist": replace(_MNIST, summary="the program of vae-mnist, fitted by five weighted draws", objective=_FIVE),
    "vae-binarized-mnist": replace(
        _MNIST,
        summary="the network of vae-mnist on Larochelle's fixed binarisation, stopped early",
        data="binarized-mnist",
        binarisation="none",
        schedule=None,
        validate_every=1000,
        patience=5,
    ),
    "vae-omniglot": replace(_MNIST, summary="the network of vae-mnist on Omniglot", data="omniglot"),
    "vae-fashion": _CONV,
    "vae-cifar10": replace(
        _CONV,
        program=partial(conv_vae, latent=128, features=(32, 64, 128)),
        summary="convolutional VAE of CIFAR-10 in 256 levels, a mixture of logistics",
        data="cifar10",
    ),
}
"""By name."""
