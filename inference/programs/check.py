"""Preflight: what is wrong with a program and its batch, before the first step is taken."""

from collections.abc import Iterable

import pyro
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor, nn

from inference.programs.bounds import elbo, surrogate
from inference.programs.entries import Examples, leaves, named, rows_of
from inference.programs.execution import Run, refuse_writes
from inference.programs.noise import own_noise
from inference.programs.program import Batch, Program, ProgramError, as_batch, evaluating, parameters
from inference.programs.signatures import check_interface
from inference.programs.sites import Site, is_implicit, latents_in, random_sites
from inference.programs.terms import refuse_outside, terms
from inference.programs.traces import runs
from inference.programs.values import among, check_support, in_support, refuse_broadcast


def check(program: Program, batch: Batch) -> None:
    """Everything that can be known to be wrong with a program on one batch; silent where nothing is.

    Looks for: NaN or Inf in the data; model and guide that draw different sites; a forgotten plate or `to_event`; an
    observation broadcast over the batch; values outside a distribution's support; a scale that changes per-example numbers;
    parameters that no gradient reaches, and trained tensors that the program does not hold.

    Raises:
        ProgramError: the first fault found, with the site, what was expected, what came, and what to do.
    """
    with own_noise(0):  # a check leaves the caller's generators as they are
        check_sites(program, batch)
        scored = terms(program, batch)
        if parameters(program) and not scored.implicit:
            loss = surrogate(elbo, scored.log_weights_for(elbo), scored.log_scores).mean()
            check_gradients(loss, parameters(program), program)


def check_sites(program: Program, batch: Batch, own_densities: bool = True) -> None:
    """The part of `check` that concerns data and sites.

    Args:
        program: the program.
        batch: one batch.
        own_densities: whether the objective is made of `Terms`. A Pyro estimator has rules of its own for enumerated
            and auxiliary sites and for scales.

    Raises:
        ProgramError: the first fault found.
    """
    examples = as_batch(batch)
    check_batch(program, examples)
    with torch.no_grad():
        run = runs(program, examples)[0]
    refuse_writes(run.written)
    pairs = zip(named(run.batch).items(), leaves(examples), strict=True)
    refuse_writes(tuple(name for (name, given), data in pairs if not torch.equal(given, data)))  # by x.data or numpy
    check_values(run)
    if own_densities:
        terms(program, examples)
    else:
        _check_names(run)


def check_data(program: Program, batches: Iterable[Batch]) -> None:
    """Raises a ProgramError where some batch of a data set has values outside the support that a site gives them.

    For training with Pyro's validation switched off, which looks at the first batch alone. The program runs once a batch.
    """
    with torch.no_grad(), evaluating(program), own_noise(0):
        start = 0
        for batch in batches:
            run = runs(program, batch)[0]
            with among(start):
                refuse_outside(run)
            start += rows_of(run.batch)
            if not any(_is_bounded(site) for site in random_sites(run.model).values() if site["is_observed"]):
                return  # real numbers, or no density: any value will do, in every batch


def outside_support(program: Program, batch: Examples) -> ProgramError | None:
    """What `check_data` says of a batch on which a program has failed; None where it finds nothing."""
    try:
        with pyro.validation_enabled(False):
            check_data(program, [batch])
    except ProgramError as error:
        return error
    except Exception:  # it fails here too, and for another reason
        return None
    return None


def _is_bounded(site: Site) -> bool:
    return not is_implicit(site["fn"]) and in_support(site["fn"], site["value"]) is not None


def check_values(run: Run) -> None:
    """Raises a ProgramError where a site has a value outside its distribution's support, or one row for all examples."""
    for trace in (run.guide, run.model):
        for name, site in random_sites(trace).items():
            check_support(name, site)
            if not is_implicit(site["fn"]):
                refuse_broadcast(name, site)


def check_batch(program: Program, batch: Batch) -> None:
    """The part of `check` that needs no run: whether the program takes this batch, and whether the data are finite.

    Raises:
        ProgramError: the first fault found.
    """
    examples = as_batch(batch)
    check_interface(program, examples)
    check_finite(examples)


