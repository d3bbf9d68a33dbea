"""The continuous latents of a program in unconstrained coordinates: a row for each particle and example."""

from collections.abc import Collection, Mapping
from functools import partial
from itertools import accumulate, pairwise
from math import prod
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor
from torch.distributions import biject_to

from inference.programs.entries import Examples, rows_of
from inference.programs.execution import Latents, Run, executed
from inference.programs.program import Batch, Program, ProgramError
from inference.programs.sites import Frame, Site, is_discrete, is_point, latents_in
from inference.programs.traces import guide_at, placed


class Placement(NamedTuple):
    """Where a site's unconstrained values lie in a row of coordinates."""

    shape: tuple[int, ...]
    """Of one row's values."""
    first: int
    last: int
    dtype: torch.dtype


class Coordinates(NamedTuple):
    """Unconstrained values of latent sites as rows: `(particles, units, size)`.

    A unit is what a log-weight is of: an example; or the whole dataset, where a program shares sites or has no batch plate.
    """

    placements: Mapping[str, Placement]
    leading: int
    """How many axes stand before a row's values in `Latents`: particles, and examples where these are units."""

    def latents(self, rows: Tensor) -> Latents:
        """The sites' unconstrained values, particles and examples in front."""
        return {
            name: rows[..., place.first : place.last].reshape(*rows.shape[: self.leading], *place.shape).to(place.dtype)
            for name, place in self.placements.items()
        }

    def rows(self, found: list[Run]) -> Tensor:
        """The latents of runs as rows, detached.

        Raises:
            ProgramError: a value is not inside of its prior's support.
        """
        values = [_unconstrained(run, self.placements) for run in found]
        pieces = [torch.cat([each[name] for each in values]) for name in self.placements]
        for name, piece in zip(self.placements, pieces, strict=True):
            if not bool(piece.isfinite().all()):
                raise ProgramError(
                    f"site {name!r}: a starting value is not finite in unconstrained coordinates: it is NaN, or not "
                    "inside of its prior's support. Give the guide a distribution on that support, or start from the prior: "
                    "start='prior'."
                )
        rows = [piece.reshape(*piece.shape[: self.leading], -1) for piece in pieces]
        joined = torch.cat(rows, -1).detach()
        return joined if self.leading == 2 else joined.unsqueeze(1)


def coordinates_of(run: Run, names: Collection[str]) -> Coordinates:
    """How the values of these latent sites are laid out as rows."""
    leading = 2 if run.per_example else 1
    values = _unconstrained(run, names)
    shapes = {name: tuple(value.shape[leading:]) for name, value in values.items()}
    bounds = pairwise(accumulate(map(prod, shapes.values()), initial=0))
    return Coordinates(
        {
            name: Placement(shape, first, last, values[name].dtype)
            for (name, shape), (first, last) in zip(shapes.items(), bounds, strict=True)
        },
        leading,
    )


def continuous_latents(run: Run, guided: Collection[str]) -> list[str]:
    """The model's latent sites that move in unconstrained coordinates: all but finite ones that are left to be summed.

    Raises:
        ProgramError: another latent site is discrete, or at one value; or its support has no unconstrained coordinates.
    """
    latents = latents_in(run.model)
    summed = {name for name, site in latents.items() if name not in guided and site["infer"].get("enumerate")}
    moving = {name: site for name, site in latents.items() if name not in summed}
    for name, site in moving.items():
        kind = type(site["fn"]).__name__
        if is_discrete(site):
            raise ProgramError(
                f"site {name!r} ({kind}) is discrete, and Hamiltonian transitions move continuous latents. Where its "
                "support is finite, leave it out of the guide and mark it infer={'enumerate': 'parallel'}: it is then "
                "summed out. Otherwise use importance(particles)."
            )
        if is_point(site):
            raise ProgramError(
                f"site {name!r} has all its mass at one value (Delta), and cannot move. If it follows from other "
                "sites, write pyro.deterministic."
            )
        _transform(site)
    return list(moving)


def runs_at(program: Program, batch: Batch, unconstrained: Latents, guided: Collection[str]) -> list[Run]:
    """The model at latents given by their unconstrained values, and the guide of the sites `guided` at these latents.

    Every site of the model that has been moved knows the log-determinant of its transform (see `log_jacobian`).
    """
    return executed(program, batch, 1, partial(_model_then_guide, program, guided), unconstrained)


def log_jacobian(run: Run) -> Tensor:
    """log |dz/du| of the moved sites: `(particles, batch)`, or `(1, 1)` where sites are shared or no plate counts."""
    sites = [site for site in latents_in(run.model).values() if "log_jacobian" in site]
    if not run.per_example:
        return torch.stack([site["log_jacobian"].sum() for site in sites]).sum().reshape(1, 1)
    found = torch.stack([_by_row(site["log_jacobian"], run.plate) for site in sites]).sum(0)
    return found.reshape(run.particles, run.examples)


def _model_then_guide(
    program: Program, guided: Collection[str], batch: Examples, copies: Examples, unconstrained: Latents | None
) -> tuple[Trace, Trace]:
    model = _Unconstrained(unconstrained or {}, rows_of(copies))(program.model)
    trace = poutine.trace(model).get_trace(*copies)
    if not guided:
        return Trace(), trace
    return guide_at(program, batch, copies, trace, guided), trace


class _Unconstrained(Messenger):
    """Gives latent sites the values at these unconstrained coordinates, and notes the log-determinants."""

    def __init__(self, values: Latents, rows: int) -> None:
        super().__init__()
        self.values, self.rows = values, rows

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] not in self.values or message["is_observed"]:
            return
        transform = _transform(message)
        given = placed(self.values[message["name"]], message, self.rows, _event_dim(message["fn"].event_dim, transform))
        message["value"] = transform(given)
        determinant = transform.log_abs_det_jacobian(given, message["value"])
        extra = message["fn"].event_dim - transform.codomain.event_dim
        summed = determinant.flatten(-extra).sum(-1) if extra else determinant
        message["log_jacobian"] = scale_and_mask(summed, 1.0, message["mask"])


def _transform(site: Site) -> Any:
    try:
        return biject_to(site["fn"].support)
    except NotImplementedError as error:
        raise ProgramError(
            f"site {site['name']!r} ({type(site['fn']).__name__}) has the support {site['fn'].support}, for which "
            "torch knows no unconstrained coordinates. Use importance(particles), or register the support with "
            "torch.distributions.biject_to."
        ) from error


def _event_dim(event_dim: int, transform: Any) -> int:
    """How many axes an event has in unconstrained coordinates."""
    found: int = event_dim + transform.domain.event_dim - transform.codomain.event_dim
    return found


def _unconstrained(run: Run, names: Collection[str]) -> dict[str, Tensor]:
    """The sites' values in unconstrained coordinates, particles and examples in front."""
    found = {}
    for name in names:
        site: Site = run.model.nodes[name]
        transform = _transform(site)
        value = transform.inv(site["value"])
        event_dim = _event_dim(site["fn"].event_dim, transform)
        found[name] = run.in_front(value, event_dim) if run.is_local(site) else value.unsqueeze(0)
    return found


def _by_row(density: Tensor, plate: Frame) -> Tensor:
    return density if density.dim() == 1 else density.movedim(plate.dim, 0).flatten(1).sum(1)
