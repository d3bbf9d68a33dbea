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
    from ppmodels.models import VAE, CharRNN, DiagonalBiLSTM, GatedPixelCNN, PixelCNN, RowLSTM
    from ppmodels.nn import ConvDecoder, ConvEncoder, FlowEncoder, MLPDecoder, MLPEncoder, make_head

__all__ = [
    "VAE",
    "Autoregressive",
    "CategoricalLevels",
    "CharRNN",
    "ConvDecoder",
    "ConvEncoder",
    "Dataset",
    "DiagonalBiLSTM",
    "DiscretizedLogisticMixture",
    "DiscretizedNormal",
    "FlowEncoder",
    "GatedPixelCNN",
    "Implicit",
    "MLPDecoder",
    "MLPEncoder",
    "PixelCNN",
    "RowLSTM",
    "load",
    "make_head",
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
    "ppmodels.models": ("VAE", "CharRNN", "DiagonalBiLSTM", "GatedPixelCNN", "PixelCNN", "RowLSTM"),
    "ppmodels.nn": ("ConvDecoder", "ConvEncoder", "FlowEncoder", "MLPDecoder", "MLPEncoder", "make_head"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ppmodels' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
