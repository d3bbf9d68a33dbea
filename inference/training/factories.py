"""What makes an optimizer of parameters, and what to pass in place of what does not."""

import inspect
import math
from collections.abc import Callable
from typing import Any, SupportsFloat

import torch
from pyro.optim import PyroOptim
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from inference.programs.program import ProgramError

Factory = Callable[[list[nn.Parameter]], Optimizer]
"""Makes the optimizer of a player's parameters."""


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


def instead_of(given: object) -> str | None:
    """What to pass in place of this, with the settings that it has; None where it can make an optimizer."""
    if isinstance(given, Optimizer):
        return _instance(given, type(given), given.defaults)
    if isinstance(given, LRScheduler):
        return f"{_instance(given, type(given.optimizer), given.optimizer.defaults)} {_SCHEDULE}"
    if isinstance(given, PyroOptim):
        settings = given.pt_optim_args if isinstance(given.pt_optim_args, dict) else {}
        advice = _instance(given, given.pt_optim_constructor, settings)
        return f"{advice} {_SCHEDULE}" if isinstance(given, PyroLRScheduler) else advice
    if isinstance(given, type) and issubclass(given, LRScheduler):
        return f"got the class {given.__name__}; pass adam(0.001). {_SCHEDULE}"
    if given is adam:
        return "got adam itself; call it: adam(0.001)."
    if inspect.isfunction(given) and given.__module__.startswith("pyro.optim"):
        return "got an optimizer of Pyro's; pass one of torch's, such as adam(0.001) or torch.optim.Adam."
    if not callable(given):
        rate = given if isinstance(given, int | float) else 0.001
        return f"got {given!r:.60}; pass a function of a list of parameters, such as adam({rate})."
    return None


_SCHEDULE = "A schedule is a factor by the step: Step(…, learning_rate=lambda step: 0.999**step)."


def _instance(given: object, kind: Any, settings: dict[str, Any]) -> str:
    """One line: the function that makes an optimizer of this kind with the settings that are not its own defaults."""
    known = inspect.signature(kind).parameters
    own = {
        name: value
        for name, value in settings.items()
        if name in known and (name == "lr" or value != known[name].default) and value is not None
    }
    public = f"torch.optim.{kind.__name__}" if kind.__module__.startswith("torch.optim") else kind.__name__
    made = ", ".join(["p", *(f"{name}={value!r}" for name, value in own.items())])
    short = f"adam({own.get('lr', 0.001)!r}), or " if kind is torch.optim.Adam and own.keys() <= {"lr"} else ""
    return f"got a {type(given).__name__}, made already; pass {short}lambda p: {public}({made})."
