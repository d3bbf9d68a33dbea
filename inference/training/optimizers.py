"""The optimizers of players: made from factories, checked, and given new parameters."""

import math
from collections.abc import Callable, Mapping
from typing import SupportsFloat

import torch
from pyro.optim import PyroOptim
from torch import nn
from torch.optim import LBFGS, Optimizer

from inference.objectives.objective import factor
from inference.programs.program import ProgramError

Factory = Callable[[list[nn.Parameter]], Optimizer]
"""Makes the optimizer of a player's parameters."""

_BASE = "initial_lr"
"""Where a group keeps the learning rate that a schedule multiplies, by the name that torch's schedulers have for it."""


def adam(lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> Factory:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980), fused where the device allows, which saves a fifth of a small step.

    Raises:
        ProgramError: a number that is not finite or out of its range.
    """
    below = {"lr": (lr, math.inf), "betas[0]": (betas[0], 1.0), "betas[1]": (betas[1], 1.0), "eps": (eps, math.inf)}
    for name, (value, end) in below.items():
        if not (isinstance(value, SupportsFloat) and 0.0 <= float(value) < end):
            raise ProgramError(
                f"adam: expected {name} to be at least 0 and below {end}, got {value!r}; 1e-3 is a usual lr."
            )

    def factory(parameters: list[nn.Parameter]) -> Optimizer:
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
        return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, fused=fused)

    return factory


def by_player(given: Factory | Mapping[str, Factory], name: str) -> Factory:
    """The player's factory, of one for all or one for each."""
    if not isinstance(given, Mapping):
        return given
    if name not in given:
        raise ProgramError(f"no optimizer was given for player {name!r}; optimizers: {sorted(given)}.")
    return given[name]


def check_factories(given: Factory | Mapping[str, Factory]) -> None:
    """Raises a ProgramError for an optimizer in place of a function that makes one, and for what is no function."""
    for each in given.values() if isinstance(given, Mapping) else (given,):
        if isinstance(each, Optimizer | PyroOptim) or not callable(each):
            raise ProgramError(
                f"optimizer: expected a function of a list of parameters, such as adam(1e-3) or lambda parameters: "
                f"torch.optim.SGD(parameters, lr=0.1), got a {type(each).__name__}: the parameters may not be there yet."
            )


def made(factory: Factory, parameters: list[nn.Parameter]) -> Optimizer:
    """An optimizer of these parameters.

    Raises:
        ProgramError: it makes no torch optimizer, or one that needs the loss several times a step.
    """
    optimizer = factory(parameters)
    if not isinstance(optimizer, Optimizer) or isinstance(optimizer, LBFGS):
        raise ProgramError(
            f"optimizer: expected a torch.optim.Optimizer that takes one gradient a step, got a {type(optimizer).__name__}. "
            "Pass a function that makes one, such as adam(1e-3)."
        )
    return optimizer


def follow(optimizer: Optimizer, factory: Factory, parameters: list[nn.Parameter]) -> None:
    """Adds new parameters to an optimizer, with the factory's settings; the state of the others stays."""
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    new = [parameter for parameter in parameters if id(parameter) not in known]
    for group in made(factory, new).param_groups if new else ():
        optimizer.add_param_group(group)


def set_rate(optimizer: Optimizer, schedule: Callable[[int], float], step: int) -> None:
    """Sets the learning rate of a step: the schedule's factor times what the optimizer was made with.

    Raises:
        ProgramError: the factor, or the rate that it makes, is not a finite number of at least 0.
    """
    by = factor("learning_rate", step, schedule(step))
    for group in optimizer.param_groups:
        if group["lr"] is None:
            raise ProgramError(
                "learning_rate: the optimizer was made with lr=None, which no factor can scale; give it a number."
            )
        group["lr"] = factor("the learning rate", step, group.setdefault(_BASE, group["lr"]) * by)


def clear_gradients(optimizer: Optimizer) -> None:
    """`zero_grad` without its hooks, which take a hundredth of a small step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
