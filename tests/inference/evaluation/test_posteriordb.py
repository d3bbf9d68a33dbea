"""Weighted draws of fitted guides against the reference draws of posteriordb, whose folder PPMODELS_DATA names."""

import json
import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoMultivariateNormal, init_to_median, init_to_value
from torch import Tensor
from torch.distributions import constraints

from inference import SVI, Pair, Step, adam, annealed, evaluate, fit, importance
from inference.evaluation.pareto import smoothed
from inference.programs.sites import latents_in
from inference.programs.terms import terms_of
from inference.programs.traces import runs

Draws = dict[str, Tensor]

STEPS, DRAWS = 800, 2500


class Case(NamedTuple):
    """A posterior: its data as a batch, its program, and the parameters that are named there as functions of the draws."""

    folder: str
    batch: Callable[[Draws], tuple[Tensor, ...]]
    model: Callable[..., None]
    start: Callable[..., Draws]
    """Where a guide begins, as nothing can be drawn from a flat prior."""
    parameters: Callable[[Draws, tuple[Tensor, ...]], Draws]
    funnel: bool = False


def _lags(data: Draws) -> tuple[Tensor, ...]:
    y = data["y"]
    return torch.stack([y[5 - lag : len(y) - lag] for lag in range(1, 6)], 1), y[5:]


def _autoregression(lags: Tensor, y: Tensor) -> None:
    alpha = pyro.sample("alpha", dist.Normal(y.new_zeros(()), 10.0))
    beta = pyro.sample("beta", dist.Normal(y.new_zeros(5), 10.0).to_event(1))
    sigma = pyro.sample("sigma", dist.HalfCauchy(y.new_tensor(2.5)))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y)


def _earnings(data: Draws) -> tuple[Tensor, ...]:
    return torch.stack([data["height"], data["male"]], 1), data["earn"].log()


def _children(data: Draws) -> tuple[Tensor, ...]:
    return data["mom_iq"].unsqueeze(1), data["kid_score"]


def _regression(scale: Callable[[Tensor], dist.Distribution]) -> Callable[..., None]:
    """A linear regression under a flat prior, on columns that are centred, of which that prior sees nothing."""

    def model(x: Tensor, y: Tensor) -> None:
        flat = dist.ImproperUniform(constraints.real_vector, (), (1 + x.shape[1],))
        beta, sigma = pyro.sample("beta", flat), pyro.sample("sigma", scale(y))
        with pyro.plate("data", len(y)):
            pyro.sample("y", dist.Normal(beta[0] + (x - x.mean(0)) @ beta[1:], sigma), obs=y)

    return model


def _level(x: Tensor, y: Tensor) -> Draws:
    return {"beta": torch.cat([y.mean().reshape(1), y.new_zeros(x.shape[1])]), "sigma": y.std()}


def _coefficients(drawn: Draws, batch: tuple[Tensor, ...]) -> Draws:
    beta = drawn["beta"].clone()
    beta[:, 0] -= beta[:, 1:] @ batch[0].mean(0)
    return {**_by_index("beta", beta), "sigma": drawn["sigma"]}


def _schools(y: Tensor, sigma: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(y.new_tensor(5.0)))
    raw = pyro.sample("raw", dist.Normal(y.new_zeros(8), 1.0).to_event(1))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mu + tau * raw, sigma), obs=y)


def _means_of_schools(drawn: Draws, batch: tuple[Tensor, ...]) -> Draws:
    theta = drawn["mu"].unsqueeze(1) + drawn["tau"].unsqueeze(1) * drawn["raw"]
    return {**_by_index("theta", theta), "mu": drawn["mu"], "tau": drawn["tau"]}


def _mixture(y: Tensor) -> None:
    """Two components in order: the distance of their means is positive."""
    first = pyro.sample("first", dist.Normal(y.new_zeros(()), 2.0))
    further = pyro.sample("further", dist.ImproperUniform(constraints.positive, (), ()))
    pyro.factor("second", dist.Normal(y.new_zeros(()), 2.0).log_prob(first + further))
    sigma = pyro.sample("sigma", dist.HalfNormal(2 * y.new_ones(2)).to_event(1))
    theta = pyro.sample("theta", dist.Beta(y.new_tensor(5.0), y.new_tensor(5.0)))
    mu = torch.stack([first, first + further])
    with pyro.plate("data", len(y)):
        which = dist.Categorical(torch.stack([theta, 1 - theta]))
        pyro.sample("y", dist.MixtureSameFamily(which, dist.Normal(mu, sigma)), obs=y)


