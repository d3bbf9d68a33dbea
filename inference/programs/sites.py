"""The sites of a trace: whether they are random, their distributions, their plates."""

from collections.abc import Iterable
from typing import Any

from pyro.distributions import Delta, MaskedDistribution
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample

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


def hides_values(site: Site) -> bool:
    """Whether a mask, the site's own or its distribution's, hides some of its values."""
    return site["mask"] is not None or any(isinstance(layer, MaskedDistribution) for layer in layers(site["fn"]))


def latents_in(trace: Trace) -> dict[str, Site]:
    """The latent sites of a model's trace."""
    return {name: site for name, site in random_sites(trace).items() if not site["is_observed"]}


def is_discrete(site: Site) -> bool:
    """Whether the values of a site's distribution can be counted."""
    return bool(getattr(site["fn"].support, "is_discrete", False))


def is_summed(site: Site) -> bool:
    """Whether a site of an enumerated trace holds all its values."""
    return "_enumerate_dim" in site["infer"]


def deterministic_sites(trace: Trace) -> dict[str, Site]:
    """The sites of `pyro.deterministic`: functions of what was drawn."""
    nodes: Iterable[tuple[str, Site]] = trace.nodes.items()
    return {name: site for name, site in nodes if site["type"] == "sample" and site["infer"].get("_deterministic")}


def layers(distribution: object) -> list[Any]:
    """A distribution and what it wraps, the innermost last."""
    found = [distribution]
    while (inner := getattr(found[-1], "base_dist", None)) is not None:
        found.append(inner)
    return found


def is_implicit(distribution: object) -> bool:
    """Whether a distribution says that it has no density (`has_log_prob = False`), also through its wrappers."""
    return any(not getattr(layer, "has_log_prob", True) for layer in layers(distribution))


def is_point(site: Site) -> bool:
    """Whether a site has all its mass at one value."""
    return isinstance(layers(site["fn"])[-1], Delta)


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
