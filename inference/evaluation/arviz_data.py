"""Groups of named arrays as ArviZ's data: the one place that knows ArviZ's versions."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from inference.programs.program import ProgramError

SAMPLES = ("chain", "draw")
"""The axes in front of whatever was drawn; the chain is one."""


class Variable(NamedTuple):
    """An array and the names of its axes."""

    dims: tuple[str, ...]
    values: Tensor


class Group(NamedTuple):
    """Variables by name, and what is to be said of them."""

    variables: Mapping[str, Variable]
    attributes: Mapping[str, str | int | float] = {}


def drawn(dims: tuple[str, ...], values: Tensor) -> Variable:
    """A variable of `(draws, ...)`, as one chain."""
    return Variable((*SAMPLES, *dims), values.unsqueeze(0))


def arviz_data(
    groups: Mapping[str, Group], coords: Mapping[str, Sequence[Any]], attributes: Mapping[str, str | int | float]
) -> Any:
    """The groups that are not empty: an InferenceData of ArviZ 0.x, a DataTree for ArviZ 1.x.

    xarray's data sets are the same under both. `arviz.from_dict` is not: 0.23 takes the groups of 1.x's call for variables
    of the posterior, and says nothing.

    Raises:
        ProgramError: an axis has two lengths or the name of a variable, or the coordinates are not those of an axis.
    """
    filled = {name: group for name, group in groups.items() if group.variables}
    index = _index(_lengths(filled), coords)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ announces its next version
        import arviz  # two seconds, which no other command should wait for
        import xarray

        datasets: dict[str, Any] = {
            name: xarray.Dataset(
                {key: (each.dims, _array(each.values)) for key, each in group.variables.items()},
                coords={dim: index[dim] for each in group.variables.values() for dim in each.dims},
                attrs=dict(group.attributes),
            )
            for name, group in filled.items()
        }
        if int(arviz.__version__.split(".")[0]) < 1:
            return arviz.InferenceData(attrs=dict(attributes), **datasets)
        tree = xarray.DataTree.from_dict(datasets)
        tree.attrs = dict(attributes)
        return tree


def _array(values: Tensor) -> np.ndarray:
    values = values.detach().cpu()
    return np.asarray(values.float() if values.dtype in (torch.bfloat16, torch.float16) else values)


def _lengths(groups: Mapping[str, Group]) -> dict[str, int]:
    """The axes of all variables by name, with their lengths."""
    lengths: dict[str, int] = {}
    variables = [(name, each) for group in groups.values() for name, each in group.variables.items()]
    for name, each in variables:
        if len(set(each.dims)) < len(each.dims):
            raise ProgramError(
                f"{name!r} has the axes {list(each.dims)}, two of them by one name. Give each a name of its own: "
                f"dims={{{name!r}: […]}}."
            )
        for dim, length in zip(each.dims, each.values.shape, strict=True):
            if lengths.setdefault(dim, length) != length:
                raise ProgramError(
                    f"the axis {dim!r} of {name!r} has {length} places, and that of other variables {lengths[dim]}. Give it "
                    f"a name of its own: dims={{{name!r}: […]}}."
                )
    both = sorted(lengths.keys() & {name for name, _ in variables})
    if both:
        raise ProgramError(
            f"{both} are names of axes and of variables, which xarray would take for one thing. Name the axes otherwise: "
            "dims={'x': ['rows']}, or the plate."
        )
    return lengths


def _index(lengths: Mapping[str, int], coords: Mapping[str, Sequence[Any]]) -> dict[str, np.ndarray]:
    """What stands at the places of each axis: the user's coordinates, else numbers from 0."""
    free = sorted(lengths.keys() - {*SAMPLES})
    unknown = sorted(coords.keys() - {*free})
    if unknown:
        raise ProgramError(f"coords names {unknown}, which are no axes; those that can have coordinates: {free}.")
    index = {dim: np.arange(length) for dim, length in lengths.items()} | {
        dim: np.asarray(values) for dim, values in coords.items()
    }
    for dim in coords:
        if index[dim].shape != (lengths[dim],):
            raise ProgramError(
                f"coords[{dim!r}] is of shape {index[dim].shape}, and the axis has {lengths[dim]} places. Give one value "
                "for each of them."
            )
    return index
