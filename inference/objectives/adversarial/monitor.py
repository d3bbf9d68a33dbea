"""The training monitor of adversarial objectives: a critic's accuracy and calibration, the diversity of draws."""

import math
import warnings

import torch
from torch import Tensor

NEIGHBOURS = 5
ALIKE, MISSING = 0.2, 0.6
PATIENCE = 50
"""Records in a row, 1,000 steps of `fit` by default, before the warning: early in training all draws are alike."""


@torch.no_grad()
def accuracy(q: Tensor, p: Tensor) -> Tensor:
    """How often a critic puts a sample of q above one of p, over all pairs, from its values: 1/2 where they are alike."""
    above = q.unsqueeze(1) - p.unsqueeze(0)
    return ((above > 0).float() + 0.5 * (above == 0).float()).mean()


@torch.no_grad()
def calibration(log_ratio: Tensor) -> Tensor:
    """log E_p[q/p] from log ratios of samples of p, in nats: 0 for the true ratio."""
    return torch.logsumexp(log_ratio, 0) - math.log(len(log_ratio))


@torch.no_grad()
def diversity(q: Tensor, p: Tensor) -> Tensor:
    """The spread of draws p over that of examples q, each the root of a total variance: 1 for alike, 0 for one point."""
    return (_rows(p).var(0).sum() / _rows(q).var(0).sum()).sqrt()


@torch.no_grad()
def coverage_and_precision(q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Two shares, by balls around the examples q, each as wide as the distance to its 5th neighbour among them.

    Coverage (Naeem et al., 2020, arXiv 2002.09797): how many balls hold one of the draws p. About 0.97 where q and p are
    alike, and lower where modes are missing. Precision (Kynkäänniemi et al., 2019, arXiv 1904.06991): how many draws lie
    in some ball. Draws that are precise and cover little have left modes out.
    """
    q, p = _rows(q).unique(dim=0), _rows(p)  # repeated examples would be each other's neighbours
    # The nearest of all is the example itself.
    nearest = torch.cdist(q, q).topk(min(NEIGHBOURS + 1, len(q)), dim=1, largest=False).values
    inside = torch.cdist(q, p) <= nearest[:, -1:]
    return inside.any(1).float().mean(), inside.any(0).float().mean()


def _rows(values: Tensor) -> Tensor:
    """A vector for each example, also where it is a single number."""
    return values.reshape(len(values), -1)


class Collapse:
    """Warns once where draws have long been alike, or precise without covering the data."""

    def __init__(self) -> None:
        self.low = 0

    def monitor(self, spread: Tensor, covered: Tensor, precise: Tensor) -> None:
        """Takes in one record: diversity, coverage and precision."""
        missing = float(precise) > 0.5 and float(covered) < MISSING * float(precise)
        self.low = self.low + 1 if float(spread) < ALIKE or missing else 0
        if self.low == PATIENCE:
            warnings.warn(
                f"mode collapse? For {PATIENCE} records the program's draws have been alike, or left out a part of the "
                f"data (diversity {float(spread):.2f}, precision {float(precise):.2f}, coverage "
                f"{float(covered):.2f}). "
                "Penalise the critic (r1, gradient_penalty), give it more turns, or lower the learning rate.",
                stacklevel=2,
            )
