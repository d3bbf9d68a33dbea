"""What stands in ArviZ's groups: the posterior and not the guide, the likelihood of each example, names and reasons."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

from inference import Pair, ProgramError, log_joint, terms, to_arviz
from inference.evaluation.pareto import smoothed
from inference.evaluation.weighted import resampled
from tests.inference.evaluation.test_arviz_versions import groups_of
from tests.problems import LinearGaussian, Mixture, SharedMean

IN_PARALLEL = {"enumerate": "parallel"}
X = LinearGaussian.data(4)
THREE = torch.tensor([0.3, 1.4, -0.2], dtype=torch.float64)
NOISE = 0.6
"""Of an example around its own mean, in `Hierarchy`."""


def _values(variable: Any) -> Tensor:
    """A variable's draws, without the chain."""
    return torch.as_tensor(variable.values)[0]


class Hierarchy(nn.Module):
    """m ~ N(0, 1), z_n ~ N(m, 1), x_n ~ N(z_n, s²); the guide draws m, and z given m, both a little beside the posterior."""

    def model(self, x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(m, x.new_ones(())))
            pyro.deterministic("twice", 2 * z)
            pyro.sample("x", dist.Normal(z, NOISE), obs=x)

    def guide(self, x: Tensor) -> None:
        mean, variance = self.of_m(x)
        m = pyro.sample("m", dist.Normal(mean + 0.3, 1.2 * variance**0.5))
        precision = 1 + NOISE**-2
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((m + x / NOISE**2) / precision, 1.1 * precision**-0.5))

    @staticmethod
    def of_m(x: Tensor) -> tuple[Tensor, float]:
        """Mean and variance of m given x."""
        variance = 1 / (1 + len(x) / (1 + NOISE**2))
        return variance * x.sum() / (1 + NOISE**2), variance


@pytest.mark.parametrize("error", [0.3, -0.3], ids=["wide and to the right", "narrow and to the left"])
def test_the_posterior_group_is_the_posterior_and_not_the_guide(error: float) -> None:
    """Errors of 0.07 sd would be seen; the guide is 0.3 beside and its spread is 1.35 times too large or too small.

    False alarm: 5 sd of 16 numbers, from an effective sample size of at least half the draws.
    """
    program, draws = LinearGaussian(error=error), 10_000
    found = to_arviz(program, X, draws)
    covariance, gain = program._posterior()
    exact, sd = (X - program.bias) @ gain.T, covariance.diagonal().sqrt()
    z = _values(found.posterior.z)
    slack = 5 / math.sqrt(draws / 2)
    assert ((z.mean(0) - exact) / sd).abs().max() < slack
    assert (z.std(0) / sd - 1).abs().max() < slack
    guide = _values(found.guide.z)
    assert ((guide.mean(0) - exact - error) / sd).abs().max() < slack * math.exp(error)
    assert found.guide.khat.dims == ("data",)
    assert found.sample_stats.lp.dims == ("chain", "draw", "data")
    # The same draws are scored as are shown.
    torch.testing.assert_close(_values(found.sample_stats.lp), log_joint(program, X, {"z": z}))
    raw = _values(found.guide.log_weights)
    torch.testing.assert_close(raw, terms(program, X, latents={"z": guide}).log_weights)
    torch.testing.assert_close(_values(found.guide.smoothed_log_weights), smoothed(raw).log_weights)
    assert not smoothed(raw).log_weights.equal(raw)


def test_shared_latents_have_one_weight_a_draw_and_a_likelihood_for_each_example() -> None:
    """The mean within 5 sd, from an effective sample size of a third of the draws: 0.16, where the guide is 0.4 beside."""
    x = torch.tensor([0.3, 1.4, -0.2, 2.0, 0.9], dtype=torch.float64)
    found = to_arviz(SharedMean(5, error=0.4).at(x), x, 500)
    mean = _values(found.posterior["mean"])
    assert abs(mean.mean() - x.sum() / 6) < 5 * (3 / 6 / 500) ** 0.5
    assert _values(found.guide["mean"]).mean() > x.sum() / 6 + 0.4 - 5 * (1 / 6 / 500) ** 0.5
    expected = dist.Normal(mean.unsqueeze(1), 1.0).log_prob(x)
    torch.testing.assert_close(_values(found.log_likelihood.x), expected)
    assert found.log_likelihood.attrs["computed"] == "exact"
    assert found.log_likelihood.x.dims == ("chain", "draw", "data")
    assert found.guide.khat.dims == ()
    prior = dist.Normal(torch.zeros((), dtype=torch.float64), 1.0).log_prob(mean)
    torch.testing.assert_close(_values(found.sample_stats.lp), expected.sum(1) + prior)


