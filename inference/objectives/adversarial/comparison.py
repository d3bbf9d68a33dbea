"""Which sites a critic compares, and the inputs of the critic and of a contrast."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from inference.objectives.adversarial.contrast import Contrast
from inference.objectives.forward_inputs import asked_of
from inference.programs.densities import refuse_inner_subsample, refuse_scale
from inference.programs.entries import Examples, leaves, rows_of
from inference.programs.execution import Run
from inference.programs.pair import arguments
from inference.programs.program import Program, ProgramError
from inference.programs.sites import Site, has_rsample, is_implicit, random_sites
from inference.programs.terms import refuse_mismatch
from inference.programs.traces import runs


class Comparison(NamedTuple):
    """The sites of a program by their part in the comparison of q and p."""

    compared: tuple[str, ...]
    """The sites whose joint density differs between q and p: the critic stands in for its ratio."""
    exact: tuple[str, ...]
    """The sites that keep their densities in the loss."""
    shared: tuple[str, ...]
    """The sites outside the batch plate, of which a critic is given the same values for q and p."""
    data: Mapping[str, int]
    """The observed sites that observe a tensor of the batch as it is, with its place among these."""
    observed: tuple[str, ...]
    """The observed sites among the compared."""
    scored: tuple[str, ...]
    """The observed sites among the exact."""


def comparison(program: Program, batch: Examples, compare: Sequence[str] | None) -> Comparison:
    """What is compared: implicit observations, and all local latents where one of these sites has no density.

    Where observations are compared, the guide may also leave out all local latents: they are then the model's own noise.

    Raises:
        ProgramError: nothing needs a comparison, model and guide do not go together, `compare` names no such site, or a
            site is such that a critic gives it no gradient.
    """
    run = runs(program, batch)[0]
    if run.plate is None:
        raise ProgramError(
            f"no plate counts the {rows_of(batch)} examples of the batch, and a critic compares examples one by one. Draw "
            "the sites of each example inside `with pyro.plate('data', len(x)):`."
        )
    _refuse_own_subsample(run, rows_of(batch))
    model, guide = random_sites(run.model), random_sites(run.guide)
    observed = [name for name, site in model.items() if site["is_observed"]]
    drawn = [name for name, site in guide.items() if not site["infer"].get("is_auxiliary")]
    local = [name for name in drawn if run.is_local(guide[name])]
    if compare is None:
        without_density = [name for name in observed if is_implicit(model[name]["fn"])]
        mixed = any(is_implicit(sites[name]["fn"]) for name in local for sites in (model, guide) if name in sites)
        compared = [*without_density, *(local if without_density or mixed else [])]
    else:
        compared = _named(compare, [*observed, *local])
    if not local and any(name in observed for name in compared):
        model = _without_noise(run, model, compared)
    latents = {name: site for name, site in model.items() if not site["is_observed"]}
    summed = [name for name, site in latents.items() if name not in drawn and site["infer"].get("enumerate")]
    if summed:
        raise ProgramError(
            f"the sites {summed} are to be summed out (infer={{'enumerate': …}}), and a critic compares draws. "
            "Draw them in the guide, or fit a program whose sites have densities with SVI or ImportanceWeighted."
        )
    refuse_mismatch(latents, set(drawn))
    _refuse_unfit(run, compared, model, guide)
    places = {id(tensor): index for index, tensor in enumerate(leaves(run.batch))}
    return Comparison(
        compared=tuple(compared),
        exact=tuple(name for name in model if name not in compared),
        shared=tuple(dict.fromkeys(name for name, site in (model | guide).items() if not run.is_local(site))),
        data={name: places[id(model[name]["value"])] for name in observed if id(model[name]["value"]) in places},
        observed=tuple(name for name in observed if name in compared),
        scored=tuple(name for name in observed if name not in compared),
    )


def critic_inputs(critic: nn.Module, found: Comparison, program: Program, batch: Examples) -> tuple[str, ...]:
    """The names of what a critic's `forward` is given: sites, or further arguments of the model.

    Raises:
        ProgramError: it names an unknown input, or leaves out a compared site.
    """
    known = sorted({*found.compared, *found.shared, *found.data, *found.exact, *arguments(program, batch)})
    names = asked_of(critic, known)
    strange = [name for name in names if name not in known]
    missing = [name for name in found.compared if name not in names]
    if strange or missing:
        raise ProgramError(
            f"the critic's forward takes {list(names)}, and {list(found.compared)} are compared: "
            f"it lacks {missing or 'nothing'}, and {strange or 'nothing'} is unknown. Take all that is compared, and any "
            f"other of {known}, by these names."
        )
    return names


def contrast_of(network: nn.Module, found: Comparison, program: Program, batch: Examples) -> Contrast:
    """The contrast where one latent site is compared, which has a density in the model.

    Raises:
        ProgramError: the comparison is another, or the network's `forward` names an unknown input.
    """
    if not isinstance(network, nn.Module):
        raise ProgramError(
            f"contrast: expected an nn.Module, got a {type(network).__name__}; its parameters are trained."
        )
    site = found.compared[0]
    prior = random_sites(runs(program, batch)[0].model)[site]["fn"]
    if len(found.compared) > 1 or found.observed or is_implicit(prior):
        raise ProgramError(
            f"a contrast stands between the guide and the prior of one latent site, and here "
            f"{list(found.compared)} are compared{', without a density' if is_implicit(prior) else ''}. Leave contrast out."
        )
    known = sorted({*found.shared, *found.data, *found.exact, *arguments(program, batch)} - {site})
    names = asked_of(network, known)
    strange = [name for name in names if name not in known]
    if strange:
        raise ProgramError(
            f"the contrast's forward takes {list(names)}, and {strange} is unknown. Take any of {known}, by these names."
        )
    return Contrast(network, names, site)


def _named(compare: Sequence[str], known: list[str]) -> list[str]:
    strange = [name for name in compare if name not in known]
    if isinstance(compare, str) or strange:
        raise ProgramError(f"compare: expected names among {known}, as a tuple, got {compare!r}; correct them.")
    return list(compare)


def _without_noise(run: Run, model: Mapping[str, Site], compared: Sequence[str]) -> dict[str, Site]:
    """The model's sites without its local latents, which no guide draws; what comes after these can not be exact."""
    noise = [name for name, site in model.items() if run.is_local(site) and not site["is_observed"]]
    names = list(model)
    after = names[names.index(noise[0]) :] if noise else []
    unguided = [name for name in after if model[name]["is_observed"] and name not in compared]
    if unguided:
        raise ProgramError(
            f"the observed sites {unguided} have a density given the latents {noise}, which the guide does not draw: of a "
            f"draw from the prior it says nothing about the data. Draw {noise} in the guide, or compare {unguided} too."
        )
    return {name: site for name, site in model.items() if name not in noise}


