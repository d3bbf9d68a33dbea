"""Which units of a latent say anything of x: those whose posterior mean moves with it."""

import torch
from torch import Tensor

from inference.evaluation.estimators import Mean
from inference.programs.execution import Run
from inference.programs.sites import latents_in

ACTIVE = 0.01
"""The share of a unit's variance that is between examples, above which it is active.

Burda et al. (2016, arXiv 1509.00519) take the variance over x of E_q[z] itself, for latents whose prior has variance 1. A
share is the same whatever the unit is measured in, and hardly another number where that of the prior is 1.
"""


def units_of(run: Run) -> dict[str, Tensor]:
    """The values of the latents that the guide draws for each example, labels left out: `(particles, batch, units)`."""
    if run.plate is None:
        return {}
    sites = {
        name: site
        for name, site in latents_in(run.model).items()
        if name in run.guide and run.is_local(site) and site["value"].is_floating_point()
    }
    return {name: value.double().reshape(*value.shape[:2], -1) for name, value in run.values(sites).items()}


class PosteriorMeans:
    """The posterior means of a site's units, one batch after the other, and how much they vary over the examples."""

    def __init__(self) -> None:
        self.means, self.within = Mean(), torch.zeros(())
        self.noise = torch.zeros(())

    def add(self, draws: Mean) -> None:
        """Takes in the moments of the draws of a batch, `(batch, units)`."""
        self.means.add(draws.mean)
        variance = (draws.squares / (draws.count - 1)).sum(0)
        self.within, self.noise = self.within + variance, self.noise + variance / draws.count

    @property
    def share(self) -> Tensor:
        """Of each unit's variance, how much is between examples and not within their posteriors: `(units,)`.

        What the finite number of draws adds to the means is taken off. 0 of a unit that does not move at all, NaN of a
        single example.
        """
        if self.means.count < 2:
            return torch.full_like(self.noise, torch.nan)
        between = self.means.squares / (self.means.count - 1) - self.noise / self.means.count
        total = between + self.within / self.means.count
        return torch.where(total > 0, between / total, 0.0)
