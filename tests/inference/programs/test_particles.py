"""Several particles of programs of all shapes: at the exact posterior every weight is the evidence."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import Pair, posterior, terms
from tests.problems import Mixture

X = torch.tensor([[0.3, -1.2, 0.8], [2.0, -0.5, 0.1], [-0.9, 0.4, 1.6], [0.0, 1.1, -0.7]], dtype=torch.float64)
HALF = 0.5**0.5
"""The posterior's deviation of z ~ N(0, 1) after one x ~ N(z, 1), whose evidence is N(0, 2)."""


class Program(nn.Module):
    """Counts its runs."""

    rows: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.rows = []
        self.slope = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def model(self, x: Tensor) -> Any:
        self.rows.append(len(x))
        return self.generate(x)


class Subsampled(Program):
    """A plate of 600 rows, of which the batch is a part, in model and guide."""

    def generate(self, x: Tensor) -> None:
        with pyro.plate("data", 600, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", 600, subsample_size=len(x)):
            pyro.sample("z", dist.Normal(self.slope * x, HALF).to_event(1))


class Chosen(Program):
    """The same, of rows that the program names itself."""

    def generate(self, x: Tensor) -> None:
        with pyro.plate("data", 600, subsample=torch.arange(len(x))):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", 600, subsample=torch.arange(len(x))):
            pyro.sample("z", dist.Normal(self.slope * x, HALF).to_event(1))


class Inner(Program):
    """A latent for each value, in a plate inside the example's, to the right of it."""

    def generate(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2), pyro.plate("values", 3, dim=-1):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2), pyro.plate("values", 3, dim=-1):
            pyro.sample("z", dist.Normal(self.slope * x, HALF))


class Outer(Program):
    """The same, with the examples to the right."""

    def generate(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1), pyro.plate("values", 3, dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1), pyro.plate("values", 3, dim=-2):
            pyro.sample("z", dist.Normal(self.slope * x.T, HALF))


class TwoSites(Program):
    """One latent for the first value and another for the others."""

    def generate(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            w = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.cat((z.unsqueeze(1), w), 1), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope * x[:, 0], HALF))
            pyro.sample("w", dist.Normal(self.slope * x[:, 1:], HALF).to_event(1))


PROGRAMS = (Subsampled, Chosen, Inner, Outer, TwoSites)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("kind", PROGRAMS)
def test_particles_are_independent_draws_scored_where_they_stand(kind: type[Program], rows: int) -> None:
    program, x = kind(), X[:rows]
    drawn = terms(program, x, particles=5)
    evidence = dist.Normal(x.new_zeros(()), 2**0.5).log_prob(x).sum(1)
    torch.testing.assert_close(drawn.log_weights, evidence.expand(5, rows), atol=1e-9, rtol=0)
    assert len(drawn.prior.unique()) == 5 * rows
    assert program.rows == [5 * rows]  # one run of the model, on all particles side by side


@pytest.mark.parametrize("kind", PROGRAMS)
def test_draws_have_particles_and_examples_in_front_and_are_scored_as_they_were_drawn(kind: type[Program]) -> None:
    program = kind()
    latents = posterior(program, X, 5)
    assert all(value.shape[:2] == (5, 4) for value in latents.values())
    scored = terms(program, X, latents=latents)
    z = torch.cat([value.reshape(5, 4, -1) for value in latents.values()], 2)
    torch.testing.assert_close(scored.prior, dist.Normal(0.0, 1.0).log_prob(z).sum(2))
    torch.testing.assert_close(scored.posterior, dist.Normal(X / 2, HALF).log_prob(z).sum(2))
    torch.testing.assert_close(scored.likelihood, dist.Normal(z, 1.0).log_prob(X).sum(2))


def test_a_latent_that_was_drawn_after_another_stands_beside_it() -> None:
    """z ~ N(0, 1), w ~ N(z, 1), x ~ N(w, 1), and the guide draws w first, then z given w."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            w = pyro.sample("w", dist.Normal(z, 1.0))
            pyro.sample("x", dist.Normal(w, 1.0), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Normal(2 * x[:, 0] / 3, (2 / 3) ** 0.5))
            pyro.sample("z", dist.Normal(w / 2, HALF))

    evidence = dist.Normal(X.new_zeros(()), 3**0.5).log_prob(X[:, 0])
    drawn = terms(Pair(model, guide), X, particles=5)
    torch.testing.assert_close(drawn.log_weights, evidence.expand(5, 4), atol=1e-9, rtol=0)
    assert len(drawn.prior.unique()) == 20


def test_a_discrete_guide_is_run_once_and_its_draws_are_scored() -> None:
    runs: list[int] = []

    class Counted(Mixture):
        def model(self, x: Tensor) -> Tensor:
            runs.append(len(x))
            return super().model(x)

    program, x = Counted().exact(), Mixture.data()
    drawn = terms(program, x, particles=50)
    torch.testing.assert_close(drawn.log_weights, program.log_evidence(x).expand(50, 6), atol=1e-9, rtol=0)
    torch.testing.assert_close(drawn.score, drawn.posterior)
    assert len(drawn.prior.unique()) == 3  # all components are met
    assert runs == [300]
