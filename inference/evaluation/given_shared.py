"""A program at given values of what its examples share: these are then independent, and each has a density by itself."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from torch import Tensor

from inference.evaluation.estimators import Importance
from inference.programs.entries import Examples
from inference.programs.execution import Latents, Run
from inference.programs.program import Program
from inference.programs.sites import latents_in, random_sites


class GivenShared(NamedTuple):
    """A program with its shared latents at given values, and all its other sites local.

    Its guide is the program's own, or the prior of the local latents.
    """

    program: Program
    values: Mapping[str, Tensor]
    from_prior: bool

    @property
    def tiles(self) -> bool:
        """Whether particles may be laid along the batch axis."""
        return self.from_prior or getattr(self.program, "tiles", True)

    def model(self, *batch: Any) -> Any:
        return self._at_values(self.program.model)(*batch)

    def guide(self, *batch: Any) -> Any:
        if not self.from_prior:
            return self._at_values(self.program.guide)(*batch)
        return poutine.block(self.model, hide_fn=_is_observed_or_summed)(*batch)

    def _at_values(self, function: Callable[..., Any]) -> Callable[..., Any]:
        conditioned = pyro.condition(function, data=dict(self.values))
        hidden: Callable[..., Any] = poutine.block(conditioned, hide=[*self.values])
        return hidden


def shared_latents(run: Run) -> list[str]:
    """The model's latent sites outside the batch plate."""
    return [name for name, site in latents_in(run.model).items() if not run.is_local(site)]


def log_likelihoods(
    program: Program, batch: Examples, run: Run, shared: Latents, particles: int, rows: int
) -> tuple[Tensor, str]:
    """log p(x_i | θ) of each example at given values of all shared latents, `(draws, batch)` nats, and how it was found.

    Latents of an example are summed where they are finite and the guide leaves them out, else weighted. They are drawn from
    the guide at these θ; but an AutoGuide, whose draws are of all latents at once, does not tell: then from the prior.
    """
    from_prior = any(site["infer"].get("is_auxiliary") for site in random_sites(run.guide).values())
    local = [name for name, site in latents_in(run.model).items() if run.is_local(site) and name in run.guide]
    inner = Importance(particles if local else 1, rows=rows)
    draws = len(next(iter(shared.values())))
    each = [
        inner(GivenShared(program, {name: value[k] for name, value in shared.items()}, from_prior), batch).log_prob
        for k in range(draws)
    ]
    source = "the prior" if from_prior else "the guide"
    how = f"the examples' own latents integrated out by {particles} weighted draws from {source}" if local else "exact"
    return torch.stack(each), how


def _is_observed_or_summed(message: Any) -> bool:
    return bool(message["is_observed"] or message["infer"].get("enumerate"))
