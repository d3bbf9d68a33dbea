"""The entries of a batch: tensors, None, and dicts of these, and what is done to all of its tensors at once."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Examples = tuple[Any, ...]
"""A batch as programs are called with it: tensors with one first axis, the examples; None; and dicts of entries by name."""


def leaves(batch: Examples) -> tuple[Tensor, ...]:
    """The tensors of a batch, in its order."""
    if all(isinstance(entry, Tensor) for entry in batch):
        return batch
    return tuple(named(batch).values())


def named(batch: Examples) -> dict[str, Tensor]:
    """The tensors of a batch by their place, such as `batch[1]['y']`."""
    return {name: tensor for place, entry in enumerate(batch) for name, tensor in _within(f"batch[{place}]", entry)}


def rows_of(batch: Examples) -> int:
    """The number of examples in a batch."""
    return len(leaves(batch)[0])


def mapped(function: Callable[[Tensor], Tensor], batch: Examples) -> Examples:
    """The batch with a function of each tensor in its place."""
    return tuple(_mapped(function, entry) for entry in batch)


def refilled(batch: Examples, tensors: Sequence[Tensor]) -> Examples:
    """The batch with other tensors, in the order of `leaves`."""
    others = iter(tensors)
    return mapped(lambda _: next(others), batch)


def layout(batch: Examples, of: Callable[[Tensor], Hashable]) -> Hashable:
    """What a function gives of each tensor, in the places of the batch, to tell batches of different kinds apart."""
    return tuple(_layout(of, entry) for entry in batch)


def joined(batches: Sequence[Examples]) -> Examples:
    """Batches with the same entries as one, their examples one after the other."""
    return refilled(batches[0], [torch.cat(column) for column in zip(*map(leaves, batches), strict=True)])


def _within(name: str, entry: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(entry, Tensor):
        yield name, entry
    elif isinstance(entry, dict):
        for key, value in entry.items():
            yield from _within(f"{name}[{key!r}]", value)


def _mapped(function: Callable[[Tensor], Tensor], entry: Any) -> Any:
    if isinstance(entry, Tensor):
        return function(entry)
    return {key: _mapped(function, value) for key, value in entry.items()} if isinstance(entry, dict) else entry


def _layout(of: Callable[[Tensor], Hashable], entry: Any) -> Hashable:
    if isinstance(entry, Tensor):
        return of(entry)
    return tuple((key, _layout(of, value)) for key, value in entry.items()) if isinstance(entry, dict) else None
