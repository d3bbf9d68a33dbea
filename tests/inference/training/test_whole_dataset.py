"""Programs without a batch plate, as users bring them: fitted by all the data as one batch, and scored by one number."""

import math
from collections.abc import Callable

import pyro
import pyro.contrib.gp as gp
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal, AutoNormal
from pyro.nn import PyroSample
from torch import Tensor, nn

from inference import (
    SVI,
    Pair,
    ProgramError,
    Step,
    Traced,
    Validation,
    adam,
    evaluate,
    exact,
    fit,
    importance,
)
from tests.problems import SharedMean

FLIPS = torch.tensor([1.0] * 6 + [0.0] * 4)
GENERATOR = torch.Generator().manual_seed(0)
TIMES = torch.linspace(0, 4, 12, dtype=torch.float64)
WAVE = torch.sin(2 * TIMES) + 0.2 * torch.randn(12, dtype=torch.float64, generator=GENERATOR)
WALK = torch.randn(6, dtype=torch.float64, generator=GENERATOR).cumsum(0)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


# Pyro's first tutorial of SVI: is the coin fair?


def coin_of_a_loop(data: Tensor) -> None:
    f = pyro.sample("latent_fairness", dist.Beta(torch.tensor(10.0), torch.tensor(10.0)))
    for i in range(len(data)):
        pyro.sample(f"obs_{i}", dist.Bernoulli(f), obs=data[i])


def coin_of_a_sequential_plate(data: Tensor) -> None:
    f = pyro.sample("latent_fairness", dist.Beta(torch.tensor(10.0), torch.tensor(10.0)))
    for i in pyro.plate("data_loop", len(data)):
        pyro.sample(f"obs_{i}", dist.Bernoulli(f), obs=data[i])


def coin_of_a_plate(data: Tensor) -> None:
    f = pyro.sample("latent_fairness", dist.Beta(torch.tensor(10.0), torch.tensor(10.0)))
    with pyro.plate("observe_data", len(data)):
        pyro.sample("obs", dist.Bernoulli(f), obs=data)


def fairness(data: Tensor) -> None:
    alpha_q = pyro.param("alpha_q", torch.tensor(15.0), constraint=constraints.positive)
    beta_q = pyro.param("beta_q", torch.tensor(15.0), constraint=constraints.positive)
    pyro.sample("latent_fairness", dist.Beta(alpha_q, beta_q))


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def test_a_coin_has_one_evidence_in_each_of_its_forms() -> None:
    losses, scores = [], []
    for model in (coin_of_a_loop, coin_of_a_sequential_plate, coin_of_a_plate):
        program = Pair(model, fairness)
        fitted = fit(Step(SVI(program), adam(2e-2)), FLIPS, 60, record_every=1, progress=False)
        losses.append([row["loss"] for row in fitted.history])
        scores.append(evaluate(program, FLIPS, {"iwae": importance(100)}))
    for found in scores:
        assert found.mean("iwae") == pytest.approx(log_beta(16, 14) - log_beta(10, 10), abs=0.01)
        assert found.mean("iwae") == pytest.approx(scores[0].mean("iwae"), abs=1e-4)
        assert found.standard_error("iwae") < 0.02
        assert not found.per_example
    assert losses[1] == losses[0], "the loss of the dataset"
    assert [10 * loss for loss in losses[2]] == pytest.approx(losses[0], rel=1e-3), "per example"


# A Gaussian process of pyro.contrib.gp


def squared_exponential(variance: Tensor, lengthscale: Tensor, noise: Tensor) -> Tensor:
    """log p(WAVE), with the jitter that Pyro adds."""
    distance = (TIMES.unsqueeze(1) - TIMES) / lengthscale
    covariance = variance * torch.exp(-0.5 * distance.square()) + (noise + 1e-6) * torch.eye(12, dtype=torch.float64)
    return dist.MultivariateNormal(torch.zeros(12, dtype=torch.float64), covariance).log_prob(WAVE)


