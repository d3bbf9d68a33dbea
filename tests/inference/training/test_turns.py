"""A step's noise, schedule, average and optimizers, in objectives so small that every number is known."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from inference import SVI, NonFinite, Objective, Player, Step, Traced, adam
from inference.training.differentiate import Differentiate, backward
from tests.problems import LinearGaussian

X = LinearGaussian.data(4)


def _sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


class Counted(LinearGaussian):
    """A program with a weight that its player moves by -1 in every turn."""

    def __init__(self) -> None:
        super().__init__()
        self.count = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))


class Counting(Objective):
    """Players that each draw one number in a turn, and pull the count down by one."""

    def __init__(self, *turns: int) -> None:
        super().__init__(Counted())
        self.turns = turns
        self.drawn: dict[str, list[float]] = {f"player {index}": [] for index in range(len(turns))}

    def players(self) -> dict[str, Player]:
        def loss_of(name: str) -> Callable[[Tensor], Tensor]:
            def loss(batch: Tensor) -> Tensor:
                self.drawn[name].append(float(torch.rand(())))
                return self.program.count * 1.0

            return loss

        return {
            name: Player([self.program.count], loss_of(name), turns)
            for name, turns in zip(self.drawn, self.turns, strict=True)
        }

    def check(self, batch: Tensor) -> None: ...


def _drawn(seed: int = 0) -> list[float]:
    objective = Counting(2, 1)
    step = Step(objective, _sgd, seed)
    for _ in range(3):
        step(X)
    return [number for name in objective.drawn for number in objective.drawn[name]]


def test_no_two_turns_share_their_noise() -> None:
    """Three steps of two turns of one player and one of another, under two seeds: 18 different numbers."""
    numbers = [*_drawn(seed=0), *_drawn(seed=1)]
    assert len(set(numbers)) == len(numbers) == 18


def test_processes_that_train_together_have_noise_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = _drawn()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    found = []
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        found.append(_drawn())
    assert found[0] == alone
    assert not set(found[0]) & set(found[1])


def test_the_average_takes_in_every_step() -> None:
    """The weight is -1, -2, … after each step; the decay is the one asked for once it is the smaller."""
    step = Step(Counting(1), _sgd, average=0.4)
    expected = 0.0
    for count in range(8):
        step(X)
        decay = min(0.4, (1 + count) / (10 + count))
        expected = decay * expected - (1 - decay) * (count + 1)
        with step.averaged():
            assert step.objective.program.count.item() == pytest.approx(expected)
        assert step.objective.program.count.item() == -(count + 1)


@pytest.mark.parametrize("decay", [1.0, -0.1, 1.5])
def test_a_decay_that_averages_nothing_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="average: expected a number of at least 0 and below 1"):
        Step(Counting(1), _sgd, average=decay)(X)


def test_every_turn_has_a_gradient_of_its_own() -> None:
    """A gradient that was not cleared would add up: -1, -2, -3 in place of -1 three times."""
    step = Step(Counting(3), _sgd)
    assert step(X)["player 0/gradient"].item() == 1.0
    assert step.objective.program.count.item() == -3.0


@pytest.mark.parametrize("constant", [math.inf, -math.inf, math.nan])
def test_a_loss_that_is_not_finite_moves_nothing_though_its_gradient_is(constant: float) -> None:
    class Shifted(Counting):
        def players(self) -> dict[str, Player]:
            return {"loss": Player([self.program.count], lambda batch: self.program.count + constant)}

    step = Step(Shifted(), _sgd, average=0.4)
    with pytest.raises(NonFinite, match="of player 'loss'"):
        step(X)
    assert step.objective.program.count.item() == 0.0
    with step.averaged():
        assert step.objective.program.count.item() == 0.0


class Scheduled(Objective):
    """A loss whose slope is its step's number, by a buffer."""

    rate: Tensor

    def __init__(self) -> None:
        super().__init__(Counted())
        self.register_buffer("rate", torch.tensor(-1.0, dtype=torch.float64))
        self.checked: list[float] = []

    def players(self) -> dict[str, Player]:
        return {"loss": Player([self.program.count], self.loss)}

    def loss(self, batch: Tensor) -> Tensor:
        return self.program.count * self.rate

    def schedule(self, step: int) -> None:
        self.rate.fill_(float(step + 1))

    def check(self, batch: Tensor) -> None:
        self.checked.append(self.rate.item())


@pytest.mark.parametrize("differentiate", [backward, Traced()])
def test_a_schedule_is_set_before_the_check_and_at_every_step(differentiate: Differentiate) -> None:
    objective = Scheduled()
    step = Step(objective, _sgd, differentiate=differentiate)
    for _ in range(3):
        step(X)
    assert objective.checked == [1.0]
    assert objective.program.count.item() == -(1 + 2 + 3)


def test_adam_is_told_all_that_it_is_given() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = adam(0.3, betas=(0.5, 0.7), eps=0.1)([weight])
    assert {key: optimizer.defaults[key] for key in ("lr", "betas", "eps")} == {
        "lr": 0.3,
        "betas": (0.5, 0.7),
        "eps": 0.1,
    }


def test_a_step_leaves_the_callers_noise_alone_from_its_first_call() -> None:
    for call in (lambda step: step.prepare(X), lambda step: step(X), lambda step: step.monitor(X)):
        torch.manual_seed(9)
        state = torch.get_rng_state()
        call(Step(SVI(LinearGaussian(error=0.3))))
        assert torch.equal(torch.get_rng_state(), state)


def test_a_traced_step_follows_the_shape_and_the_type_of_its_batch() -> None:
    """A graph is of one shape and type: another is traced anew, and the numbers are those of the eager step."""
    losses = []
    for differentiate in (backward, Traced()):
        step = Step(SVI(LinearGaussian(error=0.3)), adam(0.01), differentiate=differentiate)
        losses.append([step(batch)["loss"].item() for batch in (X, X[:3], X, X.float())])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
