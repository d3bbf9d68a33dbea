"""Numbers of several seeds: means with errors that count what another training would change."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, variance

from inference.evaluation.rank_statistics import distributions
from ppmodels.app.study.measurement import Number

LEVEL = 0.05
"""How often an interval misses, and how often a verdict may be wrong."""


@dataclass(frozen=True)
class Uncertain:
    """An estimate whose variance is a sum of estimated ones, each with its degrees of freedom.

    Its intervals are those of Banerjee (1960, Sankhya 22): the half-width is the root of Σ tᵢ² vᵢ, with tᵢ Student's
    quantile at the freedom of the variance vᵢ. They miss at most as often as they say whatever the ratio of the
    variances, which an effective number of degrees of freedom does not promise where two seeds are all there is.
    """

    value: float
    parts: tuple[tuple[float, float], ...]
    """(variance, degrees of freedom), infinite where a variance is taken as known."""

    @property
    def error(self) -> float:
        """The standard error."""
        return math.sqrt(sum(each for each, _ in self.parts))

    def reach(self, level: float = LEVEL) -> float:
        """Half the width of the interval that misses so often, on both sides together."""
        return math.sqrt(sum(quantile(level, freedom) ** 2 * each for each, freedom in self.parts))

    def number(self, level: float = LEVEL) -> Number:
        """The value and its interval."""
        return Number(self.value, self.value - self.reach(level), self.value + self.reach(level))

    def sign(self, level: float = LEVEL) -> int:
        """1 or -1 where the interval lies above or below 0, else 0: a wrong sign at most `level / 2` of times."""
        found = self.number(level)
        return int(found.low > 0) - int(found.high < 0)

    def p_below(self) -> float:
        """P(worse): the one-sided p-value of the true value being 0 or less, by the same intervals."""
        if self.value < 0:
            return 1 - (-self).p_below()
        small, large = 1e-12, 1.0
        for _ in range(50):
            middle = math.sqrt(small * large)
            small, large = (small, middle) if self.reach(middle) < self.value else (middle, large)
        return large / 2

    def __neg__(self) -> "Uncertain":
        return Uncertain(-self.value, self.parts)

    def __sub__(self, other: "Uncertain") -> "Uncertain":
        """The difference of two that have no noise in common."""
        return Uncertain(self.value - other.value, self.parts + other.parts)


@lru_cache(maxsize=4096)
def quantile(level: float, freedom: float) -> float:
    """Student's two-sided quantile."""
    found = distributions()
    return float(found.norm.isf(level / 2) if math.isinf(freedom) else found.t.isf(level / 2, freedom))


def known(number: Number) -> Uncertain:
    """A number with a normal 95 % interval."""
    error = (number.high - number.low) / 2 / quantile(LEVEL, math.inf)
    return Uncertain(number.value, ((error**2, math.inf),))


def over_seeds(numbers: Sequence[Number]) -> Uncertain:
    """The mean of the seeds' numbers.

    Their own errors are not made smaller by their count, as all seeds are measured against the same held-out examples; what
    remains between the seeds is.
    """
    own = fmean(known(each).parts[0][0] for each in numbers)
    return Uncertain(fmean(each.value for each in numbers), ((own, math.inf), *between([n.value for n in numbers])))


def between(values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """The variance of a mean over seeds, that is of their spread; of one seed nobody knows it."""
    return ((variance(values) / len(values), len(values) - 1.0),) if len(values) > 1 else ()


def mean_of_examples(scores: Sequence[Sequence[float]]) -> Uncertain:
    """The mean of `(seeds, examples)` for examples like these and a model that is trained anew."""
    each = [fmean(column) for column in zip(*scores, strict=True)]
    examples = ((variance(each) / len(each), len(each) - 1.0),) if len(each) > 1 else ()
    return Uncertain(fmean(each), (*examples, *between([fmean(row) for row in scores])))


def paired(mine: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Uncertain:
    """The difference of two models' `(seeds, examples)` on the same examples.

    A score is μ + exampleᵢ + seedₛ + noiseₛᵢ. Averaged over seeds, the differences by example have the variance of the
    examples and of the noise; what a seed shifts is common to all examples, so that their spread does not show it: it is
    estimated from the means of the seeds, of each model its own, and added. Its estimate has the noise in it a second time,
    which errs on the careful side by the noise's variance over examples and seeds.
    """
    ours, others = ([fmean(column) for column in zip(*scores, strict=True)] for scores in (mine, theirs))
    differences = [one - other for one, other in zip(ours, others, strict=True)]
    spread = (variance(differences) / len(differences), len(differences) - 1.0)
    seeds = (part for scores in (mine, theirs) for part in between([fmean(row) for row in scores]))
    return Uncertain(fmean(differences), (spread, *seeds))
