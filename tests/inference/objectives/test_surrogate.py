"""Who is credited with what: gradients beside shared sites, against sums over all draws, and their variance."""

import itertools
from collections.abc import Callable, Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import SVI, Bound, ImportanceWeighted, Objective, Terms, elbo, iwae, terms
from inference.objectives.surrogate import bound_per_example
from inference.programs.bounds import surrogate

X = torch.tensor([-1.5, 2.0], dtype=torch.float64)
SIZE = 6


class Coins(nn.Module):
    """A shared coin s and one for each example, all Bernoulli, so that expectations are sums over all draws.

    Args:
        late: whether the model observes something outside the plate that depends on the examples' coins.
        size: of the dataset.
    """

    def __init__(self, late: bool = False, size: int = SIZE) -> None:
        super().__init__()
        self.late, self.size = late, size
        self.shared = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.local = nn.Parameter(torch.tensor([0.4, -0.6], dtype=torch.float64))
        self.mean = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

    def model(self, x: Tensor) -> None:
        s = pyro.sample("s", dist.Bernoulli(x.new_tensor(0.4)))
        with pyro.plate("data", self.size, subsample_size=len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.2 + 0.5 * s).expand([len(x)]))
            pyro.sample("x", dist.Normal(self.mean * z + s, 1.0), obs=x)
        if self.late:
            pyro.sample("y", dist.Normal(z.sum(), 0.5), obs=x.new_tensor(2.0))

    def guide(self, x: Tensor) -> None:
        s = pyro.sample("s", dist.Bernoulli(logits=self.shared))
        with pyro.plate("data", self.size, subsample_size=len(x)):
            pyro.sample("z", dist.Bernoulli(logits=self.local[0] * x + self.local[1] * s))


def _gradients(program: Coins, loss: Tensor) -> Tensor:
    gradients = torch.autograd.grad(loss, [program.shared, program.local, program.mean], retain_graph=True)
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def _every(program: Coins, particles: int) -> Iterator[tuple[Tensor, Terms]]:
    """All that the guide may draw for so many particles: the probability, and the terms."""
    one = list(itertools.product((0.0, 1.0), repeat=1 + len(X)))
    for draws in itertools.product(one, repeat=particles):
        values = X.new_tensor(draws)
        drawn = terms(program, X, latents={"s": values[:, 0], "z": values[:, 1:]})
        assert drawn.shared is not None
        yield (drawn.posterior.sum() + drawn.shared.posterior.sum()).exp(), drawn


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("bound", "particles"), [(elbo, 1), (elbo, 2), (iwae, 2)])
def test_gradients_beside_shared_sites_are_unbiased(bound: Bound, particles: int, late: bool) -> None:
    program = Coins(late)
    value, gradient = X.new_zeros(()), torch.zeros(4, dtype=X.dtype)
    for probability, drawn in _every(program, particles):
        value = value + probability * bound(drawn.log_weights).mean() / SIZE
        gradient += probability.detach() * _gradients(program, bound_per_example(bound, drawn))
    torch.testing.assert_close(gradient, _gradients(program, value), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "objective", [lambda program: SVI(program, particles=2), lambda program: ImportanceWeighted(program, elbo, 2)]
)
def test_objectives_have_this_gradient(objective: Callable[[Coins], Objective]) -> None:
    program = Coins()
    torch.manual_seed(1)
    ours = _gradients(program, objective(program).loss(X))
    torch.manual_seed(1)
    torch.testing.assert_close(ours, -_gradients(program, bound_per_example(elbo, terms(program, X, 2))))


def test_examples_are_not_credited_with_each_other() -> None:
    """Of 100 examples, the local gradient has a tenth of the spread that credit for everything gives it."""
    x = torch.linspace(-2, 2, 100, dtype=torch.float64)
    program = Coins(size=100)

    def spread(own: bool) -> Tensor:
        found = []
        for _ in range(100):
            drawn = terms(program, x)
            whole = surrogate(elbo, drawn.log_weights, drawn.log_scores).mean() / drawn.examples
            found.append(_gradients(program, bound_per_example(elbo, drawn) if own else whole))
        return torch.stack(found).std(0)

    ratio = spread(own=True) / spread(own=False)
    assert (ratio[1:3] < 0.15).all()


def test_the_value_is_the_elbo_whoever_is_credited() -> None:
    drawn = terms(Coins(), X, 3)
    torch.testing.assert_close(bound_per_example(elbo, drawn), drawn.log_weights.mean() / SIZE)
