"""The arguments of Adversarial, one by one, where critic and draws are so plain that every loss is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import (
    Adversarial,
    Divergence,
    ProgramError,
    Step,
    both,
    gradient_penalty,
    kl,
    non_saturating,
    plug_in_kl,
    r1,
    r2,
    wasserstein,
)
from inference.objectives.adversarial.penalties import Penalty
from ppmodels.distributions import Implicit

X = torch.tensor([[0.5], [-1.0], [2.0], [1.5]], dtype=torch.float64)


class Fixed(nn.Module):
    """Draws 3 w for every example: a generator without noise."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("x", Implicit(lambda: 3 * self.weight * torch.ones_like(x), (len(x),), (1,)), obs=x)

    def guide(self, x: Tensor) -> None: ...


class Square(nn.Module):
    """T = a x², whose gradient is 2 a x; and how often it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x.square().squeeze(1)


def _prepared(**options: object) -> Adversarial:
    objective = Adversarial(Fixed(), Square(), **options)
    objective.prepare(X)
    return objective


ON_DATA = float((0.2 * X).square().mean())
ON_DRAWS = 0.6**2


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (r1(3.0), 1.5 * ON_DATA),
        (r2(3.0), 1.5 * ON_DRAWS),
        (both(r1(2.0), r2(4.0)), ON_DATA + 2 * ON_DRAWS),
        (r1(), 5 * ON_DATA),
        (r2(), 5 * ON_DRAWS),
    ],
    ids=["r1", "r2", "both", "r1 by default", "r2 by default"],
)
def test_a_penalty_is_added_to_the_critics_loss_on_its_own_samples(penalty: Penalty, expected: float) -> None:
    """Samples of q are data, those of p draws; the program's loss knows of none."""
    plain, penalised = _prepared(), _prepared(penalty=penalty)
    losses = [objective.critic_loss(X) for objective in (plain, penalised)]
    gradients = [
        torch.autograd.grad(loss, objective.critic.slope)[0]
        for loss, objective in zip(losses, (plain, penalised), strict=True)
    ]
    assert (losses[1] - losses[0]).item() == pytest.approx(expected)
    assert (gradients[1] - gradients[0]).item() == pytest.approx(2 * expected / 0.1)  # it has the slope squared
    torch.testing.assert_close(penalised.program_loss(X), plain.program_loss(X))


def test_a_penalty_is_annealed_by_the_step() -> None:
    objective = _prepared(penalty=r1(2.0), anneal=lambda step: 0.5**step)
    plain = _prepared().critic_loss(X).item()
    for step in (0, 1, 4):
        objective.schedule(step)
        assert objective.critic_loss(X).item() - plain == pytest.approx(0.5**step * ON_DATA)
    assert "_annealed" not in objective.state_dict()


def test_a_step_takes_the_penalty_of_its_own_count() -> None:
    """Nothing moves at a learning rate of 0, so the losses of three steps differ by the anneal alone."""
    still = lambda parameters: torch.optim.SGD(parameters, lr=0.0)  # noqa: E731
    step = Step(_prepared(penalty=r1(2.0), anneal=lambda count: 10.0 * (count + 1)), still)
    losses = [float(step(X)["critic"]) for _ in range(3)]
    plain = _prepared().critic_loss(X).item()
    assert losses == pytest.approx([plain + 10 * k * ON_DATA for k in (1, 2, 3)])


