"""What nearest neighbours say of samples: precision, recall, density, coverage, and whether training data are copied."""

from typing import NamedTuple

import torch
from torch import Tensor

from inference.evaluation.sample_metrics.score import Score, bootstrap, distances, rows

_AT_ONCE = 10_000
"""Training rows that are held in float64 at once."""


class Neighbours(NamedTuple):
    """Shares by balls around rows, each as wide as the distance to its k-th neighbour in its own set."""

    precision: Score
    """Of the samples, how many lie in some ball of the data."""
    recall: Score
    """Of the data, how many lie in some ball of the samples."""
    density: Score
    """In how many balls of the data a sample lies, over k: 1 where both are alike, and not bounded by it."""
    coverage: Score
    """Of the data, how many have a sample in their ball."""
    k: int
    expected_coverage: float
    """What coverage is in the mean where both are alike."""


def neighbours(samples: Tensor, data: Tensor, k: int | None = None, seed: int = 0) -> Neighbours:
    """Precision and recall (Kynkäänniemi et al. 2019, 1904.06991), density and coverage (Naeem et al. 2020, 2002.09797).

    k is the smallest for which samples of the data's own distribution would cover at least 0.95 of them.

    Raises:
        ValueError: the rows can not be compared, or no k is large enough: too few samples.
    """
    x, y = rows(samples, data)
    k = smallest_k(len(x), len(y)) if k is None else k
    if not 1 <= k < min(len(x), len(y)):
        raise ValueError(f"k: expected 1 to {min(len(x), len(y)) - 1}, fewer than samples and data, got {k}")
    across = distances(x, y)
    in_data = across <= _radius(y, k)
    in_samples = across <= _radius(x, k).unsqueeze(1)

    def mean_of(each: Tensor, axis: int) -> Score:
        """The mean of a number for each row of the samples (0), or of the data (1)."""
        return bootstrap(lambda *counts: counts[axis] @ each.double() / counts[axis].sum(1), (len(x), len(y)), seed)

    return Neighbours(
        precision=mean_of(in_data.any(1), 0),
        recall=mean_of(in_samples.any(0), 1),
        density=mean_of(in_data.double().sum(1) / k, 0),
        coverage=mean_of(in_data.any(0), 1),
        k=k,
        expected_coverage=expected_coverage(len(x), len(y), k),
    )


def expected_coverage(samples: int, data: int, k: int) -> float:
    """The mean coverage of data by samples of their own distribution.

    Seen from one row, the other data and the samples come in random order. It is not covered if k data come first.
    """
    missed = 1.0
    for j in range(k):
        missed *= (data - 1 - j) / (data - 1 - j + samples)
    return 1 - missed


def smallest_k(samples: int, data: int) -> int:
    """The smallest k with an expected coverage of 0.95; ValueError where none is."""
    for k in range(1, min(samples, data)):
        if expected_coverage(samples, data, k) >= 0.95:
            return k
    raise ValueError(
        f"samples: {samples} beside {data} data are too few for coverage: even data of the same kind would leave more than "
        "a twentieth without one; draw as many as there are data"
    )


class Memorisation(NamedTuple):
    """Whether samples lie nearer to the training data than held-out data do."""

    nearer: Score
    """P(a sample is nearer to its training neighbour than a held-out example is to its own): 1/2 where nothing is copied."""
    nearest: Tensor
    """The training neighbour of each sample, `(samples,)`."""
    distance: Tensor
    """How far it is, `(samples,)`."""


def memorisation(samples: Tensor, train: Tensor, held_out: Tensor, seed: int = 0) -> Memorisation:
    """The test for copied data of Meehan et al. (2020, arXiv 2004.05675), over the whole space at once.

    It is the Mann-Whitney statistic of distances to the nearest training example: above 1/2 training data are copied, below
    it the samples lie off the data.

    Raises:
        ValueError: the rows can not be compared.
    """
    distance, nearest = _nearest(samples, train)
    own, _ = _nearest(held_out, train)
    won = (distance.unsqueeze(1) < own).double() + 0.5 * (distance.unsqueeze(1) == own).double()
    sizes = len(samples), len(held_out)
    nearer = bootstrap(lambda a, b: ((a @ won) * b).sum(1) / (a.sum(1) * b.sum(1)), sizes, seed)
    return Memorisation(nearer, nearest, distance)


def _nearest(values: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """How far each row's nearest training row is, and which it is; of many training rows, so many at once."""
    best: tuple[Tensor, Tensor] | None = None
    for start in range(0, len(train), _AT_ONCE):
        part = distances(*rows(values, train[start : start + _AT_ONCE], fewest=1)).min(1)
        if best is None:
            best = part.values, part.indices
        else:
            nearer = part.values < best[0]
            best = torch.where(nearer, part.values, best[0]), torch.where(nearer, start + part.indices, best[1])
    if best is None:
        raise ValueError("train: expected at least 1, got none")
    return best


def _radius(values: Tensor, k: int) -> Tensor:
    """The distance of each row to its k-th neighbour; the nearest of all is the row itself."""
    return distances(values, values).topk(k + 1, dim=1, largest=False).values[:, -1]
