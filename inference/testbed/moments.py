"""The first two moments of a latent site given the data."""

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Mean and variance of each element of a site's value, `(batch, *event)`; of a finite site, of its number."""

    mean: Tensor
    variance: Tensor


def of_finite(probabilities: Tensor) -> Moments:
    """The moments of a number 0..k-1 from its probabilities `(…, k)`."""
    numbers = torch.arange(probabilities.shape[-1], dtype=probabilities.dtype)
    mean = (probabilities * numbers).sum(-1)
    return Moments(mean, (probabilities * numbers.square()).sum(-1) - mean.square())
