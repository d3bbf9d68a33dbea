"""Distributions over whole levels 0..levels-1, held as float tensors: likelihoods of images with so many levels."""

from ppmodels.distributions.autoregressive import Autoregressive
from ppmodels.distributions.categorical import CategoricalLevels
from ppmodels.distributions.implicit import Implicit
from ppmodels.distributions.levels import LevelsDistribution
from ppmodels.distributions.logistic_mixture import DiscretizedLogisticMixture
from ppmodels.distributions.normal import DiscretizedNormal

__all__ = [
    "Autoregressive",
    "CategoricalLevels",
    "DiscretizedLogisticMixture",
    "DiscretizedNormal",
    "Implicit",
    "LevelsDistribution",
]
