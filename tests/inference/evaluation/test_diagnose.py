"""The diagnosis of a guide against closed forms: k̂, effective sample size, KL by site, active units, collapse."""

import json
import math
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

from inference import Pair, Program, ProgramError, diagnose, refined
from tests.problems import LinearGaussian, Mixture, SharedMean

X = LinearGaussian.data(40)


def _scaled(scale: float) -> LinearGaussian:
    """The exact posterior of two latents, scaled about its mean."""
    program = LinearGaussian()
    with torch.no_grad():
        program.tril.mul_(scale)
    return program


def _normal_kl(mean: float | Tensor, scale: float, prior_scale: float = 1.0) -> float | Tensor:
    """KL(N(mean, scale²) || N(0, prior_scale²))."""
    return math.log(prior_scale / scale) + (scale**2 + mean**2) / (2 * prior_scale**2) - 0.5


def test_the_exact_posterior_is_perfect() -> None:
    found = diagnose(LinearGaussian(), X, draws=100)
    assert found.khat.tolist() == [0.0] * 40
    torch.testing.assert_close(found.ess, torch.full((40,), 100.0, dtype=torch.float64))
    assert found.reliable == 1.0
    assert diagnose(Mixture().exact(), Mixture.data(5), draws=100).khat.tolist() == [0.0] * 5


def test_khat_of_a_guide_that_is_too_narrow() -> None:
    # The tail has the shape 1 - 0.6² = 0.64, shrunk to 0.5 as test_pareto says; the spread of the mean of 40 is 0.02.
    found = diagnose(_scaled(0.6), X, draws=4000)
    assert float(found.khat.mean()) == pytest.approx((190 * 0.64 + 5) / 200, abs=0.12)
    assert found.threshold == 0.7
    far = diagnose(_scaled(0.3), X, draws=1000)  # 0.91
    assert far.threshold == pytest.approx(2 / 3)
    assert far.reliable < 0.5
    assert f"{far.reliable:.1%} of 40" in str(far)


def test_effective_sample_size_of_a_guide_that_is_too_wide() -> None:
    # (E w)² / E w² = (2 s² - 1) / s⁴ of two latents; the spread over 4,000 draws is below 1 %.
    found = diagnose(_scaled(1.5), X, draws=4000)
    torch.testing.assert_close(found.ess / 4000, torch.full((40,), 3.5 / 1.5**4).double(), rtol=0.05, atol=0.0)
    assert (found.khat < 0).all()


class TwoSites(nn.Module):
    """a ~ N(0, 1), b ~ N(a, 1), x ~ N(b, 1), and w ~ N(0, I), of which x says nothing."""

    def model(self, x: Tensor) -> None:
        zero = x.new_zeros(())
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(zero, 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(b, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("b", dist.Normal(0.7 * x, 0.6))
            pyro.sample("a", dist.Normal(0.3 * x, 0.8))
            pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))


def test_kl_by_site_and_collapse() -> None:
    x = X[:, 0]
    found = diagnose(TwoSites(), list(x.split(13)), draws=2000)
    expected = {
        "a": _normal_kl(0.3 * x, 0.8).mean(),
        "b": -math.log(0.6) + (0.36 + (0.4 * x).square().mean() + 0.64) / 2 - 0.5,
        "w": 0.0,
    }
    assert found.kl.keys() == expected.keys()
    for name, kl in expected.items():
        assert abs(found.kl[name] - float(kl)) <= 6 * found.kl_error[name] < 0.06
    assert found.collapsed == ("w",)
    assert found.active_units == {"a": 1, "b": 1, "w": 0}
    assert found.units == {"a": 1, "b": 1, "w": 3}
    assert found.inactive == {"a": 0.0, "b": 0.0, "w": 1.0}


def test_active_units_are_not_made_by_the_noise_of_few_draws() -> None:
    """With 30 draws the mean of a dead unit varies by 1/30 over x, which is above 0.01."""
    moves = torch.tensor([1.0, 0.3, 0.0, 0.0], dtype=torch.float64)  # variances of about 1, 0.09, 0, 0
    stays = torch.tensor([0.0, 0.0, 0.0, 2.0], dtype=torch.float64)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(4), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[:, 0], 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.unsqueeze(1) * moves + stays, 1.0).to_event(1))

    # The variance of a dead unit over 800 examples has the spread 0.033 (2/800)^(1/2) = 0.0017: six of them before an alarm.
    x = torch.randn(800, dtype=torch.float64)
    found = diagnose(Pair(model, guide), list(x.split(300)), draws=30)
    assert found.active_units == {"z": 2}
    assert found.units == {"z": 4}
    one = diagnose(Pair(model, guide), x[:1], draws=30)
    assert one.active_units == {}  # nothing varies over one example
    assert one.kl.keys() == {"z"}


def test_a_guide_that_is_the_same_for_all_x_is_collapsed_although_it_is_not_the_prior() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_full((2,), 3.0), 0.5).to_event(1))

    found = diagnose(Pair(LinearGaussian().model, guide), X, draws=50)
    assert found.kl["z"] > 1
    assert found.active_units == {"z": 0}
    assert found.collapsed == ("z",)


