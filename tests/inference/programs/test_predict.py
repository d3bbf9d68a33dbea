"""The posterior predictive of new inputs, and what is said of a site that has nothing to observe."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDiagonalNormal, AutoGuideList, AutoNormal
from torch import Tensor, nn

from inference import (
    SVI,
    Pair,
    ProgramError,
    Step,
    adam,
    check,
    decode,
    evaluate,
    exact,
    fit,
    importance,
    posterior,
    predict,
    reconstruct,
    sample,
    terms,
)

GENERATOR = torch.Generator().manual_seed(11)
X = torch.randn(20, 2, generator=GENERATOR, dtype=torch.float64)
Y = X @ torch.tensor([1.0, -2.0], dtype=torch.float64) + 0.5 * torch.randn(20, generator=GENERATOR, dtype=torch.float64)
NEW = torch.tensor([[1.0, 0.0], [2.0, 3.0], [0.0, -1.0]], dtype=torch.float64)


class Regression(nn.Module):
    """w ~ N(0, I), y ~ N(x·w, 1/4); the guide has the posterior of w given `X` and `Y`."""

    def __init__(self) -> None:
        super().__init__()
        precision = torch.eye(2, dtype=torch.float64) + 4.0 * X.T @ X
        self.covariance = torch.linalg.inv(precision)
        self.mean = nn.Parameter(4.0 * self.covariance @ X.T @ Y)
        self.dropout = nn.Dropout(0.5)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.deterministic("size", w.norm())
        with pyro.plate("data", len(x)):
            mean = pyro.deterministic("mean", self.dropout(x) @ w)
            pyro.sample("y", dist.Normal(mean, 0.5), obs=y)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        pyro.sample("w", dist.MultivariateNormal(self.mean, self.covariance))


@pytest.mark.parametrize("batch", [(NEW,), NEW, (NEW, None)], ids=["tuple", "tensor", "none"])
def test_a_regression_predicts_new_inputs(batch: object) -> None:
    program = Regression()
    drawn = predict(program, batch, 1000)
    shapes = {name: tuple(value.shape) for name, value in drawn.items()}
    assert shapes == {"w": (1000, 2), "size": (1000,), "mean": (1000, 3), "y": (1000, 3)}
    assert not any(value.requires_grad for value in drawn.values())
    assert program.training
    torch.testing.assert_close(drawn["mean"], drawn["w"] @ NEW.T)
    torch.testing.assert_close(drawn["size"], drawn["w"].norm(dim=1))
    variance = (NEW @ program.covariance * NEW).sum(1) + 0.25
    error = (drawn["y"].mean(0) - NEW @ program.mean.detach()) / (variance / 1000).sqrt()
    assert error.abs().max() < 5.0  # a false alarm in 500,000; an error of 0.1 in a mean is seen
    assert (drawn["y"].var(0) / variance - 1).abs().max() < 0.25  # five standard errors


@pytest.mark.parametrize("guide", [AutoNormal, AutoDiagonalNormal])
def test_an_autoguide_of_shared_latents_predicts_any_number_of_rows(guide: type) -> None:
    pair = Pair(lambda x, y=None: _shared(x, y), guide)
    with pytest.raises(ProgramError, match=r"has not been run.*Fit it before it predicts"):
        predict(pair, NEW)
    fit(Step(SVI(pair), adam(0.1)), (X, Y), 200, progress=False)
    for batch, rows in (((NEW, None), 3), ((X[:1],), 1), ((X, Y), 20)):
        drawn = predict(pair, batch, 50)
        assert drawn["y"].shape == (50, rows)
        assert (drawn["y"].mean(0) - batch[0] @ torch.tensor([1.0, -2.0], dtype=torch.float64)).abs().max() < 0.8


def _shared(x: Tensor, y: Tensor | None) -> None:
    w = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)


class Both(AutoGuideList):
    def __init__(self, model: Callable[..., object]) -> None:
        super().__init__(model)
        self.append(AutoNormal(pyro.poutine.block(model, expose=["w"])))
        self.append(AutoNormal(pyro.poutine.block(model, expose=["z"])))


@pytest.mark.parametrize("guide", [AutoNormal, AutoDiagonalNormal, Both])
def test_an_autoguide_of_local_latents_has_none_for_other_rows(guide: type) -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x @ w, 1.0))
            pyro.sample("y", dist.Normal(z, 0.5), obs=y)

    pair = Pair(model, guide)
    fit(Step(SVI(pair), adam(0.1)), (X, Y), 3, progress=False)
    assert predict(pair, (X, None), 2)["y"].shape == (2, 20)
    with pytest.raises(
        ProgramError, match=r"values for the 20 examples it was fitted to \(\['z.*for the 3 of this batch"
    ):
        predict(pair, (NEW, None))
    for number in (
        lambda: evaluate(pair, (NEW, Y[: len(NEW)]), {"iwae": importance(3)}),
        lambda: terms(pair, (NEW[:1], Y[:1]), 2),
    ):
        with pytest.raises(ProgramError, match="values for the 20 examples it was fitted to"):
            number()


class Amortised(nn.Module):
    """z | x of each example, y = z + noise."""

    def model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.deterministic("twice", 2 * z)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])
            pyro.sample("y", dist.Normal(3.0 * z, 0.1), obs=y)
        return z

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * x[:, 0], 0.5**0.5))


def test_amortised_latents_of_each_row() -> None:
    drawn = predict(Amortised(), (NEW, None), 20_000)
    assert {name: tuple(value.shape) for name, value in drawn.items()} == dict.fromkeys(
        ["z", "twice", "x", "y"], (20_000, 3)
    )
    torch.testing.assert_close(drawn["twice"], 2 * drawn["z"])
    # Standard errors: 0.015 of a mean, 0.045 of a variance.
    torch.testing.assert_close(drawn["y"].mean(0), 1.5 * NEW[:, 0], atol=0.09, rtol=0)
    torch.testing.assert_close(drawn["y"].var(0), torch.full((3,), 4.51, dtype=torch.float64), atol=0.25, rtol=0)
    assert torch.corrcoef(torch.stack([drawn["y"][:, 0], drawn["z"][:, 0]]))[0, 1] > 0.99
    # What the batch observes is drawn anew.
    assert predict(Amortised(), (NEW, NEW[:, 0]), 2)["y"].unique().numel() == 6


def test_a_value_of_all_rows_is_one_of_each_draw() -> None:
    class Averaged(Amortised):
        def model(self, x: Tensor, y: Tensor | None = None) -> None:
            pyro.deterministic("average", super().model(x, y).mean())

    drawn = predict(Averaged(), (NEW, None), 5)
    torch.testing.assert_close(drawn["average"], drawn["z"].mean(1))


def test_values_that_follow_have_no_axes_beside_those_of_their_draws() -> None:
    """Pyro would give `pyro.deterministic` in a plate the plate's axis again, where its value is drawn and not computed."""
    drawn = [sample(Regression(), (X, Y), 4), reconstruct(Regression(), (X, Y), 4)]
    assert [each["y"].shape for each in drawn] == [(4, 20), (4, 20)]


WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
LOC = torch.tensor([-1.0, 1.0], dtype=torch.float64)
SCALE = torch.tensor([0.1, 10.0], dtype=torch.float64)


def _mixture(x: Tensor | None, y: Tensor | None, like: Tensor) -> None:
    with pyro.plate("data", len(like)):
        k = pyro.sample("k", dist.Categorical(WEIGHTS))
        pyro.sample("x", dist.Normal(LOC[k], 1.0), obs=x)
        pyro.sample("y", dist.Normal(LOC[k], SCALE[k]), obs=y)


def test_finite_latents_follow_what_is_observed_and_nothing_else() -> None:
    rows = torch.zeros(4, dtype=torch.float64)
    x = torch.tensor([-2.0, -0.5, 0.0, 1.0], dtype=torch.float64)
    log_joint = WEIGHTS.log() + dist.Normal(LOC, 1.0).log_prob(x.unsqueeze(1))
    for given, right in (((None, None, rows), WEIGHTS.expand(4, 2)), ((x, None, rows), log_joint.softmax(1))):
        drawn = predict(Pair(_mixture), given, 8_000)
        share = drawn["k"].double().mean(0)
        torch.testing.assert_close(share, right[:, 1], atol=0.03, rtol=0)  # more than five standard errors
        second = drawn["k"] == 1
        assert drawn["y"][~second].std() < 0.11
        assert drawn["y"][second].std() == pytest.approx(10.0, rel=0.05)


