"""The models, one file each, none of which knows how it is fitted."""

from ppmodels.models.pixelcnn import GatedPixelCNN, PixelCNN
from ppmodels.models.pixelrnn import CharRNN, DiagonalBiLSTM, RowLSTM
from ppmodels.models.vae import VAE

__all__ = ["VAE", "CharRNN", "DiagonalBiLSTM", "GatedPixelCNN", "PixelCNN", "RowLSTM"]
