"""The log density of a site's value, and its sum per example."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pyro.distributions.util import broadcast_shape, scale_and_mask
from torch import Tensor

from inference.programs.caches import empty_caches
from inference.programs.program import ProgramError
from inference.programs.sites import Frame, Site, has_rsample, layers, plates
from inference.programs.values import check_support, in_support, refuse_broadcast, rounding_is_harmless


def site_log_prob(name: str, site: Site) -> Tensor:
    """The masked, unscaled log density of a site's value, in nats, of the shape that its plates give.

    That of a latent is -inf where the value lies outside the support, whether Pyro's validation is on or off; what is
    observed is judged once, by `refuse_outside`.

    Raises:
        ProgramError: `poutine.scale` was applied, a value would be broadcast, the density is in half precision, or has axes
            that belong to no plate.
    """
    refuse_scale(name, site)
    refuse_broadcast(name, site)
    frames = plates(site)
    log_prob = scale_and_mask(unmasked_log_prob(name, site), 1.0, site["mask"])
    dims = {frame.dim for frame in frames.values()}
    loose = [dim for dim in range(-log_prob.dim(), 0) if log_prob.shape[dim] != 1 and dim not in dims]
    if loose:
        raise ProgramError(
            f"site {name!r} has a log density of shape {tuple(log_prob.shape)}, of which the axes {loose} belong to no "
            f"plate (its plates: {_shown(frames)}). Move them into the event with .to_event({len(loose)}), or declare "
            "a plate."
        )
    return log_prob


def unmasked_log_prob(name: str, site: Site) -> Tensor:
    """The log density as the distribution gives it; of a latent, -inf outside its support, where many give some number.

    Raises:
        ProgramError: an observed value has no density, or the density is in half precision.
    """
    fn, value = site["fn"], site["value"]
    if not has_rsample(fn):
        empty_caches(fn)  # the gradient of such a density is by the weights on the way back from the value
    try:
        log_prob: Tensor = fn.log_prob(value, *site["args"], **site["kwargs"])
    except (RuntimeError, IndexError):  # a label that is no index, among others
        check_support(name, site)
        raise
    except ValueError as error:
        if "within the support" not in str(error) or not value.isfinite().all():
            raise
        check_support(name, site)  # what a mask hides may lie anywhere
        with _unvalidated(fn):
            log_prob = fn.log_prob(value, *site["args"], **site["kwargs"])
    if log_prob.dtype in (torch.bfloat16, torch.float16):
        raise ProgramError(
            f"site {name!r} has a log density in {log_prob.dtype}, too coarse to add up: under autocast give the "
            "distribution parameters in float32, such as Bernoulli(logits=logits.float())."
        )
    inside = None if site["is_observed"] or not rounding_is_harmless(fn) else in_support(fn, value)
    return log_prob if inside is None else torch.where(inside, log_prob, -torch.inf)


@contextmanager
def _unvalidated(distribution: object) -> Iterator[None]:
    """A block in which a distribution does not look at values."""
    validated = [(layer, layer._validate_args) for layer in layers(distribution)]
    try:
        for layer, _ in validated:
            layer._validate_args = False
        yield
    finally:
        for layer, before in validated:
            layer._validate_args = before


def refuse_loose_axes(site: Site, rows: int) -> None:
    """Raises a ProgramError where a site of a program without a batch plate has a density for each of several rows."""
    fn, value = site["fn"], torch.as_tensor(site["infer"].get("obs", site["value"]))  # also where it is drawn instead
    refuse_broadcast(site["name"], {**site, "value": value})
    dims = {frame.dim for frame in plates(site).values()}
    shape = broadcast_shape(tuple(fn.batch_shape), tuple(value.shape[: value.dim() - fn.event_dim]))
    loose = [dim for dim in range(-len(shape), 0) if shape[dim] != 1 and dim not in dims]
    if loose:
        raise ProgramError(
            f"no plate counts the {rows} examples of the batch, and site {site['name']!r} has a log density of shape "
            f"{shape}, of which the axes {loose} belong to no plate (its plates: {_shown(plates(site))}). Draw the sites of "
            f"each example inside `with pyro.plate('data', len(x)):`; or make one event of it, .to_event({len(loose)}), and "
            "all the data are one example."
        )


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
    """The log density of a site inside the batch plate, per example: `(examples,)` nats; `(1,)` where there is none.

    Plates inside the batch's, or outside it over pixels or time, are summed into the example.

    Raises:
        ProgramError: what `site_log_prob` raises, a subsampled inner plate, or a value that would be broadcast.
    """
    refuse_inner_subsample(name, site, plate)
    log_prob = site_log_prob(name, site)
    if plate is None:
        return log_prob.sum().reshape(1)
    if log_prob.dim() < -plate.dim or log_prob.shape[plate.dim] != plate.size:
        raise ProgramError(
            f"site {name!r} has a log density of shape {tuple(log_prob.shape)}, where plate {plate.name!r} has "
            f"{plate.size} examples along axis {plate.dim}. Give its distribution that batch axis."
        )
    if log_prob.dim() == 1:
        return log_prob
    return log_prob.movedim(plate.dim, 0).flatten(1).sum(1)


def refuse_inner_subsample(name: str, site: Site, plate: Frame) -> None:
    """Raises a ProgramError where a plate other than the batch's, also a sequential one, is subsampled."""
    for frame in site["cond_indep_stack"]:
        if frame.full_size != frame.size and (plate is None or frame.name != plate.name):
            raise ProgramError(
                f"site {name!r}: plate {frame.name!r} takes {frame.size} of {frame.full_size} at random, so its log density "
                "is an estimate and bounds do not hold. Use the whole plate, or train with SVI(program, Trace_ELBO())."
            )


def _shown(frames: dict[str, Frame]) -> str:
    return ", ".join(f"{frame.name} of {frame.size} at axis {frame.dim}" for frame in frames.values()) or "none"
