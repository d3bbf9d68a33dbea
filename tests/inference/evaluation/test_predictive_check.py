"""Posterior predictive checks of a right model and of one that misses the spread of its data."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from inference import Pair, ProgramError, posterior_predictive_check


def poisson(x: Tensor) -> None:
    rate = pyro.sample("rate", dist.Gamma(x.new_tensor(1.0), 0.1))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Poisson(rate), obs=x)


def conjugate(x: Tensor) -> None:
    pyro.sample("rate", dist.Gamma(1.0 + x.sum(), 0.1 + len(x)))


STATISTICS = {"variance": torch.var, "mean": torch.mean, "zeros": lambda x: (x == 0).double().mean()}


def test_a_right_model_replicates_its_data() -> None:
    torch.manual_seed(0)
    x = torch.poisson(torch.full((200,), 4.0, dtype=torch.float64))
    found = posterior_predictive_check(Pair(poisson, conjugate), x, STATISTICS)
    assert all(found.p_value(name) > 0.01 for name in STATISTICS)
    assert found.observed["mean"] == pytest.approx(float(x.mean()))
    assert found.replicated["variance"].shape == (500,)
    assert "replicated (5 % to 95 %)" in found.table()


def test_a_spread_that_the_model_does_not_have_is_seen() -> None:
    torch.manual_seed(0)
    x = torch.poisson(torch.distributions.Gamma(1.0, 0.25).sample((200,)).double())
    found = posterior_predictive_check(Pair(poisson, conjugate), x, STATISTICS)
    assert found.p_value("variance") == 0.0
    assert found.p_value("zeros") == 0.0
    assert found.p_value("mean") > 0.3, "the mean is fitted"


def test_several_observed_sites_are_given_by_name() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("a", dist.Normal(z, 1.0), obs=x[:, 0])
            pyro.sample("b", dist.Normal(z, 1.0), obs=x[:, 1])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.sum(1) / 3, 3**-0.5))

    x = torch.randn(300, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(300, 2)
    found = posterior_predictive_check(Pair(model, guide), x, {"apart": lambda sites: (sites["a"] - sites["b"]).std()})
    assert found.observed["apart"] == 0.0
    assert found.p_value("apart") == 0.0


def test_what_a_mask_hides_is_the_same_in_replicated_data() -> None:
    def model(y: Tensor) -> None:
        rate = pyro.sample("rate", dist.Beta(y.new_tensor(1.0), 1.0))
        with pyro.plate("rows", 3, dim=-1), pyro.plate("data", len(y), dim=-2), poutine.mask(mask=y >= 0):
            pyro.sample("y", dist.Bernoulli(rate), obs=y)

    def guide(y: Tensor) -> None:
        ones = y.clamp_min(0).sum()
        pyro.sample("rate", dist.Beta(1 + ones, 1 + (y >= 0).sum() - ones))

    torch.manual_seed(0)
    y = torch.bernoulli(torch.full((100, 3), 0.5, dtype=torch.float64))
    y[:, 1] = -1
    statistics = {"mean": torch.mean, "missing": lambda y: (y < 0).sum(), "seen": lambda y: y[y >= 0].mean()}
    found = posterior_predictive_check(Pair(model, guide), y, statistics)
    assert found.p_value("mean") > 0.3
    assert found.p_value("seen") > 0.3
    assert (found.replicated["missing"] == 100).all()


def test_replications_are_made_in_parts() -> None:
    def model(x: Tensor) -> None:
        rows.append(len(x))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))

    rows: list[int] = []
    x = torch.randn(6000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2**0.5
    found = posterior_predictive_check(Pair(model, guide), x, {"spread": torch.std}, draws=100)
    assert found.replicated["spread"].unique().shape == (100,)
    assert found.p_value("spread") > 0.01
    assert max(rows) == 18_000


def test_a_statistic_is_one_number() -> None:
    x = torch.ones(5, dtype=torch.float64)
    with pytest.raises(ProgramError, match=r"the statistic 'rows' gave a tensor of shape \(5,\)"):
        posterior_predictive_check(Pair(poisson, conjugate), x, {"rows": lambda x: x})
    with pytest.raises(ProgramError, match="the statistic 'both' gave a tuple"):
        posterior_predictive_check(Pair(poisson, conjugate), x, {"both": lambda x: (x, "of what")})
    with pytest.raises(ProgramError, match="the statistic 'none' gave NaN"):
        posterior_predictive_check(Pair(poisson, conjugate), x, {"none": lambda x: x.mean() / 0 * 0})
    with pytest.raises(ValueError, match="draws: expected a whole number of at least 2"):
        posterior_predictive_check(Pair(poisson, conjugate), x, STATISTICS, draws=1)
    with pytest.raises(ValueError, match="statistics: expected functions"):
        posterior_predictive_check(Pair(poisson, conjugate), x, {})
    with pytest.raises(ValueError, match=r"statistics: expected functions.*by name.*got \["):
        posterior_predictive_check(Pair(poisson, conjugate), x, [torch.max])  # type: ignore[arg-type]
