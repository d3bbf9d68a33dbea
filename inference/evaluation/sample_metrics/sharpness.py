"""How sharp images are beside data: their energy in gradients and in high frequencies."""

from typing import NamedTuple

import torch
from torch import Tensor

from inference.evaluation.sample_metrics.score import Score, bootstrap


class Sharpness(NamedTuple):
    """Natural log ratios of mean energies, samples over data: 0 for the data, below 0 blurred, above 0 noisy."""

    gradient: Score
    """Of squared differences of neighbouring pixels."""
    high_frequency: Score
    """Of the spectrum above half of the highest frequency of an axis."""


def sharpness(samples: Tensor, data: Tensor, seed: int = 0) -> Sharpness:
    """The sharpness of images `(n, channel, height, width)`, of the same units, beside data `(m, channel, height, width)`.

    A constant contrast counts too: images of half the contrast have a quarter of the energy, log ¼. Draws of binary pixels
    are as sharp as their noise and say nothing; give the means of x in their place, and the data as they are.

    Raises:
        ValueError: no images of the same shape with at least two pixels a side, or data without any edge.
    """
    if samples.dim() != 4 or samples.shape[1:] != data.shape[1:] or min(samples.shape[2:]) < 2:
        raise ValueError(
            f"samples: expected images (n, channel, height, width) of the shape of the data, {tuple(data.shape[1:])}, at "
            f"least two pixels a side, got {tuple(samples.shape)}"
        )
    return Sharpness(
        *(_log_ratio(energy(samples), energy(data), seed) for energy in (gradient_energy, high_frequencies))
    )


def gradient_energy(images: Tensor) -> Tensor:
    """The mean squared difference of neighbouring pixels of each image, both axes added up: `(n,)`."""
    images = images.double()
    return sum((images.diff(dim=axis).square().flatten(1).mean(1) for axis in (2, 3)), images.new_zeros(len(images)))


def high_frequencies(images: Tensor) -> Tensor:
    """The energy a pixel of each image above half of an axis's highest frequency: `(n,)`.

    Images are mirrored at their borders, which would else be steps of the periodic continuation, and count as edges.
    """
    images = images.double()
    whole = torch.cat((images, images.flip(2)), 2)
    whole = torch.cat((whole, whole.flip(3)), 3)
    height, width = whole.shape[2:]
    spectrum = torch.fft.fft2(whole, norm="ortho").abs().square()
    rows, columns = (torch.fft.fftfreq(size, dtype=torch.float64).square() for size in (height, width))
    high = (rows[:, None] + columns[None, :]).sqrt() > 0.25
    return (spectrum * high).flatten(1).sum(1) / whole[0].numel()


def _log_ratio(of_samples: Tensor, of_data: Tensor, seed: int) -> Score:
    if not float(of_data.mean()) > 0:
        raise ValueError("data: all images are flat, which have no sharpness to measure by")
    if not float(of_samples.mean()) > 0:
        return Score(-torch.inf, -torch.inf, -torch.inf)
    sizes = len(of_samples), len(of_data)
    return bootstrap(lambda a, b: ((a @ of_samples / a.sum(1)) / (b @ of_data / b.sum(1))).log(), sizes, seed)
