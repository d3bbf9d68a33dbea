"""The state of a step: weights, buffers, optimizers and average, saved and restored by name."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from inference.programs.program import Batch, ProgramError
from inference.training.average import tensors_of
from inference.training.optimizers import BASE, rate_of
from inference.training.saved import Saved, described, is_plain, plain, under, write
from inference.training.step import Step


def settings_of(step: Step) -> dict[str, Any]:
    """What a step is made of, once it is prepared: two that agree in it can go on from each other's state."""
    objective = step.objective
    return {
        "objective": type(objective).__name__,
        "program": type(objective.program).__name__,
        "seed": step.seed,
        "clip": step.clip,
        "average": None if step.average is None else step.average.decay,
        "autocast": None if step.autocast is None else str(step.autocast),
        "learning_rate": step.learning_rate is not None,
        "tensors": {name: described(value) for name, value in _named(objective).items()},
        "turns": {name: player.turns for name, player in objective.players().items()},
        "optimizer": {name: _optimizer_settings(each) for name, each in step.optimizers.items()},
    }


def saved(step: Step) -> Saved:
    """The state from which the next step goes on: weights, buffers, optimizers and average, shared and not copied."""
    step.take_back()
    weights = _named(step.objective)
    names = {id(value): name for name, value in weights.items()}
    optimizers = {name: _optimizer_saved(each, names) for name, each in step.optimizers.items()}
    tensors = under("weights", weights)
    for name, each in optimizers.items():
        tensors |= under(f"optimizer/{name}", each.tensors)
    if step.average is not None:
        tensors |= under("average", step.average.state)
    record = {
        "count": step.count,
        "slowdown": step.slowdown,
        "tensors": {name: described(value) for name, value in weights.items()},
        "frozen": [
            name for name, value in weights.items() if isinstance(value, nn.Parameter) and not value.requires_grad
        ],
        "parameters": [name for name, value in weights.items() if isinstance(value, nn.Parameter)],
        "optimizers": {name: each.record for name, each in optimizers.items()},
        "averaged": None if step.average is None else step.average.count,
    }
    return Saved(tensors, record)


def restore(step: Step, state: Saved, first: Batch) -> None:
    """Gives a prepared step a state that was saved of one with the same settings; `first` is the first batch of its run.

    Raises:
        ProgramError: a tensor of the state has no place in the objective; nothing was changed but for parameters that are
            born late.
    """
    weights = state.under("weights")
    _bear(step.objective, {name: weights[name] for name in state.record["parameters"]})
    held = _named(step.objective)
    _refuse_difference(state.record["tensors"], held)
    for name, value in held.items():
        write(value, weights[name])
        if isinstance(value, nn.Parameter):
            value.requires_grad_(name not in state.record["frozen"])
    for name, record in state.record["optimizers"].items():
        _restore_optimizer(step.optimizers[name], Saved(state.under(f"optimizer/{name}"), record), held)
    if step.average is not None:
        like = tensors_of(step.objective.program)
        average = state.under("average")
        step.average.state = {
            name: value.to(like.get(name, value).device, copy=True) for name, value in average.items()
        }
        step.average.count = state.record["averaged"]
    step.resume(state.record["count"], state.record["slowdown"], first)


def not_kept(objective: nn.Module) -> list[str]:
    """The names of a module's state that is no tensor, as `get_extra_state` gives it, and that no checkpoint holds."""
    return sorted(name for name, value in objective.state_dict().items() if not isinstance(value, Tensor))


