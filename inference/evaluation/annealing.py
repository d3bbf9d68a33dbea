"""Chains that move along an annealing path: the schedule, frozen by a pilot round, and the weights of both directions."""

from typing import NamedTuple

import torch
from torch import Tensor

from inference.evaluation.annealing_path import AnnealingPath, Point
from inference.evaluation.hamiltonian import transition
from inference.evaluation.stages import reached

TARGET_ACCEPTANCE = 0.65  # the best of Hamiltonian transitions in many dimensions (Beskos et al. 2013, arXiv 1001.4460)
_PILOT_TEMPERATURES = 250  # step sizes are smooth along the path, and those between are interpolated
_PILOT_TRANSITIONS = 100


class Schedule(NamedTuple):
    """Which transitions are made; frozen before the chains that are scored."""

    inverse_temperatures: Tensor
    """0 = β_0 < β_1 < … < β_T = 1, in float64."""
    step_sizes: Tensor
    """Of the transitions at β_1 … β_{T-1}: `(T - 1, units)`."""
    leapfrog: int


class Weighed(NamedTuple):
    """Chains at their end: log-weights in float64 and mean acceptance, `(chains, units)` each."""

    log_weights: Tensor
    acceptance: Tensor


def pilot_transitions(temperatures: int) -> int:
    """About how many transitions the pilot round takes."""
    return max(_PILOT_TRANSITIONS, min(temperatures - 1, _PILOT_TEMPERATURES))


def sigmoid_schedule(temperatures: int) -> Tensor:
    """β_0 = 0 … β_T = 1, close together at both ends, where densities change most (Grosse et al. 2015, arXiv 1511.02543)."""
    raw = torch.sigmoid(torch.linspace(-4.0, 4.0, temperatures + 1, dtype=torch.float64))
    return (raw - raw[0]) / (raw[-1] - raw[0])


def frozen(path: AnnealingPath, temperatures: int, leapfrog: int, chains: int) -> Schedule:
    """A schedule whose step sizes, by unit and temperature, had an acceptance of 0.65 in a pilot round.

    The pilot's chains are not scored: step sizes that follow the chains they move would make transitions that leave no
    density invariant, and weights that bound nothing.
    """
    betas = sigmoid_schedule(temperatures)
    visited = torch.linspace(1, temperatures - 1, min(temperatures - 1, _PILOT_TEMPERATURES)).round().long()
    each = -(-_PILOT_TRANSITIONS // len(visited))
    reached(0.0, "pilot round")
    here = path.draw(chains)
    step = torch.full_like(here.log_start[0], 0.1)
    here, step = _adapted(path, here, betas[1], step, leapfrog, transitions=30, rate=0.5)
    found = []
    for number, place in enumerate(visited, start=1):
        here, step = _adapted(path, here, betas[place], step, leapfrog, transitions=each, rate=0.2)
        found.append(step)
        reached(number / len(visited), "pilot round")
    return Schedule(betas, _interpolated(visited, torch.stack(found), temperatures - 1), leapfrog)


def forward(path: AnnealingPath, schedule: Schedule, chains: int) -> Weighed:
    """Chains from draws of the start to the joint (Neal 2001): the mean of the weights is p(x)."""
    return _moved(path, schedule, path.draw(chains), backwards=False)


def reverse(path: AnnealingPath, schedule: Schedule, rows: Tensor) -> Weighed:
    """Chains from exact draws of the posterior back to the start: the mean of 1 / weight is 1 / p(x)."""
    return _moved(path, schedule, path.at(rows), backwards=True)


def _moved(path: AnnealingPath, schedule: Schedule, here: Point, backwards: bool) -> Weighed:
    """Σ_t (β_t - β_{t-1}) log_ratio(z_{t-1}), where z_t follows from z_{t-1}, or the other way, by the transition at β_t."""
    betas = schedule.inverse_temperatures
    increments = betas.diff()
    last = len(increments) - 1
    log_weights = torch.zeros_like(here.log_ratio, dtype=torch.float64)
    acceptance = torch.zeros_like(here.log_ratio)
    for number in reversed(range(last + 1)) if backwards else range(last + 1):
        log_weights = log_weights + increments[number] * here.log_ratio
        between = number if backwards else number + 1  # the temperature whose transition joins this place to the next
        if 0 < between <= last:
            here, accepted = transition(path, here, betas[between], schedule.step_sizes[between - 1], schedule.leapfrog)
            acceptance = acceptance + accepted / last
        moved = last + 1 - number if backwards else number + 1
        reached(moved / (last + 1), f"temperature {moved} of {last + 1}")
    return Weighed(log_weights, acceptance)


def _adapted(
    path: AnnealingPath, here: Point, beta: Tensor, step: Tensor, leapfrog: int, transitions: int, rate: float
) -> tuple[Point, Tensor]:
    """The step sizes after so many transitions, each changed towards the acceptance that is aimed at."""
    for _ in range(transitions):
        here, acceptance = transition(path, here, beta, step, leapfrog)
        step = step * (rate * (acceptance.mean(0) - TARGET_ACCEPTANCE)).exp()
    return here, step


def _interpolated(visited: Tensor, steps: Tensor, count: int) -> Tensor:
    """Step sizes at 1 … count from those at the visited places, linear in their logarithms."""
    places = torch.arange(1, count + 1)
    above = torch.searchsorted(visited, places).clamp(max=len(visited) - 1)
    below = (above - 1).clamp(min=0)
    width = (visited[above] - visited[below]).clamp(min=1)
    part = ((places - visited[below]) / width).to(steps).unsqueeze(1)
    logs = steps.log()
    return torch.lerp(logs[below.to(steps.device)], logs[above.to(steps.device)], part).exp()
