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
    """A program at given values of what its examples share: they are independent, and every estimator is of each by itself.

    Its guide is the program's own, or the prior of the local latents.
    """

    program: Program
    values: Mapping[str, Tensor]
    hidden: frozenset[str]
    """The sites outside the batch plate, of model and guide."""
    from_guide: bool

    @property
    def tiles(self) -> bool:
        """Whether particles may be laid along the batch axis."""
        return not self.from_guide or getattr(self.program, "tiles", True)

    def model(self, *batch: Any) -> Any:
        return self._local(self.program.model)(*batch)

    def guide(self, *batch: Any) -> Any:
        if self.from_guide:
            return self._local(self.program.guide)(*batch)
        return poutine.block(self.model, hide_fn=_is_observed_or_summed)(*batch)

    def _local(self, function: Callable[..., Any]) -> Callable[..., Any]:
        given = pyro.condition(function, data=dict(self.values))
        local: Callable[..., Any] = poutine.block(given, hide=[*self.hidden])
        return local


def shared_latents(run: Run) -> list[str]:
    """The model's latent sites outside the batch plate."""
    return [name for name, site in latents_in(run.model).items() if not run.is_local(site)]


def log_likelihoods(
    program: Program, batch: Examples, run: Run, shared: Latents, particles: int, rows: int
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
    for draw in range(len(next(iter(shared.values())))):
        values = {name: value[draw] for name, value in shared.items()}
        each.append(inner(GivenShared(program, values, hidden, from_guide), batch).log_prob)
    source = "the guide" if from_guide else "the prior"
    how = f"the examples' own latents integrated out by {particles} weighted draws from {source}" if local else "exact"
    return torch.stack(each), how


def _is_observed_or_summed(message: Any) -> bool:
    return bool(message["is_observed"] or message["infer"].get("enumerate"))