def _named(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters and buffers, those that no state_dict has among them; tied ones by their first name alone."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _bear(objective: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Makes the parameters that are born in the course of a run, such as those of a `pyro.param` behind a condition."""
    present = dict(objective.named_parameters(remove_duplicate=False))
    like = next(iter(present.values()))
    for name, value in saved.items():
        if name in present:
            continue
        owner, _, key = name.rpartition(".")
        try:
            module = objective.get_submodule(owner)
        except AttributeError:
            raise ProgramError(
                f"the parameter {name!r} was born in the course of the run, in a module that is not here yet. Run the "
                "program once in the way that makes it, and resume then."
            ) from None
        parameter = nn.Parameter(value.to(like.device, copy=True))
        if isinstance(module, nn.ParameterDict):
            module[key] = parameter
        else:
            module.register_parameter(key, parameter)


def _refuse_difference(saved: Mapping[str, str], held: Mapping[str, Tensor]) -> None:
    here = {name: described(value) for name, value in held.items()}
    wrong = sorted(name for name in saved.keys() | here.keys() if saved.get(name) != here.get(name))
    if wrong:
        first = wrong[0]
        raise ProgramError(
            f"the tensors of the run are not the program's: {first} is {saved.get(first, 'nothing')} there and "
            f"{here.get(first, 'nothing')} here ({len(wrong)} differ)."
        )


def _optimizer_settings(optimizer: Optimizer) -> dict[str, Any]:
    """The kind of an optimizer and the settings that it was made with, whatever a schedule has made of them."""
    groups = [
        {key: plain(value) for key, value in group.items() if key not in ("params", BASE)}
        | {"lr": plain(rate_of(group))}
        for group in optimizer.param_groups
    ]
    return {
        "class": type(optimizer).__name__,
        "groups": [{k: v for k, v in g.items() if k != "initial_lr"} for g in groups],
    }


def _optimizer_saved(optimizer: Optimizer, names: Mapping[int, str]) -> Saved:
    tensors: dict[str, Tensor] = {}
    groups: list[dict[str, Any]] = []
    states: dict[str, dict[str, Any]] = {}
    for place, group in enumerate(optimizer.param_groups):
        settings = {key: value for key, value in group.items() if key != "params"}
        tensors |= under(f"group/{place}", {key: value for key, value in settings.items() if isinstance(value, Tensor)})
        # Parameters that the program has replaced are trained no more.
        members = [names[id(each)] for each in group["params"] if id(each) in names]
        numbers = {key: value for key, value in settings.items() if _is_number(key, value)}
        groups.append({"parameters": members, "settings": numbers})
    for parameter, state in optimizer.state.items():
        if id(parameter) not in names:
            continue
        moments = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        tensors |= under(f"state/{len(states)}", moments)
        states[names[id(parameter)]] = {
            "place": len(states),
            "numbers": {key: value for key, value in state.items() if _is_number(key, value)},
            # Adam counts its steps on the CPU, wherever the parameter is, unless it is fused.
            "on_cpu": [key for key, value in moments.items() if value.device != parameter.device],
        }
    return Saved(tensors, {"groups": groups, "state": states})


def _is_number(key: str, value: object) -> bool:
    """Whether JSON has this; what is neither that nor a tensor is named, as it is lost."""
    if isinstance(value, Tensor):
        return False
    if is_plain(value):
        return True
    warnings.warn(f"{key!r} of an optimizer is a {type(value).__name__}, which no checkpoint holds.", stacklevel=2)
    return False


def _restore_optimizer(optimizer: Optimizer, state: Saved, held: Mapping[str, Tensor]) -> None:
    made = optimizer.param_groups
    groups: list[dict[str, Any]] = []
    for place, group in enumerate(state.record["groups"]):
        settings = {key: tuple(each) if isinstance(each, list) else each for key, each in group["settings"].items()}
        moved = {key: value.clone() for key, value in state.under(f"group/{place}").items()}
        base = made[min(place, len(made) - 1)]  # a group of parameters that were born late has settings like the last
        groups.append({**base, **settings, **moved, "params": [held[name] for name in group["parameters"]]})
    optimizer.param_groups[:] = groups
    optimizer.state.clear()
    for name, each in state.record["state"].items():
        parameter = held[name]
        optimizer.state[parameter] = {
            key: value.to("cpu" if key in each["on_cpu"] else parameter.device, copy=True)
            for key, value in state.under(f"state/{each['place']}").items()
        } | dict(each["numbers"])
