"""Adversarial inference: what is compared, whose parameters move, and cases whose answer is known."""

import copy
import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import ProgramError, Step, adam
from inference.objectives.adversarial.comparison import comparison
from inference.objectives.adversarial.divergences import (
    Divergence,
    hellinger,
    hinge,
    jensen_shannon,
    kl,
    least_squares,
    pearson,
    plug_in_kl,
    reverse_kl,
)
from inference.objectives.adversarial.joint_samples import p_samples, q_samples
from inference.objectives.adversarial.monitor import PATIENCE
from inference.objectives.adversarial.objective import Adversarial
from inference.objectives.adversarial.penalties import both, gradient_penalty, r1, r2
from ppmodels.distributions import Implicit


class Critic(nn.Module):
    """A critic of x alone."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).squeeze(1)


class Joint(nn.Module):
    """A critic of x and z."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.network(torch.cat((x, z), 1)).squeeze(1)


class OfCode(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(1, 1)

    def forward(self, z: Tensor) -> Tensor:
        return self.network(z).squeeze(1)


class LatentModel(nn.Module):
    """z ~ Normal(0, 1), x from it, and a guide; either with a density or without."""

    def __init__(self, implicit_x: bool = False, implicit_q: bool = False, guided: bool = True) -> None:
        super().__init__()
        self.generator = nn.Linear(1, 1)
        self.encoder = nn.Linear(1, 1) if guided else nn.Identity()
        self.implicit_x, self.implicit_q, self.guided = implicit_x, implicit_q, guided
        self.generated = 0

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            return pyro.sample("x", self.likelihood(z), obs=x)

    def likelihood(self, z: Tensor) -> object:
        self.generated += 1
        if self.implicit_x:
            return Implicit(lambda: self.generator(z), (len(z),), (1,))
        return dist.Normal(self.generator(z), 1.0).to_event(1)

    def guide(self, x: Tensor) -> None:
        if not self.guided:
            return
        with pyro.plate("data", len(x)):
            if self.implicit_q:
                pyro.sample("z", Implicit(lambda: self.encoder(x) + torch.randn_like(x), (len(x),), (1,)))
            else:
                pyro.sample("z", dist.Normal(self.encoder(x), 1.0).to_event(1))


X = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))

CASES: dict[str, tuple[LatentModel, nn.Module, dict[str, object], set[str], set[str]]] = {
    "GAN": (LatentModel(implicit_x=True, guided=False), Critic(), {}, {"x"}, set()),
    "ALI": (LatentModel(implicit_x=True), Joint(), {}, {"x", "z"}, set()),
    "ALI, implicit guide": (LatentModel(implicit_x=True, implicit_q=True), Joint(), {}, {"x", "z"}, set()),
    "AVB": (LatentModel(implicit_q=True), Joint(), {"divergence": plug_in_kl}, {"z"}, {"x"}),
    "adversarial autoencoder": (LatentModel(), OfCode(), {"divergence": plug_in_kl, "compare": ("z",)}, {"z"}, {"x"}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sites_say_what_is_compared(name: str) -> None:
    program, _, options, compared, exact = CASES[name]
    found = comparison(program, (X,), options.get("compare"))
    assert (set(found.compared), set(found.exact)) == (compared, exact)


@pytest.mark.parametrize("name", CASES)
def test_a_turn_moves_its_players_parameters_alone(name: str) -> None:
    program, critic, options, _, _ = CASES[name]
    objective = Adversarial(program, critic, **options)
    step = Step(objective, {"critic": adam(1e-2), "program": adam(1e-12)})
    step.prepare(X)
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    step(X)
    moved = {key for key, value in objective.state_dict().items() if not torch.allclose(value, before[key], atol=1e-9)}
    assert moved
    assert all(key.startswith("critic.") for key in moved)
    objective.zero_grad()
    objective.critic_loss(X).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in program.parameters())


@pytest.mark.parametrize("name", CASES)
def test_the_objective_runs_where_there_are_no_values(name: str) -> None:
    program, critic, options, _, _ = CASES[name]
    objective = Adversarial(program, critic, **options, penalty=both(r1(1.0), r2(1.0)))
    objective.prepare(X)
    there = copy.deepcopy(objective).to("meta")
    with pyro.validation_enabled(False):
        for player in there.players().values():
            loss = player.loss(X.to("meta"))
            loss.backward()
            assert loss.shape == ()
            assert all(parameter.grad is not None for parameter in player.parameters)


def test_observing_an_implicit_site_draws_nothing_and_samples_of_p_stop_at_what_they_need() -> None:
    program = CASES["AVB"][0]
    found = comparison(program, (X,), None)
    guide, q = q_samples(program, (X,), found)
    program.generated = 0
    p = p_samples(program, (X,), found, guide, q)
    assert program.generated == 0  # the decoder comes after z
    assert p["x"] is q["x"] is X
    assert p["z"].shape == q["z"].shape
    assert not torch.equal(p["z"], q["z"])


def test_a_simulator_is_not_run_for_a_loss_of_samples_of_q_alone() -> None:
    program = LatentModel(implicit_x=True)
    for divergence, runs in ((plug_in_kl, 0), (kl, 1)):
        objective = Adversarial(program, Joint(), divergence)
        objective.prepare(X)
        program.generated = 0
        objective.program_loss(X)
        assert (divergence.q_alone, program.generated) == (not runs, runs)
        objective.critic_loss(X)
        assert program.generated == runs + 1


def test_the_loss_of_the_program_is_exact_terms_and_divergence() -> None:
    """Of an adversarial autoencoder with a critic that says 0.3 everywhere: minus the mean log-likelihood, plus 2 · 0.3."""

    class Says(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.0))

        def forward(self, z: Tensor) -> Tensor:
            return 0.3 + self.weight * z.squeeze(1)

    program = LatentModel()
    objective = Adversarial(program, Says(), plug_in_kl, compare=("z",), weight=2.0)
    objective.prepare(X)
    torch.manual_seed(3)
    loss = objective.program_loss(X)
    torch.manual_seed(3)
    with torch.no_grad():
        z = program.encoder(X) + torch.randn(64, 1)
        expected = -dist.Normal(program.generator(z), 1.0).log_prob(X).mean() + 2.0 * 0.3
    torch.testing.assert_close(loss.detach(), expected)


