"""Sites that all examples share: their terms, bounds and gradients against the joint evidence of the dataset."""

import itertools
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import (
    SVI,
    Gradient,
    ImportanceWeighted,
    Objective,
    Pair,
    ProgramError,
    elbo,
    evaluate,
    importance,
    iwae,
    log_joint,
    posterior,
    renyi,
    sample,
    terms,
)
from tests.problems import SharedMean

X = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Hierarchy(nn.Module):
    """t ~ N(0, 1) for all, z_n ~ N(t, 1) and x_n ~ N(z_n, 1) for each; the guide is the exact posterior of the data."""

    def __init__(self, data: Tensor) -> None:
        super().__init__()
        self.total = nn.Parameter(data.sum().clone())
        self.size = len(data)

    def model(self, x: Tensor) -> Tensor:
        t = pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(t, 1.0))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        precision = 1.0 + self.size / 2
        t = pyro.sample("t", dist.Normal(self.total / 2 / precision, precision**-0.5))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((t + x) / 2, 0.5**0.5))

    def log_evidence(self, x: Tensor) -> Tensor:
        covariance = torch.ones(len(x), len(x), dtype=x.dtype) + 2 * torch.eye(len(x), dtype=x.dtype)
        return dist.MultivariateNormal(x.new_zeros(len(x)), covariance).log_prob(x)


def test_every_particle_has_its_own_draw_of_a_shared_site() -> None:
    program = Hierarchy(X)
    drawn = terms(program, X, particles=4)
    assert drawn.shared is not None
    assert drawn.examples == drawn.shared.size == len(X)
    assert len(drawn.shared.prior.unique()) == 4
    torch.testing.assert_close(drawn.log_weights, program.log_evidence(X).expand(4, 1), atol=1e-9, rtol=0)
    for values in (posterior(program, X, 4), sample(program, X, 4)):
        assert values["t"].shape == (4,)
        assert values["z"].shape == (4, len(X))
        assert len(values["t"].unique()) == 4


def test_given_latents_are_scored_beside_their_own_shared_value() -> None:
    program = Hierarchy(X)
    t = torch.tensor([-0.4, 0.1, 2.0], dtype=torch.float64)
    z = torch.linspace(-1, 1, 18, dtype=torch.float64).reshape(3, 6)
    joint = dist.Normal(t.unsqueeze(1), 1.0).log_prob(z) + dist.Normal(z, 1.0).log_prob(X)
    expected = dist.Normal(0.0, 1.0).log_prob(t) + joint.sum(1)
    torch.testing.assert_close(log_joint(program, X, {"t": t, "z": z}), expected.unsqueeze(1))


def test_the_log_joint_of_a_part_is_scaled_to_the_dataset_and_has_no_log_q() -> None:
    mean = torch.tensor([0.3], dtype=torch.float64)
    expected = 6 / 2 * dist.Normal(mean, 1.0).log_prob(X[:2]).sum() + dist.Normal(0.0, 1.0).log_prob(mean)
    found = log_joint(SharedMean(6).at(X), X[:2], {"mean": mean})
    torch.testing.assert_close(found, expected.reshape(1, 1))


@pytest.mark.parametrize(
    "objective",
    [
        lambda program: SVI(program),
        lambda program: SVI(program, particles=3),
        lambda program: ImportanceWeighted(program, elbo, 3),
        lambda program: ImportanceWeighted(program, iwae, 3),
        lambda program: ImportanceWeighted(program, renyi(0.5), 3),
    ],
    ids=["svi", "svi particles", "elbo", "iwae", "renyi"],
)
def test_a_loss_is_minus_the_evidence_of_the_dataset_per_example(objective: Callable[[nn.Module], Objective]) -> None:
    for program in (Hierarchy(X), SharedMean(6).at(X)):
        loss = objective(program).loss(X)
        torch.testing.assert_close(loss, -program.log_evidence(X) / 6, atol=1e-9, rtol=0)


def test_beta_weighs_shared_sites_as_it_does_local_ones() -> None:
    program = Hierarchy(X)
    for beta in (0.0, 0.3):
        objective = ImportanceWeighted(program, elbo, 1, beta=beta)
        torch.manual_seed(5)
        loss = objective.loss(X)
        torch.manual_seed(5)
        drawn = terms(program, X)
        assert drawn.shared is not None
        divergence = (drawn.posterior - drawn.prior).sum() + drawn.shared.posterior - drawn.shared.prior
        torch.testing.assert_close(loss, (-(drawn.likelihood.sum() - beta * divergence) / 6).squeeze())


