"""Which sites a critic compares, and their values on the q side (data and guide) and on the p side (model)."""

import inspect
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor, nn

from inference.contrast import Contrast
from inference.program import Program, ProgramError, without_store
from inference.sites import Site, batch_plate, is_implicit, log_density, random_sites, site_log_prob
from inference.terms import latent_sites
from inference.traces import guide_runs, runs


class Structure(NamedTuple):
    """What the sites of a program say about its comparison."""

    compared: tuple[str, ...]
    """The sites whose joint density differs between the sides: the critic stands in for its ratio."""
    exact: tuple[str, ...]
    """The sites that keep their densities in the loss."""
    shared: tuple[str, ...]
    """The sites outside the batch plate, which a critic is given on both sides alike."""
    data: Mapping[str, int]
    """The observed sites that observe a tensor of the batch as it is, with its place."""
    observed: tuple[str, ...]
    """The observed sites among the compared."""


def structure(program: Program, batch: tuple[Tensor, ...], compare: Sequence[str] | None) -> Structure:
    """What is compared: implicit observations, and all local latents where one of these sites has no density.

    Where observations are compared, the guide may also leave out all local latents: they are then the model's own noise.

    Raises:
        ProgramError: nothing needs a comparison, an implicit site is shared, or `compare` names no such site.
    """
    run = runs(program, batch)[0]
    model, guide = random_sites(run.model), random_sites(run.guide)
    observed = [name for name, site in model.items() if site["is_observed"]]
    shared = [name for name, site in (model | guide).items() if not run.is_local(site)]
    _refuse_implicit_shared(shared, model, guide)
    local = [name for name in guide if name not in shared]
    without_density = [name for name in observed if is_implicit(model[name]["fn"])]
    if without_density and not local:
        model = {name: site for name, site in model.items() if name in (*observed, *shared)}
    else:
        latent_sites(run)  # raises unless model and guide draw the same
    if compare is not None:
        compared = _named(compare, [*observed, *local])
    else:
        mixed = any(is_implicit(guide[name]["fn"]) or is_implicit(model[name]["fn"]) for name in local)
        compared = [*without_density, *(local if without_density or mixed else [])]
    _refuse_unfit(compared, [name for name in model if name not in compared], model, guide)
    places = {id(tensor): index for index, tensor in enumerate(batch)}
    return Structure(
        compared=tuple(compared),
        exact=tuple(name for name in model if name not in compared),
        shared=tuple(shared),
        data={name: places[id(model[name]["value"])] for name in observed if id(model[name]["value"]) in places},
        observed=tuple(name for name in observed if name in compared),
    )


def seen_by(critic: nn.Module, found: Structure, program: Program, batch: tuple[Tensor, ...]) -> tuple[str, ...]:
    """The names of what a critic's `forward` is given: sites, or further arguments of the model.

    Raises:
        ProgramError: it asks for what there is not, or does not look at something that is compared.
    """
    known = sorted({*found.compared, *found.shared, *found.data, *found.exact, *_arguments(program, batch)})
    names = _asked(critic, known)
    strange = [name for name in names if name not in known]
    missing = [name for name in found.compared if name not in names]
    if strange or missing:
        raise ProgramError(
            f"the critic's forward takes {list(names)}, and the sites tell that {list(found.compared)} are compared: "
            f"it lacks {missing or 'nothing'}, and {strange or 'nothing'} is unknown. Take all that is compared, and any "
            f"other of {known}, by these names."
        )
    return names


def contrast_of(network: nn.Module, found: Structure, program: Program, batch: tuple[Tensor, ...]) -> Contrast:
    """The contrast of a structure in which one latent site is compared, and it has a density in the model.

    Raises:
        ProgramError: the structure is another, or the network's `forward` asks for what there is not.
    """
    if not isinstance(network, nn.Module):
        raise ProgramError(
            f"contrast: expected an nn.Module, got a {type(network).__name__}; its parameters are trained."
        )
    site = found.compared[0]
    prior = random_sites(runs(program, batch)[0].model)[site]["fn"]
    if len(found.compared) > 1 or found.observed or is_implicit(prior):
        raise ProgramError(
            f"a contrast stands between the guide and the prior of one latent site, and the sites tell that "
            f"{list(found.compared)} are compared{', without a density' if is_implicit(prior) else ''}. Leave contrast out."
        )
    known = sorted({*found.shared, *found.data, *found.exact, *_arguments(program, batch)} - {site})
    names = _asked(network, known)
    strange = [name for name in names if name not in known]
    if strange:
        raise ProgramError(
            f"the contrast's forward takes {list(names)}, and {strange} is unknown. Take any of {known}, by these names."
        )
    return Contrast(network, names, site)


