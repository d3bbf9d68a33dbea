"""Factor analysis: normal latents, a linear map, normal noise."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference.testbed.drawing import drawn
from inference.testbed.moments import Moments


class LinearGaussian(nn.Module):
    """z ~ N(0, I), x | z ~ N(W z + b, s² I): evidence and posterior are normal (Tipping & Bishop, 1999, JRSS B 61).

    x is `(batch, features)`. The guide starts at the exact posterior, moved by `error` in its mean and scaled by
    `exp(error)`. Its parameters are its own: it follows no later change of `weight` and `bias`.
    """

    def __init__(self, latent: int = 2, features: int = 3, error: float = 0.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(features, latent, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(features, generator=generator, dtype=torch.float64))
        self.noise = 0.7
        covariance, gain = self._posterior()
        self.gain = nn.Parameter(gain)
        self.offset = nn.Parameter(torch.full((latent,), error, dtype=torch.float64))
        self.tril = nn.Parameter(torch.linalg.cholesky(covariance) * math.exp(error))

    def model(self, x: Tensor) -> Tensor:
        """Draws z, observes x."""
        with pyro.plate("data", len(x)):
            prior = dist.Normal(x.new_zeros(self.weight.shape[1]), 1.0).to_event(1)
            z = pyro.sample("z", prior)
            likelihood = dist.Normal(z @ self.weight.T + self.bias, self.noise).to_event(1)
            seen: Tensor = pyro.sample("x", likelihood, obs=x)
        return seen

    def guide(self, x: Tensor) -> None:
        """Draws z from a normal of full covariance."""
        loc = (x - self.bias) @ self.gain.T + self.offset
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=self.tril.tril()))

    def log_evidence(self, x: Tensor) -> Tensor:
        """log N(x; b, W Wᵀ + s² I)."""
        features = len(self.bias)
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(features, dtype=torch.float64)
        found: Tensor = dist.MultivariateNormal(self.bias, covariance).log_prob(x)
        return found

    def posterior(self, x: Tensor) -> dict[str, Moments]:
        """Of z: the variance is the same for every x."""
        covariance, gain = self._posterior()
        mean = (x - self.bias) @ gain.T
        return {"z": Moments(mean, covariance.diagonal().expand_as(mean))}

    def batch(self, n: int, seed: int = 0) -> Tensor:
        """n examples of the model."""
        return drawn(self, torch.zeros(n, len(self.bias), dtype=torch.float64), seed)

    @torch.no_grad()
    def _posterior(self) -> tuple[Tensor, Tensor]:
        """The covariance of z given x, and the matrix that takes x - b to its mean."""
        latent = self.weight.shape[1]
        precision = torch.eye(latent, dtype=torch.float64) + self.weight.T @ self.weight / self.noise**2
        covariance = torch.linalg.inv(precision)
        return covariance, covariance @ self.weight.T / self.noise**2
