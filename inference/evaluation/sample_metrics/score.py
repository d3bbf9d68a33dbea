"""What every sample metric gives and takes: a number with its interval, and rows that can be compared."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

LEVEL = 0.95
"""Of every interval."""


class Score(NamedTuple):
    """A metric with a 95 % interval."""

    value: float
    low: float
    high: float


def rows(samples: Tensor, data: Tensor, fewest: int = 2) -> tuple[Tensor, Tensor]:
    """Both as float64 `(n, features)`, `(m, features)`.

    Raises:
        ValueError: they can not be compared: other features, fewer rows than `fewest`, values that are not finite, or real
            numbers (means, probabilities) beside data of a few levels, which differ by that alone.
    """
    if samples.shape[1:] != data.shape[1:]:
        raise ValueError(
            f"samples: expected the shape of the data, {tuple(data.shape[1:])} each, got {tuple(samples.shape[1:])}; "
            "draw from a program that was trained on these data"
        )
    for name, values in (("samples", samples), ("data", data)):
        if len(values) < fewest:
            raise ValueError(f"{name}: expected at least {fewest} to compare, got {len(values)}")
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name}: expected finite values, got {int((~values.isfinite()).sum())} that are not")
    flat = samples.reshape(len(samples), -1).double(), data.reshape(len(data), -1).double()
    if flat[0].shape[1] == 0:
        raise ValueError("samples: expected at least one feature each, got none")
    whole = [bool((values == values.round()).all()) for values in flat]
    if whole == [False, True]:
        raise ValueError(
            "samples: real numbers beside data of whole levels, so that any metric would tell the two apart by that alone; "
            "give draws of x, and not its means or probabilities"
        )
    return flat


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances `(n, m)`; of equal rows exactly 0.

    By matrix products, which are faster, only where these are exact: whole numbers. Elsewhere equal rows would be apart.
    """
    whole = bool((x == x.round()).all()) and bool((y == y.round()).all())
    return torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist" if whole else "donot_use_mm_for_euclid_dist")


def bootstrap(
    statistic: Callable[[Tensor, Tensor], Tensor], sizes: tuple[int, int], seed: int = 0, replicates: int = 400
) -> Score:
    """A statistic of weighted rows, and its percentile interval by resampling both sets (Efron 1979).

    `statistic` is given how often each row counts, `(replicates, n)` and `(replicates, m)`, and gives `(replicates,)`.
    """
    value = float(statistic(*(torch.ones(1, size, dtype=torch.float64) for size in sizes)))
    generator = torch.Generator().manual_seed(seed)
    found = statistic(*(_counts(size, replicates, generator) for size in sizes))
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    low, high = found.quantile(tails).tolist()
    return Score(value, low, high)


def _counts(size: int, replicates: int, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(size, (replicates, size), generator=generator)
    counts = torch.zeros(replicates, size, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(counts))
