"""The exact log-likelihood of a program whose latent sites are discrete, by summing them out."""

from collections import OrderedDict
from functools import partial
from types import MappingProxyType
from typing import Any

from pyro import poutine
from pyro.distributions import MaskedDistribution
from pyro.distributions.torch import Independent
from pyro.infer import infer_discrete
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import InferDict
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from inference.programs.densities import log_density
from inference.programs.entries import Examples, rows_of
from inference.programs.execution import Latents, Run, executed, executing
from inference.programs.program import Batch, Program, ProgramError, as_batch
from inference.programs.sites import Frame, Site, plates, random_sites
from inference.programs.terms import refuse_outside
from inference.programs.traces import given_latents, runs


def summed_out(program: Program, batch: Batch) -> Tensor:
    """log p(x) per example, every latent site of the model summed over its support: `(batch,)` nats.

    Plates inside the example and Markov chains are contracted site by site, not by one table of all combinations
    (Obermeyer et al. 2019, arXiv 1902.03210). A mask hides what is observed; a latent site that is hidden still sums to 1.

    Raises:
        ProgramError: a latent site has no enumerable support, or is shared by all examples.
    """
    examples = as_batch(batch)
    run = runs(program, examples)[0]
    _refuse_unsummable(run)
    refuse_outside(run)
    return _contracted(_enumerated_trace(program, run, examples), run.plate)


def assignment_runs(program: Program, batch: Batch, particles: int, latents: Latents) -> list[Run]:
    """Runs of the model at given latents z, its sites k of finite support drawn from p(k | x, z).

    They are drawn in the backward pass of the contraction that sums them out.
    """

    def once(examples: Examples, copies: Examples, given: Latents | None) -> tuple[Trace, Trace]:
        model = given_latents(program, given or {}, rows_of(copies))
        nesting = _nesting(poutine.trace(model).get_trace(*copies))
        marked = Unmasked()(poutine.infer_config(model, config_fn=partial(_in_parallel, given=given or {})))
        sampled = infer_discrete(marked, first_available_dim=-1 - nesting)
        return Trace(), poutine.trace(sampled).get_trace(*copies)

    return executed(program, batch, particles, once, latents)


def is_finite(site: Site) -> bool:
    """Whether a site can be summed over its support."""
    return bool(getattr(site["fn"], "has_enumerate_support", False))


def _enumerated_trace(program: Program, run: Run, examples: Examples) -> Trace:
    """A trace of the model that holds every value of its finite sites, with log densities packed by symbols."""
    model = poutine.infer_config(program.model, config_fn=_in_parallel)
    with executing(program), Unmasked(), poutine.enum(first_available_dim=-1 - _nesting(run.model)):
        trace = poutine.trace(model).get_trace(*examples)
    trace = poutine.util.prune_subsample_sites(trace)
    trace.compute_log_prob()
    trace.pack_tensors()
    return trace


def _nesting(trace: Trace) -> int:
    """How many axes the plates of a trace take, counted from the right."""
    return max(-frame.dim for site in random_sites(trace).values() for frame in plates(site).values())


class Unmasked(Messenger):
    """Takes the masks off enumerated sites: one that is hidden sums to 1, not to the size of its support.

    What depends on it keeps its own mask. Entered before the program runs, it sees a message after all of the program's
    own handlers.
    """

    def _pyro_sample(self, message: Any) -> None:
        if not message["is_observed"] and message["infer"].get("enumerate") == "parallel":
            message["mask"] = None
            message["fn"] = _without_mask(message["fn"])


def _without_mask(distribution: Any) -> Any:
    if isinstance(distribution, MaskedDistribution):
        return _without_mask(distribution.base_dist)
    if isinstance(distribution, Independent):
        return _without_mask(distribution.base_dist).to_event(distribution.reinterpreted_batch_ndims)
    return distribution


def _contracted(trace: Trace, plate: Frame) -> Tensor:
    symbols = trace.plate_to_symbol
    factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    summed = set()
    for site in random_sites(trace).values():
        ordinal = frozenset(symbols[name] for name, frame in plates(site).items() if frame.size > 1)
        log_prob = packed.scale_and_mask(site["packed"]["unscaled_log_prob"], mask=site["packed"]["mask"])
        factors.setdefault(ordinal, []).append(log_prob)
        if site["infer"].get("_enumerate_symbol"):
            summed.add(site["infer"]["_enumerate_symbol"])
    target = frozenset({symbols[plate.name]} if plate.size > 1 else ())  # an axis of length 1 has no symbol
    try:
        total = contract_to_tensor(factors, summed, target_ordinal=target)
    except NotImplementedError as error:
        raise ProgramError(
            f"the enumerated sites {sorted(_enumerated(trace))} stand in plates that cross, so that summing them out takes "
            "a table of all combinations. Nest one plate in the other, or draw one of the sites in the guide."
        ) from error
    return packed.unpack(total, trace.symbol_to_dim).reshape(plate.size)


def _enumerated(trace: Trace) -> list[str]:
    return [name for name, site in random_sites(trace).items() if site["infer"].get("_enumerate_symbol")]


def _in_parallel(site: Site, given: Latents = MappingProxyType({})) -> InferDict:
    if site["type"] != "sample" or site["is_observed"] or not is_finite(site):
        return {}
    how: Any = None if site["name"] in given else "parallel"
    return {"enumerate": how, "expand": False}


def _refuse_unsummable(run: Run) -> None:
    for name, site in random_sites(run.model).items():
        if not run.is_local(site):
            raise ProgramError(
                f"site {name!r} lies outside the plate {run.plate.name!r} and is shared by all examples, so log p(x) is no "
                "sum over them. Use importance(particles), which reports the dataset's evidence."
            )
        if site["is_observed"]:
            continue
        if not is_finite(site):
            raise ProgramError(
                f"site {name!r} ({type(site['fn']).__name__}) has no finite support to sum over, so log p(x) is not exact. "
                "Use importance(particles)."
            )
        if site["infer"].get("num_samples") is not None:
            raise ProgramError(
                f"site {name!r} is drawn {site['infer']['num_samples']} times (num_samples) and not summed over its "
                "support, so log p(x) is not exact. Remove num_samples from its infer."
            )
    for name, site in random_sites(run.model).items():
        log_density(name, site, run.plate)  # refuses what would be scored wrongly, such as a value that is broadcast
