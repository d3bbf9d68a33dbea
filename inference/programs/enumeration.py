"""Sites of finite support: all their values in one run of the model, their sum, and draws of them given x."""

import math
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from pyro import poutine
from pyro.infer import infer_discrete
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.poutine.runtime import InferDict
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from inference.programs.assignments import of_all_values, refuse_across_plates
from inference.programs.densities import refuse_inner_subsample, refuse_scale, unmasked_log_prob
from inference.programs.entries import Examples, rows_of
from inference.programs.execution import Latents, Run, executed, executing
from inference.programs.masks import HiddenValues, Unmasked
from inference.programs.program import Batch, Program, ProgramError
from inference.programs.sites import Frame, Site, is_implicit, is_summed, latents_in, plates, random_sites
from inference.programs.traces import given_latents
from inference.programs.values import refuse_broadcast


def enumerated(program: Program, run: Run, summed: Collection[str]) -> Trace:
    """The model of a run with every value of the `summed` sites at once, each along an axis of its own.

    All other latent sites keep the run's values. Sites that depend on the summed ones (see `entangled`) have their log
    densities packed: axes named by symbols, those of plates and those of enumeration.

    Raises:
        ProgramError: a site that depends on them is scaled, subsampled inside the example, broadcast, or outside of their
            plates; or the model does not run with all values at once.
    """
    nesting = _nesting(run.model)
    kept = run.model.copy()
    for name in summed:
        kept.remove_node(name)
    marked = partial(_in_parallel, given=kept.nodes)
    model = Unmasked()(poutine.infer_config(program.model, config_fn=marked))
    model = poutine.enum(model, first_available_dim=-1 - nesting)  # inside of replay, or it overlooks what is replayed
    with executing(program), of_all_values(sorted(summed)), within_axes():
        trace = poutine.trace(poutine.replay(model, trace=kept)).get_trace(*run.batch)
    trace = poutine.util.prune_subsample_sites(trace)
    for name, site in random_sites(trace).items():
        if is_summed(site) or _has_more_axes(site, nesting):
            refuse_scale(name, site)
            refuse_inner_subsample(name, site, run.plate)
            if not is_summed(site):
                refuse_broadcast(name, site)
            site["log_prob"] = site["unscaled_log_prob"] = unmasked_log_prob(name, site)
    trace.pack_tensors()
    refuse_across_plates(trace)
    return trace


def entangled(trace: Trace) -> dict[str, Site]:
    """The sites of an enumerated trace that are summed or depend on one that is."""
    return {name: site for name, site in random_sites(trace).items() if "unscaled_log_prob" in site.get("packed", {})}


def contracted(trace: Trace, sites: Mapping[str, Site], plate: Frame | None) -> Tensor:
    """The log of the sum, over all values of the summed sites, of the product of some sites' densities, in nats.

    Plates inside the example and Markov chains are contracted site by site, not by one table of all combinations
    (Obermeyer et al. 2019, arXiv 1902.03210). Gives `(plate.size,)`; `()`, the product over all examples, without a plate.

    Raises:
        ProgramError: the summed sites stand in plates that cross.
    """
    symbols = trace.plate_to_symbol
    factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    summed = set()
    for site in sites.values():
        ordinal = frozenset(symbols[name] for name, frame in plates(site).items() if frame.size > 1)
        log_prob = packed.scale_and_mask(site["packed"]["unscaled_log_prob"], mask=site["packed"]["mask"])
        factors.setdefault(ordinal, []).append(log_prob)
        if is_summed(site):
            summed.add(site["infer"]["_enumerate_symbol"])
    # An axis of length 1 has no symbol.
    target = frozenset({symbols[plate.name]} if plate is not None and plate.size > 1 else ())
    try:
        total = contract_to_tensor(factors, summed, target_ordinal=target)
    except NotImplementedError as error:
        names = sorted(name for name, site in sites.items() if is_summed(site))
        raise ProgramError(
            f"the enumerated sites {names} stand in plates that cross, so that summing them out takes "
            "a table of all combinations. Nest one plate in the other, or draw one of the sites in the guide."
        ) from error
    found: Tensor = packed.unpack(total, trace.symbol_to_dim)
    return found.reshape(() if plate is None else plate.size)


def assignment_runs(program: Program, batch: Batch, particles: int, latents: Latents) -> list[Run]:
    """Runs of the model at given latents z, its sites k of finite support drawn from p(k | x, z).

    They are drawn in the backward pass of the contraction that sums them out.
    """

    def once(examples: Examples, copies: Examples, given: Latents | None) -> tuple[Trace, Trace]:
        model = given_latents(program, given or {}, rows_of(copies))
        drawn = poutine.trace(model).get_trace(*copies)
        nesting = _nesting(drawn)
        names = sorted(
            name for name, site in latents_in(drawn).items() if is_finite(site) and name not in (given or {})
        )
        marked = poutine.infer_config(model, config_fn=partial(_in_parallel, given=given or {}))
        marked = HiddenValues()(Unmasked()(marked))  # inside, as handlers outside are shut off
        sampled = infer_discrete(marked, first_available_dim=-1 - nesting)
        with of_all_values(names), within_axes():
            return Trace(), poutine.trace(sampled).get_trace(*copies)

    return executed(program, batch, particles, once, latents)


def is_finite(site: Site) -> bool:
    """Whether a site can be summed over its support."""
    return bool(getattr(site["fn"], "has_enumerate_support", False))


@contextmanager
def within_axes() -> Iterator[None]:
    """A block that enumerates sites, each along an axis of its own; a ProgramError says what to do where these run out."""
    try:
        yield
    except RuntimeError as error:
        if "tensors with up to" not in str(error):
            raise
        raise ProgramError(
            "the program enumerates more sites than a tensor has axes (64): each finite site of a Python loop takes one. "
            "Let the steps of the loop share them, `for t in pyro.markov(range(len(x))):`, where each depends on the one "
            "before (history=0: on none); or draw independent ones inside `with pyro.plate('data', len(x)):`."
        ) from error


def refuse_unsummable(sites: Mapping[str, Site]) -> None:
    """Raises a ProgramError where a site can not be summed over its support."""
    for name, site in sites.items():
        if not is_finite(site):
            raise ProgramError(
                f"site {name!r} ({type(site['fn']).__name__}) has no finite support to sum over. Draw it in the guide, and "
                "use importance(particles)."
            )
        if site["infer"].get("num_samples") is not None:
            raise ProgramError(
                f"site {name!r} is drawn {site['infer']['num_samples']} times (num_samples) and not summed over its "
                "support, so log p(x) is not exact. Remove num_samples from its infer."
            )


def _has_more_axes(site: Site, nesting: int) -> bool:
    """Whether a site's log density has axes beyond those of all plates, which are those of enumeration."""
    fn, value = site["fn"], site["value"]
    if is_implicit(fn):
        return False
    mask = torch.as_tensor(True if site["mask"] is None else site["mask"])
    shape = torch.broadcast_shapes(fn.batch_shape, value.shape[: value.dim() - fn.event_dim], mask.shape)
    return math.prod(shape[: max(0, len(shape) - nesting)]) > 1


def _nesting(trace: Trace) -> int:
    """How many axes the plates of a trace take, counted from the right."""
    return max((-frame.dim for site in random_sites(trace).values() for frame in plates(site).values()), default=0)


def _in_parallel(site: Site, given: Collection[str] = ()) -> InferDict:
    if site["type"] != "sample" or site["is_observed"] or not is_finite(site):
        return {}
    how: Any = None if site["name"] in given else "parallel"
    return {"enumerate": how, "expand": False}
