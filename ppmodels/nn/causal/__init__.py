"""Networks over pixels that never look ahead, in two forms: one pass over an image, and a walk from pixel to pixel."""

from ppmodels.nn.causal.convolution import Mask, MaskedConv
from ppmodels.nn.causal.gated import GatedLayers
from ppmodels.nn.causal.lattice import DiagonalBiLSTMLayer, RowLSTMLayer
from ppmodels.nn.causal.layer import Causal, Chain, Rectify, Residual, Start, Walk
from ppmodels.nn.causal.model import PixelModel, read_out
from ppmodels.nn.causal.raster import RasterLSTM, WrappedConv

__all__ = [
    "Causal",
    "Chain",
    "DiagonalBiLSTMLayer",
    "GatedLayers",
    "Mask",
    "MaskedConv",
    "PixelModel",
    "RasterLSTM",
    "Rectify",
    "Residual",
    "RowLSTMLayer",
    "Start",
    "Walk",
    "WrappedConv",
    "read_out",
]
