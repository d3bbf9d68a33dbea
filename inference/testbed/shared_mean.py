"""One latent that all examples share."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference.testbed.drawing import drawn
from inference.testbed.moments import Moments


class SharedMean(nn.Module):
    """One mean for a data set of `size` examples: m ~ N(0, 1), x_n | m ~ N(m, 1) (Gelman et al., 2013, section 2.5).

    x is `(batch,)`: all of the data, or a mini-batch, by which the guide then takes the sum of all. The guide's mean is
    moved by `error`.
    """

    def __init__(self, size: int, error: float = 0.0) -> None:
        super().__init__()
        self.size = size
        self.error = nn.Parameter(torch.tensor(error, dtype=torch.float64))

    def model(self, x: Tensor) -> Tensor:
        """Draws the mean, observes x."""
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", self.size, subsample_size=len(x)):
            seen: Tensor = pyro.sample("x", dist.Normal(mean, 1.0), obs=x)
        return seen

    def guide(self, x: Tensor) -> None:
        """Draws the mean from a normal."""
        precision = 1.0 + self.size
        total = x.sum() * (self.size / len(x))
        pyro.sample("mean", dist.Normal(total / precision + self.error, precision**-0.5))

    @staticmethod
    def log_evidence(x: Tensor) -> Tensor:
        """log N(x; 0, 1 1ᵀ + I) of all the data together: `()`."""
        size = len(x)
        covariance = torch.ones(size, size, dtype=torch.float64) + torch.eye(size, dtype=torch.float64)
        found: Tensor = dist.MultivariateNormal(torch.zeros(size, dtype=torch.float64), covariance).log_prob(x)
        return found

    @staticmethod
    def posterior(x: Tensor) -> dict[str, Moments]:
        """Of the mean, given all the data: `()` each."""
        precision = 1.0 + len(x)
        return {"mean": Moments(x.sum() / precision, x.new_tensor(1 / precision))}

    def batch(self, n: int | None = None, seed: int = 0) -> Tensor:
        """All the data, or n of them."""
        return drawn(self, torch.zeros(n or self.size, dtype=torch.float64), seed)
