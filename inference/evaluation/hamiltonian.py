"""Hamiltonian Monte Carlo transitions of all chains of all examples at once."""

from typing import NamedTuple

import torch
from torch import Tensor

from inference.evaluation.annealing_path import AnnealingPath, Point


class Moved(NamedTuple):
    """Where chains are after a transition, and the probability with which each proposal was accepted: `(chains, units)`."""

    point: Point
    acceptance: Tensor


def transition(
    path: AnnealingPath, here: Point, inverse_temperature: Tensor, step_size: Tensor, leapfrog: int
) -> Moved:
    """One transition that leaves the path's density at this temperature invariant (Neal 2011, arXiv 1206.1901).

    The step size, `(units,)`, is varied by up to a fifth for each chain, so that no trajectory is a whole period.
    """
    step = (step_size * (0.8 + 0.4 * torch.rand_like(here.log_start))).unsqueeze(-1).to(here.rows.dtype)
    momentum = torch.randn_like(here.rows)
    before = here.log_density(inverse_temperature) - _kinetic(momentum)
    momentum = momentum + 0.5 * step * here.gradient(inverse_temperature)
    rows = here.rows + step * momentum
    for _ in range(leapfrog - 1):  # only gradients are asked for on the way
        momentum = momentum + step * path.gradient(rows, inverse_temperature)
        rows = rows + step * momentum
    there = path.at(rows)
    momentum = momentum + 0.5 * step * there.gradient(inverse_temperature)
    after = there.log_density(inverse_temperature) - _kinetic(momentum)
    acceptance = torch.nan_to_num((after - before).clamp_max(0.0).exp(), nan=0.0)
    return Moved(here.where(torch.rand_like(acceptance) < acceptance, there), acceptance)


def _kinetic(momentum: Tensor) -> Tensor:
    return 0.5 * momentum.square().sum(-1)
