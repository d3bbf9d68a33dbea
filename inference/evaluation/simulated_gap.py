"""How far importance-weighted bounds lie below log p(x), on data simulated from the program."""

from functools import partial

import torch
from torch import Tensor

from inference.programs.entries import mapped, rows_of
from inference.programs.noise import own_noise
from inference.programs.numbers import refuse_below
from inference.programs.program import Batch, Program, as_batch, evaluating
from inference.programs.simulate import simulated
from inference.programs.sites import random_sites
from inference.programs.terms import terms
from inference.programs.traces import guide_runs

_ROWS = 2000
"""Draws × examples that are run at once."""


def simulated_gap(program: Program, batch: Batch, particles: int, seed: int = 0) -> Tensor:
    """An upper bound on log p(x) less the importance-weighted one, of each simulated example: `(batch,)` float64 nats.

    The latents that made an example are an exact draw of its posterior. The log of the mean of its weight and those of
    K - 1 draws of the guide bounds log p(x) from above in expectation (Brekelmans et al. 2022, 2303.06992, without
    temperatures). It is evidence of how loose the bound on real data is, and no bound there.

    Args:
        program: the model and its amortised guide.
        batch: gives shapes and covariates.
        particles: K, of both bounds.
        seed: of all noise; the caller's generators are left as they were.

    Raises:
        ProgramError: the program cannot be simulated, or has no weights.
    """
    refuse_below("particles", particles, 1)
    examples = as_batch(batch)
    size = max(1, _ROWS // particles)
    with torch.no_grad(), evaluating(program), own_noise(seed):
        starts = range(0, rows_of(examples), size)
        return torch.cat([_gap(program, mapped(partial(_rows, start, size), examples), particles) for start in starts])


def _gap(program: Program, part: Batch, particles: int) -> Tensor:
    data, latents = simulated(program, part)
    guided = random_sites(guide_runs(program, data)[0].guide)
    exact = terms(program, data, latents={name: latents[name] for name in guided}).log_weights.double()
    drawn = terms(program, data, particles).log_weights.double()
    mixed = torch.cat((exact, drawn[1:]))  # one draw of the guide gives way to the exact one
    return (torch.logsumexp(mixed, 0) - torch.logsumexp(drawn, 0)).cpu()


def _rows(start: int, size: int, tensor: Tensor) -> Tensor:
    return tensor[start : start + size]