@pytest.mark.parametrize("scale", [0.05, 1.0, 100.0])
def test_what_a_unit_is_measured_in_does_not_make_it_active(scale: float) -> None:
    """The exact posterior of z ~ N(0, s²), x ~ N(z, s²/25), and a guide that is the prior."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), scale))
            pyro.sample("x", dist.Normal(z, 0.2 * scale), obs=x)

    def exact(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 1.04, scale * (0.04 / 1.04) ** 0.5))

    def prior(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(len(x)), scale))

    x = scale * 1.02 * torch.randn(300, dtype=torch.float64)
    good, blind = (diagnose(Pair(model, guide), x, draws=200) for guide in (exact, prior))
    assert good.active_units == {"z": 1}
    assert good.collapsed == ()
    assert blind.active_units == {"z": 0}
    assert blind.collapsed == ("z",)
    assert "says nothing of x" in blind.table()


def test_a_number_of_steps_is_no_estimator() -> None:
    with pytest.raises(ProgramError, match=r"refined: expected refined\(steps\), or None for no such gap, got 100"):
        diagnose(TwoSites(), X[:, 0], refined=100)  # type: ignore[arg-type]


def test_shared_latents_have_one_number_for_the_dataset() -> None:
    x = torch.randn(12, dtype=torch.float64)
    found = diagnose(SharedMean(12, error=0.1).at(x), list(x.split(5)), draws=1000)
    assert found.khat.shape == found.ess.shape == (1,)
    # Moved by 0.1 where the posterior's sd is 13^(-1/2): exp(-0.13) of the draws; the spread of the fraction is below 0.02.
    assert float(found.ess) / 1000 == pytest.approx(math.exp(-0.13), abs=0.1)
    expected = _normal_kl(float(x.sum()) / 13 + 0.1, 13**-0.5)
    assert found.kl["mean"] == pytest.approx(expected, abs=6 * found.kl_error["mean"])
    assert found.active_units == {}
    assert "of 1:" in found.table()


def test_local_latents_beside_shared_ones_have_their_own_kl() -> None:
    x = torch.randn(6, dtype=torch.float64)

    def model(x: Tensor) -> None:
        t = pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(t, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        t = pyro.sample("t", dist.Normal(x.new_tensor(0.4), 0.3))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((t + x) / 2, 0.6))

    found = diagnose(Pair(model, guide), x, draws=2000)
    # E[((x - t) / 2)²] over t ~ N(0.4, 0.3²)
    local = -math.log(0.6) + (0.36 + ((x - 0.4).square().mean() + 0.09) / 4) / 2 - 0.5
    for name, expected in (("t", _normal_kl(0.4, 0.3)), ("z", float(local))):
        assert abs(found.kl[name] - expected) <= 6 * found.kl_error[name] < 0.1
    assert found.active_units == {"z": 1}


def test_without_a_plate_all_data_are_one_example() -> None:
    def model(x: Tensor) -> None:
        t = pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(t, 1.0).expand([len(x)]).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("t", dist.Normal(x.new_tensor(0.4), 0.3))

    found = diagnose(Pair(model, guide), X[:, 0], draws=500)
    assert found.khat.shape == (1,)
    assert found.kl["t"] == pytest.approx(_normal_kl(0.4, 0.3), abs=6 * found.kl_error["t"])
    assert found.collapsed == ()
    prior = diagnose(Pair(model, lambda x: pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))), X[:, 0], draws=30)
    assert prior.collapsed == ("t",)  # by the KL alone, as nothing varies over one example
    with pytest.raises(ProgramError, match="no plate counts the examples"):
        diagnose(Pair(model, guide), [X[:5, 0], X[5:, 0]])


def test_summed_latents_are_in_the_prior_of_what_depends_on_them() -> None:
    """z | k ~ N(±2, 0.5²): its KL is to the mixture, by Gauss and Hermite."""
    loc = torch.tensor([-2.0, 2.0], dtype=torch.float64)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(2, dtype=torch.float64)), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(loc[k], 0.5))
            v = pyro.sample("v", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z + v, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 0.7))
            pyro.sample("v", dist.Normal(0.2 * x, 0.9))

    x = X[:, 0]
    nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(80))
    z = x.unsqueeze(1) + 0.7 * nodes
    prior = torch.logsumexp(dist.Normal(loc, 0.5).log_prob(z.unsqueeze(-1)), -1) - math.log(2)
    entropy = 0.5 * math.log(2 * math.pi * math.e * 0.49)
    expected = -entropy - float((prior @ (weights / weights.sum())).mean())
    found = diagnose(Pair(model, guide), x, draws=1000)
    assert found.kl.keys() == {"z", "v"}
    assert abs(found.kl["z"] - expected) <= 6 * found.kl_error["z"] < 0.2
    assert abs(found.kl["v"] - float(_normal_kl(0.2 * x, 0.9).mean())) <= 6 * found.kl_error["v"] < 0.1
    assert found.units == {"z": 1, "v": 1}


def _two_shared(x: Tensor) -> None:
    a = pyro.sample("a", dist.Normal(x.new_zeros(()), 1.0))
    s = pyro.sample("s", dist.LogNormal(x.new_zeros(()), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(a, s), obs=x)


@pytest.mark.parametrize(("guide", "names"), [(AutoNormal, ["a", "s"]), (AutoMultivariateNormal, ["a, s"])])
def test_autoguides_have_a_kl_for_each_density(guide: type, names: list[str]) -> None:
    """At N(0, 0.2² I) around the unconstrained medians, which are 0 here, of two standard normal priors."""
    program = Pair(_two_shared, guide(_two_shared, init_loc_fn=pyro.infer.autoguide.init_to_median, init_scale=0.2))
    x = X[:, 0]
    program.guide(x)
    program.double()
    with torch.no_grad():
        for name, parameter in program.named_parameters():
            if "loc" in name:
                parameter.zero_()
    found = diagnose(program, x, draws=1000)
    assert list(found.kl) == names
    total, error = sum(found.kl.values()), sum(found.kl_error.values())
    assert abs(total - 2 * float(_normal_kl(0.0, 0.2))) <= 6 * error < 0.4


def test_the_amortisation_gap_is_the_kl_of_a_guide_whose_family_is_exact() -> None:
    program = LinearGaussian(error=0.2)
    found = diagnose(program, list(X[:6].split(3)), draws=30, refined=refined(300, draws=400))
    # The exact posterior N(m, S) beside N(m + 0.2, e^0.4 S): in closed form the same for all x.
    tril = program.tril.detach()
    exact = dist.MultivariateNormal(torch.zeros(2).double(), scale_tril=tril * math.exp(-0.2))
    moved = dist.MultivariateNormal(program.offset.detach(), scale_tril=tril)
    expected = float(torch.distributions.kl_divergence(moved, exact))
    assert found.amortisation_gap == pytest.approx(expected, abs=0.05)
    assert found.amortisation_gap_error < 0.03
    assert found.without_amortisation_gap == ""
    assert f"amortisation gap        {found.amortisation_gap:.3f}" in found.table()


def test_a_gap_that_cannot_be_had_says_why() -> None:
    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(0.7 * x, 0.6))
            pyro.sample("a", dist.Normal(0.3 * b, 0.8))
            pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))

    found = diagnose(Pair(TwoSites().model, guide), X[:, 0], draws=30, refined=refined(2))
    assert found.amortisation_gap is None
    assert found.amortisation_gap_error is None
    assert "['a'] depend on earlier draws" in found.without_amortisation_gap
    assert found.without_amortisation_gap in str(found)
    assert "refined=refined()" in diagnose(TwoSites(), X[:, 0], draws=30).without_amortisation_gap


def test_a_diagnosis_is_repeatable_and_leaves_no_trace() -> None:
    program = LinearGaussian(error=0.3).train()
    state = torch.get_rng_state()
    first, second, other = (diagnose(program, X, draws=50, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.khat, second.khat)
    assert not torch.equal(first.khat, other.khat)
    assert program.training
    plain = json.loads(json.dumps(first.summary(), allow_nan=False))
    assert plain["examples"] == 40
    assert plain["khat"]["largest"] == pytest.approx(float(first.khat.max()))
    assert plain["active_units"] == {"z": {"active": 2, "of": 2}}


def test_draws_outside_of_a_support_weigh_nothing() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.HalfNormal(x.new_ones(())))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(away: float) -> Callable[[Tensor], None]:
        def drawn(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x.new_full((), away), 1.0))

        return drawn

    with pyro.validation_enabled(False):
        half = diagnose(Pair(model, guide(0.0)), X[:, 0], draws=200)
        none = diagnose(Pair(model, guide(-50.0)), X[:, 0], draws=200)
    assert half.kl == {"z": math.inf}
    assert float(half.ess.max()) < 150
    assert none.khat.tolist() == [math.inf] * 40
    assert none.ess.tolist() == [0.0] * 40
    json.dumps(none.summary(), allow_nan=False)


class _Observed(LinearGaussian):
    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(3), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None: ...


class _NotANumber(LinearGaussian):
    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.factor("wrong", torch.where(x[:, 0] > 0, torch.nan, z[:, 0]))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (_Observed(), r"the guide draws no latents.*exact\(\)"),
        (_NotANumber(), r"the log-weights of the examples \[.*\] are NaN"),
        (Pair(LinearGaussian().model, AutoDelta), "the guide has continuous latents at one value"),
        (Pair(LinearGaussian().model, lambda x: None), r"does not draw the model's latent sites \['z'\]"),
    ],
    ids=["no latents", "not a number", "a point", "not drawn"],
)
def test_what_cannot_be_diagnosed_is_refused(program: Program, message: str) -> None:
    if isinstance(program, Pair):
        program.guide(X)
        program.double()
    with pyro.validation_enabled(False), pytest.raises(ProgramError, match=message):
        diagnose(program, X, draws=50)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"draws: expected a whole number of at least 25, to whose .*, got 20"):
        diagnose(LinearGaussian(), X, draws=20)
    with pytest.raises(ProgramError, match="there are no batches"):
        diagnose(LinearGaussian(), [])
