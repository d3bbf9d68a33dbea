"""A program of two bits, and sums over all that it and its guide can draw, in float64."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference import iwae
from inference.programs.traces import Drawn

PIXELS = 4
BITS = tuple(itertools.product((0.0, 1.0), repeat=2))
Weighed = Iterator[tuple[Tensor, Tensor]]
"""All that can be drawn: a probability and a gradient each."""


class Bits(nn.Module):
    """Two bits, the second given the first, and pixels given both; the guide draws the second first."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.prior, self.coupling = nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(()))
        self.decoder = nn.Linear(2, PIXELS)
        self.of_second, self.of_first = nn.Linear(PIXELS, 1), nn.Linear(PIXELS + 1, 1)
        self.double()

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            first = pyro.sample("first", dist.Bernoulli(logits=self.prior[0].expand(len(x))))
            second = pyro.sample("second", dist.Bernoulli(logits=self.prior[1] + self.coupling * first))
            logits = 3 * self.decoder(torch.stack([first, second], 1))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            second = pyro.sample("second", dist.Bernoulli(logits=self.of_second(x).squeeze(1)))
            code = torch.cat([x, second.unsqueeze(1)], 1)
            pyro.sample("first", dist.Bernoulli(logits=self.of_first(code).squeeze(1)))

    def log_densities(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x, z) and log q(z | x) of each pair of BITS."""
        first, second = torch.tensor(BITS, dtype=torch.float64).T
        rows = x.expand(len(BITS), PIXELS)
        logits = 3 * self.decoder(torch.stack([first, second], 1))
        joint = (
            dist.Bernoulli(logits=self.prior[0]).log_prob(first)
            + dist.Bernoulli(logits=self.prior[1] + self.coupling * first).log_prob(second)
            + dist.Bernoulli(logits=logits).log_prob(rows).sum(1)
        )
        code = torch.cat([rows, second.unsqueeze(1)], 1)
        guide = dist.Bernoulli(logits=self.of_second(rows).squeeze(1)).log_prob(second) + dist.Bernoulli(
            logits=self.of_first(code).squeeze(1)
        ).log_prob(first)
        return joint, guide

    @property
    def of_model(self) -> list[nn.Parameter]:
        return [self.prior, self.coupling, *self.decoder.parameters()]

    @property
    def of_guide(self) -> list[nn.Parameter]:
        return [*self.of_second.parameters(), *self.of_first.parameters()]


def by_draws_of_the_guide(
    program: Bits, x: Tensor, loss: Callable[[Tensor], Tensor], particles: int, of: list[nn.Parameter]
) -> Weighed:
    log_guide = program.log_densities(x)[1].detach()
    for drawn in itertools.combinations_with_replacement(range(len(BITS)), particles):
        orders = math.factorial(particles) // math.prod(map(math.factorial, Counter(drawn).values()))
        first, second = torch.tensor([BITS[each] for each in drawn], dtype=torch.float64).T
        with Drawn({"first": first, "second": second}):
            yield orders * log_guide[list(drawn)].sum().exp(), gradient(loss(x), of)


def by_draws_of_the_model(
    program: Bits, x: Tensor, loss: Callable[[Tensor], Tensor], of: list[nn.Parameter]
) -> Weighed:
    for pixels in itertools.product((0.0, 1.0), repeat=PIXELS):
        dreamt = torch.tensor([pixels], dtype=torch.float64)
        for (first, second), joint in zip(BITS, program.log_densities(dreamt)[0].detach(), strict=True):
            drawn = {"first": first, "second": second}
            with Drawn({name: torch.tensor([bit]).double() for name, bit in drawn.items()} | {"x": dreamt}):
                yield joint.exp(), gradient(loss(x), of)


def gradient(loss: Tensor, of: list[nn.Parameter]) -> Tensor:
    found = torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([each.reshape(-1) for each in found])


def mean_and_spread(weighed: Weighed) -> tuple[Tensor, float]:
    """The mean gradient, and the root of the sum of its entries' variances."""
    probabilities, gradients = map(torch.stack, zip(*weighed, strict=True))
    mean = probabilities @ gradients
    return mean, float((probabilities @ (gradients - mean).square().sum(1)).sqrt())


def bound(program: Bits, x: Tensor, particles: int) -> Tensor:
    """The importance-weighted bound's expectation, a function of the parameters."""
    joint, guide = program.log_densities(x)
    total = torch.zeros((), dtype=torch.float64)
    for drawn in itertools.product(range(len(BITS)), repeat=particles):
        total = total + guide[list(drawn)].sum().exp() * iwae((joint - guide)[list(drawn)].unsqueeze(1))[0]
    return total


def dreams(program: Bits, of: list[nn.Parameter]) -> Tensor:
    """The gradient of E_p[-log q(z | x)] with respect to the guide."""
    total = torch.zeros((), dtype=torch.float64)
    for pixels in itertools.product((0.0, 1.0), repeat=PIXELS):
        joint, guide = program.log_densities(torch.tensor([pixels], dtype=torch.float64))
        total = total - (joint.exp().detach() * guide).sum()
    return gradient(total, of)
