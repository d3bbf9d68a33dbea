"""The optimizers of players: made from factories, checked, and given new parameters."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer

from inference.objectives.objective import factor
from inference.programs.program import ProgramError
from inference.training.factories import Factory, instead_of

BASE = "initial_lr"
"""Where a group keeps the learning rate that a schedule multiplies, by the name that torch's schedulers have for it."""


def by_player(given: Factory | Mapping[str, Factory], name: str) -> Factory:
    """The player's factory, of one for all or one for each."""
    if not isinstance(given, Mapping):
        return given
    if name not in given:
        raise ProgramError(f"no optimizer was given for player {name!r}; optimizers: {sorted(given)}.")
    return given[name]


def check_factories(given: Factory | Mapping[str, Factory]) -> None:
    """Raises a ProgramError for an optimizer in place of a function that makes one, and for what is no function."""
    several: Mapping[str, object] = given if isinstance(given, Mapping) else {}
    named: dict[str, object] = {f"optimizer[{name!r}]": each for name, each in several.items()}
    for name, each in (named or {"optimizer": given}).items():
        advice = instead_of(each)
        if advice:
            raise ProgramError(f"{name}: {advice}")


def made(factory: Factory, parameters: list[nn.Parameter]) -> Optimizer:
    """An optimizer of these parameters, in one group or several.

    Raises:
        ProgramError: it makes no torch optimizer, one that needs the loss several times a step, or one of other parameters.
    """
    optimizer = factory(parameters)
    if not isinstance(optimizer, Optimizer) or isinstance(optimizer, LBFGS):
        raise ProgramError(
            f"optimizer: expected a torch.optim.Optimizer that takes one gradient a step, got a {type(optimizer).__name__}. "
            "Pass a function that makes one, such as adam(1e-3)."
        )
    held = {id(each): each for group in optimizer.param_groups for each in group["params"]}
    given = {id(each) for each in parameters}
    others = sum(each.requires_grad for key, each in held.items() if key not in given)
    if others or not given <= held.keys():
        raise ProgramError(
            f"optimizer: the function was given {len(given)} parameters; its optimizer leaves out "
            f"{len(given - held.keys())} of them and has {others} others. Make it of all that is given: "
            "lambda parameters: torch.optim.SGD(parameters, lr=0.1)."
        )
    return optimizer


def follow(optimizer: Optimizer, factory: Factory, parameters: list[nn.Parameter]) -> None:
    """Adds new parameters to an optimizer, with the factory's settings; the state of the others stays."""
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    new = [parameter for parameter in parameters if id(parameter) not in known]
    for group in made(factory, new).param_groups if new else ():
        optimizer.add_param_group(group)


def set_rate(optimizer: Optimizer, schedule: Callable[[int], float] | None, step: int, slowdown: float = 1.0) -> None:
    """Sets the learning rate of a step: the schedule's factor, and another one, times what the optimizer was made with.

    Raises:
        ProgramError: the factor, or the rate that it makes, is not a finite number of at least 0.
    """
    by = slowdown if schedule is None else slowdown * factor("learning_rate", step, schedule(step))
    for group in optimizer.param_groups:
        if group["lr"] is None:
            raise ProgramError(
                "learning_rate: the optimizer was made with lr=None, which no factor can scale; give it a number."
            )
        group["lr"] = factor("the learning rate", step, group.setdefault(BASE, group["lr"]) * by)


def rate_of(group: Mapping[str, Any]) -> Any:
    """The learning rate that a group of an optimizer was made with, whatever a schedule has made of it."""
    return group.get(BASE, group.get("lr"))


def clear_gradients(optimizer: Optimizer) -> None:
    """`zero_grad` without its hooks, which take a hundredth of a small step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
