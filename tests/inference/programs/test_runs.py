"""How a program is run: by its weights as they are, each row with its own parameters, the caller's data untouched."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from inference import (
    SVI,
    Pair,
    ProgramError,
    Step,
    adam,
    check,
    elbo,
    evaluate,
    exact,
    fit,
    importance,
    log_joint,
    terms,
)
from inference.evaluation.estimators import Mean
from inference.programs.traces import runs

# ---- transforms that cache ----


class Flow(nn.Module):
    """x ~ a spline of a normal, which caches the way back from the value it met last."""

    def __init__(self, base: Any = None) -> None:
        super().__init__()
        self.flow = dist.transforms.Spline(1)
        self.base = base or dist.Normal(torch.zeros(1), 1.0)

    def guide(self, x: Tensor) -> None:
        pass

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            base = self.base.expand([len(x), 1]).to_event(1)
            pyro.sample("x", dist.TransformedDistribution(base, [self.flow]), obs=x)


def test_a_value_is_scored_by_the_weights_as_they_are() -> None:
    program, x = Flow(), torch.rand(20, 1) * 2 - 1
    evaluate(program, x, {"exact": exact()})
    with torch.no_grad():
        for weight in program.parameters():
            weight.add_(torch.randn_like(weight))
    again = evaluate(program, x, {"exact": exact()}).mean("exact")
    assert again == evaluate(program, x.clone(), {"exact": exact()}).mean("exact")


def test_one_tensor_can_be_fitted_again_and_again() -> None:
    program, x = Flow(), torch.rand(50, 1) * 2 - 1
    before = evaluate(program, x, {"exact": exact()}).mean("exact")
    fit(Step(SVI(program), adam(5e-2)), x, 30, progress=False)
    assert evaluate(program, x, {"exact": exact()}).mean("exact") > before


def test_a_trained_transform_of_draws_without_a_gradient_has_the_score_as_its_gradient() -> None:
    """q(z) is exp(w) z' with z' of no gradient: d/dw E_q f = E_q f(z) d/dw log q(z), here E z² with z ~ N(0, e^2w).

    100,000 draws: an error of 5 % would be seen, at a false-alarm rate below 1e-6; the wrong gradient has another sign.
    """

    class Jump(dist.Normal):
        has_rsample = False

    log_scale = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    class Guided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.log_scale = log_scale

        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
                pyro.factor("f", -z.square())

        def guide(self, x: Tensor) -> None:
            transform = dist.transforms.AffineTransform(0.0, self.log_scale.exp(), cache_size=1)
            with pyro.plate("data", len(x)):
                base = Jump(x.new_zeros(len(x)), x.new_ones(len(x)))
                pyro.sample("z", dist.TransformedDistribution(base, [transform]))

    program = Guided()
    x = torch.zeros(100_000, dtype=torch.float64)
    loss = SVI(program).loss(x)
    (found,) = torch.autograd.grad(loss, [log_scale])
    # minus the ELBO is 1.5 e^2w - w + const
    assert float(found) == pytest.approx(3 * math.exp(0.6) - 1, rel=0.1)


# ---- rows of a plate ----

FULL = torch.arange(100.0)


def _local_means(x: Tensor, index: Tensor) -> None:
    with pyro.plate("data", 100, subsample=index):
        pyro.sample("z", dist.Normal(pyro.param("loc", FULL.clone(), event_dim=0), 1.0))


def _subsampled(x: Tensor, index: Tensor) -> None:
    with pyro.plate("data", 100, subsample=index):
        scale = 100.0 + 0.0 * pyro.subsample(FULL, event_dim=0)
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), scale))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


@pytest.mark.parametrize("particles", [4, 5, 6])
def test_copies_as_long_as_the_data_set_keep_each_rows_parameters(particles: int) -> None:
    index = torch.arange(20, 40)
    found = terms(Pair(_subsampled, _local_means), (FULL[index], index), particles)
    assert found.likelihood.shape == (particles, 20)
    assert float(found.likelihood.detach().mean()) > -3  # of other rows' parameters it is below -600


def test_a_shuffled_data_set_keeps_each_rows_parameters() -> None:
    index = torch.randperm(100)
    assert float(terms(Pair(_subsampled, _local_means), (FULL[index], index)).likelihood.detach().mean()) > -3


# ---- what tiling can not be blamed for ----


def _normal(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class Guarded(nn.Module):
    """A program whose model raises an error of one's choice beyond so many rows."""

    def __init__(self, error: Exception, rows: int) -> None:
        super().__init__()
        self.error, self.rows = error, rows

    def model(self, x: Tensor) -> None:
        if len(x) > self.rows:
            raise self.error
        _normal(x)

    def guide(self, x: Tensor) -> None:
        _normal_guide(x)


