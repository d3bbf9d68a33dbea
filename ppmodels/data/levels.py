"""Whole levels: what values of pictures and arrays are, and how many levels these have."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppmodels.data.reading import LEVELS

Array = NDArray[Any]

_FEW = 32
"""Up to so many levels are found from the values; more are taken for all of a byte."""
_BLOCK = 1 << 20
"""Values looked at together: what bounds the memory of a copy in another type."""


class OtherLevels(ValueError):
    """Values that are not of the levels that were asked for."""


def as_bytes(values: Array, where: str, levels: int | None = None) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Values as uint8, and a remark on what was done to them: no value is clipped.

    Whole numbers 0..255 stay, 16 bits are divided by 257, and floats are multiples of 1/255 in 0..1; where `levels` are
    named, whole floats are levels. Raises ValueError for other values, and OtherLevels for those beyond the named levels.
    """
    if values.dtype in (np.bool_, np.uint8):
        return values.astype(np.uint8, copy=False), ()
    if values.dtype.kind == "f" and not all(bool(np.isfinite(block).all()) for block in _blocks(values)):
        raise ValueError(f"{where}: expected finite numbers, got NaN or infinity among levels")
    low, high = values.min(), values.max()
    if low >= 0 and (values.dtype.kind in "ui" or levels is not None):
        if high < LEVELS and (converted := _converted(values, 1.0)) is not None:
            return converted, ()
        if high >= LEVELS and levels is not None:
            raise OtherLevels(f"{where}: expected {levels} levels, whole numbers 0..{levels - 1}, got {low}..{high}")
        if values.dtype.kind == "u" and values.dtype.itemsize == 2:
            scaled = np.empty(values.shape, np.uint8)
            for found, block in zip(_blocks(scaled), _blocks(values), strict=True):
                found[:] = (block.astype(np.uint32) + 128) // 257
            return scaled, (f"its 16 bits, {low}..{high}, are divided by 257, into 256 levels",)
    if values.dtype.kind == "f" and low >= 0 and high <= 1 and (converted := _converted(values, 255.0)) is not None:
        return converted, ()
    raise (ValueError if levels is None else OtherLevels)(
        f"{where}: expected levels: uint8, uint16, bool, whole numbers 0..255, or floats that are multiples of 1/255 in "
        f"0..1, got {values.dtype} in {low}..{high}; scale and round yourself and save as uint8, or name how many levels "
        "whole floats have: --levels"
    )


def _converted(values: Array, factor: float) -> NDArray[np.uint8] | None:
    """Values times a factor as uint8, if they are whole then."""
    converted = np.empty(values.shape, np.uint8)
    for found, block in zip(_blocks(converted), _blocks(values), strict=True):
        scaled = block * factor
        whole = np.rint(scaled)
        if np.abs(scaled - whole).max() >= 1e-3:
            return None
        found[:] = whole
    return converted


def _blocks(values: Array) -> list[Array]:
    """Views of so many examples at a time."""
    rows = max(1, _BLOCK * len(values) // max(1, values.size))
    return [values[start : start + rows] for start in range(0, len(values), rows)]


def levelled(values: Tensor, train: Tensor, levels: int | None, where: str) -> tuple[Tensor, int, tuple[str, ...]]:
    """Values 0..levels-1, the number of levels, and a remark where it was found from few values.

    Args:
        values: uint8, of all examples: levels, or grey values of a byte such as 0 and 255.
        train: the places of the training examples, from whose values levels are found.
        levels: how many there are, where that is known.
        where: the source, in errors.

    Raises:
        OtherLevels: values beyond the levels, naming the first.
    """
    present = _present(values)
    if levels is not None:
        return _on_levels(values, present, levels, where), levels, ()
    seen = _present(values[train])
    found = _number_of(seen)
    shown = ", ".join(map(str, seen)) if len(seen) <= 4 else f"{seen[0]}, {seen[1]}, …, {seen[-1]}"
    try:
        if seen[-1] <= 1 or found == LEVELS:
            return _on_levels(values, present, found, where), found, ()
        remark = f"its training values {shown} are read as {found} levels; --levels {LEVELS} reads them as {LEVELS}"
        return _on_levels(values, present, found, where), found, (remark,)
    except OtherLevels:
        remark = (
            f"its training values are {shown}, and other splits have values to {present[-1]}: read as {LEVELS} levels"
        )
        return values, LEVELS, (remark,)


def _on_levels(values: Tensor, present: list[int], levels: int, where: str) -> Tensor:
    """Values, or grey values of a byte that are so many levels, as levels."""
    if present[-1] < levels:
        return values
    step, left = divmod(LEVELS - 1, levels - 1)
    if not left and all(value % step == 0 for value in present):
        return values // step
    beyond = values >= levels
    first = int(beyond.flatten(1).any(1).int().argmax())
    raise OtherLevels(
        f"{where}: expected {levels} levels, whole numbers 0..{levels - 1}, and example {first} (from 0) has "
        f"{int(values[first][beyond[first]][0])}; name as many as there are, such as --levels {present[-1] + 1}"
    )


def _present(values: Tensor) -> list[int]:
    """The different values, in order."""
    seen = torch.zeros(LEVELS, dtype=torch.bool)
    for block in values.flatten().split(_BLOCK):
        seen[block.long()] = True
    return [int(value) for value in seen.nonzero().flatten()]


def _number_of(seen: list[int]) -> int:
    """How many levels values have: a byte's, unless they are few and equally far apart over its whole range, or small."""
    if seen[-1] < _FEW:
        return max(2, seen[-1] + 1)
    step = math.gcd(*seen)
    few = (LEVELS - 1) // step + 1
    return few if seen[-1] == LEVELS - 1 and (LEVELS - 1) % step == 0 and few <= _FEW else LEVELS
