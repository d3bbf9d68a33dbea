"""What may stand for an optimizer, what to pass in place of what may not, and groups of parameters."""

import copy
import re

import pyro.optim
import pytest
import torch
from torch import Tensor, nn

from inference import (
    SVI,
    Adversarial,
    Pair,
    ProgramError,
    Step,
    adam,
    fit,
    parameter_groups,
)
from inference.training.factories import Factory
from tests.inference.training.test_freezing import Linear, X

W = nn.Parameter(torch.zeros(1))
SGD = torch.optim.SGD([W], lr=0.1, momentum=0.9)


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        (
            torch.optim.Adam([W], lr=0.01),
            "got a Adam, made already; pass adam(0.01), or lambda p: torch.optim.Adam(p, lr=0.01).",
        ),
        (SGD, "got a SGD, made already; pass lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)."),
        (
            torch.optim.AdamW([W], betas=(0.5, 0.9), fused=True),
            "pass lambda p: torch.optim.AdamW(p, lr=0.001, betas=(0.5, 0.9), fused=True).",
        ),
        (pyro.optim.Adam({"lr": 0.02}), "pass adam(0.02), or lambda p: torch.optim.Adam(p, lr=0.02)."),
        (pyro.optim.ClippedAdam({"lr": 0.02, "lrd": 0.9}), "pass lambda p: ClippedAdam(p, lr=0.02, lrd=0.9)."),
        (pyro.optim.Adam(lambda name: {"lr": 0.02}), "pass adam(0.001), or lambda p: torch.optim.Adam(p)."),
        (
            pyro.optim.ExponentialLR({"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1}, "gamma": 0.9}),
            "pass lambda p: torch.optim.SGD(p, lr=0.1). A schedule is a factor by the step: Step(…, learning_rate=",
        ),
        (
            torch.optim.lr_scheduler.ExponentialLR(copy.deepcopy(SGD), 0.9),
            "got a ExponentialLR, made already; pass lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9). A schedule is",
        ),
        (torch.optim.lr_scheduler.ExponentialLR, "got the class ExponentialLR; pass adam(0.001). A schedule is"),
        (pyro.optim.Adam, "got an optimizer of Pyro's; pass one of torch's"),
        (adam, "got adam itself; call it: adam(0.001)."),
        ("adam", "got 'adam'; pass a function of a list of parameters, such as adam(0.001)."),
        (0.01, "such as adam(0.01)."),
        ({}, "got {}; pass a function"),
    ],
)
def test_what_makes_no_optimizer_is_answered_with_what_does(given: object, instead: str) -> None:
    with pytest.raises(ProgramError, match=rf"^optimizer: .*{re.escape(instead)}") as said:
        Step(SVI(Linear()), given)  # type: ignore[arg-type]
    assert "\n" not in str(said.value)
    if given != {}:
        with pytest.raises(ProgramError, match=rf"^optimizer\['loss'\]: .*{re.escape(instead)}"):
            Step(SVI(Linear()), {"loss": given})  # type: ignore[dict-item]