def test_memory_that_runs_out_halves_the_particles() -> None:
    program = Guarded(torch.OutOfMemoryError("CUDA out of memory"), rows=20)
    with torch.no_grad():
        found = runs(program, torch.zeros(5), 16)
    assert [run.particles for run in found] == [4, 4, 4, 4]


def test_memory_that_runs_out_in_training_is_an_error() -> None:
    program = Guarded(torch.OutOfMemoryError("CUDA out of memory"), rows=20)
    with pytest.raises(torch.OutOfMemoryError):
        runs(program, torch.zeros(5), 16)


@pytest.mark.parametrize(
    "error",
    [
        torch.linalg.LinAlgError("linalg.cholesky: The factorization could not be completed"),
        ValueError("Expected parameter loc of shape (20,) to satisfy the constraint Real()"),
        RuntimeError("the simulator has diverged"),
        NotImplementedError("no shape of that kind"),
    ],
)
def test_an_error_that_depends_on_draws_is_not_drawn_again(error: Exception) -> None:
    with torch.no_grad(), pytest.raises(type(error)):
        runs(Guarded(error, rows=5), torch.zeros(5), 4)


def test_a_length_that_is_written_into_a_program_runs_it_once_a_particle() -> None:
    program = Guarded(RuntimeError("The size of tensor a (20) must match the size of tensor b (5)"), rows=5)
    with torch.no_grad():
        assert [run.particles for run in runs(program, torch.zeros(5), 4)] == [1] * 4


def test_a_guide_whose_second_site_follows_the_first_runs_once_for_all_particles() -> None:
    met: list[int] = []

    def model(x: Tensor) -> None:
        met.append(len(x))
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("z", dist.Normal(w, 1.0))

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Normal(x, 1.0))
            pyro.sample("z", dist.Normal(w + x, 1.0))

    terms(Pair(model, guide), torch.zeros(7), 5)
    assert met == [35]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (1, 1)])
def test_a_bound_of_nothing_is_nothing_in_any_order(order: tuple[int, int]) -> None:
    """Chunks of weights, one of them with a weight of 0: the mean log-weight is -inf, whichever comes first."""
    chunks = torch.tensor([[-1.0, -2.0], [-math.inf, -1.0]], dtype=torch.float64)
    moments = Mean()
    for chunk in order:
        moments.add(chunks[chunk].unsqueeze(1))
    assert moments.estimate().log_prob.tolist() == [-math.inf]
    assert moments.estimate().error.tolist() == [math.inf]


def test_pyros_estimators_score_a_draw_by_the_way_back() -> None:
    """As above, by Trace_ELBO: 3 e^2w - 1 for -E q. 100,000 draws: an error of 10 % would be seen."""

    class Jump(dist.Normal):
        has_rsample = False

    scale = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    class Guided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = scale

        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
                pyro.factor("f", -z.square())

        def guide(self, x: Tensor) -> None:
            transform = dist.transforms.AffineTransform(0.0, self.scale.exp(), cache_size=1)
            with pyro.plate("data", len(x)):
                pyro.sample(
                    "z", dist.TransformedDistribution(Jump(torch.zeros_like(x), torch.ones_like(x)), [transform])
                )

    loss = SVI(Guided(), Trace_ELBO()).loss(torch.zeros(100_000, dtype=torch.float64))
    (found,) = torch.autograd.grad(loss, [scale])
    assert float(found) == pytest.approx(3 * math.exp(0.6) - 1, rel=0.1)


def test_what_a_mask_hides_may_lie_anywhere_under_validation_too() -> None:
    def model(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x)), poutine.mask(mask=seen):
            pyro.sample("x", dist.Poisson(torch.ones(len(x))), obs=x)

    x, seen = torch.tensor([0.0, -5.0]), torch.tensor([True, False])
    with pyro.validation_enabled(True):
        assert terms(Pair(model), (x, seen)).likelihood.tolist() == [[-1.0, 0.0]]


def test_a_hidden_markov_model_without_a_length_takes_any() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            initial, step = torch.zeros(2), torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
            pyro.sample("x", dist.DiscreteHMM(initial, step, dist.Normal(torch.tensor([-1.0, 1.0]), 1.0)), obs=x)

    assert terms(Pair(model), torch.zeros(3, 7)).likelihood.shape == (1, 3)


@pytest.mark.parametrize("particles", [0, -1])
def test_no_particles_are_refused(particles: int) -> None:
    with pytest.raises(ProgramError, match="particles: expected a whole number of at least 1"):
        terms(Pair(_normal, _normal_guide), torch.zeros(3), particles)


def _normal_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.7))


# ---- a batch that is written into ----


def _writes(x: Tensor) -> None:
    x.mul_(0.5)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x)


def test_scoring_leaves_the_callers_data_as_they_were() -> None:
    x = torch.ones(5)
    first, second = (evaluate(Pair(_writes), x, {"exact": exact()}).mean("exact") for _ in range(2))
    assert first == second
    assert x.tolist() == [1.0] * 5


def test_a_program_that_writes_into_its_batch_is_refused_before_it_is_trained() -> None:
    x = torch.ones(5)
    with pytest.raises(ProgramError, match=r"writes into batch\[0\]"):
        check(Pair(_writes), x)
    with pytest.raises(ProgramError, match=r"writes into batch\[0\]"):
        Step(SVI(Pair(_writes)))(x)
    assert x.tolist() == [1.0] * 5


def test_checking_draws_nothing_of_the_callers_noise() -> None:
    before = torch.get_rng_state()
    check(Pair(_normal, _trained_guide), torch.zeros(3))
    assert torch.equal(torch.get_rng_state(), before)


def _trained_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("at", torch.tensor(0.0)) + x, 0.7))


# ---- adopted parameters ----


def test_names_that_differ_are_parameters_that_differ() -> None:
    names = ("a.b", "a/b", "a%2Fb", "a b")

    def model(x: Tensor) -> None:
        values = [pyro.param(name, torch.tensor(float(place))) for place, name in enumerate(names)]
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(sum(values), 1.0), obs=x)

    program = Pair(model)
    evaluate(program, torch.zeros(3), {"exact": exact()})
    assert sorted(float(value) for value in program.state_dict().values()) == [0.0, 1.0, 2.0, 3.0]


def test_one_parameter_has_one_constraint() -> None:
    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        again = pyro.param("scale", torch.tensor(1.0), constraint=constraints.unit_interval)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, scale + again), obs=x)

    with pytest.raises(ProgramError, match=r"'scale'.*two constraints"):
        check(Pair(model), torch.zeros(3))


def test_a_constraint_that_is_written_twice_is_one() -> None:
    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.interval(0.1, 2.0))
        again = pyro.param("scale", torch.tensor(0.5), constraint=constraints.interval(0.1, 2.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), scale + again), obs=x)

    check(Pair(model), torch.zeros(3))


# ---- densities at given latents ----


def _shared(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(y.new_zeros(()), 1.0))
    scale = pyro.sample("scale", dist.LogNormal(y.new_zeros(()), 1.0))
    share = pyro.sample("share", dist.Dirichlet(y.new_ones(3)))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean + share[0], scale), obs=y)


Y = torch.tensor([0.3, 1.2, -0.4, 2.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "kind", ["AutoNormal", "AutoMultivariateNormal", "AutoDiagonalNormal", "AutoLowRankMultivariateNormal"]
)
def test_an_autoguides_own_draws_are_scored_as_they_were_when_drawn(kind: str) -> None:
    program = Pair(_shared, getattr(pyro.infer.autoguide, kind))
    torch.set_default_dtype(torch.float64)
    try:
        terms(program, Y)  # builds it
        torch.manual_seed(0)
        drawn = terms(program, Y, 3)
        torch.manual_seed(0)
        latents = posterior_of(program, 3)
        again = terms(program, Y, latents=latents)
        torch.testing.assert_close(again.log_weights, drawn.log_weights, rtol=1e-9, atol=1e-9)
        assert drawn.shared is not None
        joint = drawn.likelihood.sum(1) + drawn.shared.prior
        torch.testing.assert_close(log_joint(program, Y, latents).squeeze(1), joint, rtol=1e-9, atol=1e-9)
    finally:
        torch.set_default_dtype(torch.float32)


def posterior_of(program: Pair, draws: int) -> dict[str, Tensor]:
    from inference.programs.predict import draw

    return draw(program, Y, draws)


def test_log_joint_needs_no_guide_and_names_what_it_lacks() -> None:
    latents = {"z": torch.zeros(2, 3)}
    expected = 2 * dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.0))
    found = log_joint(Pair(_normal), torch.zeros(3), latents)
    torch.testing.assert_close(found, expected.expand(2, 3))
    with pytest.raises(ProgramError, match=r"given for \['w'\]; the model's latent sites are \['z'\]"):
        log_joint(Pair(_normal), torch.zeros(3), {"w": torch.zeros(2, 3)})


# ---- an ELBO without a value ----


def test_a_weight_of_nothing_in_two_chunks_makes_the_elbo_nothing() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.factor("half", torch.where(z > 0, 0.0, -math.inf))

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))

    found = evaluate(Pair(model, guide), torch.zeros(3), {"elbo": importance(4000, elbo), "iwae": importance(4000)})
    assert found.mean("elbo") == -math.inf
    assert found.mean("iwae") == pytest.approx(math.log(0.5), abs=0.1)
