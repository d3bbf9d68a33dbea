"""Simulators with parameters that all examples share: programs without a likelihood, for adversarial inference."""

from collections.abc import Sequence

import pyro
import torch
from pyro.distributions import MultivariateNormal, Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.nn.functional import softplus

from ppmodels.distributions import Implicit


class HierarchicalImplicitModel(nn.Module):
    """theta ~ prior(), x_n ~ simulator(theta, n) without a density, and a guide q(theta).

    Tran et al. (2017, arXiv 1702.08896). theta `(parameters,)` is shared by all examples, of which there are `size` (those
    of a batch, where None). `prior()` and `posterior()` are modules that return a distribution over theta;
    `simulator(theta, n)` is one that returns a distribution of n examples, such as `Implicit`, whose draws carry gradients
    to theta. `Adversarial` fits it, with a critic of x and theta.
    """

    def __init__(self, simulator: nn.Module, prior: nn.Module, posterior: nn.Module, size: int | None = None) -> None:
        super().__init__()
        self.simulator, self.prior, self.posterior, self.size = simulator, prior, posterior, size

    def model(self, x: Tensor) -> Tensor:
        """Draws theta, observes x, and returns it (or simulates it, where the observation is lifted)."""
        theta = pyro.sample("theta", self.prior())
        # Which examples these are does not matter to the model, only how many there are in all.
        with pyro.plate("data", self.size or len(x), subsample=torch.arange(len(x), device=x.device)):
            drawn: Tensor = pyro.sample("x", self.simulator(theta, len(x)), obs=x)
        return drawn

    def guide(self, x: Tensor) -> Tensor:
        """Draws theta."""
        theta: Tensor = pyro.sample("theta", self.posterior())
        return theta


class NormalPrior(nn.Module):
    """Independent normals with fixed locations and scales; `forward()` returns their distribution, event `(n,)`."""

    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Sequence[float] | Tensor, scale: Sequence[float] | Tensor) -> None:
        super().__init__()
        self.register_buffer("loc", torch.as_tensor(loc, dtype=torch.get_default_dtype()))
        self.register_buffer(
            "scale", torch.as_tensor(scale, dtype=torch.get_default_dtype()).expand_as(self.loc).clone()
        )

    def forward(self) -> TorchDistributionMixin:
        """The distribution."""
        return Normal(self.loc, self.scale).to_event(1)


class NormalPosterior(nn.Module):
    """A normal with any covariance, its parameters trained; `forward()` returns its distribution, event `(n,)`."""

    def __init__(self, loc: Sequence[float] | Tensor, scale: Sequence[float] | Tensor) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.as_tensor(loc, dtype=torch.get_default_dtype()).clone())
        scale = torch.as_tensor(scale, dtype=torch.get_default_dtype()).expand_as(self.loc)
        self.raw = nn.Parameter(scale.expm1().log())  # softplus gives the scale back
        self.below = nn.Parameter(torch.zeros(len(self.loc), len(self.loc)))

    def forward(self) -> TorchDistributionMixin:
        """The distribution."""
        scale = softplus(self.raw)
        # A correlation is learned in units of its row's scale.
        return MultivariateNormal(self.loc, scale_tril=scale.diag() + scale.unsqueeze(1) * self.below.tril(-1))


class LotkaVolterra(nn.Module):
    """Prey and predators over time, as a diffusion, from the logarithms of four rates.

    Prey are born at rate θ1 each and eaten at θ2 for each pair; predators are born at θ3 for each pair and die at θ4 each;
    `theta` is `(4,)`, the logarithms. The jump process (Gillespie, 1977) is simulated by its chemical Langevin equation
    (Gillespie, 2000) in `steps` Euler-Maruyama steps, so that draws carry gradients to theta. An example is
    `(2, times)`: log(1 + prey) and log(1 + predators), at `times` equally spaced times up to `end`.
    """

    start: Tensor

    def __init__(
        self, times: int = 20, end: float = 20.0, steps: int = 200, start: Sequence[float] = (100.0, 50.0)
    ) -> None:
        super().__init__()
        if steps % times:
            raise ValueError(f"steps: expected a multiple of times={times}, so that each is met, got {steps}")
        self.times, self.end, self.steps = times, end, steps
        self.register_buffer("start", torch.tensor(start))

    def forward(self, theta: Tensor, n: int) -> Implicit:
        """The distribution of n series, batch `(n,)`, event `(2, times)`."""
        return Implicit(lambda: self.simulated(theta.expand(n, 4)), (n,), (2, self.times))

    def simulated(self, theta: Tensor) -> Tensor:
        """One series for each row of theta `(n, 4)`: `(n, 2, times)`."""
        birth, meal, litter, death = theta.exp().unbind(-1)
        prey, predators = self.start.to(theta.dtype).expand(len(theta), 2).unbind(-1)
        step = self.end / self.steps
        noise = theta.new_empty(self.steps, 4, len(theta)).normal_()
        seen = []
        for index in range(self.steps):
            # Four reactions, each with a rate and with the noise that its counting has.
            rates = torch.stack((birth * prey, meal * prey * predators, litter * prey * predators, death * predators))
            born, eaten, raised, died = step * rates + (step * rates + 1e-8).sqrt() * noise[index]
            prey = (prey + born - eaten).clamp(0.0, 1e5)
            predators = (predators + raised - died).clamp(0.0, 1e5)
            if (index + 1) % (self.steps // self.times) == 0:
                seen.append(torch.stack((prey, predators), -1))
        return torch.stack(seen, -1).log1p()