def test_shared_sites_are_exact_and_divided_by_the_dataset() -> None:
    class Simulator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(0.5))

        def model(self, x: Tensor) -> Tensor:
            mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 2.0))
            with pyro.plate("data", 1000, subsample_size=len(x)):
                return pyro.sample("x", Implicit(lambda: mean + torch.randn(len(x), 1), (len(x),), (1,)), obs=x)

        def guide(self, x: Tensor) -> None:
            pyro.sample("mean", dist.Normal(self.loc, 0.1))

    class OfBoth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Linear(2, 1)

        def forward(self, x: Tensor, mean: Tensor) -> Tensor:
            return 0.0 * self.network(torch.cat((x, mean.expand(len(x), 1)), 1)).squeeze(1)

    objective = Adversarial(Simulator(), OfBoth(), plug_in_kl)
    objective.prepare(X)
    torch.manual_seed(4)
    loss = objective.program_loss(X)
    torch.manual_seed(4)
    mean = 0.5 + 0.1 * torch.randn(())
    expected = dist.Normal(0.5, 0.1).log_prob(mean) - dist.Normal(0.0, 2.0).log_prob(mean)
    torch.testing.assert_close(loss.detach(), expected / 1000)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adversarial(LatentModel(), Joint()), "every site has a density"),
        (lambda: Adversarial(LatentModel(implicit_x=True), Critic()), r"it lacks \['z'\]"),
        (lambda: Adversarial(LatentModel(implicit_x=True, guided=False), Joint()), r"\['z'\] is unknown"),
        (
            lambda: Adversarial(LatentModel(), OfCode(), plug_in_kl, compare=("zz",)),
            r"compare: expected names among.*'zz'",
        ),
        (lambda: Adversarial(LatentModel(), OfCode(), plug_in_kl, compare="z"), "as a tuple"),
        (lambda: Adversarial(LatentModel(implicit_q=True), Joint(), hinge), "not in nats.*weight="),
        (
            lambda: Adversarial(LatentModel(implicit_x=True, guided=False), Critic(), plug_in_kl),
            "gives no gradient to what",
        ),
        (
            lambda: Adversarial(LatentModel(implicit_x=True, implicit_q=True), OfCode(), compare=("z",)),
            "nothing fits them",
        ),
        (lambda: Adversarial(LatentModel(implicit_x=True, guided=False), lambda x: x), "expected an nn.Module"),
    ],
)
def test_what_does_not_go_together_is_refused(make: Callable[[], Adversarial], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        Step(make()).prepare(X)


def test_a_shared_site_without_a_density_is_refused() -> None:
    class Shared(LatentModel):
        def guide(self, x: Tensor) -> None:
            pyro.sample("mean", Implicit(lambda: self.encoder(x).mean(), (), ()))

        def model(self, x: Tensor) -> Tensor:
            mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("data", len(x)):
                return pyro.sample("x", Implicit(lambda: mean + torch.randn_like(x), (len(x),), (1,)), obs=x)

    with pytest.raises(ProgramError, match=r"\['mean'\] are shared by all examples and have no density"):
        Step(Adversarial(Shared(), Critic())).prepare(X)


def test_a_critic_gives_one_number_an_example() -> None:
    class Flat(Critic):
        def forward(self, x: Tensor) -> Tensor:
            return self.network(x)

    with pytest.raises(ProgramError, match=r"shape \(64,\), got \(64, 1\)"):
        Step(Adversarial(LatentModel(implicit_x=True, guided=False), Flat())).prepare(X)


def test_penalties_are_those_computed_by_hand() -> None:
    """T = (a · x)² / 2 has the gradient (a · x) a."""
    a = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)

    def critic(values: dict[str, Tensor]) -> Tensor:
        return (values["x"] @ a).square() / 2

    q, p = ({"x": torch.randn(9, 2, dtype=torch.float64)} for _ in range(2))
    for penalty, side in ((r1(3.0), q), (r2(3.0), p)):
        expected = 1.5 * ((side["x"] @ a).square() * a.square().sum()).mean()
        found = penalty(critic, q, p)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(*(torch.autograd.grad(each, a)[0] for each in (found, expected)))
    torch.manual_seed(1)
    found = gradient_penalty(10.0)(critic, q, p)
    torch.manual_seed(1)
    at = torch.rand(9, dtype=torch.float64).unsqueeze(1)
    between = p["x"] + at * (q["x"] - p["x"])  # one weight for each example
    norm = (between @ a).abs() * a.norm()
    torch.testing.assert_close(found, 10.0 * (norm - 1).square().mean())
    torch.testing.assert_close(both(r1(1.0), r2(2.0))(critic, q, p), r1(1.0)(critic, q, p) + r2(2.0)(critic, q, p))


