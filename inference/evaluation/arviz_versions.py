"""What differs between ArviZ 0.x and 1.x: its data, made of groups of named arrays, and its Pareto smoothing."""

import math
import warnings
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

SAMPLES = ("chain", "draw")
"""The axes in front of whatever was drawn; the chain is one."""

Attributes = Mapping[str, str | int | float]


class Variable(NamedTuple):
    """An array and the names of its axes."""

    dims: tuple[str, ...]
    values: Tensor


class Group(NamedTuple):
    """Variables by name, and what is to be said of them."""

    variables: Mapping[str, Variable]
    attributes: Attributes = MappingProxyType({})


def drawn(dims: tuple[str, ...], values: Tensor) -> Variable:
    """A variable of `(draws, ...)`, as one chain."""
    return Variable((*SAMPLES, *dims), values.unsqueeze(0))


def arviz_data(groups: Mapping[str, Group], coords: Mapping[str, np.ndarray], attributes: Attributes) -> Any:
    """The groups that are not empty: an InferenceData of ArviZ 0.x, a DataTree for ArviZ 1.x.

    xarray's data sets are the same under both. `arviz.from_dict` is not: 0.23 takes the groups of 1.x's call for variables
    of the posterior, and says nothing.

    Args:
        groups: by the names of ArviZ's schema, and others.
        coords: what stands at the places of each axis; samples are numbered.
        attributes: of the whole.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ announces its next version
        import arviz  # two seconds, which no other command should wait for
        import xarray

        datasets: dict[str, Any] = {
            name: xarray.Dataset(
                {key: (each.dims, _array(each.values)) for key, each in group.variables.items()},
                coords=_coords(group, coords),
                attrs=dict(group.attributes),
            )
            for name, group in groups.items()
            if group.variables
        }
        if _is_0x(arviz):
            return arviz.InferenceData(attrs=dict(attributes), **datasets)
        tree = xarray.DataTree.from_dict(datasets)
        tree.attrs = dict(attributes)
        return tree


def pareto_smoothed(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-weights `(examples, draws)`, their tails smoothed, in the same units; and k̂ `(examples,)`, inf where none fits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ArviZ announces its next version, and divides by 0 in tails of few values
        import arviz  # two seconds, which no other command should wait for

        if _is_0x(arviz):
            smoothed, khat = arviz.psislw(log_weights, normalize=False)
            return smoothed, khat
        stats = import_module("arviz_stats.base").array_stats  # a package of 1.x
        normalised, khat = stats.psislw(-log_weights)  # it takes log-likelihoods, as loo has them
        return normalised + _normaliser(log_weights, normalised), np.nan_to_num(
            khat, nan=np.inf, posinf=np.inf, neginf=-np.inf
        )


def _normaliser(log_weights: np.ndarray, normalised: np.ndarray) -> np.ndarray:
    """What was taken off an example's log-weights, `(examples, 1)`: seen at one below the tail, a fifth at most."""
    draws = log_weights.shape[1]
    place = np.argsort(log_weights, 1)[:, [draws - math.ceil(draws / 5) - 1]]
    below = np.take_along_axis(log_weights, place, 1)
    found = below - np.take_along_axis(normalised, place, 1)
    # Where that weight is 0 the sum is kept.
    return np.where(np.isfinite(below), found, np.logaddexp.reduce(log_weights, 1, keepdims=True))


def _is_0x(arviz: ModuleType) -> bool:
    return int(arviz.__version__.split(".")[0]) < 1


def _coords(group: Group, coords: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The coordinates of a group's axes."""
    lengths = {
        dim: length
        for each in group.variables.values()
        for dim, length in zip(each.dims, each.values.shape, strict=True)
    }
    return {dim: np.arange(length) if dim in SAMPLES else coords[dim] for dim, length in lengths.items()}


def _array(values: Tensor) -> np.ndarray:
    values = values.detach().cpu()
    return np.asarray(values.float() if values.dtype in (torch.bfloat16, torch.float16) else values)
