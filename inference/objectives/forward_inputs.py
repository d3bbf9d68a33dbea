"""What a network asks for: the names of its forward's arguments."""

import inspect
from collections.abc import Collection

from torch import nn


def asked_of(network: nn.Module, known: Collection[str]) -> tuple[str, ...]:
    """The names of a `forward`'s arguments, without optional ones that are unknown."""
    written = getattr(network, "_orig_mod", network)  # behind torch.compile
    parameters = inspect.signature(written.forward).parameters.items()
    named = [(name, each) for name, each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return tuple(name for name, each in named if each.default is each.empty or name in known)
