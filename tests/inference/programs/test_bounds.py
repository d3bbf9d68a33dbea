"""Bounds and their gradients, against exact answers and enumeration."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import (
    Gradient,
    ImportanceWeighted,
    ProgramError,
    elbo,
    evaluate,
    importance,
    iwae,
    renyi,
    terms,
)
from inference.programs.bounds import surrogate
from tests.problems import LinearGaussian, Mixture

X = LinearGaussian.data(6)


def test_every_bound_of_equal_weights_is_their_value() -> None:
    weights = torch.full((5, 2), -3.0, dtype=torch.float64)
    for bound in (elbo, iwae, renyi(0.5), renyi(2.0), renyi(-1.0)):
        torch.testing.assert_close(bound(weights), weights[0])


def test_renyi_bounds_decrease_in_alpha_and_meet_elbo_and_iwae() -> None:
    weights = torch.randn(50, 3, dtype=torch.float64)
    values = torch.stack([renyi(alpha)(weights) for alpha in (-1.0, 0.0, 0.5, 1.0, 2.0)])
    assert (values.diff(dim=0) < 0).all()
    assert renyi(1) == elbo
    assert renyi(0) == iwae
    torch.testing.assert_close(renyi(1.0 - 1e-7)(weights), elbo(weights), atol=1e-5, rtol=0)
    torch.testing.assert_close(iwae(weights), weights.exp().mean(0).log())
    with pytest.raises(ValueError, match=r"alpha: expected a number that is finite, .*, got inf"):
        renyi(math.inf)


def test_the_elbo_at_the_exact_posterior_is_the_evidence_without_variance() -> None:
    for program, x in ((LinearGaussian(), X), (Mixture().exact(), Mixture.data())):
        weights = terms(program, x, particles=20).log_weights
        torch.testing.assert_close(weights, program.log_evidence(x).expand(20, -1), atol=1e-9, rtol=0)


def test_iwae_is_monotone_in_particles_and_near_the_evidence_at_a_thousand() -> None:
    # 400 repetitions of each bound. Measured against the evidence: -2.14 ± 0.07, -0.32 ± 0.02, -0.033 ± 0.005 nats, so
    # every inequality holds by more than six standard errors (false alarms < 1e-8).
    program = LinearGaussian(error=0.6)
    truth = program.log_evidence(X).mean()
    means = []
    for particles in (1, 4, 32):
        weights = terms(program, X, particles=400 * particles).log_weights.reshape(particles, 400, 6)
        means.append(iwae(weights).mean())
    assert means[0] + 0.1 < means[1]
    assert means[1] < means[2] < truth + 0.05
    found = evaluate(program, X, {"iwae": importance(1000)})
    assert (found.log_prob["iwae"] - program.log_evidence(X)).abs().max() < 0.1


def _gradient(value: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(value, parameters, allow_unused=True))


@pytest.mark.parametrize("particles", [1, 2, 5])
def test_discrete_gradients_of_the_elbo_match_enumeration(particles: int) -> None:
    # The mean of 40,000 draws against the exact gradient: six standard errors (p < 1e-8 over all entries).
    program, x = Mixture(), Mixture.data()
    parameters = [program.slope, program.intercept, program.loc, program.logits]
    expected = _gradient(program.elbo(x).sum(), parameters)
    total = [torch.zeros_like(p) for p in parameters]
    squares = [torch.zeros_like(p) for p in parameters]
    repeats = 40
    for _ in range(repeats):
        rows = x.repeat(1000)
        drawn = terms(program, rows, particles)
        found = _gradient(surrogate(elbo, drawn.log_weights, drawn.log_scores).sum() / 1000, parameters)
        for k, gradient in enumerate(found):
            total[k] += gradient / repeats
            squares[k] += gradient**2 / repeats
    for mean, square, truth in zip(total, squares, expected, strict=True):
        error = ((square - mean**2).clamp_min(1e-12) / (repeats - 1)).sqrt()
        assert ((mean - truth).abs() < 6.5 * error + 1e-3).all()


def test_discrete_gradients_of_iwae_match_enumeration_of_all_pairs() -> None:
    # K = 2: the exact bound sums over the 9 pairs of components, with their probability under the guide.
    program, x = Mixture(), Mixture.data(3)
    parameters = [program.slope, program.intercept, program.loc, program.logits]
    log_q, weights = program.log_guide(x), program.log_joint(x) - program.log_guide(x)
    pairs = torch.logaddexp(weights.unsqueeze(1), weights.unsqueeze(2)) - math.log(2)
    exact = ((log_q.unsqueeze(1) + log_q.unsqueeze(2)).exp() * pairs).sum()
    expected = _gradient(exact, parameters)
    rows = x.repeat(40_000)
    drawn = terms(program, rows, 2)
    found = _gradient(surrogate(iwae, drawn.log_weights, drawn.log_scores).sum() / 40_000, parameters)
    for gradient, truth in zip(found, expected, strict=True):
        # Six standard errors (0.013) of the noisiest entry; without the credit the guide's entries would be 0.
        torch.testing.assert_close(gradient, truth, atol=0.08, rtol=0)


def _loss_gradients(objective: ImportanceWeighted, x: Tensor, names: list[str]) -> list[Tensor]:
    chosen = dict(objective.program.named_parameters())
    return _gradient(objective.loss(x), [chosen[name] for name in names])


def test_sticking_the_landing_has_no_variance_at_the_exact_posterior() -> None:
    program = LinearGaussian()
    guide = ["gain", "offset", "tril"]
    sticking = ImportanceWeighted(program, elbo, 3, gradient=Gradient.STICKING_THE_LANDING)
    path = ImportanceWeighted(program, elbo, 3)
    assert (
        max(
            g.tril().abs().max() if g.dim() == 2 and g.shape[0] == g.shape[1] else g.abs().max()
            for g in _loss_gradients(sticking, X, guide)
        )
        < 1e-9
    )
    assert max(g.abs().max() for g in _loss_gradients(path, X, guide)) > 1e-2


@pytest.mark.parametrize(
    ("gradient", "bound"), [(Gradient.STICKING_THE_LANDING, elbo), (Gradient.DOUBLY_REPARAMETERISED, iwae)]
)
def test_other_gradients_agree_with_the_path_derivative_in_expectation(gradient: Gradient, bound) -> None:
    # 60,000 rows each; the tolerance is six standard errors (0.0115) of the noisiest difference, so false alarms are
    # rarer than 1e-7, and an error of a tenth in the largest entries (about 1 nat) is seen.
    program = LinearGaussian(error=0.3)
    rows = X[:2].repeat(30_000, 1)
    names = ["gain", "offset", "weight", "bias"]
    plain = _loss_gradients(ImportanceWeighted(program, bound, 4), rows, names)
    other = _loss_gradients(ImportanceWeighted(program, bound, 4, gradient=gradient), rows, names)
    for first, second in zip(plain, other, strict=True):
        torch.testing.assert_close(first, second, atol=0.07, rtol=0)


def test_doubly_reparameterised_keeps_its_signal_as_particles_grow() -> None:
    # Rainforth et al. 2018: the plain gradient's signal-to-noise falls as 1/sqrt(K), Tucker et al. 2019 mend it.
    program = LinearGaussian(error=0.5)

    def ratio(gradient: Gradient) -> float:
        draws = []
        for _ in range(60):
            objective = ImportanceWeighted(program, iwae, 64, gradient=gradient)
            draws.append(_loss_gradients(objective, X[:1], ["offset"])[0])
        sample = torch.stack(draws)
        return float((sample.mean(0).abs() / sample.std(0)).mean())

    assert ratio(Gradient.DOUBLY_REPARAMETERISED) > 2 * ratio(Gradient.PATH)


def test_sequential_draws_meet_the_doubly_reparameterised_weight_once() -> None:
    # z2's guide depends on z1: a hook on the guide's own draws would weigh z1's path twice.
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))
            self.second = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z1 = pyro.sample("z1", dist.Normal(x.new_zeros(()), 1.0))
                z2 = pyro.sample("z2", dist.Normal(z1, 0.8))
                pyro.sample("x", dist.Normal(z2, 0.5), obs=x)

        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                z1 = pyro.sample("z1", dist.Normal(self.first * x, 0.9))
                pyro.sample("z2", dist.Normal(self.second * (x + z1) / 2, 0.6))

    program = Chain()
    rows = torch.tensor([0.8, -0.5], dtype=torch.float64).repeat(60_000)
    for bound, gradient in ((iwae, Gradient.DOUBLY_REPARAMETERISED), (elbo, Gradient.STICKING_THE_LANDING)):
        plain = _loss_gradients(ImportanceWeighted(program, bound, 3), rows, ["first", "second"])
        other = _loss_gradients(ImportanceWeighted(program, bound, 3, gradient=gradient), rows, ["first", "second"])
        torch.testing.assert_close(plain, other, atol=0.03, rtol=0)  # six standard errors of the difference


def test_beta_weighs_the_divergence_in_training_alone_and_follows_the_step() -> None:
    program = LinearGaussian(error=0.2)
    objective = ImportanceWeighted(program, elbo, 1, beta=lambda step: 0.1 * step)
    objective.schedule(3)
    torch.manual_seed(5)
    loss = objective.loss(X)
    torch.manual_seed(5)
    drawn = terms(program, X)
    torch.testing.assert_close(-loss, (drawn.likelihood + 0.3 * (drawn.prior - drawn.posterior)).mean())
    assert "beta" not in objective.state_dict()


def test_gradients_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ProgramError, match="carry no gradient"):
        ImportanceWeighted(Mixture(), elbo, 2, gradient=Gradient.STICKING_THE_LANDING).loss(Mixture.data())
    with pytest.raises(ProgramError, match="derived for bound=iwae"):
        ImportanceWeighted(LinearGaussian(), elbo, 2, gradient=Gradient.DOUBLY_REPARAMETERISED)
    with pytest.raises(ProgramError, match="particles: expected a whole number of at least 1, got 0"):
        ImportanceWeighted(LinearGaussian(), particles=0)
    with pytest.raises(ProgramError, match="two particles"):
        ImportanceWeighted(Mixture(), iwae, 1).check(Mixture.data())


def test_a_noisy_guide_is_not_scored_by_a_second_run() -> None:
    class Noisy(LinearGaussian):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = torch.nn.Dropout(0.5)

        def guide(self, x: Tensor) -> None:
            super().guide(self.dropout(x))

    ImportanceWeighted(Noisy(), elbo, 2).check(X)
    with pytest.raises(ProgramError, match="the guide has noise of its own"):
        ImportanceWeighted(Noisy(), elbo, 2, gradient=Gradient.STICKING_THE_LANDING).check(X)


def test_particles_with_subsamples_of_their_own_are_refused() -> None:
    class Subsampled(LinearGaussian):
        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x), subsample_size=3) as rows:
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(z @ self.weight.T + self.bias, 0.7).to_event(1), obs=x[rows])

        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x), subsample_size=3) as rows:
                loc = (x[rows] - self.bias) @ self.gain.T + self.offset
                pyro.sample("z", dist.MultivariateNormal(loc, scale_tril=self.tril.tril()))

    ImportanceWeighted(Subsampled(), elbo, 3).check(X)
    with pytest.raises(ProgramError, match="draws its own subsample of 3 from 6"):
        ImportanceWeighted(Subsampled(), iwae, 3).check(X)


def test_a_planar_flow_guide_is_scored_at_its_own_draws() -> None:
    flow = dist.transforms.Planar(2).double()

    class Flow(LinearGaussian):
        def guide(self, x: Tensor) -> None:
            loc = (x - self.bias) @ self.gain.T
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.TransformedDistribution(dist.Normal(loc, 0.5).to_event(1), [flow]))

    assert terms(Flow(), X, 4).log_weights.isfinite().all()
