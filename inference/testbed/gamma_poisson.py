"""Counts of an unknown rate: a positive latent."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference.testbed.drawing import drawn
from inference.testbed.moments import Moments


class GammaPoisson(nn.Module):
    """rate ~ Gamma(3, 2), `counts` counts of each rate: the posterior is a gamma (Gelman et al., 2013, section 2.6).

    x is `(batch, counts)` of whole numbers. Shape and rate of the guide are those of the posterior times `exp(error)`.
    """

    SHAPE, RATE = 3.0, 2.0

    def __init__(self, counts: int = 2, error: float = 0.0) -> None:
        super().__init__()
        self.counts = counts
        self.error = nn.Parameter(torch.tensor(error, dtype=torch.float64))

    def model(self, x: Tensor) -> Tensor:
        """Draws a rate, observes its counts."""
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(x.new_tensor(self.SHAPE), self.RATE))
            count = dist.Poisson(rate.unsqueeze(-1)).expand([len(x), self.counts])
            seen: Tensor = pyro.sample("x", count.to_event(1), obs=x)
        return seen

    def guide(self, x: Tensor) -> None:
        """Draws the rate from a gamma."""
        shape, rate = self._posterior(x)
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(shape * self.error.exp(), rate * self.error.exp()))

    def log_evidence(self, x: Tensor) -> Tensor:
        """The ratio of the gammas' normalisers, and Poisson's factorials."""
        shape, rate = self._posterior(x)
        prior = self.SHAPE * math.log(self.RATE) - math.lgamma(self.SHAPE)
        return prior + torch.lgamma(shape) - shape * math.log(rate) - torch.lgamma(x + 1).sum(1)

    def posterior(self, x: Tensor) -> dict[str, Moments]:
        """Of the rate."""
        shape, rate = self._posterior(x)
        return {"rate": Moments(shape / rate, shape / rate**2)}

    def batch(self, n: int, seed: int = 0) -> Tensor:
        """n examples of the model."""
        return drawn(self, torch.zeros(n, self.counts, dtype=torch.float64), seed)

    def _posterior(self, x: Tensor) -> tuple[Tensor, float]:
        """Its shape `(batch,)` and rate."""
        return self.SHAPE + x.sum(1), self.RATE + self.counts