def q_side(program: Program, batch: tuple[Tensor, ...], found: Structure) -> tuple[Trace, dict[str, Tensor]]:
    """The guide's trace, and the values of data and guide by name."""
    guide = guide_runs(program, batch)[0].guide
    values = {name: site["value"] for name, site in random_sites(guide).items()}
    values |= {name: batch[index] for name, index in found.data.items()}
    if not values.keys() >= set(found.observed):  # the model reshapes what it observes
        sites = random_sites(_replayed(program, batch, guide))
        values |= {name: sites[name]["value"] for name in found.observed}
    return guide, _arguments(program, batch) | values


def p_side(program: Program, batch: tuple[Tensor, ...], found: Structure, q: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values of q, but those of the compared sites drawn from the model; what comes after these is not run."""
    kept = (*found.exact, *found.shared)
    drawing = _Draws(set(found.compared), {name: value for name, value in q.items() if name in kept})
    with without_store(), suppress(_Enough), drawing:
        program.model(*batch)
    return {**q, **drawing.drawn}


def exact_terms(
    program: Program, batch: tuple[Tensor, ...], found: Structure, guide: Trace, size: int | None, prior: Sequence[str]
) -> Tensor:
    """Σ log p - log q of the sites that are not compared, and log p of those in `prior`: nats per example, a scalar.

    Local sites are averaged over the batch, shared ones divided by the size of the dataset (the plate's, if None).
    """
    model, drawn = random_sites(_replayed(program, batch, guide)), random_sites(guide)
    plate = batch_plate([*model.values(), *drawn.values()], len(batch[0]))
    assert plate is not None  # or `structure` would have raised
    total = batch[0].new_zeros(())
    for sign, sites, names in ((1, model, (*found.exact, *prior)), (-1, drawn, found.exact)):
        for name in names:
            if name in sites and name in found.shared:
                total = total + sign * site_log_prob(name, sites[name]).sum() / (size or plate.full_size)
            elif name in sites:
                total = total + sign * log_density(name, sites[name], plate).mean()
    return total


def log_prior(program: Program, batch: tuple[Tensor, ...], guide: Trace, site: str) -> Tensor:
    """log p of the guide's draws of a local site: `(batch,)` nats."""
    model = random_sites(_replayed(program, batch, guide))
    plate = batch_plate(model.values(), len(batch[0]))
    assert plate is not None
    return log_density(site, model[site], plate)


def _replayed(program: Program, batch: tuple[Tensor, ...], guide: Trace) -> Trace:
    with without_store():
        return poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(*batch)


def _asked(network: nn.Module, known: Sequence[str]) -> tuple[str, ...]:
    """The names of what a `forward` takes, without those that it can do without and that there are not."""
    parameters = inspect.signature(network.forward).parameters
    return tuple(name for name, each in parameters.items() if each.default is each.empty or name in known)


def _arguments(program: Program, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The batch by the names that the model has for it."""
    return dict(zip(inspect.signature(program.model).parameters, batch, strict=False))


class _Enough(Exception):
    """All compared sites have been drawn."""


class _Draws(Messenger):
    """Draws the compared sites from the model, observed ones too; gives others their values; stops after the last one."""

    def __init__(self, compared: set[str], given: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.compared, self.given = compared, given
        self.drawn: dict[str, Tensor] = {}

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.compared:
            message["is_observed"], message["value"] = False, None
        elif message["name"] in self.given and not message["is_observed"]:
            message["value"] = self.given[message["name"]]

    def _pyro_post_sample(self, message: Any) -> None:
        if message["name"] in self.compared:
            self.drawn[message["name"]] = message["value"]
            if self.drawn.keys() == self.compared:
                raise _Enough


def _named(compare: Sequence[str], known: list[str]) -> list[str]:
    strange = [name for name in compare if name not in known]
    if isinstance(compare, str) or strange:
        raise ProgramError(f"compare: expected names among {known}, as a tuple, got {compare!r}; correct them.")
    return list(compare)


def _refuse_implicit_shared(shared: list[str], model: Mapping[str, Site], guide: Mapping[str, Site]) -> None:
    implicit = [name for name in shared for side in (model, guide) if name in side and is_implicit(side[name]["fn"])]
    if implicit:
        raise ProgramError(
            f"the sites {implicit} are shared by all examples and have no density: one draw a step teaches a critic "
            "nothing. Give them a density (in the guide a flow can have any shape), or draw them for each example."
        )


def _refuse_unfit(compared: list[str], exact: list[str], model: Mapping[str, Site], guide: Mapping[str, Site]) -> None:
    if not compared:
        raise ProgramError(
            f"every site has a density ({sorted(model)}), so there is nothing that a critic must stand in for. Use SVI or "
            "ImportanceWeighted, or say what is to be compared: compare=('z',)."
        )
    without = [name for name in exact for side in (model, guide) if name in side and is_implicit(side[name]["fn"])]
    if without:
        raise ProgramError(
            f"the sites {without} have no density and are not compared, so nothing tells how to fit them. Compare them too: "
            f"compare={(*compared, *without)}, or leave compare out."
        )
