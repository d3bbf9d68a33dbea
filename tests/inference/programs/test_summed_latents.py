"""Finite latents that the guide leaves out beside latents that it draws: terms against sums over all assignments."""

import itertools
import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor, nn

from inference import (
    SVI,
    Gradient,
    ImportanceWeighted,
    Pair,
    ProgramError,
    Step,
    adam,
    check,
    elbo,
    evaluate,
    fit,
    importance,
    log_joint,
    terms,
)

WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([-1.0, 2.0], dtype=torch.float64)
TABLE = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
SCALES = torch.tensor([0.5, 1.5], dtype=torch.float64)
X = torch.tensor([[-1.2, 0.4, 1.5], [3.0, -0.3, 0.1], [0.2, 2.2, -1.0], [1.0, 1.1, 1.2]], dtype=torch.float64)
IN_PARALLEL = {"enumerate": "parallel"}


def _normal(loc: float | Tensor, scale: float | Tensor = 1.0) -> dist.Normal:
    return dist.Normal(torch.as_tensor(loc, dtype=torch.float64), scale)


def _assignment_after(x: Tensor) -> None:
    """k and z are independent in the prior."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", _normal(0.0))
        k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
        pyro.sample("x", _normal(MEANS[k] + z), obs=x[:, 0])


def _assignment_before(x: Tensor) -> None:
    """A mixture in z: its prior depends on k, and x on both."""
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
        z = pyro.sample("z", _normal(MEANS[k], SCALES[k]))
        pyro.sample("x", _normal(z * (1 + k)), obs=x[:, 0])


def _hidden(x: Tensor) -> None:
    """Some examples are masked, k and all."""
    seen = x[:, 1] > 0
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", _normal(0.0))
        with poutine.mask(mask=seen):
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
            pyro.sample("x", _normal(MEANS[k] + z), obs=x[:, 0])


def _in_an_inner_plate(x: Tensor) -> None:
    """One k for each column of an example."""
    with pyro.plate("data", len(x), dim=-2):
        z = pyro.sample("z", _normal(0.0))
        with pyro.plate("columns", 3, dim=-1):
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
            pyro.sample("x", _normal(MEANS[k] + z), obs=x)


def _chain(x: Tensor) -> None:
    """A Markov chain of states over the columns."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", _normal(0.0))
        state = None
        for t in pyro.markov(range(3)):
            probs = WEIGHTS if state is None else TABLE[state]
            state = pyro.sample(f"k{t}", dist.Categorical(probs), infer=IN_PARALLEL)
            pyro.sample(f"x{t}", _normal(MEANS[state] + z), obs=x[:, t])


