"""Annealed importance sampling against evidences that are known: closed forms, quadrature, sums.

A mean weight is compared by its own standard error. A right one has |z| < 5.5 but once in 2.6e7.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoNormal, AutoStructured
from torch import Tensor, nn
from torch.distributions import CorrCholeskyTransform

from inference import Batch, Pair, Program, ProgramError, annealed, evaluate
from inference.evaluation.annealed import Annealed, warn_of_few_accepted
from inference.evaluation.annealing import Schedule, _moved, forward, frozen, reverse, sigmoid_schedule
from inference.evaluation.annealing_path import _GRADIENTS, AnnealingPath, Start, _with_gradients
from inference.evaluation.hamiltonian import transition
from inference.programs.autoguides import _cholesky_inverse
from inference.programs.graphs import graph_of
from inference.testbed import GammaPoisson
from tests.problems import LinearGaussian

FAR = 5.5
MARKED = {"enumerate": "parallel"}


def empty(*batch: Tensor) -> None:
    """A guide that draws nothing."""


def mean_weight(
    program: Program, batch: Batch, temperatures: int, chains: int, start: Start = "guide"
) -> tuple[Tensor, Tensor]:
    """The mean weight of each unit and its standard error."""
    with torch.no_grad():
        path = AnnealingPath(program, batch, start)
        weights = forward(path, frozen(path, temperatures, 5, 200), chains).log_weights.exp()
    return weights.mean(0), weights.std(0) / math.sqrt(chains)


# --- a linear-Gaussian program: log p(x) in closed form -----------------------------------------------------------------

SLOPES = torch.tensor([[0.8, -0.3], [0.4, 0.9], [-0.5, 0.2]], dtype=torch.float64)
NOISE = 0.6
X = torch.tensor([[0.5, 0.2, -0.4], [-1.2, 0.7, 1.1]], dtype=torch.float64)


def linear(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z @ SLOPES.T, NOISE).to_event(1), obs=x)


def wide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.3 * x[:, :2], 1.3).to_event(1))


def log_evidence(x: Tensor) -> Tensor:
    covariance = SLOPES @ SLOPES.T + NOISE**2 * torch.eye(3, dtype=torch.float64)
    return torch.distributions.MultivariateNormal(x.new_zeros(3), covariance).log_prob(x)


@pytest.mark.parametrize("start", ["guide", "prior"])
@pytest.mark.parametrize("temperatures", [2, 4])
def test_the_mean_weight_is_the_evidence(start: Start, temperatures: int) -> None:
    # The smallest error that is seen is about 3 % of p(x).
    torch.manual_seed(0)
    mean, error = mean_weight(Pair(linear, wide), X, temperatures, 40_000, start)
    expected = log_evidence(X).exp()
    assert ((mean - expected).abs() < FAR * error).all()
    assert (error < 0.01 * expected).all()


def test_the_bound_rises_to_the_evidence_and_stays_below() -> None:
    found = evaluate(Pair(linear, wide), X, {"few": annealed(3, 50), "many": annealed(200, 50)}, seed=1)
    expected = log_evidence(X)
    assert ((found.log_prob["many"] - expected).abs() < 5 * found.error["many"]).all()
    assert (2 * found.error["many"] < found.error["few"]).all()
    assert (found.error["many"] < 0.06).all()
    assert found.kind["many"] == "lower bound in expectation"
    assert found.settings["many"] == {"temperatures": 200, "chains": 50, "start": "guide", "leapfrog": 10}
    acceptance = found.details["many"]["acceptance"]
    assert acceptance.shape == (2,)
    assert ((acceptance > 0.55) & (acceptance < 0.75)).all()
    told = found.summary()["estimates"]["many"]["details"]["acceptance"]
    assert told["mean"] == pytest.approx(float(acceptance.mean()))
    assert told["standard_error"] == pytest.approx(float(acceptance.std()) / len(acceptance) ** 0.5)
    assert told["of"] == len(acceptance)


def test_step_sizes_that_follow_the_scored_chains_bias_their_weights() -> None:
    """Every chain is an example of its own, whose step size reacts to it: no density is left invariant."""
    torch.manual_seed(0)
    x = torch.full((40_000, 1), 1.5, dtype=torch.float64)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z.exp(), 0.3).expand([len(x)]).to_event(0), obs=x[:, 0])

    with torch.no_grad():
        path = AnnealingPath(Pair(model, empty), x, "prior")
        grid = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
        joint = -0.5 * grid**2 - 0.5 * ((1.5 - grid.exp()) / 0.3) ** 2 - math.log(2 * math.pi * 0.3)
        evidence = torch.trapezoid(joint.exp(), grid)
        betas = sigmoid_schedule(10)

        def z_score(follows: bool) -> float:
            here = path.draw(1)
            step = torch.full((len(x),), 0.7, dtype=torch.float64)
            log_weights = torch.zeros_like(here.log_ratio)
            for number in range(10):
                log_weights += betas.diff()[number] * here.log_ratio
                for _ in range(4 if number < 9 else 0):
                    here, acceptance = transition(path, here, betas[number + 1], step, 1)
                    if follows:
                        step = step * (2.0 * (acceptance[0] - 0.65)).exp()
            weights = log_weights.exp()
            return float((weights.mean() - evidence) / (weights.std() / math.sqrt(weights.numel())))

        assert abs(z_score(follows=False)) < FAR
        assert abs(z_score(follows=True)) > 2 * FAR


# --- supports with coordinates of their own -----------------------------------------------------------------------------


_gamma_poisson = GammaPoisson().model
PRIOR = torch.tensor([2.0, 0.8, 1.5], dtype=torch.float64)


def _dirichlet(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        shares = pyro.sample("shares", dist.Dirichlet(PRIOR))
        pyro.sample("x", dist.Multinomial(10, shares.expand(len(x), 3), validate_args=False), obs=x)


def _dirichlet_evidence(x: Tensor) -> Tensor:
    counts = torch.lgamma(x.sum(1) + 1) - torch.lgamma(x + 1).sum(1)
    beta = torch.lgamma(PRIOR + x).sum(1) - torch.lgamma(PRIOR.sum() + x.sum(1))
    return counts + beta - (torch.lgamma(PRIOR).sum() - torch.lgamma(PRIOR.sum()))


def _correlated(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        root = pyro.sample("root", dist.LKJCholesky(2, x.new_tensor(1.7)))
        pyro.sample("x", dist.MultivariateNormal(x.new_zeros(2), scale_tril=root), obs=x)


def _correlated_evidence(x: Tensor) -> Tensor:
    r = torch.linspace(-1, 1, 200_003, dtype=torch.float64)[1:-1]
    prior = (1 - r**2) ** 0.7
    prior = prior / torch.trapezoid(prior, r)
    a, b = x[:, :1], x[:, 1:]
    square = (a**2 - 2 * r * a * b + b**2) / (1 - r**2)
    density = torch.exp(-0.5 * square) / (2 * math.pi * (1 - r**2).sqrt())
    return torch.trapezoid(prior * density, r).log()


def _nested(x: Tensor) -> None:
    """The support of z depends on another latent."""
    with pyro.plate("data", len(x)):
        width = pyro.sample("width", dist.Uniform(x.new_tensor(0.5), 2.0))
        z = pyro.sample("z", dist.Uniform(-width, width))
        pyro.sample("x", dist.Normal(z, 0.4), obs=x)


def _nested_evidence(x: Tensor) -> Tensor:
    width = torch.linspace(0.5, 2.0, 100_001, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 0.4)
    inside = (normal.cdf(width - x[:, None]) - normal.cdf(-width - x[:, None])) / (2 * width)
    return (torch.trapezoid(inside, width) / 1.5).log()


SUPPORTS: dict[str, tuple[Callable[..., None], Callable[[Tensor], Tensor], Tensor]] = {
    "positive": (_gamma_poisson, GammaPoisson().log_evidence, torch.tensor([[0.0, 2.0], [4.0, 1.0]])),
    "simplex": (_dirichlet, _dirichlet_evidence, torch.tensor([[7.0, 1.0, 2.0], [0.0, 3.0, 7.0]])),
    "correlations": (_correlated, _correlated_evidence, torch.tensor([[1.4, 1.2], [-0.3, 1.6]])),
    "dependent": (_nested, _nested_evidence, torch.tensor([0.2, 1.6])),
}


@pytest.mark.parametrize("support", SUPPORTS)
def test_constrained_latents_move_by_their_jacobians(support: str) -> None:
    # The Jacobian is in both densities and leaves no trace in a weight: but transitions without it go to another density.
    torch.manual_seed(0)
    model, evidence, x = SUPPORTS[support]
    x = x.double()
    mean, error = mean_weight(Pair(model, empty), x, 4, 20_000)
    expected = evidence(x).exp()
    assert ((mean - expected).abs() < FAR * error).all()
    assert (error < 0.02 * expected).all()


def test_a_decoder_of_two_latents_against_quadrature() -> None:
    torch.manual_seed(3)
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 12)).double()
    decoder[2].weight.data.mul_(4.0)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    x = (torch.rand(4, 12) < 0.5).double()
    axis = torch.linspace(-7, 7, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        prior = dist.Normal(0.0, 1.0).log_prob(grid).sum(1)
        joint = prior[:, None] + dist.Bernoulli(logits=decoder(grid)[:, None]).log_prob(x).sum(2)
    expected = torch.logsumexp(joint, 0) + 2 * math.log(14 / 400)
    found = evaluate(Pair(model, empty, decoder), x, {"annealed": annealed(300, 400, leapfrog=5)})
    assert ((found.log_prob["annealed"] - expected).abs() < 0.01 + 4 * found.error["annealed"]).all()
    assert (found.error["annealed"] < 0.015).all()


# --- finite latents, shared ones, no plate ------------------------------------------------------------------------------


def test_finite_latents_are_summed_and_continuous_ones_move() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(x.new_tensor([0.3, 0.7])), infer=MARKED)
            z = pyro.sample("z", dist.Normal(x.new_tensor([-2.0, 1.0])[k], 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    x = torch.tensor([-1.5, 0.4, 1.0], dtype=torch.float64)
    spread = math.sqrt(1.25)
    parts = [math.log(w) + dist.Normal(m, spread).log_prob(x) for w, m in ((0.3, -2.0), (0.7, 1.0))]
    expected = torch.logaddexp(*parts)
    for start in ("guide", "prior"):
        found = evaluate(Pair(model, guide), x, {"annealed": Annealed(30, 200, start)})
        assert ((found.log_prob["annealed"] - expected).abs() < 5 * found.error["annealed"]).all()
        assert (found.error["annealed"] < 0.09).all()


def _shared(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(x.new_tensor(0.0), 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(mean, 0.7))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x)


def _alone(x: Tensor) -> None:
    """One example: no plate counts the values."""
    z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
    pyro.sample("x", dist.Normal(z, math.sqrt(0.74)).expand([len(x)]).to_event(1), obs=x)


@pytest.mark.parametrize("model", [_shared, _alone])
def test_the_evidence_of_a_dataset(model: Callable[..., None]) -> None:
    x = torch.tensor([0.4, -0.2, 1.1], dtype=torch.float64)
    covariance = 0.74 * torch.eye(3, dtype=torch.float64) + 1.0
    expected = torch.distributions.MultivariateNormal(x.new_zeros(3), covariance).log_prob(x)
    torch.manual_seed(0)
    found = evaluate(Pair(model, AutoNormal), x, {"annealed": annealed(120, 60), "prior": annealed(120, 60, "prior")})
    assert not found.per_example
    for name in ("annealed", "prior"):
        assert found.log_prob[name].shape == (1,)
        assert abs(found.mean(name) - float(expected)) < 5 * found.noise(name) < 1.3


def _reads_values(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        assert z.detach().abs().max().item() < 1e6
        pyro.sample("x", dist.Normal(z @ SLOPES.T, NOISE).to_event(1), obs=x)


# --- what is built once a batch ----------------------------------------------------------------------------------------


def test_the_traced_path_is_the_program_run_anew() -> None:
    torch.manual_seed(0)
    for model in (linear, _gamma_poisson, _dirichlet, _correlated, _nested):
        x = X if model is linear else next(data for each, _, data in SUPPORTS.values() if each is model).double()
        path = AnnealingPath(Pair(model, empty), x, "prior")
        here = path.draw(6)
        assert all(isinstance(each, torch.fx.GraphModule) for each in path._functions[6]), model.__name__
        for rows in (here.rows, here.rows + 0.3, -here.rows):
            for fast, slow in zip(path.at(rows)[1:], _with_gradients(path._densities, rows), strict=True):
                torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)


def test_a_gradient_alone_is_that_of_the_path_to_the_bit() -> None:
    torch.manual_seed(0)
    beta = torch.tensor(0.3, dtype=torch.float64)
    for model in (linear, _reads_values):
        path = AnnealingPath(Pair(model, empty), X, "prior")
        rows = path.draw(6).rows + 0.3
        assert torch.equal(path.gradient(rows, beta), path.at(rows).gradient(beta))
    densities, gradients = AnnealingPath(Pair(linear, empty), X, "prior")._of(rows)
    assert isinstance(densities, torch.fx.GraphModule)
    assert isinstance(gradients, torch.fx.GraphModule)
    assert len(gradients.graph.nodes) < len(densities.graph.nodes)


def test_what_does_not_depend_on_the_latents_is_computed_once() -> None:
    calls = 0

    class Encoder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return 0.1 * x[:, :2]

    encoder = Encoder()

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    path = AnnealingPath(Pair(linear, guide, encoder), X, "guide")
    here, before = path.draw(4), calls
    graph, _ = path._functions[4]
    assert isinstance(graph, torch.fx.GraphModule)
    assert sum(node.target is torch.ops.aten.mul.Tensor for node in graph.graph.nodes) < 8
    path.at(here.rows)
    assert calls == before


def test_a_program_that_reads_values_is_run_as_it_is() -> None:
    found = evaluate(Pair(_reads_values, wide), X, {"slow": annealed(20, 20)}, seed=4)
    fast = evaluate(Pair(linear, wide), X, {"slow": annealed(20, 20)}, seed=4)
    assert ((found.log_prob["slow"] - fast.log_prob["slow"]).abs() < 5 * fast.error["slow"]).all()


@pytest.mark.parametrize("size", [2, 4])
def test_an_autoguide_of_correlations_is_traced(size: int) -> None:
    def model(x: Tensor) -> None:
        factor = pyro.sample("factor", dist.LKJCholesky(size, x.new_tensor(1.5)))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.MultivariateNormal(x.new_zeros(size), scale_tril=factor), obs=x)

    torch.manual_seed(0)
    x = torch.randn(5, size, dtype=torch.float64)
    program = Pair(model, AutoNormal)
    with torch.no_grad():
        path = AnnealingPath(program, x, "guide")
        rows = path.draw(3).rows
        graph = graph_of(partial(_with_gradients, path._traceable()[0]), (rows,))
        for fast, slow in zip(graph(rows), _with_gradients(path._densities, rows), strict=True):
            torch.testing.assert_close(fast, slow)
    factor = dist.LKJCholesky(size, torch.tensor(1.5, dtype=torch.float64)).sample((6,))
    torch.testing.assert_close(_cholesky_inverse(factor), CorrCholeskyTransform().inv(factor))


def test_a_trajectory_that_diverges_is_rejected_and_ends_no_run() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            bool(z.max() > 0)  # no graph can follow, so that the program is run as it is
            pyro.sample("x", dist.Normal(0.0, z.exp()), obs=x)

    torch.manual_seed(0)
    with torch.no_grad():
        path = AnnealingPath(Pair(model, empty), X[:, 0], "prior")
        here = path.draw(3)
        found = transition(path, here, torch.tensor(0.5), torch.full((2,), 1e4), leapfrog=2)
    assert (found.acceptance == 0).all()
    assert torch.equal(found.point.rows, here.rows)


def test_a_chain_at_which_a_factorisation_fails_is_rejected_alone() -> None:
    def process(t: Tensor, y: Tensor) -> None:
        scale = pyro.sample("scale", dist.LogNormal(t.new_tensor(0.0), 1.0))
        covariance = scale.square() * (-(t[:, None] - t).square()).exp() + 1e-6 * torch.eye(len(t), dtype=t.dtype)
        pyro.sample("y", dist.MultivariateNormal(torch.zeros_like(t), covariance), obs=y)

    torch.manual_seed(0)
    t = torch.linspace(0, 1, 8, dtype=torch.float64)
    with torch.no_grad():
        path = AnnealingPath(Pair(process, empty), (t, t.sin()), "prior")
        here = path.draw(3)
        assert isinstance(path._functions[3][0], torch.fx.GraphModule)
        far = here.rows.clone()
        far[1] = 1000.0
        found = path.at(far)
        torch.testing.assert_close(found.log_ratio[::2], here.log_ratio[::2])
        assert found.log_ratio[1].isnan()
        assert path.gradient(far, torch.tensor(0.5)).isnan().flatten().tolist() == [False, True, False]
        moved = transition(path, here, torch.tensor(0.5), torch.tensor([1e3]), leapfrog=3)
    assert (moved.acceptance == 0).all()
    assert torch.equal(moved.point.rows, here.rows)


def test_a_program_that_writes_into_tensors_is_traced_rightly() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = x.new_zeros(len(z), 3)
            mean[:, 0] = z[:, 0]
            mean += z @ SLOPES.T
            pyro.sample("x", dist.Normal(mean, NOISE).to_event(1), obs=x)

    torch.manual_seed(0)
    path = AnnealingPath(Pair(model, empty), X, "prior")
    path.draw(5)
    for rows in torch.randn(3, 5, 2, 2, dtype=torch.float64):
        for fast, slow in zip(path.at(rows)[1:], _with_gradients(path._densities, rows), strict=True):
            torch.testing.assert_close(fast, slow)
        half = torch.tensor(0.5, dtype=torch.float64)
        assert torch.equal(path.gradient(rows, half), path.at(rows).gradient(half))


@pytest.mark.parametrize("start", ["guide", "prior"])
def test_chains_move_on_the_device_of_the_program(start: Start) -> None:
    """On the meta device a constant made on the CPU, and every wait for a value, fails: a test for GPUs without one."""
    torch.manual_seed(0)
    x, program = torch.randn(3, 3), LinearGaussian(error=0.3).float()
    path = AnnealingPath(program, x, start)
    rows = path.draw(2).rows.to("meta")
    program.to("meta")
    path.batch = (x.to("meta"),)
    eager = partial(_with_gradients, path._densities)
    path._functions[2] = eager, lambda rows: eager(rows)[_GRADIENTS]
    schedule = Schedule(sigmoid_schedule(4), torch.full((3, 3), 0.1, device="meta"), 3)
    with pyro.validation_enabled(False):
        for weighed in (_moved(path, schedule, path.at(rows), backwards=False), reverse(path, schedule, rows)):
            assert (weighed.log_weights.is_meta, weighed.acceptance.is_meta) == (True, True)
            assert weighed.log_weights.shape == (2, 3)


# --- chunks and memory --------------------------------------------------------------------------------------------------


def test_chains_in_chunks_agree_and_repeat_to_the_bit() -> None:
    pair = Pair(linear, wide)
    whole, parts = Annealed(20, 40, rows=1000), Annealed(20, 40, rows=14)
    assert parts.chunks(X, 14) == [7, 7, 7, 7, 6, 6]
    found = evaluate(pair, X, {"whole": whole, "parts": parts}, seed=2)
    again = evaluate(pair, X, {"whole": whole, "parts": parts}, seed=2)
    for name in ("whole", "parts"):
        assert torch.equal(found.log_prob[name], again.log_prob[name])
    apart = found.log_prob["whole"] - found.log_prob["parts"]
    assert (apart.abs() < 5 * (found.error["whole"] + found.error["parts"])).all()
    assert (apart != 0).all()


def test_where_memory_runs_out_fewer_chains_are_moved_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    draw = AnnealingPath.draw

    def short_of_memory(self: AnnealingPath, chains: int) -> object:
        moved.append(chains)
        if chains > 10:
            raise torch.OutOfMemoryError("out of memory")
        return draw(self, chains)

    monkeypatch.setattr(AnnealingPath, "draw", short_of_memory)
    found = evaluate(Pair(linear, wide), X, {"annealed": Annealed(10, 40, rows=80)})
    assert moved[:3] == [40, 20, 10]
    assert set(moved[2:]) == {10}
    assert found.error["annealed"].isfinite().all()


# --- bad input ----------------------------------------------------------------------------------------------------------


def test_few_accepted_transitions_are_told() -> None:
    def cliff(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.warns(UserWarning, match="of the chains' transitions were accepted"):
        warn_of_few_accepted(torch.tensor([0.2, 0.6]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(Pair(cliff, empty), torch.zeros(2), {"annealed": annealed(4, 5)})


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"temperatures: expected a whole number of at least 2.*importance.*got 1"):
        annealed(1)
    with pytest.raises(ValueError, match="chains: expected a whole number of at least 1, got 0"):
        annealed(10, 0)
    with pytest.raises(ValueError, match="leapfrog: expected a whole number of at least 1, got 0"):
        annealed(10, leapfrog=0)
    with pytest.raises(ValueError, match="start: expected 'guide' or 'prior', got 'encoder'"):
        annealed(10, start="encoder")  # type: ignore[arg-type]


def _refused(model: Callable[..., None], guide: object, match: str, start: Start = "guide", x: Tensor = X) -> None:
    with pytest.raises(ProgramError, match=match):
        evaluate(Pair(model, guide), x, {"annealed": annealed(5, 3, start)})


def test_discrete_latents_are_refused_by_name() -> None:
    def counts(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Poisson(x.new_tensor(2.0)))
            pyro.sample("x", dist.Normal(k.unsqueeze(-1).expand(x.shape), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Poisson(x.new_tensor(3.0)))

    _refused(counts, guide, r"site 'k' \(Poisson\) is discrete.*importance\(particles\)")
    _refused(counts, guide, r"site 'k' \(Poisson\) is discrete", start="prior")


def test_an_unmarked_finite_latent_is_refused_by_name() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(x.new_tensor(0.3)))
            z = pyro.sample("z", dist.Normal(k.unsqueeze(-1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.expand(x.shape), 1.0).to_event(1), obs=x)

    _refused(model, empty, r"site 'k' \(Bernoulli\) is discrete.*infer=\{'enumerate': 'parallel'\}")


def test_a_program_without_continuous_latents_has_nothing_to_anneal() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(3), 1.0).to_event(1), obs=x)

    _refused(model, empty, r"no continuous latents.*exact\(\)")


def test_noise_of_the_program_is_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            mean = nn.functional.dropout(z, 0.5, training=True) @ SLOPES.T
            pyro.sample("x", dist.Normal(mean, NOISE).to_event(1), obs=x)

    _refused(model, wide, r"noise of its own.*dropout")


def test_an_improper_prior_is_no_start() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real, torch.Size(), torch.Size([2])))
            pyro.sample("x", dist.Normal(z @ SLOPES.T, NOISE).to_event(1), obs=x)

    _refused(model, empty, "improper prior.*no guide draws it")
    _refused(model, wide, "improper prior", start="prior")
    found = evaluate(Pair(model, wide), X, {"annealed": annealed(30, 100)})
    precision = SLOPES.T @ SLOPES / NOISE**2
    best = X @ SLOPES @ torch.linalg.inv(SLOPES.T @ SLOPES)
    at_best = dist.Normal(best @ SLOPES.T, NOISE).to_event(1).log_prob(X)
    expected = at_best + math.log(2 * math.pi) - 0.5 * torch.logdet(precision)
    assert ((found.log_prob["annealed"] - expected).abs() < 5 * found.error["annealed"]).all()


def test_a_start_at_one_value_or_outside_of_the_support_is_refused() -> None:
    _refused(linear, AutoDelta, r"mass at one value.*start='prior'")

    def outside(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 3.0))

    def positive(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.LogNormal(x.new_tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    _refused(
        positive,
        outside,
        r"site 'z' \(LogNormal\) has values outside its support",
        x=torch.ones(20, dtype=torch.float64),
    )


def test_a_guide_that_cannot_be_scored_at_given_latents_is_no_start() -> None:
    _refused(linear, AutoStructured, r"the draws of the guide, AutoStructured, can not be computed.*start='prior'")
    found = evaluate(Pair(linear, AutoStructured), X, {"annealed": annealed(30, 100, "prior")})
    assert ((found.log_prob["annealed"] - log_evidence(X)).abs() < FAR * found.error["annealed"]).all()


def test_a_start_that_is_not_finite_is_refused() -> None:
    def nowhere(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :2] / 0, 1.0, validate_args=False).to_event(1))

    with pyro.validation_enabled(False):
        _refused(linear, nowhere, "not finite")
