"""Values are judged where their density is made: of the whole shape, and inside the support, whatever the switches say."""

import math
import subprocess
import sys
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from inference import Pair, ProgramError, check, evaluate, exact, importance, log_joint, terms
from inference.programs.check import check_data


def observing(distribution: Callable[[int], object], shape: tuple[int, ...] = ()) -> Pair:
    """A program that observes its batch under a distribution of so many rows."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", distribution(len(x)), obs=x)

    return Pair(model)


SUPPORTS = {
    "bernoulli": (lambda n: dist.Bernoulli(torch.full((n, 3), 0.4)).to_event(1), torch.tensor([[0.0, 1.0, 0.5]])),
    "exponential": (lambda n: dist.Exponential(torch.ones(n)), torch.tensor([-1.0])),
    "poisson": (lambda n: dist.Poisson(torch.ones(n)), torch.tensor([1.5])),
    "uniform": (lambda n: dist.Uniform(torch.zeros(n), torch.ones(n)), torch.tensor([1.5])),
    "categorical": (lambda n: dist.Categorical(torch.ones(n, 3)), torch.tensor([3])),
    "beta": (lambda n: dist.Beta(torch.ones(n), torch.ones(n)), torch.tensor([1.1])),
    "dirichlet": (lambda n: dist.Dirichlet(torch.ones(n, 3)), torch.tensor([[0.5, 0.6, 0.4]])),
    "one-hot": (lambda n: dist.OneHotCategorical(torch.ones(n, 3)), torch.tensor([[1.0, 1.0, 0.0]])),
    "log normal": (lambda n: dist.LogNormal(torch.zeros(n), 1.0), torch.tensor([-0.1])),
}


@pytest.mark.parametrize("name", SUPPORTS)
@pytest.mark.parametrize("validated", [True, False])
def test_values_outside_a_support_are_refused_in_any_batch(name: str, validated: bool) -> None:
    distribution, outside = SUPPORTS[name]
    inside = distribution(1).sample()  # type: ignore[attr-defined]
    with pyro.validation_enabled(validated), pytest.raises(ProgramError, match=r"site 'x'.*outside its support"):
        evaluate(observing(distribution), [inside, outside], {"exact": exact()})


@pytest.mark.parametrize("particles", [1, 3])
def test_terms_and_log_joint_refuse_them_too(particles: int) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Exponential(z.exp()), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))

    x = torch.tensor([1.0, -1.0])
    with pyro.validation_enabled(False):
        with pytest.raises(ProgramError, match=r"site 'x'.*outside its support"):
            terms(Pair(model, guide), x, particles)
        with pytest.raises(ProgramError, match=r"site 'x'.*outside its support"):
            log_joint(Pair(model, guide), x, {"z": torch.zeros(particles, 2)})


def test_without_assertions_nothing_changes() -> None:
    script = """
import pyro, torch, pyro.distributions as dist
from inference import Pair, ProgramError, evaluate, exact
def model(x):
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Exponential(torch.ones(len(x))), obs=x)
try:
    print(evaluate(Pair(model), [torch.ones(3), -torch.ones(3)], {"exact": exact()}).mean("exact"))
except ProgramError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-O", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


def test_a_latent_outside_its_prior_weighs_nothing() -> None:
    """z ~ Exponential under a normal guide: half of the draws have no density, and log p(x) is right on average."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Exponential(x.new_ones(())))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 2.0))

    x = torch.tensor([0.5], dtype=torch.float64)
    grid = torch.linspace(0, 12, 120_001, dtype=torch.float64)
    right = math.log(float(torch.trapezoid((-grid).exp() * dist.Normal(grid, 1.0).log_prob(x).exp(), grid)))
    with pyro.validation_enabled(False):
        found = evaluate(Pair(model, guide), x, {"iwae": importance(50_000)}).mean("iwae")
    assert found == pytest.approx(right, abs=0.05)


def test_masked_values_may_be_anything() -> None:
    """Under a mask of the site, and under one of the distribution, also inside an event."""
    x, seen = torch.tensor([[0.0, 7.0], [1.0, 0.0]]), torch.tensor([[True, False], [True, True]])

    def of_site(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2), pyro.plate("parts", 2), poutine.mask(mask=seen):
            pyro.sample("x", dist.Bernoulli(torch.full(x.shape, 0.25)), obs=x)

    def of_distribution(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(torch.full(x.shape, 0.25)).mask(seen).to_event(1), obs=x)

    right = torch.tensor([math.log(0.75), math.log(0.25) + math.log(0.75)], dtype=torch.float64)
    for model in (of_site, of_distribution):
        with pyro.validation_enabled(False):
            found = evaluate(Pair(model), x, {"exact": exact()}).log_prob["exact"]
        torch.testing.assert_close(found, right, rtol=1e-6, atol=0)


# ---- shapes ----


def test_an_observation_that_is_broadcast_inside_the_event_is_refused() -> None:
    program = observing(lambda n: dist.Bernoulli(torch.full((n, 3, 4, 4), 0.5)).to_event(3))
    with pytest.raises(ProgramError, match=r"events of shape \(3, 4, 4\).*has \(1, 4, 4\) there"):
        check(program, torch.ones(50, 1, 4, 4))


@pytest.mark.parametrize("wide", ["model", "guide"])
def test_latents_of_another_event_in_model_and_guide_are_refused(wide: str) -> None:
    sizes = {"model": 1, "guide": 1} | {wide: 3}

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(sizes["model"]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(sizes["guide"]), 1.0).to_event(1))

    with pytest.raises(ProgramError, match=r"site 'z'.*broadcast inside the event"):
        terms(Pair(model, guide), torch.zeros(5))


def test_given_latents_have_the_events_shape() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)

    with pytest.raises(ProgramError, match="events of shape"):
        log_joint(Pair(model), torch.zeros(5), {"z": torch.zeros(2, 5, 1)})


def test_a_value_without_a_row_for_every_plate_is_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2), pyro.plate("time", 6, dim=-1):
            pyro.sample("x", dist.Normal(torch.zeros(len(x), 6), 1.0), obs=x)

    with pytest.raises(ProgramError, match="plate 'time' has 6"):
        check(Pair(model), torch.zeros(5, 1))


def test_a_data_set_is_looked_at_batch_by_batch() -> None:
    program = observing(SUPPORTS["exponential"][0])
    batches = [torch.ones(3), torch.ones(3), torch.tensor([1.0, -1.0])]
    with pyro.validation_enabled(False):
        check_data(program, batches[:2])
        with pytest.raises(
            ProgramError, match=r"first in example \(1,\), such as -1 .* begins with example 6 \(from 0\)"
        ):
            check_data(program, batches)
        with pytest.raises(
            ProgramError, match=r"first in example \(1,\), such as -1 .* begins with example 6 \(from 0\)"
        ):
            evaluate(program, batches, {"exact": exact()})


def test_data_of_any_real_number_are_looked_at_once() -> None:
    seen: list[int] = []

    def model(x: Tensor) -> None:
        seen.append(len(x))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(len(x)), 1.0), obs=x)

    check_data(Pair(model), [torch.ones(3), torch.ones(4), torch.ones(5)])
    assert seen == [3]