def _one_value(x: Tensor) -> None:
    """A sum over a single value."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", _normal(0.0))
        k = pyro.sample("k", dist.Categorical(WEIGHTS.new_ones(1)), infer=IN_PARALLEL)
        pyro.sample("x", _normal(MEANS[k] + z), obs=x[:, 0])


def _local_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x), dim=-2 if x.dim() == 3 else -1):
        pyro.sample("z", _normal(x.mean(-1), 0.8))


def _guide_of_rows(x: Tensor) -> None:
    with pyro.plate("data", len(x), dim=-2):
        pyro.sample("z", _normal(x.mean(-1, keepdim=True), 0.8))


def _brute_after(x: Tensor, z: Tensor) -> Tensor:
    terms_of_k = WEIGHTS.log() + _normal(MEANS + z.unsqueeze(-1)).log_prob(x[:, :1])
    return _normal(0.0).log_prob(z) + terms_of_k.logsumexp(-1)


def _brute_before(x: Tensor, z: Tensor) -> Tensor:
    of_z = _normal(MEANS, SCALES).log_prob(z.unsqueeze(-1))
    of_x = _normal(z.unsqueeze(-1) * torch.tensor([1.0, 2.0])).log_prob(x[:, :1])
    return (WEIGHTS.log() + of_z + of_x).logsumexp(-1)


def _brute_hidden(x: Tensor, z: Tensor) -> Tensor:
    return torch.where(x[:, 1] > 0, _brute_after(x, z), _normal(0.0).log_prob(z))


def _brute_inner(x: Tensor, z: Tensor) -> Tensor:
    z = z.squeeze(-1)
    of_k = WEIGHTS.log() + _normal(MEANS + z[..., None, None]).log_prob(x.unsqueeze(-1))
    return _normal(0.0).log_prob(z) + of_k.logsumexp(-1).sum(-1)


def _brute_chain(x: Tensor, z: Tensor) -> Tensor:
    paths = []
    for path in itertools.product(range(2), repeat=3):
        prior = WEIGHTS[path[0]].log() + TABLE[path[0], path[1]].log() + TABLE[path[1], path[2]].log()
        paths.append(prior + sum(_normal(MEANS[k] + z).log_prob(x[:, t]) for t, k in enumerate(path)))
    return _normal(0.0).log_prob(z) + torch.stack(paths).logsumexp(0)


def _brute_one(x: Tensor, z: Tensor) -> Tensor:
    return _normal(0.0).log_prob(z) + _normal(MEANS[0] + z).log_prob(x[:, 0])


CASES = [
    (_assignment_after, _local_guide, _brute_after),
    (_assignment_before, _local_guide, _brute_before),
    (_hidden, _local_guide, _brute_hidden),
    (_in_an_inner_plate, _guide_of_rows, _brute_inner),
    (_chain, _local_guide, _brute_chain),
    (_one_value, _local_guide, _brute_one),
]


@pytest.mark.parametrize("rows", [4, 1])
@pytest.mark.parametrize(("model", "guide", "brute"), CASES)
def test_terms_sum_what_the_guide_leaves_out(model, guide, brute: Callable[..., Tensor], rows: int) -> None:
    torch.manual_seed(0)
    program, x = Pair(model, guide), X[:rows]
    z = torch.randn(3, rows, *([1] if guide is _guide_of_rows else []), dtype=torch.float64)
    right = torch.stack([brute(x, each) for each in z])
    given = terms(program, x, latents={"z": z})
    torch.testing.assert_close(given.likelihood + given.prior, right, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(log_joint(program, x, {"z": z}), right, rtol=1e-12, atol=1e-12)
    drawn = terms(program, x, particles=5)
    assert drawn.log_weights.shape == (5, rows)


def test_the_prior_of_a_latent_that_depends_on_a_summed_one() -> None:
    """log p(z) is its own mixture, so that beta weighs what it should."""
    z = torch.linspace(-3, 3, 8, dtype=torch.float64).reshape(2, 4)
    given = terms(Pair(_assignment_before, _local_guide), X, latents={"z": z})
    right = (WEIGHTS.log() + _normal(MEANS, SCALES).log_prob(z.unsqueeze(-1))).logsumexp(-1)
    torch.testing.assert_close(given.prior, right)


def test_a_latent_outside_of_its_support_weighs_nothing() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
            z = pyro.sample("z", dist.Uniform(k.double(), k.double() + 1))  # [0, 1] or [1, 2]
            pyro.sample("x", _normal(z), obs=x[:, 0])

    z = torch.tensor([[0.5, 1.5, -1.0, 3.0]], dtype=torch.float64)
    with pyro.validation_enabled(False):
        found = terms(Pair(model, _local_guide), X, latents={"z": z})
    joint = _normal(z).log_prob(X[:, 0]) + torch.tensor([0.3, 0.7, 0.0, 0.0], dtype=torch.float64).log()
    torch.testing.assert_close(found.likelihood + found.prior, joint)


def test_given_latents_may_hold_the_finite_ones() -> None:
    z, k = torch.zeros(2, 4, dtype=torch.float64), torch.tensor([[0, 1, 0, 1], [1, 1, 0, 0]])
    found = log_joint(Pair(_assignment_after, _local_guide), X, {"z": z, "k": k})
    right = _normal(0.0).log_prob(z) + WEIGHTS[k].log() + _normal(MEANS[k] + z).log_prob(X[:, 0])
    torch.testing.assert_close(found, right)


def _shared_means(x: Tensor, size: int | None = None) -> None:
    means = pyro.sample("means", _normal(MEANS, 2.0).to_event(1))
    with pyro.plate("data", size or len(x), subsample_size=len(x)):
        k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
        pyro.sample("x", _normal(means[k]), obs=x[:, 0])


def _guide_of_means(x: Tensor, size: int | None = None) -> None:
    pyro.sample("means", _normal(MEANS, 0.5).to_event(1))


@pytest.mark.parametrize("size", [4, 12])
def test_beside_shared_latents_the_sums_are_scaled_to_the_data_set(size: int) -> None:
    program = Pair(lambda x: _shared_means(x, size), lambda x: _guide_of_means(x, size))
    means = torch.tensor([[-1.5, 1.0], [0.0, 3.0]], dtype=torch.float64)
    found = terms(program, X, latents={"means": means})
    local = (WEIGHTS.log() + _normal(means.unsqueeze(1)).log_prob(X[:, :1])).logsumexp(-1)
    right = size / 4 * local.sum(1) + (_normal(MEANS, 2.0).log_prob(means) - _normal(MEANS, 0.5).log_prob(means)).sum(1)
    torch.testing.assert_close(found.log_weights, right.unsqueeze(1))


def _shared_assignment(x: Tensor) -> None:
    k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
    z = pyro.sample("z", _normal(MEANS[k]))
    with pyro.plate("data", len(x)):
        pyro.sample("x", _normal(z + MEANS[k]), obs=x[:, 0])


def _shared_z(x: Tensor) -> None:
    pyro.sample("z", _normal(0.0))


def test_a_summed_site_that_all_examples_share() -> None:
    program = Pair(_shared_assignment, _shared_z)
    z = torch.tensor([0.3, -1.0], dtype=torch.float64)
    found = log_joint(program, X, {"z": z})
    each = WEIGHTS.log() + _normal(MEANS).log_prob(z.unsqueeze(1))
    each = each + _normal(z[:, None, None] + MEANS).log_prob(X[:, :1]).sum(1)
    torch.testing.assert_close(found, each.logsumexp(1, keepdim=True))


def test_a_summed_site_that_all_examples_share_needs_them_all() -> None:
    def model(x: Tensor) -> None:
        k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
        with pyro.plate("data", 12, subsample_size=len(x)):
            pyro.sample("x", _normal(MEANS[k]), obs=x[:, 0])

    with pytest.raises(ProgramError, match=r"\['k'\] are summed out and shared by all 12 examples.*whole dataset"):
        terms(Pair(model), X)


class Mixture(nn.Module):
    """A mixture with a local latent: x ~ N(mean_k + slope z, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.means = nn.Parameter(MEANS.clone())
        self.loc = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.tensor(-0.2, dtype=torch.float64))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", _normal(0.0))
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
            pyro.sample("x", _normal(self.means[k] + z), obs=x[:, 0])

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.loc * x[:, 0], self.log_scale.exp()))

    def log_evidence(self, x: Tensor) -> Tensor:
        return (WEIGHTS.log() + _normal(self.means, math.sqrt(2)).log_prob(x[:, :1])).logsumexp(-1)


