"""What a program takes a batch for: other batches than the first are refused where they would be taken for the same."""

from collections.abc import Callable
from functools import partial
from itertools import cycle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions.transforms import affine_coupling
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoGuideList,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoNormalizingFlow,
)
from torch import Tensor, nn

from inference import SVI, Adversarial, Pair, ProgramError, Step, Traced, fit
from inference.programs.dataset import scope

X = torch.randn(24, generator=torch.Generator().manual_seed(0))
INDICES = torch.arange(24)
SHARED, BY_PLACE = "shared by all examples", "values for positions in a batch"


def shared(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 10.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def shared_of_24(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 10.0))
    with pyro.plate("data", 24, subsample_size=len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def multiplied(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 10.0))
    with pyro.plate("data", 4 * len(x), subsample_size=len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def local(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def local_of_24(x: Tensor, index: Tensor) -> None:
    with pyro.plate("data", 24, subsample=index):
        z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def by_place(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(len(x))), 1.0))


def by_index(x: Tensor, index: Tensor) -> None:
    with pyro.plate("data", 24, subsample=index):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(24), event_dim=0), 1.0))


def by_table(x: Tensor, index: Tensor) -> None:
    with pyro.plate("data", 24, subsample=index):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(24))[index], 1.0))


def one_for_all(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(pyro.param("loc", torch.zeros(())).expand(len(x)), 1.0))


