"""Flips of a coin of unknown fairness: a latent in the unit interval."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference.testbed.drawing import drawn
from inference.testbed.moments import Moments


class BetaBernoulli(nn.Module):
    """fairness ~ Beta(2, 3), `flips` flips of each coin: the posterior is a beta (Gelman et al., 2013, section 2.1).

    x is `(batch, flips)` of 0 and 1. The guide's concentrations are those of the posterior times `exp(error)`.
    """

    def __init__(self, flips: int = 5, error: float = 0.0) -> None:
        super().__init__()
        self.flips = flips
        self.register_buffer("prior", torch.tensor([2.0, 3.0], dtype=torch.float64))
        self.prior: Tensor
        self.error = nn.Parameter(torch.tensor(error, dtype=torch.float64))

    def model(self, x: Tensor) -> Tensor:
        """Draws the fairness of each coin, observes its flips."""
        with pyro.plate("data", len(x)):
            fairness = pyro.sample("fairness", dist.Beta(*self.prior))
            flip = dist.Bernoulli(fairness.unsqueeze(-1)).expand([len(x), self.flips])
            seen: Tensor = pyro.sample("x", flip.to_event(1), obs=x)
        return seen

    def guide(self, x: Tensor) -> None:
        """Draws the fairness from a beta."""
        with pyro.plate("data", len(x)):
            pyro.sample("fairness", dist.Beta(*(self._concentrations(x) * self.error.exp())))

    def log_evidence(self, x: Tensor) -> Tensor:
        """log B(a + heads, b + tails) - log B(a, b)."""
        return _log_beta(self._concentrations(x)) - _log_beta(self.prior)

    def posterior(self, x: Tensor) -> dict[str, Moments]:
        """Of the fairness."""
        a, b = self._concentrations(x)
        total = a + b
        return {"fairness": Moments(a / total, a * b / (total.square() * (total + 1)))}

    def batch(self, n: int, seed: int = 0) -> Tensor:
        """n coins of the model."""
        return drawn(self, torch.zeros(n, self.flips, dtype=torch.float64), seed)

    def _concentrations(self, x: Tensor) -> Tensor:
        """Of heads and tails given x: `(2, batch)`."""
        heads = x.sum(1)
        return self.prior.unsqueeze(-1) + torch.stack((heads, self.flips - heads))


def _log_beta(concentrations: Tensor) -> Tensor:
    return torch.lgamma(concentrations).sum(0) - torch.lgamma(concentrations.sum(0))
