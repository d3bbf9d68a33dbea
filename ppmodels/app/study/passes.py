"""How many passes of a network wait for one another in a computation: read off what is done with its parameters."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Depth = Mapping[int, int]
"""For each parameter, how many operations with it lie one after another on the way to a value."""


def sequential_passes(module: nn.Module, compute: Callable[[], object]) -> int:
    """The longest chain of operations with one and the same parameter while `compute` runs; 0 where there is none.

    Layers one after another are one pass; the same layer, given what came of it before, is the next. So a decoder counts 1,
    an unrolled network one for each step, and a sampler one for each value that waits for the one before; two runs that do
    not wait for each other count once. What is made of parameters alone, such as masked weights, stands for them.
    """
    with _Chains(module) as found:
        compute()
    return found.longest


class _Chains(TorchDispatchMode):
    """Follows values from operation to operation, by their storage: a view of a value is that value."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.longest = 0
        # Buffers, as masks, stand for no parameter, and are no data.
        self.made_of: dict[int, frozenset[int]] = {_storage(each): frozenset() for each in module.buffers()}
        self.made_of |= {_storage(each): frozenset({place}) for place, each in enumerate(module.parameters())}
        self.kept: list[Tensor] = []
        """What was made of parameters, so that no data come to lie in its place."""
        self.depth: dict[int, Depth] = {}
        """Of data."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [_storage(each) for each in _tensors((args, kwargs)) if each.dim() or _storage(each) in self.made_of]
        parameters = [self.made_of[each] for each in given if each in self.made_of]
        found = func(*args, **(kwargs or {}))
        if _is_view(func):
            return found
        fresh = _is_of_shapes(func)
        of_parameters = frozenset[int]() if fresh else frozenset[int]().union(*parameters)
        if parameters and len(parameters) == len(given) and not fresh and not _is_random(func):
            for each in _tensors(found):
                self.made_of[_storage(each)] = of_parameters
                self.kept.append(each)
            return found
        depth = {} if fresh else self._after(given, of_parameters)
        for each in _tensors(found):
            self.made_of.pop(_storage(each), None)  # data were written into it
            self.depth[_storage(each)] = depth
        return found

    def _after(self, given: list[int], parameters: frozenset[int]) -> Depth:
        """The depth of what is made of these data and parameters."""
        depths = [self.depth[each] for each in given if self.depth.get(each)]
        if not parameters and len(depths) <= 1:
            return depths[0] if depths else {}
        merged: dict[int, int] = {}
        for each in depths:
            for place, count in each.items():
                merged[place] = max(count, merged.get(place, 0))
        for place in parameters:
            merged[place] = merged.get(place, 0) + 1
            self.longest = max(self.longest, merged[place])
        return merged


def _tensors(values: Any) -> Iterable[Tensor]:
    return (each for each in tree_leaves(values) if isinstance(each, Tensor))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    view = bool(returns) and all(each.alias_info is not None and not each.alias_info.is_write for each in returns)
    return view and not func._schema.name.endswith("::lift_fresh")


def _is_of_shapes(func: Any) -> bool:
    """Whether the values of the result depend on no argument."""
    name = func._schema.name.split("::")[-1]
    return name.startswith(("new_", "lift_fresh")) or (name.endswith("_like") and not _is_random(func))


def _is_random(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags
