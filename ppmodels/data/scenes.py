"""Scenes of several digits on one canvas, for models that count; the labels are the counts, which no model sees."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppmodels.data.assemble import Raw
from ppmodels.data.dataset import SPLITS, Dataset, Split
from ppmodels.data.noise import SIMULATED, mix
from ppmodels.data.published import mnist

Image = NDArray[np.uint8]

SCENES = (20_000, 2_000, 2_000)
CANVAS, MOST = 24, 3
"""The side of a canvas of 8×8 digits, and the largest number of these on it."""
PYRO_SEED, TEST_SEED = 681307, 681308


def multi_digits(digits: Dataset, seed: int) -> Dataset:
    """0 to 3 of the 8×8 digits on a canvas of 24×24, their squares apart; a split's scenes have its own digits.

    20,000 scenes to train, 2,000 each to validate and test.
    """
    made = {}
    for index, (name, size) in enumerate(zip(SPLITS, SCENES, strict=True)):
        generator = torch.Generator().manual_seed(mix(seed, SIMULATED, CANVAS, index))
        made[name] = _scenes(digits.split(name).values, size, generator)
    return Dataset("multi-digits", made["train"], made["valid"], made["test"], digits.levels, reading=digits.reading)


def _scenes(digits: Tensor, size: int, generator: torch.Generator) -> Split:
    side = digits.shape[-1]
    counts = torch.randint(MOST + 1, (size,), generator=generator)
    which = torch.randint(len(digits), (size, MOST), generator=generator)
    corners = _apart(counts, side, generator)
    canvases = digits.new_zeros(size, 1, CANVAS, CANVAS)
    within = torch.arange(side)
    for t in range(MOST):
        scene = (counts > t).nonzero().flatten()
        rows = corners[scene, t, 0, None, None] + within[:, None]
        columns = corners[scene, t, 1, None, None] + within
        canvases[scene[:, None, None], 0, rows, columns] = digits[which[scene, t], 0]
    return Split(canvases, counts)


def _apart(counts: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Upper left corners `(scenes, MOST, 2)`, drawn anew until the squares of the objects there are apart."""
    corners = torch.zeros(len(counts), MOST, 2, dtype=torch.long)
    left = torch.arange(len(counts))
    first, second = torch.triu_indices(MOST, MOST, 1)
    while len(left):
        corners[left] = torch.randint(CANVAS - side + 1, (len(left), MOST, 2), generator=generator)
        near = ((corners[left][:, first] - corners[left][:, second]).abs() < side).all(-1)
        left = left[(near & (second < counts[left, None])).any(1)]
    return corners


def multi_mnist(folder: Path) -> Raw:
    """0 to 2 digits of MNIST on a canvas of 50×50, of varying size, by the recipe of Pyro's AIR example.

    Its 60,000 scenes are of the 60,000 training digits: the first 50,000 train, the last 10,000 (of the same digits) valid.
    10,000 test scenes are of the test digits, by another seed. Labels are the counts.
    """
    try:
        images = mnist(folder).values
    except FileNotFoundError as error:
        raise FileNotFoundError(f"multi-mnist is made of MNIST's digits; {error}") from error
    train, counts = _pyro_scenes(images[:60_000], 60_000, PYRO_SEED)
    test, test_counts = _pyro_scenes(images[60_000:], 10_000, TEST_SEED)
    return Raw(np.concatenate((train, test)), np.concatenate((counts, test_counts)), (50_000, 10_000, 10_000))


def _pyro_scenes(digits: Image, size: int, seed: int, side: int = 50) -> tuple[Image, NDArray[np.int64]]:
    """Scenes drawn as Pyro does: all digits of one anew until no pixel exceeds 255, a crude test of overlap."""
    random = np.random.RandomState(seed)
    scenes, counts = np.zeros((size, side, side), np.uint8), np.zeros(size, np.int64)
    for scene in range(size):
        counts[scene] = random.randint(3)
        while True:
            canvas = np.zeros((side, side), np.int64)
            for _ in range(counts[scene]):
                digit = _resized(digits[random.randint(len(digits))], int(28 / (0.1 * random.randn() + 1.3)))
                pad = side - len(digit)
                row, column = random.randint(0, pad), random.randint(0, pad)
                canvas[row : row + len(digit), column : column + len(digit)] += digit
            if canvas.max() <= 255:
                break
        scenes[scene] = canvas
    return scenes, counts


def _resized(image: Image, side: int) -> Image:
    """The nearest pixel of each; on a tie the one that Pillow takes, which adds up its steps."""
    step = len(image) / side
    nearest = np.cumsum([0.5 * step] + [step] * (side - 1)).astype(np.int64)
    return image[np.ix_(nearest, nearest)]