def test_the_loss_and_its_gradient_are_those_of_pyros_enumeration() -> None:
    program = Mixture()
    losses, gradients = [], []
    for objective in (SVI(program), SVI(program, TraceEnum_ELBO(max_plate_nesting=1))):
        torch.manual_seed(3)
        drawn = poutine.trace(program.guide).get_trace(X)
        held = Pair(program.model, poutine.replay(program.guide, trace=drawn), program)
        loss = type(objective)(held, objective.estimator).loss(X)
        losses.append(loss)
        gradients.append(torch.autograd.grad(loss, [program.means]))
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("gradient", list(Gradient))
def test_importance_weighted_training_moves_towards_the_evidence(gradient: Gradient) -> None:
    program, x = Mixture(), torch.cat([X] * 4)
    bound = elbo if gradient is Gradient.STICKING_THE_LANDING else None
    objective = (
        ImportanceWeighted(program, particles=4, gradient=gradient)
        if bound is None
        else ImportanceWeighted(program, bound, 4, gradient=gradient)
    )
    before = program.log_evidence(x).mean().item()
    fit(Step(objective, adam(3e-2)), x, 60, progress=False)
    assert program.log_evidence(x).mean().item() > before + 0.02


def test_importance_converges_to_the_evidence_of_a_mixture() -> None:
    program = Mixture()
    found = evaluate(program, X, {"iwae": importance(20_000)}, seed=1)
    torch.testing.assert_close(found.log_prob["iwae"], program.log_evidence(X).detach(), rtol=0, atol=0.02)
    assert found.per_example


def test_preflight_knows_which_parameters_a_sum_reaches() -> None:
    check(Mixture(), X)
    program = Mixture()
    program.unused = nn.Parameter(torch.zeros(1))
    with pytest.raises(ProgramError, match=r"no gradient reaches the parameters \['unused'\]"):
        check(program, X)


def test_what_can_not_be_summed_is_refused_by_name() -> None:
    def infinite(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", _normal(0.0))
            k = pyro.sample("k", dist.Poisson(1.0), infer=IN_PARALLEL)
            pyro.sample("x", _normal(k + z), obs=x[:, 0])

    def by_samples(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", _normal(0.0))
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL | {"num_samples": 3})
            pyro.sample("x", _normal(MEANS[k] + z), obs=x[:, 0])

    def scaled(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", _normal(0.0))
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
            with poutine.scale(scale=0.5):
                pyro.sample("x", _normal(MEANS[k] + z), obs=x[:, 0])

    def crossed(x: Tensor) -> None:
        rows, columns = pyro.plate("data", len(x), dim=-2), pyro.plate("columns", 3, dim=-1)
        with rows:
            z = pyro.sample("z", _normal(0.0))
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
        with columns:
            j = pyro.sample("j", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
        with rows, columns:
            pyro.sample("x", _normal(MEANS[k] + MEANS[j] + z), obs=x)

    for model, guide, message in (
        (infinite, _local_guide, "'k' .Poisson. has no finite support"),
        (by_samples, _local_guide, "'k' is drawn 3 times"),
        (scaled, _local_guide, "'x' is scaled by 0.5"),
        (crossed, _guide_of_rows, r"\['j', 'k'\] stand in plates that cross"),
    ):
        with pytest.raises(ProgramError, match=message):
            terms(Pair(model, guide), X)


def test_marks_of_the_whole_model_leave_alone_what_the_guide_draws() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(WEIGHTS))
            j = pyro.sample("j", dist.Categorical(WEIGHTS))
            pyro.sample("x", _normal(MEANS[k] * (1 + j)), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("k", dist.Categorical(WEIGHTS.flip(0)))

    k = torch.tensor([[0, 1, 1, 0]])
    found = terms(Pair(config_enumerate(model), guide), X, latents={"k": k})
    scores = WEIGHTS.log() + _normal(MEANS[k].unsqueeze(-1) * torch.tensor([1.0, 2.0])).log_prob(X[:, :1])
    torch.testing.assert_close(found.likelihood + found.prior, WEIGHTS[k].log() + scores.logsumexp(-1))
    torch.testing.assert_close(found.posterior, WEIGHTS.flip(0)[k].log())
