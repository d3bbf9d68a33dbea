"""The flow as a model: a density that is one, the change of variables, a known mixture learned, and what it refuses."""

import math
import sys
from dataclasses import replace

import pytest
import torch
from pyro.distributions import Categorical, MixtureSameFamily, Normal
from torch import Tensor

from inference import SVI, Step, adam, evaluate, exact, fit, sample
from ppmodels import Flow
from ppmodels.app import RECIPES
from ppmodels.data import Dataset, Split


def bent(features: int, classes: int = 0) -> Flow:
    """A flow in float64 whose parameters are far from the identity."""
    torch.manual_seed(0)
    flow = Flow(features, transforms=2, hidden=(16,), classes=classes).double()
    for parameter in flow.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return flow


def log_prob(flow: Flow, x: Tensor) -> Tensor:
    """log p(x), as `exact` reports it."""
    with torch.no_grad():
        return evaluate(flow, x, {"exact": exact()}).log_prob["exact"]


@pytest.mark.parametrize("classes", [0, 3])
def test_its_density_integrates_to_one(classes: int) -> None:
    """By a Riemann sum over a square that holds all but a negligible mass, whatever the label."""
    flow = bent(2, classes)
    label = torch.eye(3, dtype=torch.float64)[1] if classes else None
    with torch.no_grad():
        p = flow(label)
        draws = p.sample((5000,))
        centre, side = draws.mean(0), 2 * float((draws - draws.mean(0)).abs().max())
        axis = torch.linspace(-side, side, 401, dtype=torch.float64)
        mass = p.log_prob(centre + torch.cartesian_prod(axis, axis)).exp().sum() * (2 * side / 400) ** 2
    assert float(mass) == pytest.approx(1, abs=5e-4)


@pytest.mark.parametrize("features", [1, 2, 5])
def test_its_density_is_that_of_the_change_of_variables(features: int) -> None:
    """log N(u; 0, I) + log |det du/dx|, u where the flow takes x, by the Jacobian that autograd computes."""
    flow = bent(features)
    x = 2 * torch.randn(6, features, dtype=torch.float64)
    to_normal = flow().dist.transform
    determinants = torch.stack([torch.autograd.functional.jacobian(to_normal, row).det() for row in x])
    expected = Normal(0.0, 1.0).log_prob(to_normal(x)).sum(1) + determinants.abs().log()
    torch.testing.assert_close(log_prob(flow, x), expected.detach(), rtol=1e-9, atol=1e-9)


def test_its_draws_come_from_its_density() -> None:
    """Taken back through the flow, draws are standard normal: moments within 5.5 standard errors (two-sided, < 1e-6)."""
    flow = bent(2)
    n = 20_000
    drawn = sample(flow, torch.zeros(1, 2, dtype=torch.float64), n)["x"].squeeze(1)
    with torch.no_grad():
        u = flow().dist.transform(drawn)
    assert (u.mean(0).abs() < 5.5 / math.sqrt(n)).all()
    assert ((u.square().mean(0) - 1).abs() < 5.5 * math.sqrt(2 / n)).all()
    assert abs(float((u[:, 0] * u[:, 1]).mean())) < 5.5 / math.sqrt(n)


def test_fitted_to_a_known_mixture_it_reaches_its_entropy() -> None:
    """The mean of log p(x) of new data is minus the mixture's entropy, within their error and 0.03 nats of the fit's own.

    One normal of the mixture's mean and covariance is 0.7 nats short of it.
    """
    torch.manual_seed(1)
    angles = torch.arange(4) * (math.pi / 2)
    parts = Normal(1.5 * torch.stack((angles.cos(), angles.sin()), 1), 0.4).to_event(1)
    mixture = MixtureSameFamily(Categorical(torch.ones(4)), parts)
    train, test = mixture.sample((20_000,)), mixture.sample((5000,))
    flow = Flow(2, transforms=2, hidden=(32, 32))
    fit(
        Step(SVI(flow), adam(5e-3), average=0.98),
        lambda step: train[(256 * step) % 19_968 :][:256],
        400,
        progress=False,
    )
    short = mixture.log_prob(test) - log_prob(flow, test)
    error = float(short.std()) / math.sqrt(len(test))
    assert -5 * error < float(short.mean()) < 0.03 + 5 * error


def table(levels: int | None, shape: tuple[int, ...]) -> Dataset:
    """Random values under the name `mine`."""
    values = torch.zeros(4, *shape, dtype=torch.uint8) if levels else torch.randn(4, *shape)
    return Dataset("mine", Split(values), Split(values), Split(values), levels)


@pytest.mark.parametrize(
    ("levels", "shape", "message"),
    [(17, (1, 8, 8), "mine are images.*recipe vae or gated-pixelcnn"), (5, (3,), "mine are whole levels.*recipe vae")],
)
def test_what_is_no_table_of_real_numbers_is_refused(levels: int, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RECIPES["flow"].make_program(table(levels, shape))


def test_settings_out_of_range_are_refused_by_name() -> None:
    for name, value in (("transforms", 0), ("bins", 1)):
        with pytest.raises(ValueError, match=f"{name}: expected .*at least"):
            replace(RECIPES["flow"], settings={name: value}).make_program(table(None, (2,)))


def test_without_zuko_the_error_names_the_model_and_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ImportError, match=r'Flow needs zuko.*pip install "ppmodels\[flows\]"'):
        Flow(2)