class GaussianProcess(nn.Module):
    """A Gaussian process as a program of its data."""

    def __init__(self, process: gp.models.GPModel) -> None:
        super().__init__()
        self.process = process

    def model(self, x: Tensor, y: Tensor) -> Tensor:
        self.process.set_data(x, y)
        return self.process.model()

    def guide(self, x: Tensor, y: Tensor) -> None:
        self.process.guide()


def regression(kernel: gp.kernels.Kernel) -> gp.models.GPRegression:
    return gp.models.GPRegression(TIMES, WAVE, kernel, noise=number(0.1))


def of_a_module() -> nn.Module:
    return GaussianProcess(regression(gp.kernels.RBF(1, number(1.0), number(1.0))))


def of_functions() -> nn.Module:
    process = regression(gp.kernels.RBF(1, number(1.0), number(1.0)))

    def model(x: Tensor, y: Tensor) -> Tensor:
        process.set_data(x, y)
        return process.model()

    return Pair(model, lambda x, y: process.guide())


@pytest.mark.parametrize("make", [of_a_module, of_functions])
def test_a_gaussian_process_is_scored_by_its_marginal_likelihood(make: Callable[[], nn.Module]) -> None:
    program = make()
    before = evaluate(program, (TIMES, WAVE), {"exact": exact()}).mean("exact")
    assert before == pytest.approx(float(squared_exponential(number(1.0), number(1.0), number(0.1))), abs=1e-9)
    fitted = fit(Step(SVI(program), adam(3e-2)), (TIMES, WAVE), 60, record_every=1, progress=False)
    assert fitted.history[0]["loss"] == pytest.approx(-before, abs=1e-9)
    learnt = {name.split(".")[-1]: value.detach().exp() for name, value in program.named_parameters()}
    expected = squared_exponential(*(learnt[f"{name}_unconstrained"] for name in ("variance", "lengthscale", "noise")))
    after = evaluate(program, (TIMES, WAVE), {"exact": exact()})
    assert after.mean("exact") == pytest.approx(float(expected), abs=1e-9)
    assert after.mean("exact") > before + 1.0
    assert after.kind["exact"] == "exact"


def with_a_prior() -> gp.models.GPRegression:
    process = regression(gp.kernels.RBF(1, number(1.0), number(1.0)))
    process.kernel.lengthscale = PyroSample(dist.LogNormal(number(0.0), number(0.5)))
    return process


def of_its_own_guide() -> nn.Module:
    process = with_a_prior()
    process.kernel.autoguide("lengthscale", dist.Normal)
    return GaussianProcess(process)


def of_an_autoguide() -> nn.Module:
    process = with_a_prior()
    process.kernel.lengthscale_map_unconstrained.requires_grad_(False)  # the guide that it brings, and that is not used
    return Pair(GaussianProcess(process).model, AutoNormal)


@pytest.mark.parametrize("make", [of_its_own_guide, of_an_autoguide])
def test_a_gaussian_process_with_a_prior_on_its_kernel_is_scored_as_its_integral(make: Callable[[], nn.Module]) -> None:
    program = make()
    fit(Step(SVI(program), adam(3e-2)), (TIMES, WAVE), 60, progress=False)
    learnt = {name.split(".")[-1]: value.detach().exp() for name, value in program.named_parameters()}
    variance, noise = learnt["variance_unconstrained"], learnt["noise_unconstrained"]
    u = torch.linspace(-2.5, 2.5, 400, dtype=torch.float64)
    joint = torch.stack([squared_exponential(variance, each.exp(), noise) for each in u])
    log_p = torch.logsumexp(joint + dist.Normal(0.0, 0.5).log_prob(u), 0) + math.log(5 / 399)
    found = evaluate(program, (TIMES, WAVE), {"iwae": importance(200)})
    assert found.mean("iwae") == pytest.approx(float(log_p), abs=0.1)
    assert found.kind["iwae"] == "lower bound in expectation"


