"""A step follows its parameters, keeps them finite, and refuses by name what it can not use."""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import (
    SVI,
    Adversarial,
    ImportanceWeighted,
    NonFinite,
    Objective,
    Pair,
    Player,
    ProgramError,
    Step,
    Traced,
    Validation,
    adam,
    fit,
    non_saturating,
)
from inference.training.average import Average
from inference.training.differentiate import Differentiate, backward
from inference.training.weights import Weights, norm_of
from tests.problems import LinearGaussian

X = LinearGaussian.data(16)


def _sgd(lr: float = 0.01, momentum: float = 0.0) -> Callable[[list[nn.Parameter]], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=momentum)


class Means(nn.Module):
    """One parameter a column, as many as there are columns: x[:, t] ~ N(m_t, 1)."""

    def guide(self, x: Tensor) -> None: ...

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                mean = pyro.param(f"m{t}", torch.tensor(0.0))
                pyro.sample(f"x{t}", dist.Normal(mean, 1.0), obs=x[:, t])


class Layers(nn.Module):
    """x ~ N(second(first), 1), of which tests freeze, replace and mend parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([1.0, -1.0]))
        self.second = nn.Linear(2, 1)

    def guide(self, x: Tensor) -> None: ...

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.second(self.first).expand(len(x)), 1.0), obs=x)


DIFFERENTIATE = pytest.mark.parametrize("make", [lambda: backward, Traced], ids=["backward", "traced"])


@DIFFERENTIATE
def test_parameters_of_a_later_longer_batch_are_trained(make: Callable[[], Differentiate]) -> None:
    batches = [torch.full((20, 2), 3.0), torch.full((20, 4), 3.0)]
    means = Means()
    program = Pair(means.model)
    step = Step(SVI(program), adam(0.1), average=0.9, differentiate=make())
    fit(step, batches, 300, progress=False)
    assert [round(value.item(), 1) for value in program.adopted.values()] == [3.0] * 4
    assert step.average is not None
    assert step.average.state.keys() == program.state_dict().keys()
    assert float(step.average.state["adopted.m3"]) == pytest.approx(3.0, abs=0.1)


@DIFFERENTIATE
def test_what_is_unfrozen_is_trained_and_what_is_frozen_stays(make: Callable[[], Differentiate]) -> None:
    program, x = Layers(), torch.randn(8) + 5
    program.first.requires_grad_(False)
    step = Step(SVI(program), _sgd(0.1, momentum=0.9), differentiate=make())
    first, second = program.first.clone(), program.second.weight.clone()
    for _ in range(3):
        step(x)
    assert program.first.equal(first)
    assert not program.second.weight.equal(second)
    program.first.requires_grad_(True)
    program.second.requires_grad_(False)
    second = program.second.weight.detach().clone()
    for _ in range(3):
        step(x)
    assert not program.first.equal(first)
    assert program.second.weight.equal(second)


def test_new_parameters_leave_the_optimizers_state_of_others() -> None:
    program, x = Layers(), torch.randn(8) + 5
    program.first.requires_grad_(False)
    step = Step(SVI(program), adam(0.1))
    step(x)
    step(x)
    weight = program.second.weight
    program.first.requires_grad_(True)
    step(x)
    optimizer = step.optimizers["loss"]
    assert [float(optimizer.state[each]["step"]) for each in (weight, program.first)] == [3.0, 1.0]
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.1]


@DIFFERENTIATE
def test_a_parameter_that_takes_anothers_place_is_trained(make: Callable[[], Differentiate]) -> None:
    program, x = Layers(), torch.randn(8) + 5
    step = Step(SVI(program), _sgd(0.1), average=0.5, differentiate=make())
    step(x)
    program.first = nn.Parameter(torch.tensor([0.5, 0.5, 0.5]))
    program.second = nn.Linear(3, 1)
    before = program.first.detach().clone()
    for _ in range(3):
        step(x)
    assert not program.first.equal(before)
    assert step.average is not None
    assert step.average.state["first"].shape == (3,)


def test_a_schedule_reaches_parameters_that_came_later() -> None:
    program, x = Layers(), torch.randn(8) + 5
    program.first.requires_grad_(False)
    step = Step(SVI(program), _sgd(0.1), learning_rate=lambda count: 0.5**count)
    step(x)
    program.first.requires_grad_(True)
    step(x)
    step(x)
    assert [group["lr"] for group in step.optimizers["loss"].param_groups] == pytest.approx([0.025, 0.025])


def _training(step: Step, steps: int) -> list[dict[str, float]]:
    validation = Validation(X[:8], every=5)
    batches = lambda count: X[count % 2 :: 2]  # noqa: E731
    history = fit(step, batches, steps, validation=validation, record_every=5, progress=False).history
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


@pytest.mark.parametrize("average", [None, 0.9])
def test_two_halves_are_the_whole_with_validation_and_average(average: float | None) -> None:
    parts, whole = (Step(SVI(LinearGaussian(error=0.5)), adam(0.05), average=average) for _ in range(2))
    rows = _training(parts, 10) + _training(parts, 10)
    expected = _training(whole, 20)
    assert [row for row in rows if row["step"] != 11.0] == expected  # a run also records its first step
    for step in (parts, whole):  # from what they left in the program, to the raw weights
        step(X)
    raw = [step.objective.program.state_dict() for step in (parts, whole)]
    assert all(value.equal(raw[1][name]) for name, value in raw[0].items())
    if average is not None:
        assert parts.average is not None
        assert whole.average is not None
        assert all(value.equal(whole.average.state[name]) for name, value in parts.average.state.items())


def test_fit_ends_with_the_averaged_weights_and_goes_on_from_the_raw_ones() -> None:
    plain, averaged = (Step(SVI(LinearGaussian(error=0.5)), _sgd(), average=average) for average in (None, 0.9))
    for step in (plain, averaged):
        fit(step, X, 10, progress=False)
    assert averaged.average is not None
    ends = averaged.objective.program.state_dict()
    assert all(value.equal(averaged.average.state[name]) for name, value in ends.items())
    assert not ends["offset"].equal(plain.objective.program.offset)
    for step in (plain, averaged):
        fit(step, X, 5, progress=False)
    with torch.no_grad():
        averaged.take_back()
    assert averaged.objective.program.offset.equal(plain.objective.program.offset)


def test_weights_that_are_given_between_two_runs_count() -> None:
    program = LinearGaussian(error=0.5)
    step = Step(SVI(program), _sgd(1e-9), average=0.9)
    fit(step, X, 10, progress=False)
    with torch.no_grad():
        program.offset.fill_(7.0)
    step(X)
    torch.testing.assert_close(program.offset.data, torch.full_like(program.offset, 7.0))


class Bad(torch.optim.SGD):
    """Moves finely twice, and then to where there are no numbers."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.moves = getattr(self, "moves", 0) + 1
        super().step()
        if self.moves == 3:
            with torch.no_grad():
                self.param_groups[0]["params"][-1].fill_(math.nan)


