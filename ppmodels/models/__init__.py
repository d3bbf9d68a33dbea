"""The models, one family a file, none of which knows how it is fitted."""

from ppmodels.models.air import AIR
from ppmodels.models.draw import DRAW
from ppmodels.models.flow import Flow
from ppmodels.models.gan import ALI, GAN, NoisyGenerator
from ppmodels.models.pixelcnn import GatedPixelCNN, PixelCNN
from ppmodels.models.pixelrnn import CharRNN, DiagonalBiLSTM, RowLSTM
from ppmodels.models.simulator import HierarchicalImplicitModel, LotkaVolterra, NormalPosterior, NormalPrior
from ppmodels.models.vae import AVB, VAE, AdversarialAutoencoder

__all__ = [
    "AIR",
    "ALI",
    "AVB",
    "DRAW",
    "GAN",
    "VAE",
    "AdversarialAutoencoder",
    "CharRNN",
    "DiagonalBiLSTM",
    "Flow",
    "GatedPixelCNN",
    "HierarchicalImplicitModel",
    "LotkaVolterra",
    "NoisyGenerator",
    "NormalPosterior",
    "NormalPrior",
    "PixelCNN",
    "RowLSTM",
]