def test_a_sparse_gaussian_process_has_the_loss_that_its_estimator_gives() -> None:
    """Pyro's variational processes know their guide inside the model, so that this estimator alone is right for them."""
    kernel = gp.kernels.RBF(1, number(1.0), number(1.0))
    likelihood = gp.likelihoods.Gaussian(number(0.1))
    process = gp.models.VariationalSparseGP(TIMES, WAVE, kernel, TIMES[::3].clone(), likelihood, whiten=True)
    objective = SVI(GaussianProcess(process), TraceMeanField_ELBO())
    objective.prepare((TIMES, WAVE))
    objective.check((TIMES, WAVE))
    with pyro.settings.context(module_local_params=True):
        expected = TraceMeanField_ELBO().loss(process.model, process.guide)
    assert float(objective.loss((TIMES, WAVE)).detach()) == pytest.approx(expected, abs=1e-9)


# Loops over the examples, and over time


def line(x: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(number(0.0), 1.0))
    intercept = pyro.sample("intercept", dist.Normal(number(0.0), 1.0))
    for i in range(len(x)):
        pyro.sample(f"y_{i}", dist.Normal(intercept + slope * x[i], 0.5), obs=y[i])


def test_a_regression_of_a_loop_is_scored_by_its_evidence() -> None:
    x, y = TIMES[::2], WAVE[::2]
    design = torch.stack([torch.ones_like(x), x], 1)
    covariance = design @ design.T + 0.25 * torch.eye(len(x), dtype=torch.float64)
    program = Pair(line, AutoMultivariateNormal)
    fit(Step(SVI(program, particles=2), adam(5e-2)), (x, y), 80, progress=False)
    found = evaluate(program, (x, y), {"iwae": importance(100)})
    expected = dist.MultivariateNormal(torch.zeros_like(y), covariance).log_prob(y)
    assert found.mean("iwae") == pytest.approx(float(expected), abs=0.1)


def walk(x: Tensor) -> None:
    z = x.new_zeros(())
    for t in range(len(x)):
        z = pyro.sample(f"z_{t}", dist.Normal(z, 1.0))
        pyro.sample(f"x_{t}", dist.Normal(z, 0.5), obs=x[t])


def kalman_filter(x: Tensor) -> float:
    log_p, mean, variance = 0.0, 0.0, 0.0
    for value in x.tolist():
        variance += 1.0
        total = variance + 0.25
        log_p -= 0.5 * (math.log(2 * math.pi * total) + (value - mean) ** 2 / total)
        gain = variance / total
        mean, variance = mean + gain * (value - mean), (1 - gain) * variance
    return log_p


def test_a_random_walk_is_scored_by_its_kalman_filter() -> None:
    """The posterior is normal, so that the Laplace approximation at its mode is the posterior itself."""
    program = Pair(walk, AutoLaplaceApproximation)
    fit(Step(SVI(program), adam(1e-1)), WALK, 150, progress=False)
    found = evaluate(program.laplace_approximation(WALK), WALK, {"iwae": importance(50)})
    assert found.mean("iwae") == pytest.approx(kalman_filter(WALK), abs=0.01)


# One batch, and that one again


def steady(x: Tensor) -> None:
    """An autoregression: an order, and no latents."""
    slope, before = pyro.param("slope", x.new_zeros(())), x.new_zeros(())
    for t in range(len(x)):
        pyro.sample(f"x_{t}", dist.Normal(slope * before, 1.0), obs=x[t])
        before = x[t]