@pytest.mark.parametrize("guide", ["its own", "auto"])
def test_local_latents_are_integrated_out_of_the_likelihood(guide: str) -> None:
    """Each log p(x_n | m) by 400 particles against the closed form; an AutoGuide's conditional is not at hand."""
    x = THREE
    program: Any = Hierarchy()
    if guide == "auto":
        program = Pair(Hierarchy().model, AutoNormal)
        program.guide(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k̂ of a guide that is not fitted
        found = to_arviz(program, x, 100, particles=400)
    m = _values(found.posterior.m)
    expected = dist.Normal(m.unsqueeze(1), (1 + NOISE**2) ** 0.5).log_prob(x)
    error = (_values(found.log_likelihood.x) - expected).abs()
    assert ("the guide" if guide == "its own" else "the prior") in found.log_likelihood.attrs["computed"]
    assert error.max() < (0.1 if guide == "its own" else 0.8)
    assert error.mean() < (0.02 if guide == "its own" else 0.08)


@pytest.fixture(scope="module")
def hierarchy() -> Any:
    return to_arviz(Hierarchy(), THREE, 500, particles=1)


def test_local_and_shared_latents_are_resampled_together(hierarchy: Any) -> None:
    """Within 5 sd of the exact moments, from an effective sample size of a third of the draws."""
    mean, variance = Hierarchy.of_m(THREE)
    m, z = _values(hierarchy.posterior.m), _values(hierarchy.posterior.z)
    slack = 5 * math.sqrt(3 / 500)
    assert (m.mean() - mean).abs() < slack * variance**0.5
    precision = 1 + NOISE**-2
    exact = (mean + THREE / NOISE**2) / precision
    assert (z.mean(0) - exact).abs().max() < slack * (1 / precision + variance / precision**2) ** 0.5
    torch.testing.assert_close(_values(hierarchy.posterior.twice), 2 * z)
    assert hierarchy.posterior.twice.dims == ("chain", "draw", "data")
    # Both are of one draw: their joint density is the one that is shown.
    latents = {"m": m, "z": z}
    torch.testing.assert_close(_values(hierarchy.sample_stats.lp), log_joint(Hierarchy(), THREE, latents).squeeze(1))


def _left_out_mixture() -> Pair:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=EXACT.logits), infer=IN_PARALLEL)
            pyro.sample("x", dist.Normal(EXACT.loc[k], EXACT.scale), obs=x)

    return Pair(model)


EXACT = Mixture().requires_grad_(False)


@pytest.mark.parametrize("program", [_left_out_mixture, Mixture], ids=["left out of the guide", "in the guide"])
def test_finite_latents_are_drawn_from_their_posterior(program: Callable[[], Any]) -> None:
    """Frequencies within 5 sd of p(k | x)."""
    x, draws = Mixture.data(), 4000
    found = to_arviz(program(), x, draws)
    exact = torch.softmax(EXACT.log_joint(x), -1)
    frequencies = nn.functional.one_hot(_values(found.posterior.k), 3).double().mean(0)
    assert (frequencies - exact).abs().max() < 5 * math.sqrt(0.25 / draws * 2)
    assert "log_likelihood" not in groups_of(found)
    assert "the same for all draws" in found.attrs["log_likelihood_left_out"]


