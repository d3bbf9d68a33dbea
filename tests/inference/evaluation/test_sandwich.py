"""Two-sided bounds on simulated data, against evidences in closed form."""

import math
from itertools import pairwise

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from inference import Pair, ProgramError, annealed, evaluate, sandwich
from inference.evaluation.annealing import frozen, reverse
from inference.evaluation.annealing_path import AnnealingPath
from inference.evaluation.sandwich import SIMULATED_GAP
from inference.programs.simulate import simulated
from tests.inference.evaluation.test_annealed import FAR, NOISE, SLOPES, empty, linear, log_evidence, wide


def narrow(x: Tensor) -> None:
    precision = torch.eye(2, dtype=torch.float64) + SLOPES.T @ SLOPES / NOISE**2
    mean = x @ SLOPES @ torch.linalg.inv(precision) / NOISE**2
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(mean, 0.3).to_event(1))


def test_the_bounds_lie_on_both_sides_in_the_mean() -> None:
    # 400 data; a bound on the wrong side by 0.03 nats is seen.
    torch.manual_seed(0)
    x = torch.zeros(400, 3, dtype=torch.float64)
    widths = []
    for temperatures in (16, 64, 256):
        found = sandwich(temperatures, 8, leapfrog=4).bounds(Pair(linear, wide), x)
        expected = log_evidence(found.batch[0])
        below, above = expected - found.lower, found.upper - expected
        for side in (below, above):
            assert float(side.mean()) > -FAR * float(side.std()) / 20
        assert float(below.mean()) > 0
        assert float(above.mean()) > 0
        mean, error = found.gap()
        assert error < 0.25 * mean
        widths.append(mean)
    # As 1 / temperatures: a factor of 4 each, to within its noise of a quarter.
    assert all(2.2 < wider / narrower < 7 for wider, narrower in pairwise(widths))


@pytest.mark.parametrize("exact", [True, False])
def test_a_reverse_chain_has_to_start_at_the_draw_that_made_x(exact: bool) -> None:
    """The mean of p(x) / weight is 1 of chains from exact draws alone; a shift by 0.2 of the prior's sd is seen.

    The guide is narrower than the posterior, so that the ratios are bounded.
    """
    torch.manual_seed(0)
    with torch.no_grad():
        data, latents = simulated(Pair(linear, narrow), torch.zeros(20_000, 3, dtype=torch.float64))
        path = AnnealingPath(Pair(linear, narrow), data, "guide")
        schedule = frozen(path, 3, 4, 1)
        rows = path.place(latents) + (0.0 if exact else 0.2)
        ratios = (log_evidence(data[0]) - reverse(path, schedule, rows).log_weights[0]).exp()
    z_score = float((ratios.mean() - 1) / (ratios.std() / math.sqrt(len(ratios))))
    assert abs(z_score) < FAR if exact else abs(z_score) > 2 * FAR


def test_one_chain_bounds_from_above_by_its_own_weight() -> None:
    torch.manual_seed(0)
    found = sandwich(8, 1).bounds(Pair(linear, empty), torch.zeros(300, 3, dtype=torch.float64))
    expected = log_evidence(found.batch[0])
    assert float((found.upper - expected).mean()) > 0 < float((expected - found.lower).mean())


def test_the_number_on_real_data_is_the_lower_bound_and_the_gap_stands_beside_it() -> None:
    torch.manual_seed(0)
    x = torch.randn(30, 3, dtype=torch.float64)
    program = Pair(linear, wide)
    found = evaluate(program, x, {"sandwich": sandwich(20, 10, simulations=12)}, seed=3)
    lower = evaluate(program, x, {"sandwich": annealed(20, 10)}, seed=3)
    assert torch.equal(found.log_prob["sandwich"], lower.log_prob["sandwich"])
    assert found.kind["sandwich"] == "lower bound in expectation"
    assert found.details["sandwich"][SIMULATED_GAP].shape == (12,)
    assert found.details["sandwich"]["acceptance"].shape == (30,)
    assert found.summary()["estimates"]["sandwich"]["details"][SIMULATED_GAP]["mean"] > 0


def test_a_conditional_program_is_simulated_given_real_covariates() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 1.0))
            pyro.sample("y", dist.Normal(2 * z, 0.5), obs=y)

    torch.manual_seed(0)
    x = torch.linspace(-40, 40, 50, dtype=torch.float64)
    found = sandwich(200, 20).bounds(Pair(model, empty), (x, torch.zeros(50, dtype=torch.float64)))
    assert torch.equal(found.batch[0], x)
    expected = dist.Normal(2 * x, math.sqrt(4.25)).log_prob(found.batch[1])
    assert ((found.lower - expected).abs() < 1).all()
    assert ((found.upper - expected).abs() < 1).all()


def test_a_dataset_of_shared_latents_is_simulated_whole() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(x.new_tensor(0.0), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 0.5), obs=x)

    torch.manual_seed(0)
    x = torch.zeros(40, dtype=torch.float64)
    found = evaluate(Pair(model, AutoNormal), x, {"sandwich": sandwich(100, 10, "prior", simulations=3)})
    assert found.log_prob["sandwich"].shape == (1,)
    assert found.details["sandwich"][SIMULATED_GAP].shape == (1,)
    covariance = 0.25 * torch.eye(40, dtype=torch.float64) + 1.0
    both = sandwich(100, 10, "prior").bounds(Pair(model, AutoNormal), x)
    expected = torch.distributions.MultivariateNormal(x, covariance).log_prob(both.batch[0])
    assert abs(float(both.lower - expected)) < 1
    assert abs(float(both.upper - expected)) < 1


def test_what_cannot_be_simulated_is_told() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x / 2)

    with pytest.raises(ProgramError, match="site 'x' observes what is no entry"):
        sandwich(10).bounds(Pair(model, empty), torch.zeros(3))
    with pytest.raises(ValueError, match="simulations: expected a whole number of at least 1"):
        sandwich(10, simulations=0)
