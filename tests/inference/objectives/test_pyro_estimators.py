"""SVI by Pyro's own estimators: their settings are kept, their losses are per example, and their rules are theirs."""

from collections.abc import Callable
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from inference import SVI, ImportanceWeighted, Pair, ProgramError, elbo, iwae, terms
from tests.problems import LinearGaussian, Mixture, SharedMean

X = LinearGaussian.data(6)
ESTIMATORS: list[Callable[..., ELBO]] = [Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO]


class Counted(LinearGaussian):
    """Notes how often its model runs."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__(error=error)
        self.runs = 0

    def model(self, x: Tensor) -> Tensor:
        self.runs += 1
        return super().model(x)


@pytest.mark.parametrize("kind", ESTIMATORS)
@pytest.mark.parametrize(("vectorize", "runs"), [(False, 3), (True, 1)])
def test_particles_of_an_estimator_are_its_own(kind: Callable[..., ELBO], vectorize: bool, runs: int) -> None:
    program = Counted()
    estimator = kind(num_particles=3, max_plate_nesting=1, vectorize_particles=vectorize)
    objective = SVI(program, estimator)
    objective.prepare(X)
    program.runs = 0
    objective.loss(X)
    assert program.runs == runs


@pytest.mark.parametrize("kind", [Trace_ELBO, TraceGraph_ELBO])
def test_losses_at_the_exact_posterior_are_minus_the_evidence_per_example(kind: Callable[..., ELBO]) -> None:
    """Whatever the number of particles, and in a batch of another length than that of the first."""
    program = LinearGaussian()
    for particles in (1, 4):
        objective = SVI(program, kind(num_particles=particles))
        objective.prepare(X)
        for x in (X, X[:2]):
            torch.testing.assert_close(objective.loss(x), -program.log_evidence(x).mean(), atol=1e-9, rtol=0)


def test_an_enumerated_loss_is_the_exact_likelihood_per_example() -> None:
    program, x = Mixture(), Mixture.data()
    objective = SVI(
        Pair(pyro.infer.config_enumerate(program.model), lambda x: None), TraceEnum_ELBO(max_plate_nesting=1)
    )
    objective.prepare(x)
    torch.testing.assert_close(objective.loss(x), -program.log_evidence(x).mean())


def test_a_users_scale_is_left_to_a_pyro_estimator() -> None:
    """Likelihood tempered by 0.1, as an estimator of Pyro's own scales it, and refused where terms are made."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)), poutine.scale(scale=0.1):
            pyro.sample("x", dist.Normal(loc, 1.0).expand([len(x)]), obs=x[:, 0])

    loc = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
    pair = Pair(model)
    pair.loc = loc
    objective = SVI(pair, Trace_ELBO())
    objective.prepare(X)
    objective.check(X)
    torch.testing.assert_close(objective.loss(X), -0.1 * dist.Normal(loc, 1.0).log_prob(X[:, 0]).mean())
    with pytest.raises(ProgramError, match=r"scaled by 0\.1"):
        SVI(pair).check(X)


def test_particles_belong_to_one_of_the_two() -> None:
    with pytest.raises(ProgramError, match="set num_particles of the estimator"):
        SVI(LinearGaussian(), Trace_ELBO(), particles=2)
    with pytest.raises(ProgramError, match="particles: expected a whole number of at least 1, got 0"):
        SVI(LinearGaussian(), particles=0)


def test_a_bound_on_a_part_of_a_dataset_with_shared_sites_is_the_elbo_alone() -> None:
    x = torch.randn(6, dtype=torch.float64)
    program = SharedMean(6).at(x)
    ImportanceWeighted(program, iwae, 3).check(x)
    ImportanceWeighted(program, elbo, 3).check(x[:3])
    with pytest.raises(ProgramError, match="shares sites between all 6 examples and the batch holds 3"):
        ImportanceWeighted(program, iwae, 3).check(x[:3])


@pytest.mark.parametrize("particles", [2, 5])
def test_as_many_particles_are_drawn_as_were_asked_for(particles: int) -> None:
    """At K particles of weights that differ, the loss is the bound of these K."""
    program = LinearGaussian(error=0.4)
    for objective, bound in (
        (SVI(program, particles=particles), elbo),
        (ImportanceWeighted(program, elbo, particles), elbo),
        (ImportanceWeighted(program, iwae, particles), iwae),
    ):
        torch.manual_seed(3)
        loss = objective.loss(X)
        torch.manual_seed(3)
        torch.testing.assert_close(-loss, bound(terms(program, X, particles).log_weights).mean())


def test_names_agree_under_a_pyro_estimator_too_but_for_an_autoguides_own() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0).expand([len(x)]), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(pyro.param("loc", x.new_zeros(())), 1.0))
        pyro.sample("other", dist.Normal(x.new_zeros(()), 1.0))

    for pair, message in ((Pair(model, AutoNormal), None), (Pair(model, guide), r"unknown to the model: \['other'\]")):
        objective = SVI(pair, Trace_ELBO())
        objective.prepare(X)
        with pytest.raises(ProgramError, match=message) if message else nullcontext():
            objective.check(X)
