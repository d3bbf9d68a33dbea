"""Pareto-smoothed importance weights: their largest ones by a fitted tail, whose shape says how far they can be trusted."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from inference.evaluation.arviz_versions import pareto_smoothed
from inference.programs.program import ProgramError

FEWEST_DRAWS = 25
TAIL = "to whose largest weights the tail of a Pareto distribution is fitted"
"""With fewer draws there are fewer than five weights in the tail, and no shape can be fitted to it."""


class Smoothed(NamedTuple):
    """Log-weights whose tail has been smoothed, and the shape of that tail."""

    log_weights: Tensor
    """`(draws, examples)` float64, unnormalised, in nats."""
    khat: Tensor
    """k̂, `(examples,)` float64: up to `threshold(draws)` a mean by these weights can be trusted."""


def smoothed(log_weights: Tensor) -> Smoothed:
    """The weights with their largest ones replaced by quantiles of a fitted generalized Pareto distribution.

    (Vehtari et al. 2024, arXiv 1507.02646, as ArviZ has it.) Where the tail is of equal weights none is far from the others:
    k̂ is 0, where ArviZ has inf, and the weights stay as they are. Where all weights of an example are 0, k̂ is inf.

    Args:
        log_weights: `(draws, examples)` in nats, of independent draws.

    Raises:
        ValueError: there are fewer than 25 draws.
        ProgramError: a log-weight is NaN or +inf.
    """
    if len(log_weights) < FEWEST_DRAWS:
        raise ValueError(
            f"a Pareto tail takes at least {FEWEST_DRAWS} draws to be fitted, got {len(log_weights)}. Take more draws."
        )
    wrong = (log_weights.isnan() | log_weights.isposinf()).any(0).nonzero().flatten().tolist()
    if wrong:
        raise ProgramError(
            f"the log-weights of the examples {_shown(wrong)} are NaN or +inf, as densities of the model or the guide are. "
            "Look at terms(program, batch) of these examples."
        )
    weights = log_weights.detach().double().cpu().clone()
    khat = torch.zeros(weights.shape[1], dtype=torch.float64)
    khat[weights.isneginf().all(0)] = math.inf
    fitted = ~(_tail_is_equal(weights, torch.finfo(log_weights.dtype).eps) | khat.isinf())
    if fitted.any():
        weights[:, fitted], khat[fitted] = _fitted(weights[:, fitted])
    return Smoothed(weights, khat)


def threshold(draws: int) -> float:
    """The k̂ up to which so many draws give a reliable mean: min(1 - 1/log10 draws, 0.7) (Vehtari et al. 2024)."""
    return min(1.0 - 1.0 / math.log10(draws), 0.7)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(Σ w)² / Σ w² of `(draws, examples)` log-weights: how many equal ones these are worth (Kong 1992); 0 if all w are."""
    weights = torch.softmax(log_weights.double(), 0)
    return torch.where(log_weights.isneginf().all(0), 0.0, weights.square().sum(0).reciprocal())


def _tail_is_equal(log_weights: Tensor, eps: float) -> Tensor:
    """Whether the largest weights are as many as would be fitted, and differ by rounding alone: `(examples,)`."""
    draws = len(log_weights)
    tail = math.floor(min(draws / 5.0, 3.0 * draws**0.5))
    largest = log_weights.topk(tail, 0).values
    rounding = 100.0 * eps * largest[0].abs().clamp_min(1.0)
    return largest[0] - largest[-1] <= rounding


def _fitted(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    weights, khat = pareto_smoothed(log_weights.T.contiguous().numpy())
    return torch.from_numpy(np.ascontiguousarray(weights)).T, torch.from_numpy(khat)


def _shown(places: list[int]) -> str:
    first = ", ".join(map(str, places[:5]))
    return f"[{first}{', …' if len(places) > 5 else ''}]"
