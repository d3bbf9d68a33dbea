"""What an evaluation's numbers are made of: their noise, their precision, and the values that bits are counted by."""

import math
from collections.abc import Callable
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from inference import Pair, ProgramError, elbo, evaluate, exact, importance, iwae, renyi, terms
from inference.evaluation.evaluate import Evaluation
from tests.problems import LinearGaussian, SharedMean

X = LinearGaussian.data(4)


def test_every_batch_and_every_estimator_has_noise_of_its_own() -> None:
    estimators = {"first": importance(1), "second": importance(1)}
    found = evaluate(LinearGaussian(error=0.5), [X, X, X], estimators).log_prob
    batches = [*found["first"].split(4), *found["second"].split(4)]
    assert len({tuple(batch.tolist()) for batch in batches}) == 6
    # What one estimator draws is not moved by what another drew before it, in this batch or in those before.
    alone = evaluate(LinearGaussian(error=0.5), [X, X, X], {"first": importance(1)}).log_prob
    assert torch.equal(alone["first"], found["first"])


def test_the_gap_of_the_importance_weighted_bound_falls_as_one_over_the_particles() -> None:
    """K (log p(x) - IWAE_K) → Var(w / p(x)) / 2 (Nowozin 2018; Domke & Sheldon 2018, arXiv 1808.09034).

    Of a guide wider by c than the posterior in two dimensions Var = c⁴ / (2 c² - 1) - 1. The mean weight, whose mean is
    p(x), takes most of the noise off: the ratio's spread is 0.011, and what a finite K adds is below 1 / K; a factor of 1.1
    is seen at the largest K.
    """
    error = 0.3
    program, rows = LinearGaussian(error=error), 16_000
    with torch.no_grad():
        program.offset.zero_()
    square = math.exp(2 * error)
    limit = (square**2 / (2 * square - 1) - 1) / 2
    x = X[:1].expand(rows, -1)
    torch.manual_seed(0)
    for particles in (4, 16, 64):
        with torch.no_grad():
            weights = terms(program, x, particles).log_weights - program.log_evidence(x)
        gap = (weights.exp().mean(0) - 1 - iwae(weights)).mean()
        assert abs(particles * float(gap) / limit - 1) < 1 / particles + 5.5 * 0.011, particles


@pytest.mark.parametrize("bound", [elbo, iwae, renyi(0.5)])
def test_weights_far_from_zero_are_added_up_in_double_precision(bound) -> None:
    """At -1,000,000 nats float32 has steps of 0.06: the exact posterior's weights would no longer be alike."""
    program = LinearGaussian()
    x = 1000 + X
    assert program.log_evidence(x).max() < -9e5
    found = evaluate(program, x, {"bound": importance(7, bound)})
    torch.testing.assert_close(found.log_prob["bound"], program.log_evidence(x).detach(), atol=1e-6, rtol=0)
    single = importance(3, bound)(LinearGaussian().float(), X.float())
    assert single.log_prob.dtype == single.error.dtype == torch.float64


def test_all_particles_are_drawn_and_no_more() -> None:
    """Seven particles of four examples in chunks of eight rows: 2 + 2 + 2 + 1."""
    program = LinearGaussian(error=0.5)
    estimator = importance(7)
    torch.manual_seed(3)
    drawn = torch.cat([terms(program, X, particles).log_weights for particles in (2, 2, 2, 1)])
    torch.manual_seed(3)
    found = type(estimator)(7, iwae, rows=8)(program, X)
    torch.testing.assert_close(found.log_prob, iwae(drawn))


@pytest.mark.parametrize("bound", [elbo, iwae, renyi(3.0)])
def test_one_particle_has_a_number_and_no_error(bound) -> None:
    program = LinearGaussian(error=0.5)
    torch.manual_seed(3)
    weights = terms(program, X).log_weights
    torch.manual_seed(3)
    estimate = importance(1, bound)(program, X)
    torch.testing.assert_close(estimate.log_prob, weights.squeeze(0))
    assert estimate.error.isnan().all()


