"""The built-in recipes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from inference import Compiled, Estimator, ImportanceWeighted, Traced, exact
from ppmodels.app.games import GAMES
from ppmodels.app.recipe import Recipe, bounds, cosine
from ppmodels.data import Dataset
from ppmodels.models import VAE, CharRNN, DiagonalBiLSTM, GatedPixelCNN, PixelCNN, RowLSTM
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


def pixels(data: Dataset, model: Callable[[Sequence[int], int], nn.Module]) -> nn.Module:
    """A model of pixels, its convolutions in the memory layout in which they are quickest."""
    made: nn.Module = model(data.shape, _levels(data)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made


def pixel_vae(data: Dataset, latent: int = 10) -> nn.Module:
    """A VAE whose decoder is a gated PixelCNN (Gulrajani et al., 2017, arXiv 1611.05013)."""
    decoder = GatedPixelCNN(data.shape, _levels(data), layers=2, context=latent)
    return VAE(data.shape, data.levels, latent, decoder=decoder)


def _levels(data: Dataset) -> int:
    if data.levels is None:
        raise ValueError(f"{data.name} are real numbers, and a model of pixels is one of whole levels; use a VAE")
    return data.levels


_EXACT: dict[str, Estimator] = {"exact": exact()}
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
    traced=Traced,
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

_LARGE = Recipe(
    program=partial(pixels, model=GatedPixelCNN),
    data="binarized-mnist",
    steps=15_000,
    batch_size=16,
    learning_rate=4e-3,
    clip=100.0,
    average=0.999,
    schedule=cosine,
    validate_every=3000,
    estimators=_EXACT,
)


def _pixel_recipes() -> dict[str, Recipe]:
    """Every model of pixels on every set."""
    models: dict[str, tuple[str, Callable[..., nn.Module], Callable[[], Traced] | None]] = {
        "charrnn": ("an LSTM along the pixels", CharRNN, None),
        "row-lstm": ("Row LSTM", RowLSTM, None),
        "diagonal-bilstm": ("Diagonal BiLSTM", DiagonalBiLSTM, None),
        "pixelcnn": ("PixelCNN", PixelCNN, Compiled),
        "gated-pixelcnn": ("gated PixelCNN", GatedPixelCNN, Compiled),
    }
    # On larger images seven layers of a recurrent network take hours on a processor; two, wider, see as much.
    larger: dict[str, Callable[..., nn.Module]] = {
        "row-lstm": partial(RowLSTM, hidden=24, layers=2),
        "diagonal-bilstm": partial(DiagonalBiLSTM, hidden=24, layers=2),
    }
    small = replace(_DIGITS, steps=600, learning_rate=4e-3, average=0.995, estimators=_EXACT)
    sets = {
        "digits": replace(small, summary="of the 8×8 digits in their 17 levels"),
        "digits-binary": replace(small, summary="of the digits, binarised", binarisation="dynamic"),
        "binarized-mnist": replace(_LARGE, summary="of Larochelle's binarized MNIST"),
        "fashion": replace(_LARGE, summary="of Fashion-MNIST in 256 levels", data="fashion-mnist"),
        "cifar10": replace(_LARGE, summary="of CIFAR-10 in 256 levels, 10,000 training images", data="cifar10"),
    }
    return {
        f"{name}-{where}": replace(
            recipe,
            program=partial(pixels, model=model if where.startswith("digits") else larger.get(name, model)),
            summary=f"{what} {recipe.summary}",
            traced=traced,
        )
        for name, (what, model, traced) in models.items()
        for where, recipe in sets.items()
    }


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
    "pixelvae-digits": replace(
        _DIGITS, program=pixel_vae, summary="VAE of the digits whose decoder is a gated PixelCNN", traced=Traced
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
    **_pixel_recipes(),
    **GAMES,
}
"""By name."""