@pytest.mark.parametrize("factory", [torch.optim.Adam, torch.optim.AdamW, pyro.optim.clipped_adam.ClippedAdam])
def test_a_class_is_a_function_of_parameters(factory: Factory) -> None:
    program = Linear()
    before = nn.utils.parameters_to_vector(program.parameters()).detach()
    fit(Step(SVI(program), factory), X, 2, progress=False)
    assert (nn.utils.parameters_to_vector(program.parameters()) != before).all()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            lambda parameters: torch.optim.SGD(parameters[1:], lr=0.1),
            "was given 5 parameters; its optimizer leaves out 1",
        ),
        (lambda parameters: torch.optim.SGD([W], lr=0.1), "leaves out 5 of them and has 1 others"),
    ],
    ids=["forgets one", "of others"],
)
def test_an_optimizer_is_of_all_that_it_is_given(factory: Factory, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        Step(SVI(Linear()), factory)(X)


def _rates(step: Step, player: str = "loss") -> dict[int, float]:
    """The learning rate of each parameter."""
    groups = step.optimizers[player].param_groups
    return {id(each): group["lr"] for group in groups for each in group["params"]}


def test_parts_have_learning_rates_of_their_own() -> None:
    program = Linear()
    factory = parameter_groups(adam(1e-2, betas=(0.5, 0.9)), {program.encoder: 1e-4, program.bias: 0.0})
    step = Step(SVI(program), factory)
    before = {name: value.clone() for name, value in program.state_dict().items()}
    step(X)
    moved = {name: float((value - before[name]).abs().max()) for name, value in program.state_dict().items()}
    # Adam's first step is as long as its learning rate.
    for name, rate in {"encoder.weight": 1e-4, "encoder.bias": 1e-4, "decoder.weight": 1e-2, "bias": 0.0}.items():
        assert moved[name] == pytest.approx(rate, rel=1e-3)
    groups = step.optimizers["loss"].param_groups
    assert [(len(group["params"]), group["betas"]) for group in groups] == [
        (1, (0.5, 0.9)),
        (2, (0.5, 0.9)),
        (2, (0.5, 0.9)),
    ]


def test_a_schedule_multiplies_every_rate() -> None:
    program = Linear()
    factory = parameter_groups(adam(1e-2), {program.encoder: 1e-4})
    step = Step(SVI(program), factory, learning_rate=lambda step: 0.5**step)
    for power in range(3):
        step(X)
        rates = _rates(step)
        assert rates[id(program.encoder.weight)] == 1e-4 * 0.5**power
        assert rates[id(program.decoder.weight)] == 1e-2 * 0.5**power


def test_a_rate_waits_for_parameters_that_are_frozen_or_come_later() -> None:
    program = Linear()
    program.encoder.requires_grad_(False)
    step = Step(SVI(program), parameter_groups(adam(1e-2), {program.encoder: 1e-4}), learning_rate=lambda step: 0.5)
    step(X)
    assert {*_rates(step).values()} == {5e-3}
    program.encoder.requires_grad_(True)
    step(X)
    assert _rates(step)[id(program.encoder.weight)] == 5e-5
    program.encoder.weight = nn.Parameter(program.encoder.weight.detach().clone())  # pruned, say
    step(X)
    assert _rates(step)[id(program.encoder.weight)] == 5e-5


def test_groups_of_players() -> None:
    class Critic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            return self.head(self.body(torch.cat([x, z.unsqueeze(-1)], 1)).relu()).squeeze(-1)

    program, critic = Linear(), Critic()
    objective = Adversarial(program, critic, compare=("x", "z"))
    by_name = {"critic": parameter_groups(adam(1e-2), {critic.head: 1e-3}), "program": adam(1e-2)}
    for optimizer in (by_name, parameter_groups(adam(1e-2), {critic.head: 1e-3})):
        step = Step(objective, optimizer)
        step(X)
        assert _rates(step, "critic")[id(critic.head.weight)] == 1e-3
        assert _rates(step, "critic")[id(critic.body.weight)] == 1e-2
        assert {*_rates(step, "program").values()} == {1e-2}
    wrong = {"critic": adam(), "program": parameter_groups(adam(), {critic.head: 1e-3})}
    with pytest.raises(
        ProgramError, match=r"Linear\(in_features=4, out_features=1, bias=True\) has no parameter that is"
    ):
        Step(objective, wrong)(X)


def test_a_pairs_parameters_can_be_parts() -> None:
    encoder = nn.Linear(3, 2)
    program = Linear()
    program.encoder = encoder
    pair = Pair(program.model, lambda x: program.guide(x))
    step = Step(SVI(pair), parameter_groups(adam(1e-2), {encoder: 1e-4}))
    step(X)
    assert _rates(step)[id(encoder.weight)] == 1e-4


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (lambda program: {nn.Linear(2, 2): 1e-3}, r"Linear\(in_features=2.* has no parameter that is trained here"),
        (lambda program: {copy.deepcopy(program): 1e-3}, "Linear has no parameter that is trained here"),
        (lambda program: {nn.ReLU(): 1e-3}, r"ReLU\(\) has no parameter that is trained"),
        (lambda program: {program: 1e-2, program.encoder: 1e-3}, r"Linear and Linear\(.*have parameters in common"),
        (
            lambda program: {program.encoder: 1e-2, program.encoder.bias: 1e-3},
            r"Linear\(.*and a parameter of shape \(2,\) have",
        ),
        (lambda program: {"encoder": 1e-3}, "expected modules or parameters as keys, got 'encoder'"),
        (lambda program: {program.bias.detach(): 1e-3}, "expected modules or parameters as keys, got tensor"),
        (lambda program: {program.encoder: -1.0}, r"at least 0 for Linear\(.*got -1.0"),
        (lambda program: {program.encoder: "1e-3"}, "got '1e-3'"),
    ],
    ids=["stranger", "copy", "no parameters", "overlap", "parameter", "name", "tensor", "negative", "text"],
)
def test_parts_that_are_none_are_refused_by_name(parts, message: str) -> None:
    program = Linear()
    with pytest.raises(ProgramError, match=f"parameter_groups: .*{message}|parameter_groups: {message}"):
        Step(SVI(program), parameter_groups(adam(), parts(program)))(X)


def test_groups_are_given_once() -> None:
    program = Linear()
    with pytest.raises(ProgramError, match="the factory has groups already"):
        parameter_groups(parameter_groups(adam(), {program.encoder: 1e-3}), {program.decoder: 1e-3})


def test_groups_need_a_factory_and_a_mapping() -> None:
    program = Linear()
    with pytest.raises(
        ProgramError, match=r"parameter_groups: got a SGD, made already; pass lambda p: torch\.optim\.SGD"
    ):
        parameter_groups(SGD, {program.encoder: 1e-3})
    with pytest.raises(ProgramError, match="expected a mapping from parts to learning rates, got a list"):
        parameter_groups(adam(), [(program.encoder, 1e-3)])


def test_a_factory_may_make_groups_of_its_own() -> None:
    program = Linear()

    def factory(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        small = [each for each in parameters if each.dim() < 2]
        large = [each for each in parameters if each.dim() == 2]
        return torch.optim.SGD([{"params": small, "lr": 1e-3}, {"params": large}], lr=1e-2)

    program.decoder.requires_grad_(False)
    step = Step(SVI(program), factory, learning_rate=lambda step: 0.5)
    step(X)
    program.decoder.requires_grad_(True)
    step(X)
    assert _rates(step) == {id(each): 5e-4 if each.dim() < 2 else 5e-3 for each in program.parameters()}
    grouped = Step(SVI(program), parameter_groups(factory, {program.encoder: 0.1}))
    grouped(X)
    rates = _rates(grouped)
    assert [rates[id(each)] for each in (program.encoder.weight, program.encoder.bias)] == [0.1, 0.1]
    assert [rates[id(each)] for each in (program.decoder.weight, program.bias)] == [1e-2, 1e-3]
