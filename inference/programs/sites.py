"""What the sites of a trace count for: which plate is the batch, and what a site's log density is per example."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.programs.program import ProgramError

Site = Any  # Pyro's message: a TypedDict whose entries are all optional
Frame = Any  # Pyro's CondIndepStackFrame


def random_sites(trace: Trace) -> dict[str, Site]:
    """The sites that carry a log density: no subsample indices, no `pyro.deterministic`."""
    nodes: Iterable[tuple[str, Site]] = trace.nodes.items()
    return {
        name: site
        for name, site in nodes
        if site["type"] == "sample" and not site_is_subsample(site) and not site["infer"].get("_deterministic")
    }


def is_implicit(distribution: object | None) -> bool:
    """Whether a distribution says that it has no density (`has_log_prob = False`), also through its wrappers."""
    while distribution is not None:
        if not getattr(distribution, "has_log_prob", True):
            return True
        distribution = getattr(distribution, "base_dist", None)
    return False


def has_rsample(distribution: object) -> bool:
    """Whether draws carry a gradient to the distribution's parameters."""
    return bool(getattr(distribution, "has_rsample", False))


def plates(site: Site) -> dict[str, Frame]:
    """The vectorized plates around a site, by name."""
    return {frame.name: frame for frame in site["cond_indep_stack"] if frame.vectorized}


def batch_plate(sites: Iterable[Site], size: int) -> Frame | None:
    """The plate over the examples: the one as long as the batch (or subsampled from it).

    Between two candidates the one named `data` is taken.

    Raises:
        ProgramError: several plates are as long as the batch and none is named `data`.
    """
    frames = {frame.name: frame for site in sites for frame in plates(site).values()}
    exact = [frame for frame in frames.values() if frame.size == size]
    candidates = exact or [frame for frame in frames.values() if frame.full_size == size]
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    named = [frame for frame in candidates if frame.name == "data"]
    if not named:
        raise ProgramError(
            f"the plates {sorted(frame.name for frame in candidates)} are all as long as the batch ({size}): which one "
            "counts the examples? Name it `data`: pyro.plate('data', len(x))."
        )
    return named[0]


def site_log_prob(name: str, site: Site) -> Tensor:
    """The masked, unscaled log density of a site's value, in nats, of the shape that its plates give.

    Raises:
        ProgramError: `poutine.scale` was applied, the density is in half precision, or has axes that belong to no plate.
    """
    refuse_scale(name, site)
    frames = plates(site)
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    if log_prob.dtype in (torch.bfloat16, torch.float16):
        raise ProgramError(
            f"site {name!r} has a log density in {log_prob.dtype}, too coarse to add up: under autocast give the "
            "distribution parameters in float32, such as Bernoulli(logits=logits.float())."
        )
    log_prob = scale_and_mask(log_prob, 1.0, site["mask"])
    dims = {frame.dim for frame in frames.values()}
    loose = [dim for dim in range(-log_prob.dim(), 0) if log_prob.shape[dim] != 1 and dim not in dims]
    if loose:
        raise ProgramError(
            f"site {name!r} has a log density of shape {tuple(log_prob.shape)}, of which the axes {loose} belong to no "
            f"plate (its plates: {_shown(frames)}). Move them into the event with .to_event({len(loose)}), or declare "
            "a plate."
        )
    return log_prob


def refuse_scale(name: str, site: Site) -> None:
    """Raises a ProgramError where a site is scaled by more than its plates' subsampling."""
    natural = math.prod(frame.full_size / frame.size for frame in plates(site).values())
    scale = site["scale"]
    if isinstance(scale, Tensor) or not math.isclose(scale, natural, rel_tol=1e-9):
        raise ProgramError(
            f"site {name!r} is scaled by {scale}, where its plates account for {natural:g}: a scaled log density has no "
            "bound per example. Remove poutine.scale and weight the objective instead, or train with "
            "SVI(program, Trace_ELBO())."
        )


def log_density(name: str, site: Site, plate: Frame) -> Tensor:
    """The log density of a site inside the batch plate, per example: `(examples,)` nats.

    Plates inside the batch's, or outside it over pixels or time, are summed into the example.

    Raises:
        ProgramError: what `site_log_prob` raises, a subsampled inner plate, or a value that would be broadcast.
    """
    refuse_inner_subsample(name, site, plate)
    refuse_broadcast(name, site, plate)
    log_prob = site_log_prob(name, site)
    if log_prob.dim() < -plate.dim or log_prob.shape[plate.dim] != plate.size:
        raise ProgramError(
            f"site {name!r} has a log density of shape {tuple(log_prob.shape)}, where plate {plate.name!r} has "
            f"{plate.size} examples along axis {plate.dim}. Give its distribution that batch axis."
        )
    if log_prob.dim() == 1:
        return log_prob
    return log_prob.movedim(plate.dim, 0).flatten(1).sum(1)


def refuse_inner_subsample(name: str, site: Site, plate: Frame) -> None:
    """Raises a ProgramError where a plate other than the batch's is subsampled."""
    for frame in plates(site).values():
        if frame.name != plate.name and frame.full_size != frame.size:
            raise ProgramError(
                f"site {name!r}: plate {frame.name!r} takes {frame.size} of {frame.full_size} at random, so its log density "
                "is an estimate and bounds do not hold. Use the whole plate, or train with SVI(program, Trace_ELBO())."
            )


def refuse_broadcast(name: str, site: Site, plate: Frame) -> None:
    """Raises a ProgramError where one row would silently stand for the whole batch."""
    if not isinstance(site["value"], Tensor) or not hasattr(site["fn"], "event_dim"):
        return
    shape, axis = site["value"].shape, plate.dim - site["fn"].event_dim
    rows = shape[axis] if len(shape) >= -axis else None
    if rows != plate.size:
        came = "no axis for it" if rows is None else f"{rows} there"
        raise ProgramError(
            f"site {name!r} has a value of shape {tuple(shape)}; plate {plate.name!r} has {plate.size} examples along "
            f"axis {axis}, and it has {came}: it would be broadcast over the batch. Pass one row per example, or "
            "expand it explicitly."
        )


def _shown(frames: dict[str, Frame]) -> str:
    return ", ".join(f"{frame.name} of {frame.size} at axis {frame.dim}" for frame in frames.values()) or "none"
