"""Names for the axes of a program's sites, and what stands at their places."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from inference.evaluation.arviz_versions import SAMPLES
from inference.programs.entries import rows_of
from inference.programs.execution import Run
from inference.programs.predict import batch_axis, following
from inference.programs.program import ProgramError
from inference.programs.sites import Site, deterministic_sites, plates, random_sites

Dims = Mapping[str, Sequence[str | None]]
"""Names of a variable's axes after chain and draw; None where its plate's, or a numbered one, will do."""
Coords = Mapping[str, Sequence[Any] | np.ndarray]
"""What stands at the places of an axis, by its name."""


class Axes(NamedTuple):
    """The axes of all variables, without those of the samples."""

    names: dict[str, tuple[str, ...]]
    """By variable, the axis of the examples in front."""
    coords: dict[str, np.ndarray]
    """By axis: the caller's, else numbers from 0."""


def axes_of(run: Run, constants: Mapping[str, Tensor], dims: Dims, coords: Coords) -> Axes:
    """The axes of the model's sites and of constants, called as the caller says, else by their plates, else numbered.

    Raises:
        ProgramError: dims or coords are of what is not there, or of another length; or an axis has a name that is taken.
    """
    rows = rows_of(run.batch)
    sites = run.values(random_sites(run.model)) | following(run, rows)
    shapes = {name: tuple(value.shape[1:]) for name, value in sites.items()}
    shapes |= {name: tuple(value.shape) for name, value in constants.items()}
    unknown = sorted(dims.keys() - shapes.keys())
    if unknown:
        raise ProgramError(f"dims names {unknown}, which are no variables; those that there are: {sorted(shapes)}.")
    plated = _of_sites(run) | {name: _of_rows(run, len(shapes[name])) for name in constants}
    names = {name: _named(name, axes, dims.get(name, [None] * len(axes))) for name, axes in plated.items()}
    lengths = {} if run.plate is None else {run.plate.name: rows}
    for name, axes in names.items():
        for axis, length in zip(axes, shapes[name], strict=True):
            if lengths.setdefault(axis, length) != length:
                raise ProgramError(
                    f"the axis {axis!r} of {name!r} has {length} places, and elsewhere {lengths[axis]}. Give it a name of "
                    f"its own: dims={{{name!r}: […]}}."
                )
    _refuse_taken(names)
    return Axes(names, _coords(lengths, coords))


def _of_sites(run: Run) -> dict[str, tuple[str | None, ...]]:
    """The axes of the model's sites, the examples in front; a plate's by its name, others None."""
    random = {name: _plated(run, site, site["fn"].event_dim) for name, site in random_sites(run.model).items()}
    deterministic = deterministic_sites(run.model)
    return random | {name: _plated(run, site, _event_dim(run, site)) for name, site in deterministic.items()}


def _of_rows(run: Run, axes: int) -> tuple[str | None, ...]:
    return (None if run.plate is None else run.plate.name, *[None] * (axes - 1))


def _plated(run: Run, site: Site, event_dim: int) -> tuple[str | None, ...]:
    shape = site["value"].shape
    axes: list[str | None] = [None] * len(shape)
    for frame in plates(site).values():
        place = len(shape) - event_dim + frame.dim
        if place >= 0 and shape[place] == frame.size:
            axes[place] = frame.name
    if run.plate is not None and run.plate.name in axes:
        axes.remove(run.plate.name)
        axes.insert(0, run.plate.name)
    return tuple(axes)


def _event_dim(run: Run, site: Site) -> int:
    """That of a deterministic site, whose event axes `pyro.deterministic` need not count."""
    axis = batch_axis(run, site) if run.is_local(site) else None
    return int(site["fn"].event_dim if axis is None else run.plate.dim - axis)


def _named(name: str, axes: tuple[str | None, ...], given: Sequence[str | None]) -> tuple[str, ...]:
    if isinstance(given, str) or len(given) != len(axes):
        shown = [axis or "one without a name" for axis in axes]
        raise ProgramError(
            f"dims[{name!r}] is {given!r}, and {name!r} has {len(axes)} axes after chain and draw: {shown}. Give a list "
            "with a name for each, or None for those that keep theirs."
        )
    return tuple(_numbered(name, [mine or theirs for mine, theirs in zip(given, axes, strict=True)]))


def _numbered(name: str, axes: Sequence[str | None]) -> Iterator[str]:
    """Names for axes that have none, as ArviZ gives them."""
    number = 0
    for axis in axes:
        yield axis or f"{name}_dim_{number}"
        number += axis is None


def _refuse_taken(names: Mapping[str, tuple[str, ...]]) -> None:
    for name, axes in names.items():
        taken = [axis for axis in axes if axis in SAMPLES or axis in names or axes.count(axis) > 1]
        if taken:
            raise ProgramError(
                f"{name!r} has the axes {list(axes)}, and the name {taken[0]!r} is also that of another axis, or of a "
                f"variable. Name the axes otherwise: dims={{{name!r}: […]}}."
            )


def _coords(lengths: Mapping[str, int], coords: Coords) -> dict[str, np.ndarray]:
    unknown = sorted(coords.keys() - lengths.keys())
    if unknown:
        raise ProgramError(f"coords names {unknown}, which are no axes; those that there are: {sorted(lengths)}.")
    given = {axis: np.asarray(values) for axis, values in coords.items()}
    for axis, values in given.items():
        if values.shape != (lengths[axis],):
            raise ProgramError(
                f"coords[{axis!r}] is of shape {values.shape}, and the axis has {lengths[axis]} places. Give one value for "
                "each of them."
            )
    return {axis: np.arange(length) for axis, length in lengths.items()} | given
