"""Networks that return distributions: encoders q(z | x), decoders p(x | z), and the heads that name a likelihood."""

from ppmodels.nn.decoders import ConvDecoder, MLPDecoder
from ppmodels.nn.encoders import ConvEncoder, Encoder, MLPEncoder, Standardise
from ppmodels.nn.flows import FlowEncoder
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
    "ConvDecoder",
    "ConvEncoder",
    "DiscretizedNormalHead",
    "Encoder",
    "FlowEncoder",
    "Head",
    "LogisticMixtureHead",
    "MLPDecoder",
    "MLPEncoder",
    "NormalHead",
    "Standardise",
    "make_head",
]
