"""Variational autoencoders: one latent vector z, and an encoder."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Literal

from torch import nn

from inference import ImportanceWeighted, Traced
from ppmodels.app.presets import LARGE, LARGE_BINARY, LARGE_COLOUR, LARGE_FIXED, SMALL_BINARY, Preset
from ppmodels.app.recipe import Recipe, bounds, cosine
from ppmodels.app.recipes.levels import whole_levels
from ppmodels.app.settings import Count
from ppmodels.data import Dataset
from ppmodels.models import VAE, GatedPixelCNN
from ppmodels.nn import ConvDecoder, ConvEncoder, FlowEncoder, MLPDecoder, MLPEncoder, Standardise, make_head


def vae(
    data: Dataset,
    latent: Count = 10,
    hidden: Sequence[Count] = (200, 200),
    activation: Literal["relu", "tanh"] = "relu",
    centred: bool = False,
    likelihood: str | None = None,
) -> nn.Module:
    """A VAE of two multilayer perceptrons; where `centred`, the encoder is given x less the mean image."""
    unit = {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]
    decoder = MLPDecoder(latent, data.shape, make_head(data.levels, likelihood), hidden, unit)
    standardise, context = _centred(data) if centred else None, _mask(data)
    encoder = MLPEncoder(data.shape, data.levels, latent, hidden, context, standardise, unit)
    if activation == "tanh":
        for layer in (*encoder.network, *decoder.network):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)  # torch's own is half as wide, which costs tanh units many epochs
                nn.init.zeros_(layer.bias)
    return VAE(data.shape, data.levels, latent, encoder, decoder, masks=data.masked)


def conv_vae(
    data: Dataset, latent: Count = 10, features: Sequence[Count] = (32, 64), likelihood: str | None = None
) -> nn.Module:
    """A VAE of two convolutional networks."""
    encoder = ConvEncoder(data.shape, data.levels, latent, features)
    decoder = ConvDecoder(latent, data.shape, make_head(data.levels, likelihood), tuple(reversed(features)))
    return VAE(data.shape, data.levels, latent, encoder, decoder)


def conditional_vae(
    data: Dataset, latent: Count = 10, hidden: Sequence[Count] = (200, 200), likelihood: str | None = None
) -> nn.Module:
    """A VAE of p(x | y), y the class."""
    encoder = MLPEncoder(data.shape, data.levels, latent, hidden, context=data.classes + _mask(data))
    decoder = MLPDecoder(latent + data.classes, data.shape, make_head(data.levels, likelihood), hidden)
    return VAE(data.shape, data.levels, latent, encoder, decoder, data.classes, masks=data.masked)


def flow_vae(data: Dataset, latent: Count = 10, transforms: Count = 2) -> nn.Module:
    """A VAE whose q(z | x) is a normalising flow."""
    encoder = FlowEncoder(data.shape, data.levels, latent, transforms=transforms, context=_mask(data))
    return VAE(data.shape, data.levels, latent, encoder, masks=data.masked)


def pixel_vae(data: Dataset, latent: Count = 10, features: Count = 32, layers: Count = 2) -> nn.Module:
    """A VAE whose decoder is a gated PixelCNN (Gulrajani et al., 2017, arXiv 1611.05013)."""
    decoder = GatedPixelCNN(data.shape, whole_levels(data), features, layers, context=latent)
    return VAE(data.shape, data.levels, latent, decoder=decoder)


def _mask(data: Dataset) -> int:
    """How many numbers tell an encoder which cells of an example are observed; none where none is missing."""
    return prod(data.shape) if data.masked else 0


def _centred(data: Dataset) -> Standardise:
    """Subtracts the mean image: pixels that are nearly always off would saturate the first tanh units."""
    values = data.train.values.float().cpu()
    if data.levels is None:
        return Standardise(values.mean(0), values.std(0).clamp_min(1e-6))
    top, stored = data.levels - 1, (data.grey_levels or data.levels) - 1
    mean = values.mean(0) / stored * top
    return Standardise(mean, mean.new_tensor(top / 2))


_VAE = Recipe(
    program=vae,
    family="variational autoencoders",
    summary="MLPs; on large binary images the network of Burda et al.",
    steps=2000,
    batch_size=64,
    schedule=cosine,
    average=0.99,
    validate_every=200,
)
_TRAINED_LONG: Mapping[str, object] = {
    "steps": 20_000,
    "batch_size": 100,
    "clip": 200.0,
    "average": 0.999,
    "validate_every": 2000,
    "estimators": bounds(64),
}
"""For large images."""
_BURDA: Mapping[str, object] = {
    "latent": 50,
    "activation": "tanh",
    "centred": True,
    "steps": 36_000,
    "batch_size": 200,
    "learning_rate": 2e-3,
    "clip": None,
    "average": 0.999,
    "traced": Traced,
    "validate_every": 5000,
    "estimators": bounds(),
}
"""The network of Burda et al. (2016, arXiv 1509.00519): 50 latents, two layers of 200 tanh units in encoder and decoder."""
_STOPPED_EARLY: Mapping[str, object] = {"schedule": None, "validate_every": 1000, "patience": 5}
"""With a fixed binarisation a model overfits sooner."""
_LARGE = Preset(LARGE, _TRAINED_LONG)
_MLP_PRESETS = (
    Preset(SMALL_BINARY, {"steps": 4000}),
    Preset(LARGE, {**_TRAINED_LONG, "latent": 50}),
    Preset(LARGE_BINARY, _BURDA),
    Preset(LARGE_FIXED, _STOPPED_EARLY),
)

RECIPES: dict[str, Recipe] = {
    "vae": replace(_VAE, presets=_MLP_PRESETS),
    "iwae": replace(
        _VAE,
        summary="the VAE, fitted by the importance-weighted bound",
        objective=partial(ImportanceWeighted, particles=5),
        steps=1500,
        presets=_MLP_PRESETS,
    ),
    "conv-vae": replace(
        _VAE,
        program=conv_vae,
        summary="convolutional encoder and decoder",
        presets=(
            Preset(LARGE, {**_TRAINED_LONG, "latent": 32}),
            Preset(LARGE_COLOUR, {"latent": 128, "features": (32, 64, 128)}),
        ),
    ),
    "conditional-vae": replace(
        _VAE,
        program=conditional_vae,
        summary="p(x | y), y the class",
        labelled=True,
        presets=(Preset(LARGE, {**_TRAINED_LONG, "latent": 50}),),
    ),
    "flow-vae": replace(
        _VAE,
        program=flow_vae,
        summary="a spline flow as q(z | x) (needs zuko)",
        steps=1000,
        presets=(Preset(LARGE, {**_TRAINED_LONG, "latent": 50}),),
    ),
    "pixelvae": replace(
        _VAE,
        program=pixel_vae,
        summary="a gated PixelCNN as the decoder",
        traced=Traced,
        presets=(Preset(LARGE, {**_TRAINED_LONG, "batch_size": 16, "clip": 100.0}),),
    ),
}
