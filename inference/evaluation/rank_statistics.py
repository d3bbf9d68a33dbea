"""Whether ranks are uniform: their empirical distribution against bands that hold at all ranks at once."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_NEGLIGIBLE = 1e-9
"""Probabilities below this are lost beside 1, and a bound takes their place."""


class Uniformity(NamedTuple):
    """A test of ranks 0 … draws against the uniform distribution."""

    gamma: float
    """The smallest two-sided binomial probability of the empirical distribution, over all ranks."""
    p_value: float
    """How often uniform ranks give as small a gamma; below 1e-9 an upper bound on it."""


def uniformity(ranks: Tensor, draws: int) -> Uniformity:
    """The test of Säilynoja et al. (2022, arXiv 2103.10522) of `(simulations,)` ranks among so many draws."""
    simulations, binom = len(ranks), distributions().binom
    at_most = np.bincount(ranks.numpy(), minlength=draws + 1).cumsum()[:-1]
    below = binom.cdf(at_most, simulations, _uniform(draws))
    above = binom.sf(at_most - 1, simulations, _uniform(draws))
    gamma = float(2 * np.minimum(below, above).min())
    return Uniformity(gamma, _rarity(gamma, simulations, draws))


def bands(simulations: int, draws: int, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the empirical distribution at ranks 0 … draws - 1 lies in at least 1 - level of all sets of uniform ranks.

    Ranks are outside just where their p-value is at most the level.
    """
    small, large = math.log(level / draws), 0.0  # gamma is of one rank, the level of all
    while large - small > 1e-6:
        middle = (small + large) / 2
        rare = _rarity(math.exp(middle), simulations, draws) <= level
        small, large = (middle, large) if rare else (small, middle)
    low, high = _limits(math.exp(small), simulations, draws)
    return low / simulations, high / simulations


def distributions() -> Any:
    """scipy's; imported where they are asked for, as that takes a second."""
    from scipy import stats  # type: ignore[import-untyped]  # ships no types

    return stats


def _uniform(draws: int) -> NDArray[np.float64]:
    """The uniform distribution function at ranks 0 … draws - 1."""
    found: NDArray[np.float64] = np.arange(1, draws + 1) / (draws + 1)
    return found


def _limits(gamma: float, simulations: int, draws: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The least and the largest counts of ranks up to each one that are less rare than gamma."""
    binom, tail = distributions().binom, gamma / 2 * (1 + 1e-9)  # as rare as gamma, but for rounding, is out
    low = binom.ppf(tail, simulations, _uniform(draws)).astype(int)
    return low, binom.isf(tail, simulations, _uniform(draws)).astype(int)


def _rarity(gamma: float, simulations: int, draws: int) -> float:
    """The probability that uniform ranks have a gamma as small.

    Counts of uniform ranks are those of a Poisson process given its total, so that the probability of staying within the
    limits at all ranks is a chain of convolutions.
    """
    if draws * gamma < _NEGLIGIBLE:
        return draws * gamma  # the sum over ranks
    poisson, mean = distributions().poisson, simulations / (draws + 1)
    steps = poisson.pmf(np.arange(simulations + 1), mean)
    start, within = 0, np.ones(1)
    for low, high in zip(*_limits(gamma, simulations, draws), strict=True):
        if high < low:
            return 1.0
        within = np.convolve(within, steps[: high - start + 1])[low - start : high - start + 1]
        start = low
    inside = float(within @ steps[simulations - start - np.arange(len(within))])
    return min(1.0, max(0.0, 1 - inside / float(poisson.pmf(simulations, simulations))))