def _refuse_own_subsample(run: Run, examples: int) -> None:
    if run.plate.size != examples:
        raise ProgramError(
            f"the program takes {run.plate.size} of the batch's {examples} examples by itself, and the samples "
            "of q and p must be of the same. Give it smaller batches, and the dataset's size to its plate: "
            "pyro.plate('data', size, subsample_size=len(x))."
        )


def _refuse_unfit(run: Run, compared: list[str], model: Mapping[str, Site], guide: Mapping[str, Site]) -> None:
    both = [(name, site) for sites in (model, guide) for name, site in sites.items()]
    _refuse_implicit([name for name, site in both if not run.is_local(site) and is_implicit(site["fn"])])
    if not compared:
        raise ProgramError(
            f"every site has a density ({sorted(model)}), so there is nothing that a critic must stand in for. Use SVI or "
            "ImportanceWeighted, or say what is to be compared: compare=('z',)."
        )
    without = _distinct(name for name, site in both if name not in compared and is_implicit(site["fn"]))
    if without:
        raise ProgramError(
            f"the sites {without} have no density and are not compared, so nothing fits them. Compare them too: "
            f"compare={(*compared, *without)}, or leave compare out."
        )
    jumps = [name for name, site in guide.items() if not has_rsample(site["fn"])]
    if jumps:
        raise ProgramError(
            f"the guide's sites {jumps} have no reparameterised draws (discrete ones have none), so that no gradient of "
            "a critic reaches what draws them. Relax them (RelaxedOneHotCategorical), or sum them out in the model."
        )
    auxiliary = [name for name, site in guide.items() if site["infer"].get("is_auxiliary")]
    if auxiliary and any(name in guide for name in compared):
        raise ProgramError(
            f"the guide draws the auxiliary sites {auxiliary} (an AutoGuide?) beside the compared {compared}, and what "
            "belongs to which is not known. Write a guide that draws the latent sites themselves."
        )
    for name, site in both:
        if name in compared:
            _refuse_weight(name, site)
            refuse_inner_subsample(name, site, run.plate)


def _refuse_implicit(shared: list[str]) -> None:
    if shared:
        raise ProgramError(
            f"the sites {_distinct(shared)} are shared by all examples and have no density: a critic "
            "learns nothing from one draw a step. Give them a density (in the guide a flow can have any shape), or draw "
            "them for each example."
        )


def _refuse_weight(name: str, site: Site) -> None:
    refuse_scale(name, site)
    if isinstance(site["mask"], Tensor) or site["mask"] is False:
        raise ProgramError(
            f"site {name!r} is masked and compared: a critic takes whole values. Remove the mask, and leave "
            "masked examples out of the batch; a weight for the comparison as a whole is weight=…."
        )


def refuse_whole_numbers(values: Mapping[str, Tensor], names: Iterable[str]) -> None:
    """Raises a ProgramError where a value that a penalty's gradient is taken by is not a real number."""
    whole = {name: values[name].dtype for name in names if not values[name].is_floating_point()}
    if whole:
        raise ProgramError(
            f"penalty: the gradient of a critic by {whole} does not exist. Give such values as floats (x.float()), or "
            "leave the penalty out."
        )


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
