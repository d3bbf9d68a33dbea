"""Synthetic data sets with known modes, by which missing modes are counted."""

import math

import numpy as np
import torch
from torch import Tensor

from ppmodels.data.assemble import Raw
from ppmodels.data.dataset import SPLITS, Dataset, Split
from ppmodels.data.noise import SIMULATED, mix

SIZES = (20_000, 2_000, 2_000)
STACKS = (26_000, 2_000, 2_000)
RING_SD, GRID_SD = 0.01, 0.05


def ring_modes() -> Tensor:
    """Eight points on the unit circle, `(8, 2)`."""
    angle = torch.arange(8) * (2 * math.pi / 8)
    return torch.stack((angle.cos(), angle.sin()), 1)


def grid_modes() -> Tensor:
    """Five by five points, 2 apart and centred on 0, `(25, 2)`."""
    side = 2.0 * torch.arange(5) - 4
    return torch.cartesian_prod(side, side)


def ring(seed: int) -> Raw:
    """A mixture of eight normals on the unit circle, each of standard deviation 0.01; labels are the modes."""
    return _mixture(ring_modes(), RING_SD, seed)


def grid(seed: int) -> Raw:
    """A mixture of 25 normals on a square grid, 2 apart, each of standard deviation 0.05; labels are the modes."""
    return _mixture(grid_modes(), GRID_SD, seed)


def stacked(digits: Dataset, seed: int) -> Dataset:
    """Three digits of one split as the colour channels of an image, drawn with replacement: 1,000 modes, the labels.

    After the stacked MNIST of Metz et al. (2017, arXiv 1611.02163). 26,000 stacks to train, 2,000 each to validate and test.
    """
    made = {}
    for index, (name, size) in enumerate(zip(SPLITS, STACKS, strict=True)):
        split = digits.split(name)
        assert split.labels is not None
        chosen = torch.randint(len(split), (size, 3), generator=_generator(seed, index))
        labels = (split.labels[chosen] * torch.tensor([100, 10, 1])).sum(1)
        made[name] = Split(split.values[chosen].squeeze(2), labels)
    return Dataset(
        f"stacked-{digits.name}", made["train"], made["valid"], made["test"], digits.levels, reading=digits.reading
    )


def _mixture(modes: Tensor, sd: float, seed: int) -> Raw:
    generator = _generator(seed, len(modes))
    which = torch.randint(len(modes), (sum(SIZES),), generator=generator)
    values = modes[which] + sd * torch.randn(len(which), 2, generator=generator)
    return Raw(values.numpy().astype(np.float32), which.numpy(), SIZES)


def _generator(seed: int, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(mix(seed, SIMULATED, index))