class Amortised(nn.Module):
    """Two latents, the second by a tiny ReLU network of the first: few units, some of them dead."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Normal(x.new_zeros(len(x)), 1.0))
            z = pyro.sample("z", dist.Normal(y, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Normal(self.first(x.unsqueeze(1)).squeeze(1), 1.0))
            pyro.sample("z", dist.Normal(self.second(y.unsqueeze(1)).squeeze(1), 1.0))


class Parts(AutoGuideList):
    """An AutoGuide whose only part is amortised."""

    def __init__(self, model: Callable[..., object]) -> None:
        super().__init__(model)
        self.slope = nn.Parameter(torch.tensor(0.1))
        self.append(self.amortised)

    def amortised(self, x: Tensor) -> None:
        with self.plates["data"]:
            pyro.sample("z", dist.Normal(self.slope * x, 1.0))


def steps(program: nn.Module, batches: list[object], **options: object) -> Step:
    step = Step(SVI(program, options.pop("estimator", None)), **options)  # type: ignore[arg-type]
    fit(step, list(batches), len(batches), progress=False)  # type: ignore[arg-type]
    return step


PARTS = [X[:8], X[8:16], X[16:]]


@pytest.mark.parametrize(
    ("program", "batches", "message"),
    [
        (lambda: Pair(shared, AutoNormal), PARTS, SHARED),
        (lambda: Pair(shared, AutoNormal), [X[:20], X[20:]], SHARED),
        (lambda: Pair(shared, AutoNormal), [(X[:8],), (X[:8],), (X[8:16],)], SHARED),
        (lambda: Pair(shared, AutoMultivariateNormal), PARTS, SHARED),
        (lambda: Pair(multiplied, AutoNormal), [X[:16], X[16:]], SHARED),
        (lambda: Pair(local, AutoNormal), PARTS, BY_PLACE),
        (lambda: Pair(local, AutoNormal), [X[:20], X[20:]], BY_PLACE),
        (lambda: Pair(local, AutoNormal), [X, X.flip(0)], BY_PLACE),
        (lambda: Pair(local, AutoDelta), PARTS, BY_PLACE),
        (lambda: Pair(local, AutoMultivariateNormal), PARTS, BY_PLACE),
        (lambda: Pair(local, AutoLowRankMultivariateNormal), PARTS, BY_PLACE),
        (lambda: Pair(local, AutoIAFNormal), PARTS, BY_PLACE),
        (lambda: Pair(local, AutoLaplaceApproximation), PARTS, BY_PLACE),
        # Half of what a coupling draws passes through it as it is.
        (lambda: Pair(local, partial(AutoNormalizingFlow, init_transform_fn=affine_coupling)), PARTS, BY_PLACE),
        (lambda: Pair(local, by_place), PARTS, BY_PLACE),
        # Its plate draws indices of its own, which have nothing to do with those of the data.
        (lambda: Pair(local_of_24, AutoNormal), [(X[i], i) for i in (INDICES[:8], INDICES[8:16])], BY_PLACE),
    ],
)
def test_what_takes_a_batch_for_all_there_is_is_given_one(
    program: Callable[[], nn.Module], batches: list[object], message: str
) -> None:
    with pytest.raises(ProgramError, match=message) as refusal:
        steps(program(), batches)
    assert "as one batch" in str(refusal.value)
    assert "pyro.plate('data', size, subsample=indices)" in str(refusal.value)


def test_pyros_estimators_and_traced_steps_are_no_way_around_it() -> None:
    with pytest.raises(ProgramError, match=SHARED):
        steps(Pair(shared, AutoNormal), PARTS, estimator=Trace_ELBO())
    with pytest.raises(ProgramError, match=BY_PLACE):
        steps(Pair(local, AutoNormal), PARTS, differentiate=Traced())


INDEXED = [(X[i], i) for i in (INDICES[:10], INDICES[10:20], INDICES[20:])]


@pytest.mark.parametrize(
    ("program", "batches"),
    [
        (lambda: Pair(shared, AutoNormal), [X, X]),
        (lambda: Pair(shared, AutoNormal), [X, X.clone(), X[:]]),
        (lambda: Pair(shared, AutoNormal), [X, X.flip(0)]),
        (lambda: Pair(local, AutoNormal), [X, X.clone()]),
        (lambda: Pair(local, by_place), [X, X.clone()]),
        (lambda: Pair(shared_of_24, AutoNormal), [X[:10], X[10:20], X[20:]]),
        (lambda: Pair(shared_of_24, AutoNormal), [X, X[:12], X[12:]]),
        (lambda: Pair(shared_of_24, AutoMultivariateNormal), [X[:10], X[10:20], X[20:]]),
        (lambda: Pair(local_of_24, by_index), INDEXED),
        (lambda: Pair(local_of_24, by_table), INDEXED),
        (
            lambda: Pair(
                local_of_24,
                partial(AutoNormal, create_plates=lambda x, i: pyro.plate("data", 24, subsample=i, dim=-1)),
            ),
            INDEXED,
        ),
        (lambda: Pair(local, Parts), [X[:12], X[12:]]),
        (lambda: Pair(local, one_for_all), [X[:10], X[10:20], X[20:]]),
        (Amortised, [X[:10], X[10:20], X[20:], X[:1]]),
    ],
)
def test_what_can_go_on_goes_on(program: Callable[[], nn.Module], batches: list[object]) -> None:
    assert steps(program(), batches).count == len(batches)


def test_a_loop_of_ones_own_is_told_too_and_may_go_on_with_the_first_batch() -> None:
    step = Step(SVI(Pair(shared, AutoNormal)))
    step(X[:8])
    with pytest.raises(ProgramError, match=SHARED):
        step(X[8:16])
    assert step.count == 1
    step(X[:8])


def test_a_buffer_that_is_written_anew_is_another_batch() -> None:
    buffer, step = X.clone(), Step(SVI(Pair(shared, AutoNormal)))
    step(buffer)
    buffer.copy_(X + 1)
    with pytest.raises(ProgramError, match=SHARED):
        step(buffer)


def test_preparing_on_fewer_examples_settles_nothing_but_the_guides_places() -> None:
    step = Step(SVI(Pair(shared, AutoNormal)))
    step.prepare(X[:5])
    fit(step, X, 3, progress=False)
    step = Step(SVI(Pair(local, AutoNormal)))
    step.prepare(X[:5])
    with pytest.raises(ProgramError, match=BY_PLACE):
        fit(step, X, 3, progress=False)


def test_the_size_of_an_adversarial_objective_is_the_datasets() -> None:
    class Implicit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.tensor(0.0))

        def model(self, x: Tensor) -> None:
            mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

        def guide(self, x: Tensor) -> None:
            pyro.sample("mean", dist.Normal(self.mean, 1.0))

    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.weight(x.unsqueeze(1)).squeeze(1)

    def objective(size: int | None) -> Adversarial:
        return Adversarial(Implicit(), Critic(), compare=("x",), size=size, weight=1.0)

    fit(Step(objective(24)), PARTS, 3, progress=False)
    with pytest.raises(ProgramError, match=SHARED):
        fit(Step(objective(None)), PARTS, 3, progress=False)

    class Declared(Implicit):
        def model(self, x: Tensor) -> None:
            shared_of_24(x)

    with pytest.raises(ProgramError, match="has 24 examples, and size=30"):
        fit(Step(Adversarial(Declared(), Critic(), compare=("x",), size=30, weight=1.0)), PARTS, 3, progress=False)


def test_looking_changes_nothing() -> None:
    class Normed(Amortised):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

        def guide(self, x: Tensor) -> None:
            super().guide(self.norm(x.unsqueeze(1)).squeeze(1))

    program = Normed()
    before, noise = {name: value.clone() for name, value in program.state_dict().items()}, torch.get_rng_state()
    assert scope(program, (X,)) == ((), 24, (), "data")
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(value.equal(before[name]) for name, value in program.state_dict().items())
    assert program.training


def test_once_settled_a_program_is_not_run_again_beside_its_steps() -> None:
    runs = 0

    class Counted(Amortised):
        def guide(self, x: Tensor) -> None:
            nonlocal runs
            runs += 1
            super().guide(x)

    step = Step(SVI(Counted()))
    batches = cycle(PARTS)
    for _ in range(3):
        step(next(batches))
    before = runs
    for _ in range(5):
        step(next(batches))
    assert runs == before + 5


def test_an_autoguide_of_local_latents_is_told_from_one_example() -> None:
    def local(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    for batches in (list(X.split(1)), [X[:1], X[1:5]]):
        with pytest.raises(ProgramError, match=BY_PLACE):
            fit(Step(SVI(Pair(local, AutoNormal))), batches, 3, progress=False)


def test_a_table_of_rows_in_the_model_is_of_one_batch() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("z", lambda: torch.zeros(len(x))), 1.0), obs=x)

    fit(Step(SVI(Pair(model))), X, 3, progress=False)
    with pytest.raises(ProgramError, match=BY_PLACE):
        fit(Step(SVI(Pair(model))), list(X.split(6)), 3, progress=False)


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("estimator", [None, Trace_ELBO()])
def test_values_outside_a_support_stop_training_at_their_batch(validated: bool, estimator: Trace_ELBO | None) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            rate = pyro.param("rate", torch.tensor(0.0)).exp()
            pyro.sample("x", dist.Exponential(rate.expand(len(x))), obs=x)

    step = Step(SVI(Pair(model), estimator))
    with pyro.validation_enabled(validated), pytest.raises(ProgramError, match=r"'x'.*outside its support"):
        fit(step, [torch.ones(3), torch.ones(3), -torch.ones(3)], 5, progress=False)
    assert step.count == 2