@pytest.mark.parametrize("shape", [(6,), (1, 4, 4), (3, 2, 5)])
def test_bits_per_dim_count_every_value_of_an_example(shape: tuple[int, ...]) -> None:
    """Fair coins are one bit each, in a vector or an image, inside the event or in plates."""

    def in_the_event(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=torch.zeros_like(x)).to_event(len(shape)), obs=x)

    def in_a_plate(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2), pyro.plate("values", shape[-1], dim=-1):
            flat = x.reshape(len(x), -1, shape[-1]).movedim(2, 1)
            pyro.sample("x", dist.Bernoulli(logits=torch.zeros_like(flat)).to_event(1), obs=flat)

    x = torch.bernoulli(torch.full((9, *shape), 0.5, dtype=torch.float64))
    for model in (in_the_event, in_a_plate):
        found = evaluate(Pair(model), x, {"exact": exact(), "elbo": importance(2, elbo)})
        assert found.dimensions == math.prod(shape)
        assert found.bits_per_dim("exact") == pytest.approx(1.0)
        assert found.summary()["estimates"]["elbo"]["bits_per_dim"] == pytest.approx(1.0)


def _coins(hidden: Tensor | None, around: Tensor | bool | None) -> Pair:
    """Fair coins, hidden by the distribution's own mask or by one around the site."""

    def model(x: Tensor) -> None:
        fn = dist.Bernoulli(logits=torch.zeros_like(x))
        fn = fn if hidden is None else fn.mask(hidden)
        with pyro.plate("data", len(x)), nullcontext() if around is None else poutine.mask(mask=around):
            pyro.sample("x", fn.to_event(1), obs=x)

    return Pair(model)


_VALUES = torch.tensor([True] * 4 + [False] * 4)
_ROWS = torch.tensor([True, False] * 4 + [True])


@pytest.mark.parametrize(
    ("hidden", "around"),
    [(None, True), (None, _ROWS), (_VALUES, None), (_ROWS.unsqueeze(1), None), (_VALUES, True)],
    ids=["mask=True", "rows by a mask", "values", "rows by the distribution", "values under mask=True"],
)
def test_bits_per_dim_of_masked_values_are_of_those_seen_or_refused(
    hidden: Tensor | None, around: Tensor | bool | None
) -> None:
    x = torch.bernoulli(torch.full((9, 8), 0.5, dtype=torch.float64))
    found = evaluate(_coins(hidden, around), x, {"exact": exact()})
    try:
        bits: float | None = found.bits_per_dim("exact")
    except ProgramError:
        bits = None
    assert bits is None or bits == pytest.approx(1.0)
    assert found.summary()["estimates"]["exact"]["bits_per_dim"] == (bits and pytest.approx(1.0))


def _two_sites(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Bernoulli(logits=torch.zeros_like(x[:, 0])), obs=x[:, 0])
        pyro.sample("y", dist.Bernoulli(logits=torch.zeros_like(x[:, 1])), obs=x[:, 1])


def _a_density_beside(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x[:, 1], 1.0), obs=x[:, 1])
        pyro.sample("x", dist.Bernoulli(logits=torch.zeros_like(x[:, 0])), obs=x[:, 0])


@pytest.mark.parametrize(
    ("model", "likelihood"), [(_two_sites, "discrete"), (_a_density_beside, "density and discrete")]
)
def test_bits_per_dim_of_several_sites_are_not_given(model: Callable[[Tensor], None], likelihood: str) -> None:
    found = evaluate(Pair(model), torch.ones(3, 2, dtype=torch.float64), {"exact": exact()})
    assert found.measured_on["likelihood"] == likelihood
    with pytest.raises(ProgramError):
        found.bits_per_dim("exact")
    assert found.summary()["estimates"]["exact"]["bits_per_dim"] is None