@pytest.mark.parametrize(
    "batches",
    [
        list(WALK.split(3)),
        [WALK, WALK[:5]],
        lambda step: WALK.roll(step),
        [WALK, WALK + 1e-3],
    ],
    ids=["mini-batches", "a shorter one", "another order", "other values"],
)
def test_another_batch_than_the_first_is_refused(batches: list[Tensor] | Callable[[int], Tensor]) -> None:
    program = Pair(steady)
    message = r"no plate counts the examples, so that each batch would count as the whole dataset.*pyro.plate\('data'"
    step = Step(SVI(program), adam())
    with pytest.raises(ProgramError, match=message):
        fit(step, batches, 4, progress=False)
    assert step.count == 1


def test_the_same_batch_may_come_in_other_tensors() -> None:
    assert fit(Step(SVI(Pair(steady)), adam()), lambda step: WALK.clone(), 3, progress=False).steps == 3


def test_a_plate_that_a_later_batch_misses_is_noticed() -> None:
    """A plate of fixed length counts the examples of the batches that are as long as it is, and no others."""

    def model(x: Tensor) -> None:
        scale = pyro.param("scale", x.new_ones(()))
        if len(x) == 6:
            with pyro.plate("data", 6):
                pyro.sample("x", dist.Normal(0.0, scale), obs=x)
        else:
            pyro.sample("x", dist.Normal(0.0, scale).expand(x.shape).to_event(1), obs=x)

    with pytest.raises(ProgramError, match="no plate counts the examples"):
        fit(Step(SVI(Pair(model)), adam()), [WALK, WALK + 1, WALK[:5]], 3, progress=False)


def test_several_batches_are_no_dataset_to_evaluate_on() -> None:
    with pytest.raises(ProgramError, match="each of the 3 batches would count as the whole dataset"):
        evaluate(Pair(steady), list(WALK.split(2)), {"exact": exact()})


def test_a_validation_of_several_batches_is_refused_before_training() -> None:
    program = Pair(steady)
    step = Step(SVI(program), adam())
    with pytest.raises(ProgramError, match="each of the 2 batches would count as the whole dataset"):
        fit(step, WALK, 3, validation=Validation(list(WALK.split(3)), every=3), progress=False)
    assert step.count == 0
    fitted = fit(step, WALK, 3, validation=Validation(WALK, every=3), progress=False)
    assert fitted.best is not None
    assert fitted.best["score"] == pytest.approx(evaluate(program, WALK, {"exact": exact()}).mean("exact"))


def test_a_validation_in_batches_of_what_all_examples_share_is_rehearsed_whole() -> None:
    program = SharedMean(6).at(WALK)
    validation = Validation(list(WALK.split(4)), every=1)
    fitted = fit(Step(SVI(program), adam()), WALK, 1, validation=validation, progress=False)
    assert fitted.best is not None


class Rescaled(list):
    """Batches whose values are in units of their own."""

    log_jacobian = 0.7


def test_losses_and_numbers_of_the_dataset_count_the_units_of_every_row() -> None:
    raw, rescaled = (
        fit(Step(SVI(Pair(steady)), adam()), batches, 1, progress=False).history[0]["loss"]
        for batches in ([WALK], Rescaled([WALK]))
    )
    assert rescaled == pytest.approx(raw - 6 * 0.7)
    found = [evaluate(Pair(steady), batches, {"exact": exact()}).mean("exact") for batches in (WALK, Rescaled([WALK]))]
    assert found[1] == pytest.approx(found[0] + 6 * 0.7)
    with pytest.raises(ProgramError, match="their 12 values an example are not what the program observes: 6 under"):
        evaluate(Pair(lambda x: steady(x[:, 0])), Rescaled([torch.stack([WALK, WALK], 1)]), {"exact": exact()})


def test_a_traced_step_is_the_step() -> None:
    losses = [
        [row["loss"] for row in fit(step, WALK, 4, record_every=1, progress=False).history]
        for step in (Step(SVI(Pair(steady)), adam()), Step(SVI(Pair(steady)), adam(), differentiate=Traced()))
    ]
    assert losses[0] == losses[1]
