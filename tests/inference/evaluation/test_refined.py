"""The gap taken apart on programs whose posterior is known in closed form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from inference import Batch, Pair, Program, ProgramError, elbo, evaluate, importance, inference_gap, refined, sandwich
from inference.evaluation.estimators import Estimate, Estimator, Exact
from inference.evaluation.free_parameters import freed
from inference.evaluation.refined import AMORTISATION_GAP, Refined, _Family

NOISE = 0.5
X = torch.tensor([[0.5, 0.2], [-1.2, 0.7], [2.0, -1.0]], dtype=torch.float64)
STRAIGHT = torch.tensor([[0.8, 0.0], [0.0, 1.4]], dtype=torch.float64)
SKEW = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64)


class Linear(nn.Module):
    """z ~ N(0, I), x ~ N(slopes z, NOISE²), and a guide that is wrong in mean and width."""

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.slopes = slopes
        self.shift = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.slopes.T, NOISE).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x + self.shift, 0.8).to_event(1))

    def log_evidence(self, x: Tensor) -> Tensor:
        covariance = self.slopes @ self.slopes.T + NOISE**2 * torch.eye(2, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(x.new_zeros(2), covariance).log_prob(x)

    def posterior(self, x: Tensor) -> torch.distributions.MultivariateNormal:
        precision = torch.eye(2, dtype=torch.float64) + self.slopes.T @ self.slopes / NOISE**2
        mean = x @ self.slopes @ torch.linalg.inv(precision) / NOISE**2
        return torch.distributions.MultivariateNormal(mean, precision_matrix=precision)


def _score(program: Program, x: Tensor, estimator: Estimator) -> tuple[Tensor, Tensor, Tensor]:
    found = evaluate(program, x, {"refined": estimator}, seed=1)
    bound = found.log_prob["refined"]
    return bound, found.error["refined"], bound - found.details["refined"][AMORTISATION_GAP]


def test_refined_is_the_evidence_where_the_family_holds_the_posterior() -> None:
    program = Linear(STRAIGHT)
    bound, error, amortised = _score(program, X, refined(800, draws=20_000))
    assert ((bound - program.log_evidence(X)).abs() < 2e-3).all()
    assert (error < 1e-3).all(), "at the posterior all weights are equal"
    guide = torch.distributions.MultivariateNormal(0.5 * X + 0.3, 0.64 * torch.eye(2, dtype=torch.float64))
    kl = torch.distributions.kl_divergence(guide, program.posterior(X))
    assert ((bound - amortised) - kl).abs().max() < 0.15, (
        "the amortisation gap is KL(q || p(z | x)); it has noise of 0.03"
    )
    assert program.shift.item() == pytest.approx(0.3)
    assert program.shift.grad is None


def test_the_gap_of_the_family_is_the_best_mean_field_kl() -> None:
    program = Linear(SKEW)
    bound, error, _ = _score(program, X, refined(800, draws=20_000))
    precision = program.posterior(X).precision_matrix[0]
    family_gap = 0.5 * (
        precision.diagonal().log().sum() - torch.logdet(precision)
    )  # means are met, variances 1 / diagonal
    assert ((program.log_evidence(X) - bound - family_gap).abs() < 5 * error + 5e-3).all()


def test_every_example_is_refined_alone() -> None:
    program = Linear(SKEW)
    together, _, _ = _score(program, X, refined(500, draws=20_000))
    alone = torch.cat([_score(program, x, refined(500, draws=20_000))[0] for x in X.split(1)])
    assert (together - alone).abs().max() < 0.05


def test_it_is_scored_with_fresh_noise() -> None:
    """Fitted and scored on the same few draws, a bound lies above the evidence."""
    program = Linear(STRAIGHT)
    bound, error, _ = _score(program, X, refined(800, particles=1, draws=4000))
    assert (bound < program.log_evidence(X) + 5 * error + 1e-3).all()
    noise = torch.randn(1, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    free = torch.zeros(2, 3, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([free], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        q = dist.Normal(free[0], free[1].exp())
        z = free[0] + free[1].exp() * noise
        joint = dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z @ STRAIGHT.T, NOISE).log_prob(X)
        same = (joint - q.log_prob(z)).sum(2)
        (-same.sum()).backward()
        optimizer.step()
    assert (same[0] > program.log_evidence(X) + 1).all()


@pytest.mark.parametrize(
    "guide",
    [
        lambda x: dist.LogNormal(0.5 * x, 0.7),
        lambda x: dist.Gamma(2.0 + x, 2.0),
        lambda x: dist.Weibull(1.0 + x, 1.5),
    ],
)
def test_families_of_positive_latents(guide: object) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(x.new_tensor(3.0), 2.0))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def drawn(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("rate", guide(x))  # type: ignore[operator]

    x = torch.tensor([0.0, 2.0, 5.0], dtype=torch.float64)
    expected = 3 * math.log(2) - math.lgamma(3) + torch.lgamma(3 + x) - (3 + x) * math.log(3) - torch.lgamma(x + 1)
    bound, error, amortised = _score(Pair(model, drawn), x, refined(600, draws=3000))
    assert (bound < expected + 5 * error + 1e-3).all()
    assert (bound > expected - 0.06).all()
    assert float((bound - amortised).mean()) > 0.05


def test_finite_latents_that_the_guide_leaves_out_are_summed() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(x.new_tensor(0.4)), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z + 0.2 * k, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 2.0))

    x = torch.tensor([0.3, -1.0], dtype=torch.float64)
    parts = [math.log(w) + dist.Normal(m, math.sqrt(1.25)).log_prob(x) for w, m in ((0.6, 0.0), (0.4, 0.2))]
    bound, _, _ = _score(Pair(model, guide), x, refined(500, draws=5000))
    assert ((bound - torch.logaddexp(*parts)).abs() < 0.02).all()


@pytest.mark.parametrize(
    "distribution",
    [
        dist.MultivariateNormal(torch.zeros(2), scale_tril=torch.tensor([[1.0, 0.0], [0.4, 0.5]])),
        dist.MultivariateNormal(torch.zeros(2), covariance_matrix=torch.tensor([[1.0, 0.2], [0.2, 0.5]])),
        dist.LowRankMultivariateNormal(torch.zeros(3), torch.ones(3, 1), torch.ones(3)),
        dist.Beta(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.5])).to_event(1),
        dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])),
        dist.StudentT(torch.tensor(4.0), torch.tensor(0.0), torch.tensor(1.0)),
        dist.Laplace(torch.zeros(2, 3), 1.0).to_event(2),
        dist.Normal(torch.zeros(2, 3), 1.0).to_event(1).mask(torch.tensor([True, False])),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_freed_distribution_is_the_same_one(distribution: dist.TorchDistribution) -> None:
    free = freed("z", distribution)
    value = distribution.sample()
    torch.testing.assert_close(free.distribution(free.values).log_prob(value), distribution.log_prob(value))


class Moved(dist.Normal):
    """A normal, and by how much it is moved: no parameter that it tells of."""

    def __init__(self, loc: Tensor, scale: float, by: float = 0.0) -> None:
        super().__init__(loc, scale)
        self.by = by

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value - self.by)


@pytest.mark.parametrize(
    "distribution",
    [
        dist.LKJCholesky(3, torch.tensor(1.5)),
        dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=torch.zeros(3)),
        Moved(torch.zeros(2), 1.0, by=3.0),
        dist.Uniform(torch.zeros(2), 1.0),
        dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0), [dist.transforms.SigmoidTransform()]),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_distribution_that_its_parameters_do_not_make_is_refused(distribution: dist.TorchDistribution) -> None:
    with pytest.raises(
        ProgramError, match=f"'z' is a {type(distribution).__name__}, whose parameters cannot be set free"
    ):
        freed("z", distribution)


def _refused(guide: object, match: str) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x.new_zeros(len(x)), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    with pytest.raises(ProgramError, match=match):
        evaluate(Pair(model, guide), torch.zeros(3), {"refined": refined(5, draws=4)})


def test_guides_that_cannot_be_refined_are_refused_by_name() -> None:
    def chained(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x, 1.0))
            pyro.sample("b", dist.Normal(2 * a, 1.0))

    def hidden(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x, 1.0))
            pyro.sample("b", dist.Normal(2 * a.detach(), 1.0))

    def mixed(x: Tensor) -> None:
        parts = dist.MixtureSameFamily(dist.Categorical(torch.ones(3, 2)), dist.Normal(torch.zeros(3, 2), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(x, 1.0))
            pyro.sample("b", parts)

    _refused(chained, r"sites \['b'\] depend on earlier draws")
    _refused(hidden, r"sites \['b'\] depend on earlier draws")
    _refused(mixed, r"'b' \(MixtureSameFamily\) has no reparameterised")
    _refused(AutoNormal, "auxiliary sites.*nothing to refine")
    with pytest.raises(ValueError, match="steps: expected a whole number of at least 1, got 0"):
        refined(0)
    with pytest.raises(ValueError, match="learning_rate: expected a number above 0"):
        refined(learning_rate=0.0)


def test_refining_costs_no_bound_and_is_at_least_the_elbo() -> None:
    program = Linear(SKEW)
    found = evaluate(program, X, {"refined": refined(300, draws=2000), "elbo": importance(2000, elbo)})
    assert (found.log_prob["refined"] > found.log_prob["elbo"]).all()
    amortised = found.log_prob["refined"] - found.details["refined"][AMORTISATION_GAP]
    assert (amortised - found.log_prob["elbo"]).abs().max() < 0.4


class _Known(Exact):
    """An estimator that knows the evidence."""

    def __call__(self, program: Program, batch: Batch) -> Estimate:
        assert isinstance(program, Linear)
        found = program.log_evidence(batch[0])
        return Estimate(found, torch.zeros_like(found))


def test_the_gap_is_taken_apart() -> None:
    torch.manual_seed(0)
    program = Linear(SKEW)
    x = torch.randn(200, 2, dtype=torch.float64) * 1.2
    estimators: dict[str, Estimator] = {
        "refined": refined(300, draws=200),
        "known": _Known(),
        "sandwich": sandwich(20, 8, simulations=50),
        "iwae": importance(50),
    }
    found = evaluate(program, x, estimators)
    guide = torch.distributions.MultivariateNormal(0.5 * x + 0.3, 0.64 * torch.eye(2, dtype=torch.float64))
    kl = float(torch.distributions.kl_divergence(guide, program.posterior(x)).mean())
    precision = program.posterior(x).precision_matrix[0]
    family = float(0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)))
    gap = inference_gap(found, log_prob="known")
    assert abs(gap.total.mean - kl) < 5 * 0.05
    assert gap.approximation.mean == pytest.approx(family, abs=0.02)
    assert gap.total.mean == pytest.approx(gap.approximation.mean + gap.amortisation.mean)
    assert "log p(x) is exact" in gap.table()
    evidence = inference_gap(found)
    assert evidence.width is not None
    assert evidence.width.mean > 0
    assert "the gap on simulated data" in evidence.table()
    assert "at least" in inference_gap(found, log_prob="iwae").table()
    with pytest.raises(ProgramError, match=r"\['exact'\] is none among"):
        inference_gap(found, log_prob="exact")
    with pytest.raises(ProgramError, match=r"\['iwae'\] is none among"):
        inference_gap(found, refined="iwae")


class _Rescaled(list[Tensor]):
    log_jacobian = -100.0


def test_the_gap_does_not_depend_on_the_units_of_the_data() -> None:
    estimators: dict[str, Estimator] = {"refined": refined(50, draws=50), "iwae": importance(50)}
    own, rescaled = (
        inference_gap(evaluate(Linear(SKEW), data, estimators), log_prob="iwae") for data in ([X], _Rescaled([X]))
    )
    for mine, theirs in zip(own[:3], rescaled[:3], strict=True):
        assert theirs.mean == pytest.approx(mine.mean)


def test_one_example_gives_its_gap_no_standard_error(recwarn: pytest.WarningsRecorder) -> None:
    found = evaluate(Linear(SKEW), X[:1], {"refined": refined(20, draws=20), "iwae": importance(20)})
    assert math.isnan(inference_gap(found, log_prob="iwae").total.error)
    assert not recwarn.list


def test_draws_in_chunks_agree_and_repeat_to_the_bit() -> None:
    program = Linear(SKEW)
    whole, parts = Refined(200, draws=300), Refined(200, draws=300, rows=3 * 3)
    found, again = (evaluate(program, X, {"whole": whole, "parts": parts}, seed=2).log_prob for _ in range(2))
    for name in found:
        assert torch.equal(found[name], again[name])
    assert (found["whole"] - found["parts"]).abs().max() < 0.3


def test_where_memory_runs_out_fewer_draws_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, log_weights = [], _Family.log_weights

    def short_of_memory(self: _Family, values: list[Tensor], draws: int) -> Tensor:
        made.append(draws)
        if draws > 3:
            raise torch.OutOfMemoryError("out of memory")
        return log_weights(self, values, draws)

    monkeypatch.setattr(_Family, "log_weights", short_of_memory)
    found = Refined(2, particles=8, draws=10, rows=3 * 12)(Linear(SKEW), X)
    assert made == [10, 6, 3, 3, 3, 1, *2 * [3, 3, 2], 3, 3, 3, 1]
    assert found.log_prob.isfinite().all()
