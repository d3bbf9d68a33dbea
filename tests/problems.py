"""Programs whose evidence, posterior or gradient is known, beside those of `inference.testbed`; float64 throughout."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference import testbed


class LinearGaussian(testbed.LinearGaussian):
    """The testbed's, and fixed data that its model did not draw."""

    @staticmethod
    def data(examples: int = 7, features: int = 3, seed: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(examples, features, generator=generator, dtype=torch.float64)


class Mixture(testbed.Mixture):
    """The testbed's with a guide that is wrong in every parameter, until `exact()`, and its ELBO by summing over k."""

    def __init__(self, components: int = 3) -> None:
        super().__init__(components)
        with torch.no_grad():
            self.slope.copy_(torch.linspace(-0.3, 0.4, components, dtype=torch.float64))
            self.intercept.copy_(torch.linspace(0.2, -0.2, components, dtype=torch.float64))

    def exact(self) -> "Mixture":
        with torch.no_grad():
            self.slope.copy_(self.loc / self.scale**2)
            self.intercept.copy_(self.logits - self.loc.square() / (2 * self.scale**2))
        return self

    def log_guide(self, x: Tensor) -> Tensor:
        return torch.log_softmax(x.unsqueeze(-1) * self.slope + self.intercept, -1)

    def elbo(self, x: Tensor) -> Tensor:
        log_q = self.log_guide(x)
        return (log_q.exp() * (self.log_joint(x) - log_q)).sum(-1)

    @staticmethod
    def data(examples: int = 6, seed: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 2.0 * torch.randn(examples, generator=generator, dtype=torch.float64)


class SharedMean(testbed.SharedMean):
    """The testbed's with a guide that is told the sum of all data by `at`, and learns it otherwise."""

    def __init__(self, size: int, error: float = 0.0) -> None:
        super().__init__(size, error)
        self.total = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def at(self, x: Tensor) -> "SharedMean":
        with torch.no_grad():
            self.total.copy_(x.sum())
        return self

    def guide(self, x: Tensor) -> None:
        precision = 1.0 + self.size
        pyro.sample("mean", dist.Normal(self.total / precision + self.error, precision**-0.5))


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
