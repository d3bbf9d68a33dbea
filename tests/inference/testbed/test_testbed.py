"""The programs of the testbed: evidence and moments by integration, bounds that reach them, guides that are exact."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import inference.testbed
from inference import SVI, Pair, check, elbo, evaluate, exact, importance, log_joint, terms
from inference.testbed import (
    BetaBernoulli,
    Funnel,
    GammaPoisson,
    HiddenMarkov,
    LinearGaussian,
    Mixture,
    SharedMean,
)

EXAMPLES = 3


def line(low: float, high: float, points: int) -> tuple[Tensor, float]:
    """The middles of equal cells, and the logarithm of a cell's length."""
    cell = (high - low) / points
    return low + cell * (torch.arange(points, dtype=torch.float64) + 0.5), math.log(cell)


def by_example(values: Tensor) -> Tensor:
    """The same latents for every example: `(points, batch, *event)`."""
    return values.unsqueeze(1).expand(-1, EXAMPLES, *values.shape[1:])


def one(name: str, low: float, high: float, points: int = 4000) -> tuple[dict[str, Tensor], float]:
    """All values of a latent number on a line, and the logarithm of a cell."""
    values, cell = line(low, high, points)
    return {name: by_example(values)}, cell


def plane(x: Tensor) -> tuple[dict[str, Tensor], float]:
    """Of two latents of one site."""
    values, cell = line(-7, 7, 150)
    return {"z": by_example(torch.cartesian_prod(values, values))}, 2 * cell