def test_bits_per_dim_of_a_dataset_with_shared_sites_are_not_given() -> None:
    def model(x: Tensor) -> None:
        logit = pyro.sample("logit", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(logits=logit.expand(len(x))), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("logit", dist.Normal(x.new_zeros(()), 0.5))

    found = evaluate(Pair(model, guide), torch.ones(5, dtype=torch.float64), {"elbo": importance(3, elbo)})
    with pytest.raises(ProgramError):
        found.bits_per_dim("elbo")
    assert found.summary()["estimates"]["elbo"]["bits_per_dim"] is None


def test_the_errors_of_single_numbers_add_up_where_there_is_nothing_to_pair() -> None:
    x = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    program = SharedMean(12, error=0.1).at(x)
    found = evaluate(program, x, {"iwae": importance(50), "elbo": importance(50, elbo)}, {"data": "made"})
    errors = {name: float(found.error[name][0]) for name in ("iwae", "elbo")}
    assert min(errors.values()) > 0
    assert found.standard_error("elbo") == found.noise("elbo") == errors["elbo"]
    assert found.gap("iwae", "elbo")[1] == pytest.approx(errors["iwae"] + errors["elbo"])
    other = evaluate(program, x, {"elbo": importance(50, elbo)}, {"data": "made"}, seed=1)
    assert other.error["elbo"].item() != errors["elbo"]
    expected = errors["elbo"] + float(other.error["elbo"][0])
    assert found.difference(other, "elbo")[1] == pytest.approx(expected)


def test_the_noise_of_a_mean_falls_with_the_number_of_examples() -> None:
    four = torch.tensor([0.3, 0.4, 0.0, 1.2], dtype=torch.float64)
    found = Evaluation(
        log_prob={"elbo": -four}, error={"elbo": four}, kind={"elbo": ""}, settings={"elbo": {}}, measured_on={}
    )
    assert found.noise("elbo") == pytest.approx(1.3 / 4)  # the root of 0.09 + 0.16 + 1.44, over 4
    assert found.standard_error("elbo") == pytest.approx(float(four.std()) / 2)


@pytest.mark.parametrize("alpha", [-1.0, 0.0, 0.5, 1.0, 3.0])
def test_the_settings_tell_estimators_apart_and_a_negative_order_is_no_bound(alpha: float) -> None:
    estimator = importance(3, renyi(alpha))
    name = {0.0: "iwae", 1.0: "elbo"}.get(alpha, f"renyi({alpha:g})")
    assert estimator.settings == {"bound": name, "particles": 3}
    assert estimator.kind == ("lower bound in expectation" if alpha >= 0 else "estimate, no bound")


def test_an_exact_number_and_a_bound_compare_on_the_same_data_alone() -> None:
    """And a bound with a bound by the same settings, in either place."""

    def scored(data: str, kind: str, particles: int = 3) -> Evaluation:
        values = torch.tensor([-1.0, -2.0], dtype=torch.float64)
        return Evaluation(
            log_prob={"found": values},
            error={"found": torch.zeros_like(values)},
            kind={"found": kind},
            settings={"found": {"particles": particles} if kind != "exact" else {}},
            measured_on={"data": data},
        )

    bound = "lower bound in expectation"
    for mine, other in (
        (scored("made", "exact"), scored("made", bound)),
        (scored("made", bound), scored("made", "exact")),
        (scored("made", bound), scored("made", bound)),
        (scored("made", "exact"), scored("made", "exact")),
    ):
        assert mine.difference(other, "found") == (0.0, 0.0)
    for mine, other in (
        (scored("made", "exact"), scored("other", bound)),
        (scored("made", bound), scored("other", "exact")),
        (scored("made", bound), scored("other", bound)),
        (scored("made", bound), scored("made", bound, particles=4)),
        (scored("made", "exact"), scored("made", "estimate, no bound")),
    ):
        with pytest.raises(ProgramError, match="only where data, kind and settings agree"):
            mine.difference(other, "found")


@pytest.mark.parametrize("place", [0, 5], ids=["first batch", "second batch"])
def test_data_that_are_not_finite_are_refused_in_every_batch(place: int) -> None:
    x = LinearGaussian.data(8)
    x[place, 1] = math.nan
    with pytest.raises(ProgramError):
        evaluate(LinearGaussian(), list(x.split(4)), {"iwae": importance(2)})


def test_a_point_in_an_event_is_a_point() -> None:
    class Point(LinearGaussian):
        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Delta((x - self.bias) @ self.gain.T).to_event(1))

    assert "no bound" in evaluate(Point(), X, {"iwae": importance(2)}).kind["iwae"]