def test_a_shared_finite_latent_is_among_what_the_likelihood_is_given() -> None:
    x = torch.tensor([0.3, 1.4, -0.2, 0.8], dtype=torch.float64)
    means = torch.tensor([-0.5, 0.5, 1.0], dtype=torch.float64)

    def model(x: Tensor) -> None:
        k = pyro.sample("k", dist.Categorical(torch.ones(3, dtype=torch.float64)), infer=IN_PARALLEL)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(means[k], 1.0), obs=x)

    draws = 200
    found = to_arviz(Pair(model), x, draws)
    k = _values(found.posterior.k)
    torch.testing.assert_close(_values(found.log_likelihood.x), dist.Normal(means[k].unsqueeze(1), 1.0).log_prob(x))
    exact = torch.softmax(dist.Normal(means.unsqueeze(1), 1.0).log_prob(x).sum(1), 0)
    frequencies = nn.functional.one_hot(k, 3).double().mean(0)
    assert (frequencies - exact).abs().max() < 5 * math.sqrt(0.25 / draws)


@pytest.mark.parametrize("own_guide", [True, False])
def test_a_finite_latent_of_an_example_is_summed_and_a_shared_observation_has_no_part(own_guide: bool) -> None:
    x = torch.tensor([0.3, 1.4, -0.2], dtype=torch.float64)
    means, weights = torch.tensor([-1.0, 1.0], dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)

    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("y", dist.Normal(m, 1.0), obs=x.new_tensor(0.5))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weights), infer=IN_PARALLEL)
            pyro.sample("x", dist.Normal(m + means[k], 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("m", dist.Normal(x.new_tensor(0.3), 0.6))

    program = Pair(model, guide) if own_guide else Pair(model, AutoNormal, hide=["k"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k̂ of a guide that is not fitted
        found = to_arviz(program, x, 50)
    m = _values(found.posterior.m)
    each = weights.log() + dist.Normal(m[:, None, None] + means, 1.0).log_prob(x.unsqueeze(1))
    torch.testing.assert_close(_values(found.log_likelihood.x), each.logsumexp(-1))
    assert found.posterior.k.dims == ("chain", "draw", "data")
    assert found.observed_data.y.item() == 0.5


def test_the_likelihood_of_several_sites_is_that_of_the_example() -> None:
    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(m, 1.0), obs=x[:, 0])
            pyro.factor("b", -m * x[:, 1])
            pyro.sample("c", dist.Normal(2 * m, 1.0), obs=x[:, 2])

    def guide(x: Tensor) -> None:
        pyro.sample("m", dist.Normal(x.new_zeros(()), 0.5))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k̂
        found = to_arviz(Pair(model, guide), X, 50)
    m = _values(found.posterior.m).unsqueeze(1)
    expected = dist.Normal(m, 1.0).log_prob(X[:, 0]) - m * X[:, 1] + dist.Normal(2 * m, 1.0).log_prob(X[:, 2])
    assert [*found.log_likelihood] == ["joint"]
    torch.testing.assert_close(_values(found.log_likelihood.joint), expected)
    assert {*found.observed_data} == {*found.posterior_predictive} == {"a", "c"}


def test_the_likelihood_is_by_the_examples_where_the_only_observed_site_is_shared() -> None:
    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("y", dist.Normal(m, 1.0), obs=x.new_tensor(0.5))
        with pyro.plate("data", len(x)):
            pyro.factor("f", -m * x)

    def guide(x: Tensor) -> None:
        pyro.sample("m", dist.Normal(x.new_zeros(()), 0.5))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k̂
        found = to_arviz(Pair(model, guide), X[:, 0], 50)
    assert found.log_likelihood.joint.dims == ("chain", "draw", "data")
    torch.testing.assert_close(_values(found.log_likelihood.joint), -_values(found.posterior.m).unsqueeze(1) * X[:, 0])


def test_the_predictives_are_of_their_draws(hierarchy: Any) -> None:
    """Means and spreads within 5 sd: of x given x, and of x from the prior."""
    draws = 500
    residual = _values(hierarchy.posterior_predictive.x) - _values(hierarchy.posterior.z)
    assert (residual.std(0) / NOISE - 1).abs().max() < 5 / math.sqrt(2 * draws)
    assert residual.mean(0).abs().max() < 5 * NOISE / math.sqrt(draws)
    m, z, new = (_values(each) for each in (hierarchy.prior.m, hierarchy.prior.z, hierarchy.prior_predictive.x))
    assert (m.std() - 1).abs() < 5 / math.sqrt(2 * draws)
    assert m.mean().abs() < 5 / math.sqrt(draws)
    assert ((z - m.unsqueeze(1)).std(0) - 1).abs().max() < 5 / math.sqrt(2 * draws)
    assert ((new - z).std(0) / NOISE - 1).abs().max() < 5 / math.sqrt(2 * draws)
    torch.testing.assert_close(_values(hierarchy.prior.twice), 2 * z)
    torch.testing.assert_close(torch.as_tensor(hierarchy.observed_data.x.values), THREE)


def test_an_improper_prior_has_no_draws_and_says_so() -> None:
    def model(x: Tensor) -> None:
        m = pyro.sample("m", dist.ImproperUniform(dist.constraints.real, (), ()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("m", dist.Normal(x.mean(), len(x) ** -0.5))

    found = to_arviz(Pair(model, guide), X[:, 0], 50)
    assert {"prior", "prior_predictive"}.isdisjoint(groups_of(found))
    assert "['m'] are improper" in found.attrs["prior_left_out"]
    assert "log_likelihood" in groups_of(found)


def test_a_prior_that_overflows_is_left_out_too() -> None:
    def model(x: Tensor) -> None:
        scale = pyro.sample("scale", dist.LogNormal(x.new_zeros(()), 1000.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0.0, scale), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("scale", dist.LogNormal(x.new_zeros(()), 0.3))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k̂
        found = to_arviz(Pair(model, guide), X[:, 0], 50)
    assert "a draw of the prior is no parameter" in found.attrs["prior_left_out"]
    assert "posterior" in groups_of(found)


def test_without_a_plate_or_latents_there_is_what_there_can_be() -> None:
    def series(x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(m, 1.0).expand([len(x)]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("m", dist.Normal(x.sum() / (1 + len(x)), (1 + len(x)) ** -0.5))

    found = to_arviz(Pair(series, guide), X[:, 0], 50)
    assert "no plate" in found.attrs["log_likelihood_left_out"]
    assert found.posterior_predictive.x.shape == (1, 50, 4)
    assert found.sample_stats.lp.dims == ("chain", "draw")

    def no_latents(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)

    found = to_arviz(Pair(no_latents), X[:, 0], 50)
    assert {"posterior", "prior", "log_likelihood"}.isdisjoint(groups_of(found))
    assert found.posterior_predictive.x.shape == (1, 50, 4)


def test_a_guide_that_draws_all_examples_at_once_has_one_weight_for_them() -> None:
    program = Pair(LinearGaussian().model, AutoMultivariateNormal)
    program.guide(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k̂ of a guide that is not fitted
        found = to_arviz(program, X, 50)
    assert found.sample_stats.lp.dims == found.guide.log_weights.dims == ("chain", "draw")
    z = _values(found.posterior.z)
    torch.testing.assert_close(_values(found.sample_stats.lp), log_joint(program, X, {"z": z}).sum(1))
    assert "the same for all draws" in found.attrs["log_likelihood_left_out"]


def test_a_series_that_is_observed_in_pieces_is_no_constant() -> None:
    def model(*series: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(series[0].new_zeros(()), 1.0))
        for t in range(4):
            pyro.sample(f"x_{t}", dist.Normal(m + series[1][t], 1.0), obs=series[0][t])

    def guide(*series: Tensor) -> None:
        pyro.sample("m", dist.Normal(series[0].new_zeros(()), 0.5))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k̂
        found = to_arviz(Pair(model, guide), (X[:, 0], X[:, 1]), 50)
    assert [*found.constant_data] == ["batch_1"]
    assert torch.as_tensor(found.constant_data.batch_1.values).equal(X[:, 1])


def test_a_guide_far_from_the_posterior_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"k̂ of the weights is above 0.63 for \d of 4 examples"):
        found = to_arviz(LinearGaussian(error=-2.0), X, 500)
    assert found.posterior.attrs["largest_khat"] > found.posterior.attrs["khat_threshold"]
    assert "ESS and R-hat" in found.posterior.attrs["draws"]


def test_equal_weights_give_every_draw_once_and_others_their_share() -> None:
    torch.manual_seed(1)
    assert resampled(torch.zeros(50, 3)).sort(0).values.equal(torch.arange(50).unsqueeze(1).expand(50, 3))
    log_weights = torch.randn(50, 2, dtype=torch.float64).exp()
    log_weights[7] = -torch.inf
    places = resampled(log_weights)
    share = 50 * torch.softmax(log_weights, 0)
    counts = torch.stack([places[:, 0].bincount(minlength=50), places[:, 1].bincount(minlength=50)], 1)
    assert ((counts >= share.floor()) & (counts <= share.ceil())).all()
    assert counts[7].eq(0).all()
    assert not places[:, 0].sort().values.equal(places[:, 0]), "in random order"
    assert not places[:, 0].equal(places[:, 1]), "each example by itself"


def test_draws_are_a_function_of_the_seed_and_the_callers_generator_is_kept() -> None:
    program = LinearGaussian()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = to_arviz(program, X, 30), to_arviz(program, X, 30)
    other, chunked = to_arviz(program, X, 30, seed=1), to_arviz(program, X, 30, rows=28)
    assert torch.get_rng_state().equal(before)
    assert first.posterior.equals(again.posterior)
    assert first.prior_predictive.equals(again.prior_predictive)
    assert not first.posterior.equals(other.posterior)
    assert chunked.posterior.z.shape == first.posterior.z.shape == (1, 30, 4, 2)


class Watched(LinearGaussian):
    """Remembers how many rows its model was run on, and in what mode."""

    def model(self, x: Tensor) -> Tensor:
        self.rows = [*getattr(self, "rows", []), len(x)]
        self.modes = {*getattr(self, "modes", ()), self.training}
        return super().model(x)


def test_no_more_rows_are_run_at_once_than_said_and_none_in_training_mode() -> None:
    program = Watched().train()
    to_arviz(program, X, 50, rows=28)
    assert max(program.rows) == 28
    assert program.modes == {False}
    assert program.training


def test_axes_have_the_names_of_their_plates_or_the_callers() -> None:
    def model(x: Tensor, context: dict[str, Tensor]) -> None:
        columns = pyro.plate("columns", 3, dim=-1)
        with columns:
            bias = pyro.sample("bias", dist.Normal(x.new_zeros(()), 1.0))
        weight = pyro.sample("weight", dist.Normal(x.new_zeros(2, 3), 1.0).to_event(2))
        loading = pyro.deterministic("loading", weight * 2)
        with pyro.plate("rows", len(x), dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            with columns:
                pyro.sample("x", dist.Normal(bias + z.squeeze(-2) @ loading + context["age"].unsqueeze(1), 1.0), obs=x)

    def guide(x: Tensor, context: dict[str, Tensor]) -> None:
        with pyro.plate("columns", 3, dim=-1):
            pyro.sample("bias", dist.Normal(x.new_zeros(()), 0.5))
        pyro.sample("weight", dist.Normal(x.new_zeros(2, 3), 0.5).to_event(2))
        with pyro.plate("rows", len(x), dim=-2):
            pyro.sample("z", dist.Normal(x.new_zeros(2), 0.9).to_event(1))

    batch = (X, {"age": torch.rand(4, dtype=torch.float64), "y": X})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k̂
        found = to_arviz(
            Pair(model, guide),
            batch,
            40,
            dims={"weight": ["factor", "columns"], "loading": [None, "columns"], "z": [None, None, "factor"]},
            coords={"columns": ["a", "b", "c"], "rows": torch.arange(4).numpy() + 10},
            particles=2,
        )
    assert found.posterior.bias.dims == ("chain", "draw", "columns")
    assert found.posterior.weight.dims == ("chain", "draw", "factor", "columns")
    assert found.posterior.loading.dims == ("chain", "draw", "loading_dim_0", "columns")
    assert found.posterior.z.dims == ("chain", "draw", "rows", "z_dim_0", "factor")
    assert found.posterior_predictive.x.dims == ("chain", "draw", "rows", "columns")
    assert found.observed_data.x.dims == ("rows", "columns")
    assert found.log_likelihood.x.dims == ("chain", "draw", "rows")
    assert found.posterior.bias["columns"].values.tolist() == ["a", "b", "c"]
    assert found.observed_data["rows"].values.tolist() == [10, 11, 12, 13]
    assert found.constant_data.context_age.dims == ("rows",)
    assert [*found.constant_data] == ["context_age"], "y is what is observed"


def test_the_examples_come_first_wherever_their_plate_stands() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            with pyro.plate("groups", 3, dim=-2):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z.sum(0), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("groups", 3, dim=-2), pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x / 4, 1.0))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # k̂
        found = to_arviz(Pair(model, guide), X[:, 0], 50)
    assert found.posterior.z.dims == ("chain", "draw", "data", "groups")
    assert found.posterior.z.shape == (1, 50, 4, 3)
    assert found.prior.z.dims == found.guide.z.dims == ("chain", "draw", "data", "groups")


def test_a_shared_deterministic_site_is_computed_for_each_draw() -> None:
    """Of a program whose examples share no latent, many draws are one run, and this site has one value in it."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.deterministic("total", z.sum())

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    found = to_arviz(Pair(model, guide), X[:, 0], 50)
    torch.testing.assert_close(_values(found.posterior.total), _values(found.posterior.z).sum(1))
    torch.testing.assert_close(_values(found.prior.total), _values(found.prior.z).sum(1))


@pytest.mark.parametrize(
    ("dims", "coords", "message"),
    [
        ({"w": ["a"]}, {}, r"dims names \['w'\], which are no variables; .*\['x', 'z'\]"),
        ({"z": ["a"]}, {}, r"dims\['z'\] is \['a'\], and 'z' has 2 axes"),
        ({"z": "ab"}, {}, r"dims\['z'\] is 'ab'"),
        ({"z": [None, "draw"]}, {}, "the name 'draw' is also that of another axis"),
        ({"z": [None, "x"]}, {}, "the name 'x' is also that of another axis, or of a variable"),
        ({"z": ["f", "f"]}, {}, "the axis 'f' of 'z' has 2 places, and elsewhere 4"),
        ({"z": [None, "data"]}, {}, "the axis 'data' of 'z' has 2 places, and elsewhere 4"),
        ({"z": [None, "f"], "x": [None, "f"]}, {}, r"the axis 'f' of '.' has . places, and elsewhere"),
        ({}, {"schools": [1]}, r"coords names \['schools'\], which are no axes; .*\['data', 'x_dim_0', 'z_dim_0'\]"),
        ({}, {"data": [1, 2]}, r"coords\['data'\] is of shape \(2,\), and the axis has 4 places"),
        ({}, {"draw": range(30)}, r"coords names \['draw'\]"),
    ],
)
def test_what_names_no_axis_is_refused_by_name(dims: Any, coords: Any, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        to_arviz(LinearGaussian(), X, 30, dims=dims, coords=coords)


def test_what_has_no_posterior_here_is_refused() -> None:
    with pytest.raises(ValueError, match="draws: expected a whole number of at least 25"):
        to_arviz(LinearGaussian(), X, 20)
    with pytest.raises(ProgramError, match=r"at one value \(AutoDelta"):
        to_arviz(Pair(LinearGaussian().model, AutoDelta), X, 30)
    with pytest.raises(ProgramError, match="between the 9 examples of its dataset, and the batch has 4"):
        to_arviz(SharedMean(9), X[:, 0], 30)
    with pytest.raises(ProgramError, match=r"batch\[0\] is a tuple, as in a list of batches, .* Join them: torch.cat"):
        to_arviz(LinearGaussian(), [(X,), (X,)], 30)  # type: ignore[arg-type]

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(x.new_ones(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_tensor(-9.0), 0.1))

    with pyro.validation_enabled(False), pytest.raises(ProgramError, match="where the model has no density"):
        to_arviz(Pair(model, guide), X[:, 0], 30)

    def named(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("khat", dist.Normal(x, 1.0))

    def named_model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("khat", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ProgramError, match=r"the sites \['khat'\] have the names"):
        to_arviz(Pair(named_model, named), X[:, 0], 30)