@pytest.mark.parametrize("steps", [3, 10])
@DIFFERENTIATE
def test_an_optimizer_that_leaves_the_numbers_is_undone(make: Callable[[], Differentiate], steps: int) -> None:
    programs = [LinearGaussian(error=0.5) for _ in range(2)]
    fit(Step(SVI(programs[0]), _sgd(), average=0.9, differentiate=make()), X, 2, progress=False)
    step = Step(SVI(programs[1]), lambda p: Bad(p, lr=0.01), average=0.9, differentiate=make())
    with pytest.raises(NonFinite, match=r"at step 2.*those from before the step"):
        fit(step, X, steps, progress=False)
    assert step.average is not None
    reference = Step(SVI(LinearGaussian(error=0.5)), _sgd(), differentiate=make())
    for _ in range(2):
        reference(X)
    expected = reference.objective.program.state_dict()
    assert all(value.equal(expected[name]) for name, value in programs[1].state_dict().items())
    assert all(value.isfinite().all() for value in step.average.state.values())
    assert step.count == 2


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": _sgd(1e308)},
        {"optimizer": _sgd(1.0), "learning_rate": lambda count: 1e300 if count == 1 else 0.01},
        {"optimizer": adam(1e308)},
    ],
)
@pytest.mark.parametrize("steps", [2, 5])
def test_a_rate_beyond_all_numbers_leaves_finite_weights(options: dict[str, object], steps: int) -> None:
    class Single(Layers):
        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):  # far weights may well have finite losses
                pyro.sample("x", dist.Normal(self.second(self.first).tanh().expand(len(x)), 1.0), obs=x)

    program = Single()
    with pytest.raises(NonFinite):
        fit(Step(SVI(program), **options), torch.randn(8), steps, progress=False)  # type: ignore[arg-type]
    assert all(value.isfinite().all() for value in program.parameters())


def test_a_player_that_fails_undoes_the_step_of_those_before_it() -> None:
    class Two(Objective):
        def __init__(self) -> None:
            super().__init__(LinearGaussian())
            self.first, self.second = (nn.Parameter(torch.tensor(1.0)) for _ in range(2))

        def players(self) -> dict[str, Player]:
            return {
                "first": Player([self.first], lambda batch: self.first.square()),
                "second": Player([self.second], lambda batch: self.second / (self.first - self.first)),
            }

        def check(self, batch: Tensor) -> None: ...

    objective = Two()
    with pytest.raises(NonFinite, match="player 'second'"):
        Step(objective)(X)
    assert objective.first.item() == 1.0


@pytest.mark.parametrize("clip", [0, 0.0, -1.0, math.nan])
def test_a_clip_that_is_none_is_refused(clip: float) -> None:
    with pytest.raises(ProgramError, match="clip: expected a norm above 0"):
        Step(SVI(LinearGaussian()), clip=clip)


