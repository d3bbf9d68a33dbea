"""Autoregressive models of images: no latents, log p(x) exact."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from inference import Compiled, exact
from ppmodels.app.presets import LARGE, Preset
from ppmodels.app.recipe import Recipe, cosine
from ppmodels.app.recipes.levels import whole_levels
from ppmodels.app.settings import Count
from ppmodels.data import Dataset
from ppmodels.models import CharRNN, DiagonalBiLSTM, GatedPixelCNN, PixelCNN, RowLSTM


def charrnn(data: Dataset, hidden: Count = 128, layers: Count = 1, likelihood: str | None = None) -> nn.Module:
    """An LSTM over the pixels in raster order."""
    return _laid_out(CharRNN(data.shape, whole_levels(data), hidden, layers, likelihood=likelihood))


def row_lstm(data: Dataset, hidden: Count = 16, layers: Count = 7, likelihood: str | None = None) -> nn.Module:
    """The Row LSTM."""
    return _laid_out(RowLSTM(data.shape, whole_levels(data), hidden, layers, likelihood=likelihood))


def diagonal_bilstm(data: Dataset, hidden: Count = 16, layers: Count = 7, likelihood: str | None = None) -> nn.Module:
    """The Diagonal BiLSTM."""
    return _laid_out(DiagonalBiLSTM(data.shape, whole_levels(data), hidden, layers, likelihood=likelihood))


def pixelcnn(data: Dataset, features: Count = 32, layers: Count = 7, likelihood: str | None = None) -> nn.Module:
    """The PixelCNN."""
    return _laid_out(PixelCNN(data.shape, whole_levels(data), features, layers, likelihood=likelihood))


def gated_pixelcnn(
    data: Dataset, features: Count = 32, layers: Count = 5, kernel: Count = 3, likelihood: str | None = None
) -> nn.Module:
    """The gated PixelCNN."""
    return _laid_out(GatedPixelCNN(data.shape, whole_levels(data), features, layers, kernel, likelihood=likelihood))


def _laid_out(model: nn.Module) -> nn.Module:
    """The model in the memory layout in which its convolutions are quickest."""
    laid_out: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return laid_out


_SMALL = Recipe(
    program=charrnn,
    family="autoregressive models",
    summary="an LSTM over the pixels in raster order",
    steps=600,
    batch_size=64,
    learning_rate=4e-3,
    schedule=cosine,
    average=0.995,
    validate_every=200,
    estimators={"exact": exact()},
)
_LARGE: Mapping[str, object] = {
    "steps": 15_000,
    "batch_size": 16,
    "clip": 100.0,
    "average": 0.999,
    "validate_every": 3000,
}
_FEW_WIDE: Mapping[str, object] = {"hidden": 24, "layers": 2}
"""On large images seven layers of a recurrent network take hours on a processor; two, wider, see as much."""

RECIPES: dict[str, Recipe] = {
    "charrnn": replace(_SMALL, presets=(Preset(LARGE, _LARGE),)),
    "row-lstm": replace(
        _SMALL, program=row_lstm, summary="Row LSTM", presets=(Preset(LARGE, {**_LARGE, **_FEW_WIDE}),)
    ),
    "diagonal-bilstm": replace(
        _SMALL, program=diagonal_bilstm, summary="Diagonal BiLSTM", presets=(Preset(LARGE, {**_LARGE, **_FEW_WIDE}),)
    ),
    "pixelcnn": replace(
        _SMALL, program=pixelcnn, summary="PixelCNN", traced=Compiled, presets=(Preset(LARGE, _LARGE),)
    ),
    "gated-pixelcnn": replace(
        _SMALL, program=gated_pixelcnn, summary="gated PixelCNN", traced=Compiled, presets=(Preset(LARGE, _LARGE),)
    ),
}
