"""A traced step on a GPU: its CUDA graph gives the eager step's numbers, whatever has moved or changed between two steps."""

import copy
import warnings
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro.distributions import Bernoulli, Normal
from torch import Tensor, nn

from inference import SVI, Step, Traced, adam
from inference.training.differentiate import backward

pytestmark = pytest.mark.gpu


class Autoencoder(nn.Module):
    """Binary vectors of 12 pixels, with noise, dropout and batch statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(
            nn.Linear(3, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Dropout(0.2), nn.Linear(32, 12)
        )
        self.encoder = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 6))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(x.new_zeros(len(x), 3), 1.0).to_event(1))
            pyro.sample("x", Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, scale = self.encoder(x).chunk(2, 1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", Normal(loc, nn.functional.softplus(scale)).to_event(1))


def batches(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 2, (16, 12), generator=generator).float().cuda() for _ in range(count)]


def losses(steps: int, traced: bool, between: Callable[[int, Step], None] = lambda at, step: None) -> list[Tensor]:
    """The losses of some steps, kept as they are given, and the weights after them."""
    torch.manual_seed(0)
    program = Autoencoder().cuda()
    step = Step(
        SVI(program),
        adam(1e-2),
        clip=5.0,
        average=0.9,
        learning_rate=lambda at: 1 / (1 + at),
        differentiate=Traced() if traced else backward,
    )
    found = []
    for at, x in enumerate(batches(steps)):
        found.append(step(x)["loss"])
        between(at, step)
    return [*found, *(each.detach().clone() for each in program.state_dict().values())]


def same(between: Callable[[int, Step], None] = lambda at, step: None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a graph that can not be captured warns
        eager, captured = losses(6, False, between), losses(6, True, between)
    for one, other in zip(eager, captured, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)


def test_a_captured_step_is_the_eager_one() -> None:
    same()


def test_weights_written_between_two_steps_are_read() -> None:
    def write(at: int, step: Step) -> None:
        if at == 2:
            with torch.no_grad():
                step.objective.program.encoder[0].weight.mul_(0.5)

    same(write)


def test_weights_that_have_moved_are_found() -> None:
    def move(at: int, step: Step) -> None:
        if at == 3:
            weight = step.objective.program.decoder[0].weight
            weight.data = weight.data.clone() * 0.5

    same(move)


def test_an_evaluation_between_two_steps_changes_none() -> None:
    def evaluate(at: int, step: Step) -> None:
        with step.averaged():
            step.monitor(batches(1)[0])
        copy.deepcopy(step.objective.program)

    same(evaluate)


def test_other_batch_sizes_have_graphs_of_their_own() -> None:
    torch.manual_seed(0)
    step = Step(SVI(Autoencoder().cuda()), adam(1e-2), differentiate=Traced())
    for x in (each[:size] for each in batches(3) for size in (16, 7)):
        assert step(x)["loss"].isfinite()


class Counted(Autoencoder):
    """Reads how many pixels are on in a way that waits for the GPU, which no capture may."""

    def model(self, x: Tensor) -> None:
        super().model(x[x.sum(1).argsort().cpu().cuda()])


def test_what_can_not_be_captured_is_run_as_it_was_traced() -> None:
    step = Step(SVI(Counted().cuda()), adam(1e-2), differentiate=Traced())
    (x,) = batches(1)
    with pytest.warns(UserWarning, match="CUDA graph"):
        found = [float(step(x)["loss"]) for _ in range(30)]
    assert found[-1] < found[0]