@pytest.mark.parametrize("lr", [math.nan, math.inf, -1.0, None, "0.1"])
def test_adam_takes_numbers(lr: object) -> None:
    with pytest.raises(ProgramError, match="adam: expected lr to be at least 0"):
        adam(lr)  # type: ignore[arg-type]
    with pytest.raises(ProgramError, match=r"expected betas\[1\] to be at least 0 and below 1"):
        adam(betas=(0.9, 1.0))


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, None, "1"])
def test_schedules_that_give_no_factor_are_stopped_before_weights_move(value: object) -> None:
    def late(count: int) -> object:
        return value if count == 2 else 1.0

    class NormalMean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(()))

        def guide(self, x: Tensor) -> None: ...

        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(self.mean, 1.0).expand([len(x)]), obs=x)

    def critic() -> nn.Module:
        class Critic(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(()))

            def forward(self, x: Tensor) -> Tensor:
                return self.weight * x

        return Critic()

    x = torch.randn(8)
    steps = {
        "learning_rate": Step(SVI(NormalMean()), _sgd(), learning_rate=late),  # type: ignore[arg-type]
        "beta": Step(ImportanceWeighted(NormalMean(), beta=late), _sgd()),  # type: ignore[arg-type]
        "anneal": Step(Adversarial(NormalMean(), critic(), non_saturating, compare=("x",), anneal=late), _sgd()),  # type: ignore[arg-type]
    }
    for name, step in steps.items():
        step(x)
        step(x)
        before = step.objective.program.mean.clone()
        with pytest.raises(ProgramError, match=f"{name}: expected a finite number of at least 0, got .* at step 2"):
            step(x)
        assert step.objective.program.mean.equal(before)


def test_a_class_of_torchs_is_a_function_that_makes_one() -> None:
    Step(SVI(LinearGaussian()), torch.optim.Adam)(X)
    for wrong in (torch.optim.LBFGS, lambda parameters: None):
        with pytest.raises(ProgramError, match=r"expected a torch.optim.Optimizer that takes one gradient a step"):
            Step(SVI(LinearGaussian()), wrong)(X)  # type: ignore[arg-type]
    with pytest.raises(ProgramError, match=r"there are no players \['critic'\], only \['loss'\]"):
        Step(SVI(LinearGaussian()), {"loss": adam(), "critic": adam()})(X)
    with pytest.raises(ProgramError, match=r"learning_rate: expected a factor as a function of the step, got 0\.1"):
        Step(SVI(LinearGaussian()), learning_rate=0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("turns", [0, -1, 1.5])
def test_a_player_has_whole_turns(turns: float) -> None:
    class Idle(SVI):
        def players(self) -> dict[str, Player]:
            return {"loss": super().players()["loss"]._replace(turns=turns)}  # type: ignore[arg-type]

    with pytest.raises(ProgramError, match=f"'loss' has {turns} turns a step"):
        Step(Idle(LinearGaussian()))(X)


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_steps_without_gradients_are_refused_with_the_cause(without: Callable[[], object]) -> None:
    step = Step(SVI(LinearGaussian()))
    for _ in range(2):
        with without(), pytest.raises(ProgramError, match="a step needs gradients"):  # type: ignore[attr-defined]
            fit(step, X, 1, progress=False)
        step(X)
    with torch.inference_mode():
        made = X.clone()
    with pytest.raises(ProgramError, match=r"made under torch.inference_mode\(\).*Clone it"):
        step(made)


def test_the_norm_is_torchs_to_the_bit_and_the_check_sees_every_entry() -> None:
    tensors = [torch.randn(3, 4), torch.randn(5), torch.randn(())]
    assert norm_of(tensors).equal(nn.utils.get_total_norm(tensors))
    assert float(norm_of([])) == 0.0
    for bad in (math.nan, math.inf, -math.inf):
        parameters = [nn.Parameter(each.clone()) for each in tensors]
        weights = Weights(parameters)
        assert weights.are_finite()
        with torch.no_grad():
            parameters[0][1, 2] = bad
        assert not weights.are_finite()
        weights.put_back()
        assert parameters[0].equal(tensors[0])
    assert Weights([nn.Parameter(torch.full((9,), 60000.0, dtype=torch.float16))]).are_finite()


def test_the_average_copies_what_is_no_weight() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6))
    average = Average(layer, 0.99)
    for _ in range(30):
        layer(torch.randn(4, 6))
        with torch.no_grad():
            layer.parametrizations.weight.original.add_(0.3 * torch.randn(6, 6))
        average.update()
    layer(torch.randn(4, 6))
    average.update()
    for name, value in layer.named_buffers():
        assert average.state[name].equal(value)
    with average.applied():
        layer.eval()
        assert float(torch.linalg.matrix_norm(layer.weight.detach(), 2)) < 1.5
