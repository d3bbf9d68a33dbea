"""Presets: the settings that a recipe has for a kind of data."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ppmodels.data import Dataset


class Kind(NamedTuple):
    """A kind of data: its name, and the test for it."""

    name: str
    holds: Callable[[Dataset], bool]


class Preset(NamedTuple):
    """Values of a recipe's fields and settings, by name, for data of a kind."""

    kind: Kind
    values: Mapping[str, object]


def _is_large(data: Dataset) -> bool:
    return len(data.shape) == 3 and max(data.shape[1:]) > 16


def _is_colour(data: Dataset) -> bool:
    return len(data.shape) == 3 and data.shape[0] > 1


def _is_binary(data: Dataset) -> bool:
    return data.levels == 2


TABLE = Kind("tables", lambda data: data.levels is None)
PLANE = Kind("tables of one or two columns", lambda data: data.levels is None and data.shape[0] <= 2)
SMALL_BINARY = Kind("binary images, up to 16 pixels a side", lambda data: _is_binary(data) and not _is_large(data))
SMALL_COLOUR = Kind("colour images, up to 16 pixels a side", lambda data: _is_colour(data) and not _is_large(data))
LARGE = Kind("images above 16 pixels a side", _is_large)
LARGE_BINARY = Kind("binary images above 16 pixels", lambda data: _is_binary(data) and _is_large(data))
LARGE_FIXED = Kind(
    "those with a fixed binarisation",
    lambda data: _is_binary(data) and _is_large(data) and data.binarisation != "dynamic",
)
LARGE_COLOUR = Kind("colour images above 16 pixels", lambda data: _is_colour(data) and _is_large(data))
CANVAS = Kind("images above 40 pixels a side", lambda data: len(data.shape) == 3 and min(data.shape[1:]) > 40)
