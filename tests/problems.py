"""Programs whose evidence, posterior or gradient is known in closed form; float64 throughout."""

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn


class LinearGaussian(nn.Module):
    """z ~ N(0, I), x | z ~ N(W z + b, s² I): the evidence and the posterior are Gaussian.

    The guide starts at the exact posterior, moved by `error` in its mean and scaled by `exp(error)`.
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

    @torch.no_grad()
    def _posterior(self) -> tuple[Tensor, Tensor]:
        latent = self.weight.shape[1]
        precision = torch.eye(latent, dtype=torch.float64) + self.weight.T @ self.weight / self.noise**2
        covariance = torch.linalg.inv(precision)
        return covariance, covariance @ self.weight.T / self.noise**2

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            prior = dist.Normal(x.new_zeros(self.weight.shape[1]), 1.0).to_event(1)
            z = pyro.sample("z", prior)
            likelihood = dist.Normal(z @ self.weight.T + self.bias, self.noise).to_event(1)
            return pyro.sample("x", likelihood, obs=x)

    def guide(self, x: Tensor) -> None:
        loc = (x - self.bias) @ self.gain.T + self.offset
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=self.tril.tril()))

    def log_evidence(self, x: Tensor) -> Tensor:
        features = len(self.bias)
        covariance = self.weight @ self.weight.T + self.noise**2 * torch.eye(features, dtype=torch.float64)
        return dist.MultivariateNormal(self.bias, covariance).log_prob(x)

    @staticmethod
    def data(examples: int = 7, features: int = 3, seed: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(examples, features, generator=generator, dtype=torch.float64)


class Mixture(nn.Module):
    """k ~ Categorical, x | k ~ N(loc_k, s²): log p(x), p(k | x) and every gradient by summing over k.

    The guide's logits are `slope · x + intercept` per component; `exact()` sets them to the posterior's.
    """

    def __init__(self, components: int = 3) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-0.5, 0.5, components, dtype=torch.float64))
        self.loc = nn.Parameter(torch.linspace(-1.5, 1.5, components, dtype=torch.float64))
        self.scale = 0.8
        self.slope = nn.Parameter(torch.linspace(-0.3, 0.4, components, dtype=torch.float64))
        self.intercept = nn.Parameter(torch.linspace(0.2, -0.2, components, dtype=torch.float64))

    def exact(self) -> "Mixture":
        with torch.no_grad():
            self.slope.copy_(self.loc / self.scale**2)
            self.intercept.copy_(self.logits - self.loc.square() / (2 * self.scale**2))
        return self

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=self.logits))
            return pyro.sample("x", dist.Normal(self.loc[k], self.scale), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=x.unsqueeze(-1) * self.slope + self.intercept))

    def log_joint(self, x: Tensor) -> Tensor:
        """`(batch, components)` nats."""
        return torch.log_softmax(self.logits, 0) + dist.Normal(self.loc, self.scale).log_prob(x.unsqueeze(-1))

    def log_evidence(self, x: Tensor) -> Tensor:
        return torch.logsumexp(self.log_joint(x), -1)

    def log_guide(self, x: Tensor) -> Tensor:
        return torch.log_softmax(x.unsqueeze(-1) * self.slope + self.intercept, -1)

    def elbo(self, x: Tensor) -> Tensor:
        log_q = self.log_guide(x)
        return (log_q.exp() * (self.log_joint(x) - log_q)).sum(-1)

    @staticmethod
    def data(examples: int = 6, seed: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 2.0 * torch.randn(examples, generator=generator, dtype=torch.float64)


class SharedMean(nn.Module):
    """One mean for all examples: m ~ N(0, 1), x_n | m ~ N(m, 1); the guide is the exact posterior, moved by `error`."""

    def __init__(self, size: int, error: float = 0.0) -> None:
        super().__init__()
        self.size = size
        self.total = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))
        self.error = nn.Parameter(torch.tensor(error, dtype=torch.float64))

    def at(self, x: Tensor) -> "SharedMean":
        with torch.no_grad():
            self.total.copy_(x.sum())
        return self

    def model(self, x: Tensor) -> Tensor:
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", self.size, subsample_size=len(x)):
            return pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        precision = 1.0 + self.size
        pyro.sample("mean", dist.Normal(self.total / precision + self.error, precision**-0.5))

    @staticmethod
    def log_evidence(x: Tensor) -> Tensor:
        size = len(x)
        covariance = torch.ones(size, size, dtype=torch.float64) + torch.eye(size, dtype=torch.float64)
        return dist.MultivariateNormal(torch.zeros(size, dtype=torch.float64), covariance).log_prob(x)


class Chain(nn.Module):
    """a ~ Bernoulli, b | a ~ Categorical, x | a, b ~ Bernoulli: all of it can be summed. The guide draws b, then a given b.

    `logits_of_a`, `logits_of_b` and `logits_of_x` are the model's, `slope_of_b` and `slope_of_a` the guide's.
    """

    LATENTS = tuple((float(a), b) for a in (0, 1) for b in (0, 1, 2))

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))

        self.logits_of_a, self.logits_of_b, self.logits_of_x = parameter(), parameter(2, 3), parameter(2, 3)
        self.slope_of_b, self.slope_of_a = parameter(2, 3), parameter(2, 3)

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Bernoulli(logits=self.logits_of_a.expand(len(x))))
            b = pyro.sample("b", dist.Categorical(logits=self.logits_of_b[a.long()]))
            return pyro.sample("x", dist.Bernoulli(logits=self.logits_of_x[a.long(), b]), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Categorical(logits=self.slope_of_b[x.long()]))
            pyro.sample("a", dist.Bernoulli(logits=self.slope_of_a[x.long(), b]))

    def log_densities(self, x: float) -> tuple[Tensor, Tensor]:
        """log p(x, a, b) and log q(a, b | x) of each pair of LATENTS: `(6,)` nats each."""
        a, b = (torch.tensor(each) for each in zip(*self.LATENTS, strict=True))
        seen, row = torch.tensor(x, dtype=torch.float64), int(x)
        joint = (
            dist.Bernoulli(logits=self.logits_of_a).log_prob(a.double())
            + dist.Categorical(logits=self.logits_of_b[a.long()]).log_prob(b)
            + dist.Bernoulli(logits=self.logits_of_x[a.long(), b]).log_prob(seen)
        )
        guide = dist.Categorical(logits=self.slope_of_b[row]).log_prob(b) + dist.Bernoulli(
            logits=self.slope_of_a[row, b]
        ).log_prob(a.double())
        return joint, guide