def test_a_gradient_penalty_pulls_the_norm_to_its_target() -> None:
    """On data that are the draws, every place between them is 3 w, where the norm is 0.6."""
    x = torch.full_like(X, 3.0)
    for options, expected in (({}, 10 * 0.4**2), ({"weight": 2.0, "norm": 0.0}, 2 * 0.6**2), ({"norm": 2.0}, 19.6)):
        plain, penalised = (
            Adversarial(Fixed(), Square()),
            Adversarial(Fixed(), Square(), penalty=gradient_penalty(**options)),
        )
        plain.prepare(x)
        penalised.prepare(x)
        assert (penalised.critic_loss(x) - plain.critic_loss(x)).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [
        (None, float(nn.functional.softplus(0.1 * X.square()).mean()) + math.log1p(math.exp(-0.9))),
        (kl, float(0.1 * X.square().mean()) - math.exp(0.9) + 1),
        (wasserstein, float(0.1 * X.square().mean()) - 0.9),
    ],
    ids=["by default", "kl", "wasserstein"],
)
def test_the_programs_loss_is_the_weighed_divergence(divergence: Divergence | None, expected: float) -> None:
    for weight, factor in ((None, 1.0), (0.0, 0.0), (2.5, 2.5)):
        objective = _prepared(divergence=divergence, weight=weight)
        assert objective.program_loss(X).item() == pytest.approx(factor * expected)


def test_each_player_moves_as_often_as_it_has_turns() -> None:
    objective = Adversarial(Fixed(), Square(), wasserstein, turns=3)
    rate = lambda parameters: torch.optim.SGD(parameters, lr=0.01)  # noqa: E731
    step = Step(objective, rate)
    step(X)
    # The critic's gradient is that of E_p x² - E_q x², whatever its slope; the program's is then taken at the moved slope.
    per_turn = 9 - float(X.square().mean())
    slope = 0.1 - 3 * 0.01 * per_turn
    assert objective.critic.slope.item() == pytest.approx(slope)
    assert objective.program.weight.item() == pytest.approx(1 + 0.01 * slope * 18)


class Simulator(nn.Module):
    """A shared mean and implicit observations."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def model(self, x: Tensor) -> Tensor:
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 2.0))
        with pyro.plate("data", 40, subsample_size=len(x)):
            return pyro.sample("x", Implicit(lambda: mean.expand(len(x), 1), (len(x),), (1,)), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.sample("mean", dist.Normal(self.loc, 0.1))


class Indifferent(nn.Module):
    """A critic that sees no difference."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def forward(self, x: Tensor, mean: Tensor) -> Tensor:
        return self.weight * (x.squeeze(1) + mean)


@pytest.mark.parametrize(("size", "divided"), [(None, 40), (10, 10)])
def test_shared_sites_are_divided_by_the_size_given_or_by_that_of_the_plate(size: int | None, divided: int) -> None:
    objective = Adversarial(Simulator(), Indifferent(), plug_in_kl, size=size)
    objective.prepare(X)
    torch.manual_seed(4)
    loss = objective.program_loss(X)
    torch.manual_seed(4)
    mean = 0.5 + 0.1 * torch.randn((), dtype=torch.float64)
    expected = dist.Normal(0.5, 0.1).log_prob(mean) - dist.Normal(0.0, 2.0).log_prob(mean)
    torch.testing.assert_close(loss.detach(), expected / divided)


def test_the_critic_is_given_the_same_shared_value_for_q_and_p() -> None:
    """And the simulator's draws are made at that value: here they are the value itself."""

    class Recording(Indifferent):
        def forward(self, x: Tensor, mean: Tensor) -> Tensor:
            given.append((x.detach(), mean.detach()))
            return super().forward(x, mean)

    given: list[tuple[Tensor, Tensor]] = []
    objective = Adversarial(Simulator(), Recording(), kl)
    objective.prepare(X)
    for loss in (objective.critic_loss, objective.program_loss):
        given.clear()
        loss(X)
        (q, of_q), (p, of_p) = given
        assert torch.equal(of_q, of_p)
        assert torch.equal(q, X)
        assert torch.equal(p, of_p.expand(4, 1))


class Coded(nn.Module):
    """z ~ N(0, 1), x ~ N(z, 1), and a guide N(m, 1) with a density."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            w = pyro.sample("w", dist.Normal(z, 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z + w, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x + self.shift, 0.5).to_event(1))
            pyro.sample("w", dist.Normal(x - self.shift, 0.7).to_event(1))


class OfZ(nn.Module):
    """T = 0.3."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def forward(self, z: Tensor) -> Tensor:
        return 0.3 + self.weight * z.squeeze(1)


