"""Causal networks over pixels in two forms: one pass over an image, and incremental sampling, pixel by pixel."""

from ppmodels.nn.causal.convolution import Mask, MaskedConv
from ppmodels.nn.causal.gated import GatedLayers
from ppmodels.nn.causal.image_lstm import DiagonalBiLSTMLayer, RowLSTMLayer
from ppmodels.nn.causal.layer import Causal, Incremental, ReLU, Residual, SamplingInputs, Sequential
from ppmodels.nn.causal.model import AutoregressiveModel, read_out
from ppmodels.nn.causal.raster import RasterLSTM, WrappedConv

__all__ = [
    "AutoregressiveModel",
    "Causal",
    "DiagonalBiLSTMLayer",
    "GatedLayers",
    "Incremental",
    "Mask",
    "MaskedConv",
    "RasterLSTM",
    "ReLU",
    "Residual",
    "RowLSTMLayer",
    "SamplingInputs",
    "Sequential",
    "WrappedConv",
    "read_out",
]
