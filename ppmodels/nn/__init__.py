"""Networks that return distributions: encoders, decoders, generators, and the heads that name a likelihood. And critics."""

from ppmodels.nn.critics import (
    CodeCritic,
    ConvFeatures,
    Critic,
    JointCritic,
    MLPFeatures,
    ProjectionCritic,
    spectrally_normalised,
)
from ppmodels.nn.decoders import ConvDecoder, MLPDecoder
from ppmodels.nn.encoders import ConvEncoder, Encoder, MLPEncoder, Standardise
from ppmodels.nn.flows import FlowEncoder
from ppmodels.nn.generators import ConvGenerator, Generator, MLPGenerator, NoiseEncoder
from ppmodels.nn.heads import (
    HEADS,
    BernoulliHead,
    CategoricalHead,
    DiscretizedNormalHead,
    Head,
    LogisticMixtureHead,
    NormalHead,
    make_head,
)
from ppmodels.nn.mlp import MLP

__all__ = [
    "HEADS",
    "MLP",
    "BernoulliHead",
    "CategoricalHead",
    "CodeCritic",
    "ConvDecoder",
    "ConvEncoder",
    "ConvFeatures",
    "ConvGenerator",
    "Critic",
    "DiscretizedNormalHead",
    "Encoder",
    "FlowEncoder",
    "Generator",
    "Head",
    "JointCritic",
    "LogisticMixtureHead",
    "MLPDecoder",
    "MLPEncoder",
    "MLPFeatures",
    "MLPGenerator",
    "NoiseEncoder",
    "NormalHead",
    "ProjectionCritic",
    "Standardise",
    "make_head",
    "spectrally_normalised",
]
