"""Parameters that are frozen between two runs stay as they are to the bit; unfrozen ones are trained again."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import (
    SVI,
    Adversarial,
    Gradient,
    ImportanceWeighted,
    ProgramError,
    Step,
    Traced,
    Validation,
    adam,
    fit,
)
from inference.training.differentiate import Differentiate, backward
from inference.training.factories import Factory

X = torch.randn(16, 3, generator=torch.Generator().manual_seed(3))


class Linear(nn.Module):
    """z ~ N(0, 1), x ~ N(decoder(z) + bias, 1), and an encoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.encoder, self.decoder = nn.Linear(3, 2), nn.Linear(1, 3)
        self.bias = nn.Parameter(torch.zeros(3))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(self.decoder(z.unsqueeze(-1)) + self.bias, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, scale = self.encoder(x).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()))


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _moved(module: nn.Module, before: dict[str, Tensor]) -> bool:
    return any(not value.equal(before[name]) for name, value in module.state_dict().items())


OPTIMIZERS: dict[str, Factory] = {
    "adam": adam(0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=0.1),
    "decay": lambda parameters: torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.5),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("validation", [None, Validation(X, every=2)], ids=["", "validated"])
@pytest.mark.parametrize("anew", [False, True], ids=["one step", "new steps"])
def test_what_is_frozen_between_two_runs_stays_to_the_bit(
    optimizer: str, average: float | None, validation: Validation | None, anew: bool
) -> None:
    program = Linear()

    def made() -> Step:
        return Step(SVI(program), OPTIMIZERS[optimizer], average=average)

    step = made()
    run = {"validation": validation, "progress": False}
    fit(step, X, 5, **run)
    program.encoder.requires_grad_(False)
    encoder, decoder = _copy(program.encoder), _copy(program.decoder)
    for _ in range(2):
        step = made() if anew else step
        fit(step, X, 5, **run)
        assert not _moved(program.encoder, encoder)
    assert _moved(program.decoder, decoder)
    program.encoder.requires_grad_(True)
    program.decoder.requires_grad_(False)
    decoder = _copy(program.decoder)
    step = made() if anew else step
    fit(step, X, 5, progress=False)
    assert _moved(program.encoder, encoder)
    assert not _moved(program.decoder, decoder)


@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("differentiate", [backward, Traced()], ids=["eager", "traced"])
def test_a_loop_of_ones_own_may_freeze_at_any_step(average: float | None, differentiate: Differentiate) -> None:
    program = Linear()
    step = Step(ImportanceWeighted(program, particles=2), adam(0.05), average=average, differentiate=differentiate)
    for _ in range(3):
        step(X)
    program.encoder.requires_grad_(False)
    frozen = _copy(program.encoder)
    for _ in range(3):
        step(X)
        with step.averaged():
            assert not _moved(program.encoder, frozen)
        assert not _moved(program.encoder, frozen)
    program.encoder.requires_grad_(True)
    step(X)
    assert _moved(program.encoder, frozen)


def test_values_given_to_frozen_weights_count() -> None:
    program = Linear()
    step = Step(SVI(program), adam(0.05), average=0.9, differentiate=Traced())
    fit(step, X, 3, progress=False)
    program.encoder.requires_grad_(False)
    fit(step, X, 3, progress=False)
    with torch.no_grad():
        program.encoder.weight.fill_(0.25)
    fit(step, X, 3, progress=False)
    assert (program.encoder.weight == 0.25).all()


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.layer(torch.cat([x, z.unsqueeze(-1)], 1)).squeeze(-1)


@pytest.mark.parametrize(
    ("objective", "frozen", "player"),
    [
        (SVI, lambda objective: objective.program, "loss"),
        (
            lambda program: Adversarial(program, Critic(), compare=("x", "z")),
            lambda objective: objective.critic,
            "critic",
        ),
        (
            lambda program: Adversarial(program, Critic(), compare=("x", "z")),
            lambda objective: objective.program,
            "program",
        ),
    ],
    ids=["svi", "critic", "program"],
)
def test_a_player_that_is_frozen_whole_is_named(
    objective: Callable[[nn.Module], SVI], frozen: Callable[[SVI], nn.Module], player: str
) -> None:
    made = objective(Linear())
    step = Step(made)
    step(X)
    frozen(made).requires_grad_(False)
    for each in (step, Step(made)):
        with pytest.raises(
            ProgramError, match=rf"'{player}' has no trainable parameters. \d are frozen: requires_grad_"
        ):
            each(X)
    frozen(made).requires_grad_(True)
    step(X)


@pytest.mark.parametrize("gradient", Gradient)
def test_a_model_is_trained_beside_a_frozen_guide_by_every_gradient(gradient: Gradient) -> None:
    moved = []
    for each in (gradient, Gradient.PATH):
        program = Linear()
        program.encoder.requires_grad_(False)
        step = Step(ImportanceWeighted(program, particles=3, gradient=each), adam(0.05))
        for _ in range(3):
            step(X)
        moved.append(nn.utils.parameters_to_vector(program.parameters()))
    torch.testing.assert_close(*moved)  # what the three differ in is the guide's gradient


@pytest.mark.parametrize("gradient", [Gradient.STICKING_THE_LANDING, Gradient.DOUBLY_REPARAMETERISED])
def test_a_guide_may_be_frozen_in_part(gradient: Gradient) -> None:
    program = Linear()
    step = Step(ImportanceWeighted(program, particles=3, gradient=gradient), adam(0.05))
    fit(step, X, 2, progress=False)
    program.decoder.requires_grad_(False)
    decoder, encoder = _copy(program.decoder), _copy(program.encoder)
    fit(step, X, 2, progress=False)
    assert _moved(program.encoder, encoder)
    assert not _moved(program.decoder, decoder)
