"""Neal's funnel, seen through noise: a latent that sets the scale of others."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference.testbed.drawing import drawn
from inference.testbed.moments import Moments


class Funnel(nn.Module):
    """v ~ N(0, 3²), z_j | v ~ N(0, exp(v)) (Neal, 2003, Ann. Statist. 31), x_j ~ N(z_j, 1): all but v is normal.

    x is `(batch, features)`. Evidence and moments are integrals over v alone, by a trapezoidal rule that is exact to
    float64. The guide draws v from a normal of the posterior's moments, its scale times `exp(error)`, and z exactly given v;
    no normal has the shape of v's posterior. `Pair(program.model, AutoNormal)` is the guide that the funnel defeats.
    """

    SPREAD = 3.0

    def __init__(self, features: int = 2, error: float = 0.0) -> None:
        super().__init__()
        self.features = features
        self.error = nn.Parameter(torch.tensor(error, dtype=torch.float64))

    def model(self, x: Tensor) -> Tensor:
        """Draws v and z, observes x."""
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(x.new_zeros(()), self.SPREAD))
            scale = (v / 2).exp().unsqueeze(-1).expand(x.shape)
            z = pyro.sample("z", dist.Normal(torch.zeros_like(scale), scale).to_event(1))
            seen: Tensor = pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)
        return seen

    def guide(self, x: Tensor) -> None:
        """Draws v from a normal, and z given v."""
        moments = self.posterior(x)["v"]
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(moments.mean, moments.variance.sqrt() * self.error.exp()))
            gain = torch.sigmoid(v).unsqueeze(-1)
            pyro.sample("z", dist.Normal(gain * x, gain.sqrt().expand(x.shape)).to_event(1))

    def log_evidence(self, x: Tensor) -> Tensor:
        """The logarithm of the integral over v."""
        grid, log_joint = self._over_v(x)
        return torch.logsumexp(log_joint, -1) + (grid[1] - grid[0]).log()

    def posterior(self, x: Tensor) -> dict[str, Moments]:
        """Of v and z."""
        grid, log_joint = self._over_v(x)
        weight = torch.softmax(log_joint, -1)
        gain = torch.sigmoid(grid)  # z_j | v, x ~ N(gain x_j, gain)
        mean = weight @ grid
        mean_gain = (weight @ gain).unsqueeze(-1)
        spread = (weight @ gain.square()).unsqueeze(-1) - mean_gain.square()
        return {
            "v": Moments(mean, weight @ grid.square() - mean.square()),
            "z": Moments(mean_gain * x, mean_gain + spread * x.square()),
        }

    def batch(self, n: int, seed: int = 0) -> Tensor:
        """n examples of the model."""
        return drawn(self, torch.zeros(n, self.features, dtype=torch.float64), seed)

    def _over_v(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Equally spaced v, as far as there is mass, and log p(x, v) at each: `(batch, v)`."""
        grid = torch.linspace(-12 * self.SPREAD, 12 * self.SPREAD, 1001, dtype=torch.float64, device=x.device)
        prior = dist.Normal(0.0, self.SPREAD).log_prob(grid)
        of_x = dist.Normal(torch.zeros_like(grid), (grid.exp() + 1).sqrt()).log_prob(x.unsqueeze(-1)).sum(1)
        return grid, prior + of_x