def check_gradients(loss: Tensor, held: list[nn.Parameter], program: object) -> None:
    """Raises a ProgramError unless the loss's gradient reaches exactly the parameters that are trained.

    Args:
        loss: a scalar with its graph.
        held: the parameters that the gradient should reach.
        program: names the parameters, and holds those that other players train.
    """
    names = {id(p): name for name, p in program.named_parameters()} if isinstance(program, nn.Module) else {}
    if not loss.requires_grad:
        raise ProgramError(
            "no parameter has any influence on the loss: no gradient reaches "
            f"{sorted(names.values()) or 'the program, which holds no parameters'}. Use the parameters in model or guide; "
            "pass the modules that plain functions use to Pair(model, guide, *modules)."
        )
    reached = {id(leaf): leaf for leaf in leaves_of(loss)}
    strangers = [tuple(leaf.shape) for key, leaf in reached.items() if key not in names]
    if strangers:
        raise ProgramError(
            f"the loss depends on parameters of the shapes {strangers} that the program does not hold, so nothing would "
            "train them. Pass their modules: Pair(model, guide, *modules), or make them submodules of the program."
        )
    unreached = [names.get(id(p), str(tuple(p.shape))) for p in held if id(p) not in reached]
    if unreached:
        raise ProgramError(
            f"no gradient reaches the parameters {unreached}. Use them in model or guide (a PyroModule's methods need "
            "@pyro_method), or exclude them with requires_grad_(False)."
        )


def first_non_finite(program: Program, batch: Batch) -> str | None:
    """The first site that is not finite on this batch, described in words; None where every site is finite."""
    with torch.no_grad(), pyro.validation_enabled(False):
        try:
            run = runs(program, batch)[0]
        except ProgramError as error:
            return str(error)
    for part, trace in (("guide", run.guide), ("model", run.model)):
        for name, site in random_sites(trace).items():
            with torch.no_grad(), pyro.validation_enabled(False):
                fault = _non_finite(site)
            if fault:
                return f"the first such site is {name!r} of the {part} ({type(site['fn']).__name__}): {fault}"
    return None


def _non_finite(site: Site) -> str | None:
    if is_implicit(site["fn"]):
        return _count("its value", site["value"])
    log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"])
    return _count("its value", site["value"]) or _count("its log density", log_prob)


def _count(what: str, values: Tensor) -> str | None:
    bad = ~values.isfinite()
    if not values.is_floating_point() or not bad.any():
        return None
    index = tuple(int(i) for i in bad.nonzero()[0])
    return (
        f"{what} is not finite at {int(bad.sum())} of {bad.numel()} places, first at index {index} ({values[index]})."
    )


def check_finite(batch: Examples) -> None:
    """Raises a ProgramError where the data of a batch are not finite."""
    for name, tensor in named(batch).items():
        fault = _count(name, tensor)
        if fault:
            raise ProgramError(
                f"{fault} Remove or impute these examples; or replace the values (torch.nan_to_num) and mask their sites."
            )


def _check_names(run: Run) -> None:
    model = latents_in(run.model)
    drawn = {name for name, site in random_sites(run.guide).items() if not site["infer"].get("is_auxiliary")}
    summed = {name for name, site in model.items() if site["infer"].get("enumerate")}
    missing = sorted(model.keys() - drawn - summed)
    extra = sorted(drawn - model.keys())
    if missing or extra:
        raise ProgramError(
            f"model and guide draw different sites (missing from the guide: {missing or 'none'}; unknown to the model: "
            f"{extra or 'none'}): the loss would be no bound. Draw the same names in both; mark a discrete site that is "
            "to be summed out with infer={'enumerate': 'parallel'}."
        )


def leaves_of(loss: Tensor) -> Iterable[Tensor]:
    """The tensors that a backward pass from the loss would reach."""
    pending, seen = [loss.grad_fn], set()
    if loss.grad_fn is None:
        yield loss
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            yield node.variable
        pending.extend(following for following, _ in node.next_functions)
