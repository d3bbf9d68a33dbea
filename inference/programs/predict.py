"""What a program draws: from its prior, its guide, and its model given latents."""

import torch
from pyro.distributions import Unit
from torch import Tensor

from inference.programs.program import Batch, Program, ProgramError, evaluating
from inference.programs.sites import Site, random_sites
from inference.programs.traces import Latents, Run, guide_runs, model_runs


class NoMean(ProgramError):
    """A distribution that has no mean in closed form, so that draws have to be averaged."""


def sample(program: Program, batch: Batch, draws: int = 1) -> dict[str, Tensor]:
    """Draws of all the model's sites from the prior predictive, the observations among them.

    Args:
        program: the model (its guide is not run).
        batch: gives shapes, device and context; what the model observes of it is not used.
        draws: how many per row of the batch.

    Returns:
        `(draws, batch, ...)` per site inside the batch plate, `(draws, ...)` per shared site.
    """
    with torch.no_grad(), evaluating(program):
        found = model_runs(program, batch, draws)
        return _together([run.values(random_sites(run.model)) for run in found])


def posterior(program: Program, batch: Batch, draws: int = 1) -> dict[str, Tensor]:
    """Draws of the latent sites from the guide: `(draws, batch, ...)`, or `(draws, ...)` of shared sites."""
    with torch.no_grad(), evaluating(program):
        return draw(program, batch, draws)


def draw(program: Program, batch: Batch, draws: int = 1) -> dict[str, Tensor]:
    """What `posterior` gives, with gradients and in the program's own mode."""
    return _together([run.values(_drawn(run)) for run in guide_runs(program, batch, draws)])


def decode(program: Program, batch: Batch, latents: Latents) -> dict[str, Tensor]:
    """The mean of each observed site's distribution given latents: `(particles, batch, ...)`.

    Latent sites that are not given are drawn from the prior.

    Raises:
        NoMean: a distribution has no mean in closed form.
    """
    with torch.no_grad(), evaluating(program):
        found = model_runs(program, batch, 1, latents)
        return _together(
            [
                {
                    name: run.in_front(_mean(name, site), site["fn"].event_dim)
                    for name, site in _lifted(run).items()
                    if run.is_local(site) and not isinstance(site["fn"], Unit)
                }
                for run in found
            ]
        )


def reconstruct(program: Program, batch: Batch, draws: int = 1) -> dict[str, Tensor]:
    """Draws of the observed sites given latents drawn from the guide: `(draws, batch, ...)`."""
    with torch.no_grad(), evaluating(program):
        found = model_runs(program, batch, draws, draw(program, batch, draws))
        return _together([run.values(_lifted(run)) for run in found])


def _mean(name: str, site: Site) -> Tensor:
    try:
        mean: Tensor = site["fn"].mean
    except NotImplementedError as error:
        raise NoMean(
            f"the distribution of site {name!r} ({type(site['fn']).__name__}) has no mean in closed form. Average draws: "
            "`reconstruct`, or `sample`."
        ) from error
    return mean


def _drawn(run: Run) -> dict[str, Site]:
    return {name: site for name, site in random_sites(run.guide).items() if not site["infer"].get("is_auxiliary")}


def _lifted(run: Run) -> dict[str, Site]:
    return {name: site for name, site in random_sites(run.model).items() if site["infer"].get("was_observed")}


def _together(pieces: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
