"""The maximum mean discrepancy of two samples, without bias: of kernels on the values, or of features (KID)."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from inference.evaluation.rank_statistics import distributions
from inference.evaluation.sample_metrics.score import Score, bootstrap, distances, rows

ALPHAS = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Of the rational quadratic kernels; small ones have long tails (Bińkowski et al. 2018)."""


class MMD(NamedTuple):
    """MMD², which is 0 in the mean where both are alike, and may then be negative."""

    score: Score
    p_value: float
    """Of no difference, exact at any size: the rank of MMD² among those of random splits of the pooled rows."""


def mmd(samples: Tensor, data: Tensor, seed: int = 0, permutations: int = 500) -> MMD:
    """MMD² of samples and data, by Σ_α (1 + |x - y|² / (2 α s))^-α, s the median squared distance of the pooled rows.

    The estimator is without bias (Gretton et al. 2012, JMLR 13), the kernels are those of Bińkowski et al. (2018, arXiv
    1801.01401). The interval resamples both sets; near no difference it is wider than need be, and the p-value decides.

    Raises:
        ValueError: the rows can not be compared, or are all the same.
    """
    x, y = rows(samples, data)
    kernel = _rational_quadratic(torch.cat((x, y)))
    n = len(x)

    def split(within: Tensor) -> Tensor:
        """MMD² of those within a part and those without, `(splits,)` of `(splits, n + m)` ones and zeros."""
        return _mmd2(kernel, kernel, kernel, within, 1 - within)

    first = torch.zeros(1, len(kernel), dtype=torch.float64)
    first[:, :n] = 1
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(permutations, len(kernel), generator=generator).argsort(1)
    above = int((split(first[0][order]) >= split(first)).sum())
    score = bootstrap(lambda a, b: _mmd2(kernel[:n, :n], kernel[:n, n:], kernel[n:, n:], a, b), (n, len(y)), seed)
    return MMD(score, (1 + above) / (1 + permutations))


def kid(samples: Tensor, data: Tensor, block: int = 50, seed: int = 0) -> Score:
    """The kernel distance of features, MMD² by ((x · y) / d + 1)³: the mean of disjoint blocks, with Student's interval.

    Bińkowski et al. (2018, arXiv 1801.01401), who take the features of Inception. Ours are `(n, features)` of any network:
    a number says which, and compares with those of the same alone. Both sets are shuffled, and cut into blocks of `block`.

    Raises:
        ValueError: the rows can not be compared, or there are fewer than two blocks.
    """
    x, y = rows(samples, data)
    count = min(len(x), len(y)) // block
    if block < 2 or count < 2:
        raise ValueError(
            f"block: expected at least two blocks of two rows or more of {len(x)} samples and {len(y)} data, got "
            f"{block} rows a block; the error of the mean is taken between blocks"
        )
    generator = torch.Generator().manual_seed(seed)
    x, y = (each[torch.randperm(len(each), generator=generator)[: count * block]] for each in (x, y))
    ones = torch.ones(1, block, dtype=torch.float64)
    values = torch.stack(
        [
            _mmd2(_cubic(a, a), _cubic(a, b), _cubic(b, b), ones, ones).squeeze(0)
            for a, b in zip(x.split(block), y.split(block), strict=True)
        ]
    )
    error = float(values.std()) / math.sqrt(count) * float(distributions().t.ppf(0.975, count - 1))
    mean = float(values.mean())
    return Score(mean, mean - error, mean + error)


def _mmd2(of_x: Tensor, across: Tensor, of_y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """MMD² of rows that count a and b times, `(replicates,)`; a row is never compared with itself."""
    mean_x = _mean_of_pairs(of_x, a)
    mean_y = _mean_of_pairs(of_y, b)
    mean_across = ((a @ across) * b).sum(1) / (a.sum(1) * b.sum(1))
    return mean_x + mean_y - 2 * mean_across


def _mean_of_pairs(kernel: Tensor, counts: Tensor) -> Tensor:
    with_itself = counts.square()
    total = ((counts @ kernel) * counts).sum(1) - with_itself @ kernel.diagonal()
    return total / (counts.sum(1).square() - with_itself.sum(1))


def _rational_quadratic(pooled: Tensor) -> Tensor:
    distance = distances(pooled, pooled).square()
    scale = float(distance[distance > 0].median()) if bool((distance > 0).any()) else 0.0
    if scale == 0:
        raise ValueError("samples: all samples and data are the same row, which has no distance to measure by")
    return torch.stack([(1 + distance / (2 * alpha * scale)) ** -alpha for alpha in ALPHAS]).sum(0)


def _cubic(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.mT / a.shape[1] + 1) ** 3