def funnel(x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Of v, and of z near where it is likely given v, in cells as wide as its spread there."""
    v, cell_of_v = line(-25, 25, 800)
    u, cell_of_u = line(-8, 8, 80)
    v, u = torch.cartesian_prod(v, u).unsqueeze(1).expand(-1, EXAMPLES, 2).unbind(-1)
    gain = torch.sigmoid(v)
    z = gain * x.squeeze(1) + gain.sqrt() * u
    return {"v": v, "z": z.unsqueeze(-1)}, gain.log() / 2 + cell_of_v + cell_of_u


def states(x: Tensor) -> tuple[dict[str, Tensor], float]:
    """Every path of a chain."""
    paths = torch.tensor(list(itertools.product(range(2), repeat=4)))
    return {f"state_{t}": by_example(paths[:, t]) for t in range(4)}, 0.0


class Case(NamedTuple):
    """How a program is made, at an error of its guide, and all values of its latents with the logarithm of a cell."""

    make: Callable[[float], Any]
    everywhere: Callable[[Tensor], tuple[Mapping[str, Tensor], float | Tensor]]
    draws: int = 5000


CASES: dict[str, Case] = {
    "linear gaussian": Case(lambda error: LinearGaussian(error=error), plane),
    "mixture": Case(lambda error: Mixture(error=error), lambda x: ({"k": by_example(torch.arange(3))}, 0.0)),
    "shared mean": Case(
        lambda error: SharedMean(EXAMPLES, error),
        lambda x: ({"mean": line(-8, 8, 200)[0]}, line(-8, 8, 200)[1]),
        draws=400,  # each is a run of its own
    ),
    "beta bernoulli": Case(lambda error: BetaBernoulli(error=error), lambda x: one("fairness", 0, 1)),
    "gamma poisson": Case(lambda error: GammaPoisson(error=error), lambda x: one("rate", 0, 30)),
    "hidden markov": Case(lambda error: HiddenMarkov(error=error), states),
    "funnel": Case(lambda error: Funnel(1, error), funnel),
}
WITH_AN_EXACT_GUIDE = [name for name in CASES if name != "funnel"]


def test_every_program_is_a_case() -> None:
    made = {type(case.make(0.0)).__name__ for case in CASES.values()}
    assert made == set(inference.testbed.__all__) - {"Moments"}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_evidence_and_moments_are_those_of_integration(name: str) -> None:
    """The joint density, as it is scored, summed over all values of the latents: by cells, or one by one."""
    program = CASES[name].make(0.0)
    x = program.batch(EXAMPLES, 1)
    latents, cell = CASES[name].everywhere(x)
    density = log_joint(program, x, latents) + cell
    if name == "shared mean":
        density = density.squeeze(1)  # all the data are one example
    torch.testing.assert_close(torch.logsumexp(density, 0), program.log_evidence(x), rtol=0, atol=1e-6)
    weight = torch.softmax(density, 0)
    found = program.posterior(x)
    assert found.keys() == latents.keys()
    for site, moments in found.items():
        value = latents[site].double()
        each = weight.reshape(*weight.shape, *[1] * (value.ndim - weight.ndim))
        mean = (each * value).sum(0)
        torch.testing.assert_close(mean.expand_as(moments.mean), moments.mean, rtol=0, atol=1e-6)
        variance = (each * (value - mean).square()).sum(0)
        torch.testing.assert_close(variance.expand_as(moments.variance), moments.variance, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", WITH_AN_EXACT_GUIDE)
def test_an_exact_guide_has_the_evidence_at_every_draw(name: str) -> None:
    program = CASES[name].make(0.0)
    x = program.batch(EXAMPLES, 1)
    bound = evaluate(program, x, {"elbo": importance(4, elbo)}).log_prob["elbo"]
    for found in (terms(program, x, 4).log_weights, bound):
        torch.testing.assert_close(found, program.log_evidence(x).expand_as(found), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_bounds_of_a_wrong_guide_lie_below_and_reach_the_evidence(name: str) -> None:
    """E[ELBO] is below by more than its error; the importance-weighted bound of many draws is within five of its own."""
    draws, program = CASES[name].draws, CASES[name].make(0.5)
    x = program.batch(EXAMPLES, 1)
    found = evaluate(program, x, {"elbo": importance(draws, elbo), "iwae": importance(2 * draws)})
    evidence = program.log_evidence(x)
    assert (found.log_prob["elbo"].mean() + 5 * found.error["elbo"].mean() < evidence.mean()).all()
    assert ((found.log_prob["iwae"] - evidence).abs() <= 5 * found.error["iwae"] + 1e-9).all()
    assert (found.error["iwae"] < 0.06).all()


@pytest.mark.parametrize("name", CASES)
def test_batches_are_drawn_from_the_model_by_their_seed(name: str) -> None:
    program = CASES[name].make(0.0)
    x = program.batch(EXAMPLES, 1)
    assert x.dtype == torch.float64
    assert len(x) == EXAMPLES
    assert torch.equal(x, program.batch(EXAMPLES, 1))
    assert not torch.equal(x, program.batch(EXAMPLES, 2))
    check(program, x)


def test_draws_of_the_model_have_its_evidence_on_average() -> None:
    """-E log p(x) of coins is a sum over all rows of flips; 2,000 draws are within five standard errors of it."""
    program = BetaBernoulli(flips=3)
    rows = torch.tensor(list(itertools.product((0.0, 1.0), repeat=3)), dtype=torch.float64)
    log_p = program.log_evidence(rows)
    assert float(log_p.exp().sum()) == pytest.approx(1, abs=1e-12)
    drawn = program.log_evidence(program.batch(2000, 3))
    error = float(drawn.std()) / math.sqrt(len(drawn))
    assert abs(float(drawn.mean() - (log_p.exp() * log_p).sum())) < 5 * error


def test_a_chain_without_a_guide_is_summed_out() -> None:
    program = HiddenMarkov(6)
    x = program.batch(5)
    found = evaluate(Pair(program.model), x, {"exact": exact()}).log_prob["exact"]
    torch.testing.assert_close(found, program.log_evidence(x), rtol=0, atol=1e-12)


def test_training_makes_a_wrong_guide_right() -> None:
    """The error is a parameter of the guide, whose gradient leads back to the posterior."""
    for case in CASES.values():
        program = case.make(0.5)
        if not hasattr(program, "error"):
            continue  # its guide has parameters of its own
        x = program.batch(EXAMPLES, 1)
        (gradient,) = torch.autograd.grad(SVI(program, particles=50).loss(x), [program.error])
        assert gradient > 0, type(program).__name__
