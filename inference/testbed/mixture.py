"""A mixture of normals, its component drawn."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference.testbed.drawing import drawn
from inference.testbed.moments import Moments, of_finite


class Mixture(nn.Module):
    """k ~ Categorical, x | k ~ N(loc_k, s²): everything is a sum over k (Bishop, 2006, section 9.2).

    x is `(batch,)`. The guide's logits are `slope · x + intercept` of each component, which can be the posterior's; `error`
    is added to the intercepts, from -error of the first component to error of the last.
    """

    def __init__(self, components: int = 3, error: float = 0.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-0.5, 0.5, components, dtype=torch.float64))
        self.loc = nn.Parameter(torch.linspace(-1.5, 1.5, components, dtype=torch.float64))
        self.scale = 0.8
        loc, precision = self.loc.detach(), 1 / self.scale**2
        moved = torch.linspace(-error, error, components, dtype=torch.float64)
        self.slope = nn.Parameter(loc * precision)
        self.intercept = nn.Parameter(self.logits.detach() - loc.square() * precision / 2 + moved)

    def model(self, x: Tensor) -> Tensor:
        """Draws k, observes x."""
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=self.logits))
            seen: Tensor = pyro.sample("x", dist.Normal(self.loc[k], self.scale), obs=x)
        return seen

    def guide(self, x: Tensor) -> None:
        """Draws k from logits that are linear in x."""
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(logits=x.unsqueeze(-1) * self.slope + self.intercept))

    def log_joint(self, x: Tensor) -> Tensor:
        """log p(x, k) of every k: `(batch, components)`."""
        return torch.log_softmax(self.logits, 0) + dist.Normal(self.loc, self.scale).log_prob(x.unsqueeze(-1))

    def log_evidence(self, x: Tensor) -> Tensor:
        """The logarithm of the sum over k."""
        return torch.logsumexp(self.log_joint(x), -1)

    def posterior(self, x: Tensor) -> dict[str, Moments]:
        """Of the number k."""
        return {"k": of_finite(torch.softmax(self.log_joint(x), -1))}

    def batch(self, n: int, seed: int = 0) -> Tensor:
        """n examples of the model."""
        return drawn(self, torch.zeros(n, dtype=torch.float64), seed)
