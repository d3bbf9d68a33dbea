"""Names for the axes of a program's sites: their plates', the caller's, or numbered ones."""

from collections.abc import Iterable, Mapping, Sequence

from inference.evaluation.arviz_data import SAMPLES
from inference.programs.execution import Run
from inference.programs.predict import batch_axis
from inference.programs.program import ProgramError
from inference.programs.sites import Site, deterministic_sites, plates, random_sites

Dims = Mapping[str, Sequence[str | None]]
"""Names of a variable's axes after chain and draw; None where its plate's, or a numbered one, will do."""


def axes_of(run: Run) -> dict[str, tuple[str | None, ...]]:
    """The axes of the model's sites, the examples in front; a plate's by its name, others by None."""
    random = {name: _axes(run, site, site["fn"].event_dim) for name, site in random_sites(run.model).items()}
    return random | {name: _following(run, site) for name, site in deterministic_sites(run.model).items()}


def named(axes: Mapping[str, tuple[str | None, ...]], dims: Dims) -> dict[str, tuple[str, ...]]:
    """The axes, each by a name: the caller's, else what it has, else the variable's with a number.

    Raises:
        ProgramError: the caller names axes of a variable that is not there, too many or few of them; or one is `chain` or
            `draw`.
    """
    unknown = sorted(dims.keys() - axes.keys())
    if unknown:
        raise ProgramError(f"dims names {unknown}, which are no variables; those that there are: {sorted(axes)}.")
    return {name: _named(name, found, dims.get(name, [None] * len(found))) for name, found in axes.items()}


def _named(name: str, axes: tuple[str | None, ...], given: Sequence[str | None]) -> tuple[str, ...]:
    if isinstance(given, str) or len(given) != len(axes):
        shown = [axis or "one without a name" for axis in axes]
        raise ProgramError(
            f"dims[{name!r}] is {given!r}, and {name!r} has {len(axes)} axes after chain and draw ({shown}). Give a list, "
            "with a name for each, or None for those that keep theirs."
        )
    chosen = list(_numbered(name, [mine or theirs for mine, theirs in zip(given, axes, strict=True)]))
    taken = [axis for axis in chosen if axis in SAMPLES]
    if taken:
        raise ProgramError(
            f"an axis of {name!r} is called {taken[0]!r}, as ArviZ calls that of the samples. Call the plate otherwise, or "
            f"name the axes: dims={{{name!r}: […]}}."
        )
    return tuple(chosen)


def _numbered(name: str, axes: Iterable[str | None]) -> Iterable[str]:
    """Axes without a name numbered, as ArviZ does."""
    number = 0
    for axis in axes:
        yield axis or f"{name}_dim_{number}"
        number += axis is None


def _axes(run: Run, site: Site, event_dim: int) -> tuple[str | None, ...]:
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


def _following(run: Run, site: Site) -> tuple[str | None, ...]:
    """Of a deterministic site, whose event axes `pyro.deterministic` need not count."""
    axis = batch_axis(run, site) if run.is_local(site) else None
    return _axes(run, site, site["fn"].event_dim if axis is None else run.plate.dim - axis)
