"""The gap of importance-weighted bounds on simulated data, where it is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from inference import Pair, ProgramError, evaluate, importance
from inference.evaluation.simulated_gap import simulated_gap


def model(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide(width: float) -> Pair:
    def guided(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, width * math.sqrt(0.5)))

    return Pair(model, guided)


def test_the_exact_posterior_leaves_no_gap() -> None:
    found = simulated_gap(guide(1.0), torch.zeros(50, dtype=torch.float64), 8)
    assert found.shape == (50,)
    assert float(found.abs().max()) < 1e-9


@pytest.mark.parametrize(("width", "particles"), [(0.7, 1), (0.7, 10), (2.0, 3)])
def test_it_covers_the_bounds_own_gap_in_the_mean(width: float, particles: int) -> None:
    """Upper less lower bound is at least log p(x) less the lower one, on data of the program."""
    program = guide(width)
    x = math.sqrt(2) * torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = dist.Normal(0.0, math.sqrt(2)).log_prob(x)
    below = exact - evaluate(program, x, {"iwae": importance(particles)}).log_prob["iwae"]
    found = simulated_gap(program, x, particles, seed=1)
    error = float((below.std() ** 2 / len(x) + found.std() ** 2 / len(x)).sqrt())
    assert float(below.mean()) > 5 * float(below.std()) / len(x) ** 0.5, "there is a gap"
    assert float(found.mean()) > float(below.mean()) - 5 * error
    # With one particle it is KL(q|p) + KL(p|q), with more it falls like the bound's own.
    if particles == 1:
        ratio = width**2
        both = 0.5 * (ratio + 1 / ratio) - 1
        assert float(found.mean()) == pytest.approx(both, abs=5 * float(found.std()) / len(x) ** 0.5)
    else:
        assert float(found.mean()) < 4 * float(below.mean()) + 5 * error


def test_parts_are_all_examples() -> None:
    assert simulated_gap(guide(0.8), torch.zeros(5), 1000).shape == (5,)  # two at once
    with pytest.raises(ValueError, match="particles"):
        simulated_gap(guide(0.8), torch.zeros(5), 0)
    with pytest.raises(ProgramError):
        simulated_gap(Pair(lambda x: None, lambda x: None), torch.zeros(5), 3)