def test_an_observation_that_all_examples_share_counts_once() -> None:
    def model(x: Tensor) -> None:
        t = pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("y", dist.Normal(t, 0.5).expand([2]).to_event(1), obs=x.new_tensor([0.7, 0.1]))
        with pyro.plate("data", 6, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(t, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("t", dist.Normal(x.new_zeros(()), 0.8))

    t = torch.tensor([-0.4, 0.9], dtype=torch.float64)
    log_y = dist.Normal(t.unsqueeze(1), 0.5).log_prob(X.new_tensor([0.7, 0.1])).sum(1)
    expected = 2 * dist.Normal(t.unsqueeze(1), 1.0).log_prob(X[:3]).sum(1) + log_y + dist.Normal(0.0, 1.0).log_prob(t)
    log_q = dist.Normal(0.0, 0.8).log_prob(t)
    found = terms(Pair(model, guide), X[:3], latents={"t": t})
    torch.testing.assert_close(found.log_weights, (expected - log_q).unsqueeze(1))


def test_a_plate_of_shared_sites_is_summed_and_not_scaled() -> None:
    def weights(x: Tensor, scale: float) -> Tensor:
        with pyro.plate("features", 3):
            return pyro.sample("w", dist.Normal(x.new_zeros(()), scale))

    def model(x: Tensor) -> None:
        w = weights(x, 1.0)
        with pyro.plate("data", 6, subsample_size=len(x)):
            pyro.sample("x", dist.Normal(w.sum(), 1.0), obs=x)

    w = torch.tensor([[0.1, -0.7, 0.4], [1.0, 0.0, 0.2]], dtype=torch.float64)
    scored = terms(Pair(model, lambda x: weights(x, 0.6)), X[:2], latents={"w": w})
    expected = 3 * dist.Normal(w.sum(1, keepdim=True), 1.0).log_prob(X[:2]).sum(1)
    expected = expected + (dist.Normal(0.0, 1.0).log_prob(w) - dist.Normal(0.0, 0.6).log_prob(w)).sum(1)
    torch.testing.assert_close(scored.log_weights, expected.unsqueeze(1))


def test_reparameterised_draws_have_no_score_whether_shared_or_local() -> None:
    """They carry their gradient themselves; a score besides would count it twice."""
    drawn = terms(Hierarchy(X), X, particles=2)
    assert drawn.log_scores.tolist() == [[0.0], [0.0]]
    assert not drawn.log_scores.requires_grad


@pytest.mark.parametrize(
    "objective",
    [lambda program: SVI(program), lambda program: ImportanceWeighted(program, elbo, 1)],
    ids=["svi", "importance weighted"],
)
def test_the_gradient_of_a_shared_draw_goes_through_the_draw_alone(objective: Callable[[nn.Module], Objective]) -> None:
    """Of a mean drawn by N(m + e, 1/13) beside its posterior N(m, 1/13): 13 (e + draw) in the dataset's nats."""
    x = torch.cat([X, X])
    program = SharedMean(12, error=0.1).at(x)
    torch.manual_seed(2)
    (gradient,) = torch.autograd.grad(objective(program).loss(x), program.error)
    torch.manual_seed(2)
    expected = 13 * (0.1 + torch.randn((), dtype=torch.float64) * 13**-0.5) / 12
    torch.testing.assert_close(gradient, expected)


def test_gradients_through_the_draws_alone_follow_shared_ones() -> None:
    """With log q held still, a weight's slope in its own draw is -13 e whatever the draw, in the dataset's nats.

    So that of the ELBO has no noise, and the doubly reparameterised one is Σ w² of it.
    """
    x = torch.cat([X, X])
    program = SharedMean(12, error=0.1).at(x)
    torch.manual_seed(2)
    weights = terms(program, x, 3).log_weights.detach().softmax(0)
    for bound, gradient, factor in (
        (elbo, Gradient.STICKING_THE_LANDING, torch.ones((), dtype=torch.float64)),
        (iwae, Gradient.DOUBLY_REPARAMETERISED, weights.square().sum()),
    ):
        torch.manual_seed(2)
        loss = ImportanceWeighted(program, bound, 3, gradient=gradient).loss(x)
        (found,) = torch.autograd.grad(loss, program.error)
        torch.testing.assert_close(found, 13 * 0.1 / 12 * factor)


def test_a_noisy_guide_of_a_shared_site_is_not_scored_by_a_second_run() -> None:
    class Noisy(SharedMean):
        def guide(self, x: Tensor) -> None:
            noise = torch.rand((), dtype=torch.float64)
            pyro.sample("mean", dist.Normal(self.total * noise + self.error, 0.5))

    program = Noisy(6).at(X)
    ImportanceWeighted(program, elbo, 2).check(X)
    with pytest.raises(ProgramError, match="the guide has noise of its own"):
        ImportanceWeighted(program, elbo, 2, gradient=Gradient.STICKING_THE_LANDING).check(X)


def test_a_shared_plate_that_takes_a_part_at_random_is_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("features", 3, subsample_size=2):
            w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w.sum(), 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("features", 3, subsample_size=2):
            pyro.sample("w", dist.Normal(x.new_zeros(()), 0.6))

    with pytest.raises(ProgramError, match="'features' takes 2 of 3 at random"):
        terms(Pair(model, guide), X)


class GivenBernoulli(dist.Bernoulli):
    """Draws the given value, so that an expectation can be summed draw by draw."""

    def __init__(self, logits: Tensor, value: Tensor) -> None:
        super().__init__(logits=logits)
        self.value = value

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "GivenBernoulli":
        assert tuple(batch_shape) == self.batch_shape
        return self

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        return self.value


class Switches(nn.Module):
    """s ~ Bernoulli for all, k_n ~ Bernoulli for each, x_n ~ N(s + 2 k_n, 1); the guide draws `values`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.shared = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.local = nn.Parameter(torch.tensor([-0.4, 0.9], dtype=torch.float64))
        self.values: dict[str, Tensor] = {}

    def model(self, x: Tensor) -> Tensor:
        s = pyro.sample("s", dist.Bernoulli(x.new_tensor(0.4)))
        with pyro.plate("data", self.size, subsample_size=len(x)):
            k = pyro.sample("k", dist.Bernoulli(x.new_full((len(x),), 0.7)))
            return pyro.sample("x", dist.Normal(s + 2 * k, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.sample("s", GivenBernoulli(self.shared, self.values["s"]))
        with pyro.plate("data", self.size, subsample_size=len(x)):
            pyro.sample("k", GivenBernoulli(self.local, self.values["k"]))


@pytest.mark.parametrize(
    "objective",
    [lambda program: SVI(program), lambda program: ImportanceWeighted(program, elbo, 1)],
    ids=["svi", "importance weighted"],
)
def test_the_score_gradient_of_shared_and_local_draws_is_that_of_the_expectation(
    objective: Callable[[nn.Module], Objective],
) -> None:
    """A sum over all eight draws, weighted by their probability: no noise, two of eight examples in the batch."""
    program, x = Switches(8), X[:2]
    found = [torch.zeros_like(parameter) for parameter in program.parameters()]
    expectation = torch.zeros((), dtype=torch.float64)
    for s, *k in itertools.product((0.0, 1.0), repeat=3):
        program.values = {"s": x.new_tensor(s), "k": x.new_tensor(k)}
        log_q = dist.Bernoulli(logits=program.local).log_prob(program.values["k"])
        log_q_s = dist.Bernoulli(logits=program.shared).log_prob(program.values["s"])
        log_p = dist.Bernoulli(x.new_tensor(0.7)).log_prob(program.values["k"])
        log_p = log_p + dist.Normal(s + 2 * program.values["k"], 1.0).log_prob(x)
        weight = (
            8 / 2 * (log_p - log_q).sum() + dist.Bernoulli(x.new_tensor(0.4)).log_prob(program.values["s"]) - log_q_s
        )
        probability = (log_q.sum() + log_q_s).exp()
        expectation = expectation - probability * weight / 8
        gradients = torch.autograd.grad(objective(program).loss(x), list(program.parameters()))
        found = [total + probability.detach() * each for total, each in zip(found, gradients, strict=True)]
    torch.testing.assert_close(tuple(found), torch.autograd.grad(expectation, list(program.parameters())))


def test_the_evidence_of_a_dataset_is_one_number_however_it_is_cut() -> None:
    program = Hierarchy(X)
    for batches in (X, list(X.split(4))):
        found = evaluate(program, batches, {"iwae": importance(3), "elbo": importance(3, elbo)})
        for name in ("iwae", "elbo"):
            torch.testing.assert_close(found.log_prob[name], program.log_evidence(X).detach().reshape(1))
        assert not found.per_example


def test_the_evidence_of_a_dataset_is_of_all_of_it() -> None:
    program = SharedMean(6).at(X)
    found = evaluate(program, list(X.split(4)), {"iwae": importance(3)})
    torch.testing.assert_close(found.log_prob["iwae"], program.log_evidence(X).reshape(1))
    for part in ([X[:2], X[2:4]], [X[:4], X]):
        with pytest.raises(
            ProgramError, match=r"shares sites between the 6 examples of its dataset, and \d+ were given"
        ):
            evaluate(program, part, {"iwae": importance(3)})
