"""By how much the guide differs from the prior, site by site."""

from collections.abc import Mapping

import torch
from torch import Tensor

from inference.programs.densities import log_density, site_log_prob
from inference.programs.enumeration import contracted, entangled, enumerated
from inference.programs.execution import Run
from inference.programs.expectation import masked_as_model
from inference.programs.program import Program
from inference.programs.sites import Site, is_point, latents_in
from inference.programs.terms import latent_sites


def log_ratios(program: Program, run: Run) -> dict[str, Tensor]:
    """log q(z) - log p(z) of each latent site that the guide draws, at the draws of a run, in nats.

    `(particles, batch)`, or `(particles, 1)` of what all examples share. Sites that have no density of their own stand
    together under their names, "a, b": those that an AutoGuide draws as one vector, and those whose prior is a sum over
    finite latents.

    Raises:
        ProgramError: model and guide draw different sites, or a density does not have the shape that its plates give.
    """
    run = masked_as_model(run)
    summed, guide = latent_sites(run)
    latents = latents_in(run.model)
    whole = enumerated(program, run, summed) if summed else None
    tied = {name: site for name, site in entangled(whole).items() if not site["is_observed"]} if whole else {}
    own, together = _own_and_joint(guide, {*tied})
    found = {}
    for name, names in own.items():
        sites = {each: guide[each] for each in names}
        found[name] = _log_density(run, sites) - _log_density(run, {name: latents[name]})
    drawn = [name for name in together if name in latents]
    if drawn:
        posterior = _log_density(run, {name: guide[name] for name in together})
        prior = _log_density(run, {name: latents[name] for name in drawn if name not in tied})
        if whole is not None and tied.keys() & {*drawn}:
            local = all(map(run.is_local, tied.values()))
            sums = contracted(whole, tied, run.plate if local else None)
            prior, sums = _matched(prior, sums.reshape(run.particles, run.examples if local else 1))
            prior = prior + sums
        posterior, prior = _matched(posterior, prior)
        found[", ".join(drawn)] = posterior - prior
    return found


def _own_and_joint(guide: Mapping[str, Site], tied: set[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The guide's sites for each latent that has a density of its own, and those that have one density together."""
    auxiliary = {name for name, site in guide.items() if site["infer"].get("is_auxiliary")}
    partners = {name: f"{name}_unconstrained" for name in guide if f"{name}_unconstrained" in auxiliary}  # AutoNormal's
    loose = auxiliary - {*partners.values()}
    own: dict[str, list[str]] = {}
    together = sorted(loose)
    for name in guide:
        if name in auxiliary:
            continue
        sites = [name, partners[name]] if name in partners else [name]
        if name in tied or (loose and name not in partners and is_point(guide[name])):
            together += sites
        else:
            own[name] = sites
    return own, together


def _log_density(run: Run, sites: Mapping[str, Site]) -> Tensor:
    """`(particles, batch)` of sites inside the batch plate; `(particles, 1)` where one is outside of it."""
    if all(map(run.is_local, sites.values())):
        found = [log_density(name, site, run.plate) for name, site in sites.items()]
        total = torch.stack(found).sum(0) if found else torch.zeros(run.particles * run.examples)
        return total.reshape(run.particles, run.examples)
    return torch.stack([site_log_prob(name, site).sum() for name, site in sites.items()]).sum().reshape(1, 1)


def _matched(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Both per example, or both of the whole dataset where one is."""
    if first.shape == second.shape:
        return first, second
    return first.sum(1, keepdim=True), second.sum(1, keepdim=True)
