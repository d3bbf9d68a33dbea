"""Whether ranks are uniform: their empirical distribution against bands that hold at all places at once."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

_NULL = 4000
"""How many sets of uniform ranks are drawn to know what is rare."""


class Uniformity(NamedTuple):
    """A test of ranks 0 … draws against the uniform distribution."""

    gamma: float
    """The smallest two-sided binomial probability of the empirical distribution, over all ranks."""
    p_value: float
    """How often uniform ranks give as small a gamma; no smaller than the number of sets that were drawn can tell."""


def uniformity(ranks: Tensor, draws: int) -> Uniformity:
    """The test of Säilynoja et al. (2022, arXiv 2103.10522) of `(simulations,)` ranks among so many draws."""
    counts = np.bincount(ranks.numpy(), minlength=draws + 1)[None, :]
    gamma = float(_gamma(counts, len(ranks), draws)[0])
    null = _null(len(ranks), draws)
    return Uniformity(gamma, float((1 + (null <= gamma).sum()) / (1 + len(null))))


def bands(simulations: int, draws: int, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the empirical distribution at ranks 0 … draws - 1 lies in 1 - level of all sets of uniform ranks."""
    gamma, binom = float(np.quantile(_null(simulations, draws), level)), _binomial()
    places = _places(draws)
    return binom.ppf(gamma / 2, simulations, places) / simulations, binom.isf(
        gamma / 2, simulations, places
    ) / simulations


def _binomial() -> Any:
    from scipy.stats import binom  # type: ignore[import-untyped]  # here, as it takes a second and ships no types

    return binom


def _places(draws: int) -> NDArray[np.float64]:
    """The uniform distribution at ranks 0 … draws - 1."""
    found: NDArray[np.float64] = np.arange(1, draws + 1) / (draws + 1)
    return found


@lru_cache(maxsize=8)
def _null(simulations: int, draws: int) -> NDArray[np.float64]:
    """The gamma of sets of uniform ranks, by a generator of its own."""
    generator = np.random.default_rng(0)
    counts = generator.multinomial(simulations, np.full(draws + 1, 1 / (draws + 1)), size=_NULL)
    return _gamma(counts, simulations, draws)


def _gamma(counts: NDArray[np.int64], simulations: int, draws: int) -> NDArray[np.float64]:
    """Of sets of ranks, `(sets, draws + 1)` counts of each."""
    at_most = counts.cumsum(1)[:, :-1]
    each, binom = np.arange(simulations + 1)[:, None], _binomial()
    below = binom.cdf(each, simulations, _places(draws))  # a table, as every set asks for the same values
    above = binom.sf(each - 1, simulations, _places(draws))
    place = np.arange(draws)
    found: NDArray[np.float64] = 2 * np.minimum(below[at_most, place], above[at_most, place]).min(1)
    return found
