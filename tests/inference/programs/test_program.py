"""Pair: raw Pyro code of every habit, trained by torch optimizers and never through the global store."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import config_enumerate
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiscreteParallel,
    AutoGuideList,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalMessenger,
)
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import Tensor, nn

from inference import (
    SVI,
    Pair,
    ProgramError,
    Step,
    adam,
    decode,
    evaluate,
    fit,
    importance,
    log_joint,
    posterior,
    reconstruct,
    terms,
)
from inference import sample as draw_prior
from tests.problems import LinearGaussian, SharedMean

X = LinearGaussian.data(5)


def _model(x: Tensor) -> None:
    scale = pyro.param("scale", torch.tensor(2.0, dtype=torch.float64), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, scale), obs=x[:, 0])


def _guide(x: Tensor) -> None:
    slope = pyro.param("slope", lambda: torch.tensor(0.5, dtype=torch.float64))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x[:, 0], 0.9))


def test_param_statements_become_parameters_of_the_pair() -> None:
    pair, other = Pair(_model, _guide), Pair(_model, _guide)
    terms(pair, X)
    terms(other, X)
    assert sorted(name for name, _ in pair.named_parameters()) == ["adopted.scale", "adopted.slope"]
    assert pair.adopted["scale"].exp().item() == pytest.approx(2.0)
    fit(Step(SVI(pair), adam(0.1)), X, 5, progress=False)
    assert pair.adopted["slope"] != other.adopted["slope"]  # two pairs of the same functions share nothing
    assert other.adopted["slope"].item() == 0.5


def test_a_pair_learns_what_its_functions_describe() -> None:
    x = 3.0 * torch.randn(400, 1, dtype=torch.float64)
    pair = Pair(_model, _guide)
    fit(Step(SVI(pair, particles=8), adam(0.05)), x, 400, progress=False)
    # x has variance 1 + scale²; the maximum-likelihood scale is known, and the guide's variance costs a few per cent.
    best = (x.square().mean() - 1).sqrt()
    assert abs(float(pair.adopted["scale"].detach().exp() / best) - 1) < 0.05


def test_module_statements_keep_the_modules_own_parameters() -> None:
    encoder = nn.Linear(3, 2, dtype=torch.float64)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    pair = Pair(LinearGaussian().model, guide)
    terms(pair, X)
    assert any(parameter is encoder.weight for parameter in pair.parameters())


def test_methods_bring_their_modules_also_through_handlers() -> None:
    program = LinearGaussian()
    for model in (program.model, config_enumerate(program.model)):
        pair = Pair(model, program.guide)
        assert {id(p) for p in pair.parameters()} == {id(p) for p in program.parameters()}


@pytest.mark.parametrize(
    "guide",
    [AutoNormal, AutoMultivariateNormal, partial(AutoLowRankMultivariateNormal, rank=1), AutoDelta],
    ids=["normal", "multivariate", "low rank", "delta"],
)
def test_autoguides_are_built_here_and_learn_a_global_posterior(guide) -> None:
    x = 1.0 + torch.randn(20, dtype=torch.float64)
    pair = Pair(SharedMean(20).at(x).model, guide)
    for parameter in pair.modules_used[0].parameters():
        parameter.requires_grad_(False)  # the model's own
    torch.set_default_dtype(torch.float64)
    try:
        fit(Step(SVI(pair, particles=4), adam(0.05), learning_rate=lambda step: 1 - step / 250), x, 250, progress=False)
        found = evaluate(pair, x, {"iwae": importance(300)})
        draws = posterior(pair, x, 2000)["mean"]
    finally:
        torch.set_default_dtype(torch.float32)
    assert abs(draws.mean() - x.sum() / 21) < 0.07  # a third of the posterior's standard deviation
    if guide is not AutoDelta:
        assert abs(found.mean("iwae") - float(SharedMean.log_evidence(x))) < 0.1
        assert not found.per_example


def _clusters(x: Tensor) -> None:
    means = pyro.sample("means", dist.Normal(x.new_tensor([-1.0, 1.0]), 2.0).to_event(1))
    scale = pyro.param("scale", x.new_tensor(1.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(x.new_tensor([0.4, 0.6])), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(means[k], scale), obs=x)


def _list_of_guides(model) -> AutoGuideList:
    guides = AutoGuideList(model)
    guides.append(AutoNormal(poutine.block(model, hide=["k"])))
    return guides


@pytest.mark.parametrize(
    "pair",
    [
        lambda: Pair(_clusters, AutoNormal, hide=["k"]),
        lambda: Pair(_clusters, AutoNormal(poutine.block(_clusters, hide=["k"]))),
        lambda: Pair(_clusters, _list_of_guides(_clusters)),
    ],
    ids=["hide", "built", "built list"],
)
def test_autoguides_of_a_part_of_the_model_keep_everything_in_the_pair(pair) -> None:
    pyro.clear_param_store()
    x, held = torch.tensor([-2.0, -1.5, 1.0, 1.7]), pair()
    fit(Step(SVI(held), adam(0.05)), x, 30, progress=False)
    assert not pyro.get_param_store().keys()
    names = {name.rsplit(".", 1)[1] for name, _ in held.named_parameters()}
    assert names == {"means_unconstrained", "scale"}
    assert held.adopted["scale"].item() != 0.0  # trained, from the logarithm of 1
    assert evaluate(held, x, {"iwae": importance(20)}).mean("iwae") > -20
    drawn = posterior(held, x, 3)
    assert log_joint(held, x, {"means": drawn["means"]}).shape == (3, 1)
    assert terms(held, x, latents={"means": drawn["means"]}).log_weights.isfinite().all()


def test_an_autoguide_that_has_run_elsewhere_is_refused() -> None:
    guide = AutoNormal(poutine.block(_clusters, hide=["k"]))
    guide(X)
    with pytest.raises(ProgramError, match=r"\(AutoNormal\) has run outside.*AutoNormal\(model\)"):
        Pair(_clusters, guide)
    pyro.clear_param_store()


def test_sites_to_hide_are_checked() -> None:
    with pytest.raises(ProgramError, match=r"no sites \['kk'\]; correct the names"):
        Pair(_clusters, AutoNormal, hide=["k", "kk"]).guide(X)
    with pytest.raises(ProgramError, match=r"got one string; write hide=\['k'\]"):
        Pair(_clusters, AutoNormal, hide="k")
    with pytest.raises(ProgramError, match=r"only an AutoGuide class.*got _guide"):
        Pair(_model, _guide, hide=["z"])
    with pytest.raises(ProgramError, match=r"discrete sample site 'k'.*Pair\(model, AutoNormal, hide="):
        Pair(_clusters, AutoNormal).guide(X)
    with pytest.raises(ProgramError, match=r"AutoDiscreteParallel draws marked finite sites alone.*hide=\[") as caught:
        terms(Pair(_clusters, AutoDiscreteParallel), X)
    assert "\n" not in str(caught.value), "the shapes of all sites, which Pyro's traces add, are not part of it"


def test_pyro_modules_with_params_and_samples() -> None:
    class Regression(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.noise = PyroParam(torch.tensor(1.0), constraint=dist.constraints.positive)
            self.weight = PyroSample(lambda self: dist.Normal(torch.zeros(3), 1.0).to_event(1))

        def forward(self, x: Tensor, y: Tensor) -> None:
            mean = x @ self.weight
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(mean, self.noise), obs=y)

    x = torch.randn(200, 3)
    weight = torch.tensor([1.0, -2.0, 0.5])
    y = x @ weight + 0.3 * torch.randn(200)
    pair = Pair(Regression(), AutoNormal)
    fit(Step(SVI(pair), adam(0.05), learning_rate=lambda step: 1 - step / 400), (x, y), 400, progress=False)
    assert (posterior(pair, (x, y), 500)["weight"].mean(0) - weight).abs().max() < 0.15
    assert abs(pair.modules_used[0].noise.item() - 0.3) < 0.1


def test_a_plain_program_with_param_statements_is_referred_to_a_pair() -> None:
    class Plain(nn.Module):
        model = staticmethod(_model)
        guide = staticmethod(_guide)

    with pytest.raises(ProgramError, match=r"pyro.param\('slope'\).*Pair\(model, guide\)"):
        terms(Plain(), X)


def test_a_param_without_a_value_is_named() -> None:
    with pytest.raises(ProgramError, match=r"pyro.param\('missing'\) is read before"):
        terms(Pair(lambda x: pyro.param("missing")), X)


def test_a_state_moves_between_pairs() -> None:
    first, second = Pair(_model, _guide), Pair(_model, _guide)
    fit(Step(SVI(first), adam(0.1)), X, 5, progress=False)
    terms(second, X)
    second.load_state_dict(first.state_dict())
    latents = {"z": torch.zeros(1, 5, dtype=torch.float64)}
    torch.testing.assert_close(terms(first, X, latents=latents), terms(second, X, latents=latents))


def test_prior_predictive_has_the_models_moments() -> None:
    program = LinearGaussian()
    drawn = draw_prior(program, X[:1], 200_000)
    assert drawn["z"].shape == (200_000, 1, 2)
    assert drawn["x"].shape == (200_000, 1, 3)
    covariance = program.weight @ program.weight.T + 0.49 * torch.eye(3, dtype=torch.float64)
    # Standard errors are below 0.01 (means) and 0.02 (covariances) of entries up to 4: six of them each.
    torch.testing.assert_close(drawn["x"].mean((0, 1)), program.bias.data, atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(drawn["x"][:, 0].T), covariance.data, atol=0.12, rtol=0)


def test_reconstructions_and_means_follow_the_latents() -> None:
    program = LinearGaussian()
    latents = posterior(program, X, 4)
    assert latents["z"].shape == (4, 5, 2)
    expected = latents["z"] @ program.weight.T + program.bias
    torch.testing.assert_close(decode(program, X, latents)["x"], expected.detach())
    draws = reconstruct(program, X, 5000)["x"]
    assert draws.shape == (5000, 5, 3)
    mean = ((X - program.bias) @ program.gain.T) @ program.weight.T + program.bias
    torch.testing.assert_close(draws.mean(0), mean.detach(), atol=0.1, rtol=0)  # six standard errors of 5,000 draws


def test_drawing_leaves_modes_as_they_were() -> None:
    program = LinearGaussian()
    program.train()
    assert draw_prior(program, X)["x"].requires_grad is False
    assert program.training


def test_an_autoguide_of_a_model_with_param_statements() -> None:
    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 10.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, scale), obs=x)

    x = 3.0 + 0.5 * torch.randn(100)
    pair = Pair(model, AutoNormal)
    fit(Step(SVI(pair), adam(0.05), learning_rate=lambda step: 1 - step / 400), x, 400, progress=False)
    assert pair.adopted["scale"].detach().exp().item() == pytest.approx(float(x.std()), rel=0.1)
    assert float(posterior(pair, x, 500)["mean"].mean()) == pytest.approx(float(x.mean()), abs=0.05)


def test_modules_that_functions_name_are_held_and_switched_to_eval_mode() -> None:
    encoder = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2, dtype=torch.float64))
    modes = []
    encoder.register_forward_hook(lambda module, *_: modes.append(module.training))

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    pair = Pair(LinearGaussian().model, guide)
    assert any(parameter is encoder[1].weight for parameter in pair.parameters())
    evaluate(pair, X, {"elbo": importance(1)})
    assert not any(modes)


def test_a_module_that_nothing_names_must_be_passed() -> None:
    holder = {"encoder": nn.Linear(3, 2, dtype=torch.float64)}

    def guide(x: Tensor) -> None:
        encoder = pyro.module("encoder", holder["encoder"])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    with pytest.raises(ProgramError, match=r"does not hold.*Pair\(model, guide, module\)"):
        terms(Pair(LinearGaussian().model, guide), X)
    terms(Pair(LinearGaussian().model, guide, holder["encoder"]), X)


def test_params_are_subsampled_with_their_plate() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", 9, subsample_size=len(x)):
            loc = pyro.param("loc", torch.arange(9.0), event_dim=0)
            assert loc.shape == (len(x),)
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    assert terms(Pair(model), torch.zeros(4)).log_weights.shape == (1, 4)


def test_messenger_guides_are_refused_by_name() -> None:
    with pytest.raises(ProgramError, match=r"AutoMessenger guides.*Use an AutoGuide"):
        Pair(_model, AutoNormalMessenger)


def test_means_that_do_not_exist_are_refused_by_name() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.factor("prefer", z)
            skewed = dist.TransformedDistribution(dist.Normal(z, 1.0), [dist.transforms.SoftplusTransform()])
            pyro.sample("x", skewed, obs=x[:, 0].abs())

    with pytest.raises(ProgramError, match=r"site 'x' \(TransformedDistribution\) has no mean"):
        decode(Pair(model), X, {"z": torch.zeros(1, 5, dtype=torch.float64)})