def test_a_gradient_penalty_of_a_flat_critic_has_a_gradient() -> None:
    a = torch.zeros(2, requires_grad=True)
    q, p = ({"x": torch.randn(9, 2)} for _ in range(2))
    penalty = gradient_penalty(10.0)(lambda values: values["x"] @ a, q, p)
    assert float(penalty.detach()) == pytest.approx(10.0, rel=1e-4)
    assert torch.autograd.grad(penalty, a)[0].isfinite().all()


def test_metrics_of_a_guide_are_of_what_it_draws() -> None:
    """Codes that are all alike: the metric is their spread over the prior's; the collapse is warned of after a while."""
    program = LatentModel()
    torch.nn.init.zeros_(program.encoder.weight)
    program.guide = lambda x: _codes(x, 0.01)
    objective = Adversarial(program, OfCode(), plug_in_kl, compare=("z",))
    objective.prepare(X)
    metrics = objective.monitor(X)
    assert float(metrics["program/diversity"]) == pytest.approx(0.01, rel=0.5)
    assert float(metrics["program/precision"]) > 0.8
    for _ in range(PATIENCE - 2):
        objective.monitor(X)
    with pytest.warns(UserWarning, match="mode collapse"):
        objective.monitor(X)


def _codes(x: Tensor, scale: float) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(torch.zeros_like(x), scale).to_event(1))


def test_a_penalty_is_over_what_differs_between_q_and_p() -> None:
    given = torch.randn(5, 1)
    q, p = {"x": torch.randn(5, 1), "y": given}, {"x": torch.randn(5, 1), "y": given}
    found = r1(2.0)(lambda values: (3 * values["x"] + 100 * values["y"]).squeeze(1), q, p)
    assert float(found) == pytest.approx(9.0)


DIVERGENCES: dict[str, Divergence] = {
    "jensen_shannon": jensen_shannon,
    "kl": kl,
    "reverse_kl": reverse_kl,
    "hellinger": hellinger,
    "pearson": pearson,
    "least_squares": least_squares,
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_best_critic_is_the_stated_function_of_the_ratio(name: str) -> None:
    """At T* the critic's loss is stationary: tried on two discrete distributions, whose T is a free table."""
    divergence = DIVERGENCES[name]
    q, p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    table = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    # Counts in the right proportions, so that means over examples are the expectations.
    rows_q, rows_p = (torch.arange(3).repeat_interleave((10 * each).round().long()) for each in (q, p))
    optimizer = torch.optim.LBFGS([table], lr=0.5, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = divergence.critic(table[rows_q], table[rows_p])
        loss.backward()
        return loss

    optimizer.step(closure)
    assert divergence.log_ratio is not None
    torch.testing.assert_close(divergence.log_ratio(table.detach()), (q / p).log(), atol=1e-4, rtol=0)
    if name not in ("least_squares",):
        at_best = divergence.program(table[rows_q], table[rows_p]).detach()
        middle = (q + p) / 2
        known = {
            "jensen_shannon": (q * (q / middle).log() + p * (p / middle).log()).sum() - 2 * math.log(2),
            "kl": (q * (q / p).log()).sum(),
            "reverse_kl": (p * (p / q).log()).sum(),
            "hellinger": (q.sqrt() - p.sqrt()).square().sum(),
            "pearson": ((q - p).square() / p).sum(),
        }
        torch.testing.assert_close(at_best, known[name], atol=1e-6, rtol=0)
