"""The caches of transforms, which go stale when weights change."""

from collections.abc import Iterable, Iterator
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import nn
from torch.distributions import Transform
from torch.distributions.transforms import _InverseTransform

from inference.programs.sites import has_rsample, layers


class FreshTransforms(Messenger):
    """Empties the cache of every transform once per run, when the run first meets it; draws of this run stay cached."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self.emptied: set[int] = set()
        for module in modules:
            if isinstance(module, Transform):
                self._empty(module)

    def _pyro_sample(self, message: Any) -> None:
        for transform in _transforms(message["fn"]):
            self._empty(transform)

    def _pyro_post_sample(self, message: Any) -> None:
        if not has_rsample(message["fn"]):  # its score is by the weights on the way back from the value
            empty_caches(message["fn"])

    def _empty(self, transform: Transform) -> None:
        if id(transform) not in self.emptied:
            self.emptied.add(id(transform))
            _empty(transform)


def empty_caches(distribution: object) -> None:
    """Empties the caches of a distribution's transforms, so that inverses are computed by the weights as they are now."""
    for transform in _transforms(distribution):
        _empty(transform)


def _transforms(distribution: object) -> Iterator[Transform]:
    for layer in layers(distribution):
        yield from getattr(layer, "transforms", ())


def _empty(transform: Transform) -> None:
    transform._cached_x_y = None, None
    for part in _parts(transform):
        _empty(part)


def _parts(transform: Any) -> list[Any]:
    """The transforms that a transform is composed of."""
    if isinstance(transform, _InverseTransform):
        return [transform._inv]
    inner = [transform.base_transform] if hasattr(transform, "base_transform") else []
    return [*inner, *getattr(transform, "parts", ()), *getattr(transform, "transforms", ())]