def _components(drawn: Draws, batch: tuple[Tensor, ...]) -> Draws:
    mu = torch.stack([drawn["first"], drawn["first"] + drawn["further"]], 1)
    return {**_by_index("mu", mu), **_by_index("sigma", drawn["sigma"]), "theta": drawn["theta"]}


def _by_index(name: str, values: Tensor) -> Draws:
    return {f"{name}[{place + 1}]": value for place, value in enumerate(values.T)}


CASES = [
    Case(
        "arK-arK",
        _lags,
        _autoregression,
        lambda lags, y: {},
        lambda drawn, _: {"alpha": drawn["alpha"], **_by_index("beta", drawn["beta"]), "sigma": drawn["sigma"]},
    ),
    Case(
        "earnings-logearn_height_male",
        _earnings,
        _regression(lambda y: dist.ImproperUniform(constraints.positive, (), ())),
        _level,
        _coefficients,
    ),
    Case(
        "kidiq-kidscore_momiq",
        _children,
        _regression(lambda y: dist.HalfCauchy(y.new_tensor(2.5))),
        _level,
        _coefficients,
    ),
    Case(
        "eight_schools-eight_schools_noncentered",
        lambda data: (data["y"], data["sigma"]),
        _schools,
        lambda y, sigma: {},
        _means_of_schools,
        funnel=True,
    ),
    Case(
        "low_dim_gauss_mix-low_dim_gauss_mix",
        lambda data: (data["y"],),
        _mixture,
        lambda y: {"first": y.new_tensor(-1.0), "further": y.new_tensor(2.0)},
        _components,
    ),
]


@cache
def _fitted(case: Case, folder: Path) -> tuple[Pair, tuple[Tensor, ...]]:
    """The program and its data, the guide fitted to them."""
    given = json.loads((folder / "data.json").read_text())
    data = {name: torch.tensor(value, dtype=torch.float64) for name, value in given.items() if isinstance(value, list)}
    batch = case.batch(data)
    begin = init_to_value(values=case.start(*batch), fallback=init_to_median)
    program = Pair(case.model, partial(AutoMultivariateNormal, init_loc_fn=begin))
    step = Step(SVI(program), adam(0.03), learning_rate=lambda step: 0.05 ** (step / STEPS))
    fit(step, batch, STEPS, progress=False)
    return program, batch


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.folder)
def test_smoothed_means_agree_with_reference_draws(case: Case, data_folder: Path) -> None:
    """Within 0.1 sd wherever k̂ < 0.7: five standard errors of the draws. A guide's own mean may lie 0.2 sd away."""
    folder = data_folder / "posteriordb" / case.folder
    program, batch = _fitted(case, folder)
    with torch.no_grad():
        found = runs(program, batch, DRAWS)
        weighed = smoothed(terms_of(program, found).log_weights)
    values = [run.values(latents_in(run.model)) for run in found]
    drawn = case.parameters({name: torch.cat([each[name] for each in values]) for name in values[0]}, batch)
    khat, weights = float(weighed.khat), torch.softmax(weighed.log_weights[:, 0], 0)
    if case.funnel:
        assert khat > 0.4, "a normal guide cannot follow a funnel"
    else:
        assert khat < 0.6
    with np.load(folder / "draws.npz") as stored:
        names, reference = stored["names"].tolist(), torch.from_numpy(stored["draws"]).flatten(0, 1).double()
    assert drawn.keys() == {*names}
    for name, draws in zip(names, reference.T, strict=True):
        assert khat >= 0.7 or abs(float((weights @ drawn[name] - draws.mean()) / draws.std())) < 0.1


@pytest.mark.parametrize(
    "case", [CASES[0], CASES[3], pytest.param(CASES[4], marks=pytest.mark.slow)], ids=lambda case: case.folder
)
def test_annealing_and_importance_sampling_find_the_same_evidence(case: Case, data_folder: Path) -> None:
    """Of the three that have one: two priors are flat. Their errors are below 0.1 nats, so that 0.8 is seen."""
    program, batch = _fitted(case, data_folder / "posteriordb" / case.folder)
    found = evaluate(program, batch, {"importance": importance(1000), "annealed": annealed(60, 30, leapfrog=4)})
    noise = math.hypot(*(found.noise(name) for name in found.log_prob))
    assert noise < 0.14
    assert abs(found.mean("annealed") - found.mean("importance")) < 5.5 * noise