def test_what_is_not_compared_keeps_log_p_and_log_q() -> None:
    """Of two latents one is compared: the other's densities and the likelihood are exact, per example."""
    program = Coded()
    objective = Adversarial(program, OfZ(), compare=("z",))
    objective.prepare(X)
    assert objective.divergence is plug_in_kl  # beside nats
    torch.manual_seed(4)
    loss = objective.program_loss(X)
    torch.manual_seed(4)
    z = X + 0.4 + 0.5 * torch.randn_like(X)
    w = X - 0.4 + 0.7 * torch.randn_like(X)
    exact = (
        dist.Normal(z, 1.0).log_prob(w) + dist.Normal(z + w, 1.0).log_prob(X) - dist.Normal(X - 0.4, 0.7).log_prob(w)
    )
    torch.testing.assert_close(loss.detach(), 0.3 - exact.mean())


def test_metrics_are_computed_in_evaluation_mode_and_on_the_right_samples() -> None:
    """T = 0.3 on q and p is a tie, and an e^0.3 too much in every ratio; x drawn 3 w is one point."""
    objective = Adversarial(Coded(), OfZ(), compare=("z",))
    objective.prepare(X)
    metrics = objective.monitor(X)
    assert float(metrics["critic/accuracy"]) == 0.5
    assert float(metrics["critic/calibration"]) == pytest.approx(0.3)
    draws = _prepared()
    metrics = draws.monitor(X)
    assert float(metrics["program/diversity"]) == 0.0  # of the draws over the data's, and not the other way round
    # T = 0.1 x² is 0.9 on the draws, and above it on none of the data.
    assert float(metrics["critic/accuracy"]) == 0.0
    assert float(metrics["critic/calibration"]) == pytest.approx(0.9)


class Joined(Fixed):
    """The same draws after a latent of which the guide has its own, so that x and z are compared together."""

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))
            return pyro.sample("x", Implicit(lambda: 3 * self.weight * torch.ones_like(x), (len(x),), (1,)), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0).to_event(1))


class OfBoth(Square):
    """T of x, and of z by name alone; z comes first."""

    def forward(self, z: Tensor, x: Tensor) -> Tensor:
        return super().forward(x) + 0 * z.squeeze(1)


def test_metrics_of_a_joint_comparison_are_of_the_data_and_penalties_of_all_of_it() -> None:
    objective = Adversarial(Joined(), OfBoth(), penalty=r1(2.0))
    plain = Adversarial(Joined(), OfBoth())
    for each in (objective, plain):
        each.prepare(X)
    assert float(objective.monitor(X)["program/diversity"]) == 0.0
    assert (objective.critic_loss(X) - plain.critic_loss(X)).item() == pytest.approx(ON_DATA)


def test_a_critic_that_estimates_no_ratio_gives_none() -> None:
    assert float(_prepared(divergence=non_saturating).log_ratio(X)[2]) == pytest.approx(0.4)
    with pytest.raises(ProgramError, match="no log ratio"):
        _prepared(divergence=wasserstein).log_ratio(X)


class Nervous(Square):
    """A critic with dropout: what it is asked in evaluation mode, it answers the same way twice."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.dropout(x))


def test_a_critic_is_asked_for_ratios_in_evaluation_mode_and_trained_in_its_own() -> None:
    objective = Adversarial(Fixed(), Nervous())
    objective.prepare(X)
    objective.train()
    torch.testing.assert_close(objective.log_ratio(X), 0.1 * X.square().squeeze(1))
    assert objective.critic.dropout.training
    losses = {objective.critic_loss(X).item() for _ in range(20)}
    assert len(losses) > 1


@pytest.mark.parametrize(
    ("options", "message"), [({"turns": 0}, "turns: expected .* got 0"), ({"size": 0}, "size: expected .* got 0")]
)
def test_turns_and_size_are_at_least_one(options: dict[str, int], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        Adversarial(Fixed(), Square(), **options)
