"""The exact log-likelihood of a program whose latent sites are discrete, by summing them out."""

from collections import OrderedDict

from pyro import poutine
from pyro.ops import packed
from pyro.ops.contract import contract_to_tensor
from pyro.poutine.runtime import InferDict
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from inference.programs.program import Batch, Program, ProgramError, as_batch, without_store
from inference.programs.sites import Frame, Site, plates, random_sites, refuse_inner_subsample, refuse_scale
from inference.programs.traces import Run, runs


def summed_out(program: Program, batch: Batch) -> Tensor:
    """log p(x) per example, every latent site of the model summed over its support: `(batch,)` nats.

    Plates inside the example and Markov chains are contracted site by site, not by one table of all combinations
    (Obermeyer et al. 2019, arXiv 1902.03210).

    Raises:
        ProgramError: a latent site has no enumerable support, or is shared by all examples.
    """
    examples = as_batch(batch)
    run = runs(program, examples)[0]
    _refuse_unsummable(run)
    nesting = max(-frame.dim for site in random_sites(run.model).values() for frame in plates(site).values())
    model = poutine.infer_config(program.model, config_fn=_in_parallel)
    with without_store(), poutine.enum(first_available_dim=-1 - nesting):
        trace = poutine.trace(model).get_trace(*examples)
    trace = poutine.util.prune_subsample_sites(trace)
    trace.compute_log_prob()
    trace.pack_tensors()
    return _contracted(trace, run.plate)


def _contracted(trace: Trace, plate: Frame) -> Tensor:
    symbols = trace.plate_to_symbol
    factors: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
    summed = set()
    for site in random_sites(trace).values():
        ordinal = frozenset(symbols[name] for name in plates(site))
        log_prob = packed.scale_and_mask(site["packed"]["unscaled_log_prob"], mask=site["packed"]["mask"])
        factors.setdefault(ordinal, []).append(log_prob)
        if site["infer"].get("_enumerate_symbol"):
            summed.add(site["infer"]["_enumerate_symbol"])
    total = contract_to_tensor(factors, summed, target_ordinal=frozenset({symbols[plate.name]}))
    return packed.unpack(total, trace.symbol_to_dim).reshape(plate.size)


def _in_parallel(site: Site) -> InferDict:
    latent = (
        site["type"] == "sample" and not site["is_observed"] and getattr(site["fn"], "has_enumerate_support", False)
    )
    return {"enumerate": "parallel", "expand": False} if latent else {}


def _refuse_unsummable(run: Run) -> None:
    for name, site in random_sites(run.model).items():
        refuse_scale(name, site)
        refuse_inner_subsample(name, site, run.plate)
        if not run.is_local(site):
            raise ProgramError(
                f"site {name!r} lies outside the plate {run.plate.name!r} and is shared by all examples, so log p(x) is no "
                "sum over them. Use importance(particles), which reports the dataset's evidence."
            )
        if not site["is_observed"] and not getattr(site["fn"], "has_enumerate_support", False):
            raise ProgramError(
                f"site {name!r} ({type(site['fn']).__name__}) has no finite support to sum over, so log p(x) is not exact. "
                "Use importance(particles)."
            )
