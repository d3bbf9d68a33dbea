"""Learning rates by parameter group."""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import SupportsFloat

from torch import nn
from torch.optim import Optimizer

from inference.programs.program import ProgramError
from inference.training.factories import Factory, instead_of
from inference.training.optimizers import made

Part = nn.Module | nn.Parameter


class ParameterGroups:
    """Makes an optimizer with a group for each part that has a learning rate of its own."""

    def __init__(self, factory: Factory, rates: Mapping[Part, float]) -> None:
        self.factory, self.rates = factory, dict(rates)

    def __call__(self, parameters: list[nn.Parameter]) -> Optimizer:
        optimizer = made(self.factory, parameters)
        part_of = {id(each): part for part in self.rates for each in _parameters(part)}
        whole, optimizer.param_groups = optimizer.param_groups, []
        for group in whole:
            by_part: dict[Part | None, list[nn.Parameter]] = {}
            for each in group["params"]:
                by_part.setdefault(part_of.get(id(each)), []).append(each)
            for part, members in by_part.items():
                rate = group["lr"] if part is None else self.rates[part]
                optimizer.add_param_group({**group, "params": members, "lr": rate})
        return optimizer

    def refuse_unused(self, trained: Iterable[nn.Parameter]) -> None:
        """Raises a ProgramError for a part none of whose parameters is among these; one that is frozen is no mistake."""
        known = {id(each) for each in trained}
        for part in self.rates:
            own = list(_parameters(part))
            if not own or (any(each.requires_grad for each in own) and not any(id(each) in known for each in own)):
                raise ProgramError(
                    f"parameter_groups: {_name(part)} has no parameter that is trained here. Give modules or parameters of "
                    "the program (of the player) that the optimizer is for."
                )


def parameter_groups(factory: Factory, rates: Mapping[Part, float]) -> ParameterGroups:
    """A factory that gives some parts a learning rate of their own: `parameter_groups(adam(1e-3), {vae.encoder: 1e-4})`.

    Its other settings, and the parameters of no part, are as `factory` has them; a schedule multiplies every rate. A part is
    a module or a parameter; it may be frozen for a time, and its parameters may come later.

    Raises:
        ProgramError: the factory makes no optimizer, `rates` is no mapping, a part is no module or parameter, two have a
            parameter in common, or a rate is not a finite number of at least 0.
    """
    if not isinstance(rates, Mapping):
        raise ProgramError(
            f"parameter_groups: expected a mapping from parts to learning rates, got a {type(rates).__name__}; "
            "{vae.encoder: 1e-4}, say."
        )
    if advice := instead_of(factory):
        raise ProgramError(f"parameter_groups: {advice}")
    if isinstance(factory, ParameterGroups):
        raise ProgramError("parameter_groups: the factory has groups already; give all rates in one mapping.")
    for part, rate in rates.items():
        if not isinstance(part, nn.Module | nn.Parameter):
            raise ProgramError(f"parameter_groups: expected modules or parameters as keys, got {part!r:.60}.")
        if not (isinstance(rate, SupportsFloat) and 0.0 <= float(rate) < math.inf):
            raise ProgramError(
                f"parameter_groups: expected a learning rate of at least 0 for {_name(part)}, got {rate!r}; 1e-4, say."
            )
    for one, other in combinations(rates, 2):
        if {*map(id, _parameters(one))} & {*map(id, _parameters(other))}:
            raise ProgramError(
                f"parameter_groups: {_name(one)} and {_name(other)} have parameters in common, which can not have two "
                "learning rates. Give parts that do not overlap."
            )
    return ParameterGroups(factory, rates)


def _parameters(part: Part) -> Iterator[nn.Parameter]:
    yield from part.parameters() if isinstance(part, nn.Module) else [part]


def _name(part: Part) -> str:
    """A short name: a layer as torch shows it, a larger module by its class."""
    if isinstance(part, nn.Parameter):
        return f"a parameter of shape {tuple(part.shape)}"
    shown = repr(part)
    return type(part).__name__ if "\n" in shown else shown