def test_what_is_unseen_has_no_say_in_reconstructions_and_means() -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 1.0], dtype=torch.float64)
    given = (x, None, torch.zeros(4, dtype=torch.float64))
    right = (WEIGHTS.log() + dist.Normal(LOC, 1.0).log_prob(x.unsqueeze(1))).softmax(1)
    drawn = reconstruct(Pair(_mixture), given, 8_000)
    assert drawn.keys() == {"k", "x"}
    torch.testing.assert_close(drawn["k"].double().mean(0), right[:, 1], atol=0.03, rtol=0)
    means = decode(Pair(_mixture), (x.repeat(8_000), None, torch.zeros(32_000)), {})["x"].reshape(8_000, 4)
    torch.testing.assert_close(means.mean(0), right @ LOC, atol=0.06, rtol=0)


def test_what_may_bear_on_the_observed_is_not_drawn_from_the_prior() -> None:
    def model(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Normal(x.new_zeros(()), 1.0), obs=y)
            pyro.sample("x", dist.Normal(y, 1.0), obs=x)

    with pytest.raises(
        ProgramError, match=r"does not draw the latent sites \['y'\].*obs=None.*after the observed ones"
    ):
        predict(Pair(model), X[:, 0])


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1, dtype=torch.float64)

    def model(self, x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Bernoulli(logits=5.0 * x[:, 0] + 0.0 * self.layer(x).squeeze(1)), obs=y)

    def guide(self, x: Tensor, y: Tensor | None = None) -> None: ...


def test_classes_are_predicted() -> None:
    drawn = predict(Classifier(), (NEW, None), 2000)
    assert drawn.keys() == {"y"}
    torch.testing.assert_close(drawn["y"].mean(0), torch.sigmoid(5.0 * NEW[:, 0]), atol=0.06, rtol=0)


@pytest.mark.parametrize("program", [Regression, Classifier], ids=["density", "classes"])
def test_nothing_observed_is_no_number(program: Callable[[], nn.Module]) -> None:
    made, batch = program(), (NEW, None)
    for use in (check, terms):
        with pytest.raises(ProgramError, match=r"latent sites \['y'\].*obs=None is latent: predict\(program, batch\)"):
            use(made, batch)
    for estimator in (importance(2), exact()):
        with pytest.raises(ProgramError, match=r"the batch observes nothing.*no log p\(x\).*predict\(program, batch\)"):
            evaluate(made, batch, {"number": estimator})
    for draw in (reconstruct, lambda made, batch: decode(made, batch, posterior(made, batch))):
        with pytest.raises(ProgramError, match=r"the batch observes nothing.*reconstruct.*predict\(program, batch\)"):
            draw(made, batch)
    with pytest.raises(ProgramError, match=r"latent sites \['y'\].*obs=None is latent"):
        fit(Step(SVI(made)), batch, 2, progress=False)


def test_a_sum_over_unseen_classes_is_one_of_what_is_seen() -> None:
    """log p(x) of a batch without y, which the model would also observe: y is summed out, and no number is made up."""
    x = torch.tensor([-2.0, 0.5], dtype=torch.float64)

    def model(x: Tensor, y: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(WEIGHTS), obs=y)
            pyro.sample("x", dist.Normal(LOC[y], 1.0), obs=x)

    found = evaluate(Pair(model), (x, None), {"exact": exact()}).log_prob["exact"]
    right = (WEIGHTS.log() + dist.Normal(LOC, 1.0).log_prob(x.unsqueeze(1))).logsumexp(1)
    torch.testing.assert_close(found, right)
