"""Deep generative models as probabilistic programs: each model a Pyro `model` and `guide`.

The names below are imported on first use, so that `import ppmodels` (and the command line's help) needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppmodels.data import Dataset, load
    from ppmodels.distributions import (
        Autoregressive,
        CategoricalLevels,
        DiscretizedLogisticMixture,
        DiscretizedNormal,
        Implicit,
    )
    from ppmodels.models import (
        AIR,
        ALI,
        AVB,
        DRAW,
        GAN,
        VAE,
        AdversarialAutoencoder,
        CharRNN,
        DiagonalBiLSTM,
        Flow,
        GatedPixelCNN,
        HierarchicalImplicitModel,
        LotkaVolterra,
        NoisyGenerator,
        NormalPosterior,
        NormalPrior,
        PixelCNN,
        RowLSTM,
    )
    from ppmodels.nn import (
        CodeCritic,
        ConvDecoder,
        ConvEncoder,
        ConvFeatures,
        ConvGenerator,
        Critic,
        FlowEncoder,
        Generator,
        JointCritic,
        MLPDecoder,
        MLPEncoder,
        MLPFeatures,
        MLPGenerator,
        NoiseEncoder,
        ProjectionCritic,
        make_head,
        spectrally_normalised,
    )

__all__ = [
    "AIR",
    "ALI",
    "AVB",
    "DRAW",
    "GAN",
    "VAE",
    "AdversarialAutoencoder",
    "Autoregressive",
    "CategoricalLevels",
    "CharRNN",
    "CodeCritic",
    "ConvDecoder",
    "ConvEncoder",
    "ConvFeatures",
    "ConvGenerator",
    "Critic",
    "Dataset",
    "DiagonalBiLSTM",
    "DiscretizedLogisticMixture",
    "DiscretizedNormal",
    "Flow",
    "FlowEncoder",
    "GatedPixelCNN",
    "Generator",
    "HierarchicalImplicitModel",
    "Implicit",
    "JointCritic",
    "LotkaVolterra",
    "MLPDecoder",
    "MLPEncoder",
    "MLPFeatures",
    "MLPGenerator",
    "NoiseEncoder",
    "NoisyGenerator",
    "NormalPosterior",
    "NormalPrior",
    "PixelCNN",
    "ProjectionCritic",
    "RowLSTM",
    "load",
    "make_head",
    "spectrally_normalised",
]

_HOMES = {
    "ppmodels.data": ("Dataset", "load"),
    "ppmodels.distributions": (
        "Autoregressive",
        "CategoricalLevels",
        "DiscretizedLogisticMixture",
        "DiscretizedNormal",
        "Implicit",
    ),
    "ppmodels.models": (
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
    ),
    "ppmodels.nn": (
        "CodeCritic",
        "ConvDecoder",
        "ConvEncoder",
        "ConvFeatures",
        "ConvGenerator",
        "Critic",
        "FlowEncoder",
        "Generator",
        "JointCritic",
        "MLPDecoder",
        "MLPEncoder",
        "MLPFeatures",
        "MLPGenerator",
        "NoiseEncoder",
        "ProjectionCritic",
        "make_head",
        "spectrally_normalised",
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ppmodels' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
