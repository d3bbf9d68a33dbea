"""An objective has players: each has parameters, a loss, and turns."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, SupportsFloat

import torch
from torch import Tensor, nn

from inference.programs.check import check_batch, check_gradients, check_sites
from inference.programs.dataset import Scope, scope
from inference.programs.entries import Examples
from inference.programs.program import Batch, Program, ProgramError, as_batch
from inference.programs.traces import runs


class Player(NamedTuple):
    """What one optimizer fits: parameters, their loss, and the number of their updates in a step."""

    parameters: list[nn.Parameter]
    loss: Callable[[Batch], Tensor]
    """The mean over the batch (its one number, of a program without a batch plate), as a 0-d tensor with its graph."""
    turns: int = 1
    log_density: bool = False
    """Whether the loss contains minus a log density of the data with weight 1, and so depends on their units."""


class Objective(nn.Module, ABC):
    """What a program is fitted by: one player in variational inference, two in a GAN.

    Args:
        program: an `nn.Module` with `model` and `guide`.

    Raises:
        ProgramError: the program is not a module, so that its parameters cannot be found.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        if not isinstance(program, nn.Module):
            raise ProgramError(
                f"a program to be fitted is an nn.Module, so that its parameters can be found; this is a "
                f"{type(program).__name__}. Derive it from nn.Module, or wrap its functions: Pair(model, guide, *modules)."
            )
        self.program: Any = program  # an nn.Module that is a Program; Python has no intersection types

    @abstractmethod
    def players(self) -> dict[str, Player]:
        """The players by name, in the order of their turns."""

    def schedule(self, step: int) -> None:
        """Sets scheduled values for this step. They are 0-d buffers, so that a traced graph reads them."""
        return None

    def monitor(self, batch: Batch) -> dict[str, Tensor]:
        """Metrics beside the losses, as 0-d tensors by name, which `fit` records; nothing is changed."""
        return {}

    def prepare(self, batch: Batch) -> None:
        """Runs the program once: AutoGuides, lazy modules and `pyro.param` statements have no parameters before."""
        check_batch(self.program, batch)
        with torch.no_grad():
            runs(self.program, as_batch(batch))

    def scope(self, batch: Examples) -> Scope:
        """How the program relates a batch to its dataset, by a run that changes nothing; `Step` asks at each new shape."""
        return scope(self.program, batch)

    def check(self, batch: Batch) -> None:
        """Raises a ProgramError for what is wrong with the program on this batch."""
        check_sites(self.program, batch)
        self.check_players(batch)

    def check_players(self, batch: Batch) -> None:
        """Raises a ProgramError where a player's loss does not reach its parameters."""
        for player in self.players().values():
            check_gradients(player.loss(batch), player.parameters, self)


def factor(name: str, step: int, value: float) -> float:
    """A schedule's value at a step, as a finite number of at least 0.

    Raises:
        ProgramError: it is something else.
    """
    number = float(value) if isinstance(value, SupportsFloat) else math.nan
    if not 0.0 <= number < math.inf:
        raise ProgramError(
            f"{name}: expected a finite number of at least 0, got {value!r} at step {step}. Correct the schedule; "
            "a division by 0, or a power of a negative number?"
        )
    return number
