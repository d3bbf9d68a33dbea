"""What a number is called: a bound only where weights are weights, bits only of variables that are scored."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import autoguide
from torch import Tensor

from inference import (
    SVI,
    Pair,
    ProgramError,
    Step,
    adam,
    evaluate,
    exact,
    fit,
    importance,
    posterior,
    reconstruct,
    terms,
)
from inference.programs.predict import NoMean, decode
from tests.problems import SharedMean

Y = torch.tensor([0.7, 1.4, 0.9, 1.6, 0.2, 1.1])


def _normal(y: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
    pyro.deterministic("precision", scale**-2)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, scale), obs=y)


def _evidence() -> float:
    """log p(y) by a grid over the mean and the logarithm of the scale."""
    grid = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    mean, log_scale = torch.meshgrid(grid, grid, indexing="ij")
    joint = dist.Normal(0.0, 1.0).log_prob(mean) + dist.Normal(0.0, 1.0).log_prob(log_scale)
    for value in Y.double():
        joint = joint + dist.Normal(mean, log_scale.exp()).log_prob(value)
    return float(joint.flatten().logsumexp(0)) + 2 * math.log(0.01)


class _PartPoint(autoguide.AutoGuideList):
    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__(model)
        self.append(autoguide.AutoNormal(poutine.block(model, expose=["mean"])))
        self.append(autoguide.AutoDelta(poutine.block(model, expose=["scale"])))


def _one_draw_behind_two(y: Tensor) -> None:
    """Two latents that are functions of one random number lie on a line."""
    u = pyro.sample("u", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
    pyro.sample("mean", dist.Delta(u))
    pyro.sample("scale", dist.Delta(u.exp()))


POINT = "log joint at a point estimate, no bound"


@pytest.mark.parametrize(
    ("guide", "kind"),
    [
        (autoguide.AutoNormal, "lower bound in expectation"),
        (autoguide.AutoMultivariateNormal, "lower bound in expectation"),
        (partial(autoguide.AutoIAFNormal, hidden_dim=[4]), "lower bound in expectation"),
        (autoguide.AutoDelta, POINT),
        (autoguide.AutoLaplaceApproximation, POINT),
        (_PartPoint, POINT),
        (_one_draw_behind_two, POINT),
    ],
)
def test_a_latent_that_is_a_point_makes_no_bound(guide: Any, kind: str) -> None:
    assert evaluate(Pair(_normal, guide), Y, {"iwae": importance(3)}).kind == {"iwae": kind}


def test_a_laplace_approximation_bounds_the_evidence() -> None:
    """1,000 weights of this posterior have a standard error of 0.02 nats."""
    program = Pair(_normal, autoguide.AutoLaplaceApproximation)
    fit(Step(SVI(program), adam(5e-2)), Y, 300, progress=False)
    normal = program.laplace_approximation(Y)
    found = evaluate(normal, Y, {"iwae": importance(1000)})
    assert found.kind["iwae"] == "lower bound in expectation"
    assert found.mean("iwae") == pytest.approx(_evidence(), abs=0.12)
    with pytest.raises(ProgramError, match="AutoNormal"):
        Pair(_normal, autoguide.AutoNormal).laplace_approximation(Y)


def test_a_latent_that_the_model_makes_of_another_is_no_point_estimate() -> None:
    def twice(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(y.new_zeros(()), 1.0))
            pyro.sample("d", dist.Delta(2 * z))

    def model(y: Tensor) -> None:
        with pyro.plate("data", len(y)):
            z = pyro.sample("z", dist.Normal(y.new_zeros(()), 1.0))
            d = pyro.sample("d", dist.Delta(2 * z))
            pyro.sample("y", dist.Normal(d, 1.0), obs=y)

    assert evaluate(Pair(model, twice), Y, {"iwae": importance(3)}).kind["iwae"] == "lower bound in expectation"


def test_an_autoguide_of_conditionals_is_scored_and_refused_by_name() -> None:
    program = Pair(_normal, autoguide.AutoStructured)
    assert evaluate(program, Y, {"iwae": importance(3)}).kind["iwae"] == "lower bound in expectation"
    with pytest.raises(ProgramError, match=r"AutoStructured.*log_joint"):
        terms(program, Y, latents={"mean": torch.zeros(1), "scale": torch.ones(1)})


# ---- bits ----


def _observed(distribution: Callable[[int], Any]) -> Pair:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", distribution(len(x)), obs=x)

    return Pair(model)


def test_a_one_hot_vector_is_one_variable() -> None:
    x = torch.eye(4)[torch.randint(4, (9, 5))]
    program = _observed(lambda n: dist.OneHotCategorical(torch.ones(n, 5, 4)).to_event(1))
    assert evaluate(program, x, {"exact": exact()}).bits_per_dim("exact") == pytest.approx(2.0)


BINARY = torch.ones(6, 8)
HALF = torch.tensor([True] * 4 + [False] * 4)


def _two_sites(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("left", dist.Bernoulli(torch.full((len(x), 4), 0.5)).to_event(1), obs=x[:, :4])
        pyro.sample("right", dist.Bernoulli(torch.full((len(x), 4), 0.5)).to_event(1), obs=x[:, 4:])


def _masked_site(x: Tensor) -> None:
    with pyro.plate("data", len(x)), poutine.mask(mask=torch.arange(len(x)) % 2 == 0):
        pyro.sample("x", dist.Bernoulli(torch.full((len(x), 8), 0.5)).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("program", "x", "cause"),
    [
        (_observed(lambda n: dist.Bernoulli(torch.full((n, 8), 0.5)).mask(HALF).to_event(1)), BINARY, "mask hides"),
        (Pair(_masked_site), BINARY, "mask hides"),
        (Pair(_two_sites), BINARY, "2 sites"),
        (_observed(lambda n: dist.Multinomial(8, torch.ones(n, 8))), BINARY, "no variables of their own"),
        (_observed(lambda n: dist.Normal(torch.zeros(n, 8), 1.0).to_event(1)), BINARY, "is a density"),
        (Pair(_normal, autoguide.AutoNormal), Y, "shared by all examples"),
    ],
)
def test_bits_are_refused_with_the_true_cause(program: Pair, x: Tensor, cause: str) -> None:
    found = evaluate(program, x, {"e": importance(2)})
    with pytest.raises(ProgramError, match=cause):
        found.bits_per_dim("e")
    assert found.summary()["estimates"]["e"]["bits_per_dim"] is None


def test_a_mask_that_comes_later_leaves_no_bits() -> None:
    def model(x: Tensor, seen: Tensor) -> None:
        distribution = dist.Bernoulli(torch.full(x.shape, 0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("x", (distribution if seen.all() else distribution.mask(seen)).to_event(1), obs=x)

    seen = torch.ones_like(BINARY).bool()
    found = evaluate(Pair(model), [(BINARY, seen), (BINARY, ~seen)], {"exact": exact()})
    with pytest.raises(ProgramError, match="mask hides"):
        found.bits_per_dim("exact")


def test_examples_of_several_lengths_have_no_bits() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(torch.full(x.shape, 0.5)).to_event(1), obs=x)

    found = evaluate(Pair(model), [torch.ones(3, 4), torch.ones(3, 5)], {"exact": exact()})
    with pytest.raises(ProgramError, match="different shapes"):
        found.bits_per_dim("exact")


# ---- data that are not those of the program ----


def test_a_dataset_of_another_size_than_the_plates_is_refused() -> None:
    x = torch.linspace(-1, 1, 6, dtype=torch.float64)
    with pytest.raises(ProgramError, match="6 examples of its dataset, and 12 were given"):
        evaluate(SharedMean(6), [x, x], {"iwae": importance(2)})


# ---- predictions ----


def test_deterministic_sites_follow_the_posteriors_draws() -> None:
    program = Pair(_normal, autoguide.AutoNormal)
    found = posterior(program, Y, 7)
    torch.testing.assert_close(found["precision"], found["scale"] ** -2)


def test_deterministic_sites_stand_in_the_batchs_order() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.deterministic("doubled", 2 * z)
            pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=x)
        pyro.deterministic("total", z.sum())

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))

    found = posterior(Pair(model, guide), torch.zeros(3), 5)
    torch.testing.assert_close(found["doubled"], 2 * found["z"])
    torch.testing.assert_close(found["total"], found["z"].sum((1, 2)))


def test_deterministic_sites_between_plates_of_one_length_stay_as_they_are() -> None:
    def model(x: Tensor) -> None:
        examples = pyro.plate("data", len(x), dim=-1)
        with pyro.plate("time", 3, dim=-2), examples:
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.deterministic("tripled", 3 * z)
        with examples:
            pyro.sample("x", dist.Normal(z.sum(0), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("time", 3, dim=-2), pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))

    found = posterior(Pair(model, guide), torch.zeros(3), 2)
    torch.testing.assert_close(found["tripled"], 3 * found["z"])


@pytest.mark.parametrize("distribution", [dist.Categorical(torch.ones(3)), dist.Cauchy(0.0, 1.0), dist.HalfCauchy(1.0)])
def test_a_distribution_without_a_mean_has_none(distribution: Any) -> None:
    program = _observed(lambda n: distribution.expand([n]))
    with pytest.raises(NoMean, match="no mean in closed form"):
        decode(program, torch.ones(4), {})
    assert reconstruct(program, torch.ones(4), 3)["x"].shape == (3, 4)


# ---- copies ----


def test_a_copy_of_a_pair_of_functions_does_not_run() -> None:
    network = torch.nn.Linear(1, 1)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(network(x.unsqueeze(1)).squeeze(1), 1.0), obs=x)

    program = Pair(model, None, network)
    twin = copy.deepcopy(program)
    with pytest.raises(ProgramError, match=r"copy of a Pair.*load_state_dict"):
        evaluate(twin, Y, {"exact": exact()})
    evaluate(program, Y, {"exact": exact()})
    twin = copy.deepcopy(Pair(partial(_scaled, 1.0)))
    with pytest.raises(ProgramError, match="copy of a Pair"):
        evaluate(twin, Y, {"exact": exact()})


NETWORK = torch.nn.Linear(1, 1)


def _scaled(scale: float, x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(NETWORK(x.unsqueeze(1)).squeeze(1), scale), obs=x)


def test_a_copy_that_computes_with_its_own_weights_runs() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.tensor(0.0)), 1.0), obs=x)

    program = Pair(model)
    before = evaluate(program, Y, {"exact": exact()}).mean("exact")
    twin = copy.deepcopy(program)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.fill_(50.0)
    assert evaluate(twin, Y, {"exact": exact()}).mean("exact") < -1000
    assert evaluate(program, Y, {"exact": exact()}).mean("exact") == before
