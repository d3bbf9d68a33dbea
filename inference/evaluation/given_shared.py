"""The density of each example at given values of what all examples share."""

import torch
from torch import Tensor

from inference.evaluation.estimators import Importance
from inference.evaluation.stages import one_of
from inference.programs.entries import Examples
from inference.programs.execution import Latents, Run
from inference.programs.held_out import GivenShared
from inference.programs.program import Program
from inference.programs.sites import latents_in, random_sites


def shared_latents(run: Run) -> list[str]:
    """The model's latent sites outside the batch plate."""
    return [name for name, site in latents_in(run.model).items() if not run.is_local(site)]


def log_likelihoods(
    program: Program, batch: Examples, run: Run, shared: Latents, particles: int, rows: int | None
) -> tuple[Tensor, str]:
    """log p(x_i | θ) of each example at given values of all shared latents, `(draws, batch)` nats, and how it was found.

    Latents of an example are summed where they are finite and the guide leaves them out, else weighted. They are drawn from
    the guide at these θ; but an AutoGuide, which draws all latents at once, does not tell what they are there: then from the
    prior.
    """
    sites = [(name, site) for trace in (run.model, run.guide) for name, site in random_sites(trace).items()]
    hidden = frozenset(name for name, site in sites if not run.is_local(site))
    from_guide = not any(site["infer"].get("is_auxiliary") for _, site in sites)
    local = [name for name, site in latents_in(run.model).items() if run.is_local(site) and name in run.guide]
    inner = Importance(particles if local else 1, rows=rows)
    each = []
    draws = len(next(iter(shared.values())))
    for draw in range(draws):
        values = {name: value[draw] for name, value in shared.items()}
        with one_of(draw, draws, "draw"):
            each.append(inner(GivenShared(program, values, hidden, from_guide), batch).log_prob)
    source = "the guide" if from_guide else "the prior"
    how = f"the examples' own latents integrated out by {particles} weighted draws from {source}" if local else "exact"
    return torch.stack(each), how
