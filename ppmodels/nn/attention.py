"""A window that moves over an image: Gaussian filters that read from it and write to it (Gregor et al., 2015).

Pixels are counted from 1. A window is a grid of `points` × `points` Gaussian filters, `stride` pixels apart.
"""

from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ppmodels.nn.parameters import full_precision


class Window(NamedTuple):
    """One window for each example, in pixels of the image; `(batch,)` each."""

    x: Tensor
    """The column of its centre, 1 for the first."""
    y: Tensor
    """The row of its centre, 1 for the first."""
    stride: Tensor
    """Pixels from one filter to the next."""
    variance: Tensor
    """Of every filter, in squared pixels."""
    gain: Tensor
    """What is read is multiplied by it, what is written divided."""


def filters(centre: Tensor, stride: Tensor, variance: Tensor, points: int, pixels: int) -> Tensor:
    """The filters of a window along one side of an image, `(batch, points, pixels)`; each sums to 1 over the pixels.

    Filter i = 1 … N is a normal density around centre + (i - N/2 - ½) · stride. A softmax normalises it: a sum of
    densities in the denominator is 0 as soon as the filter leaves the image.
    """
    index = torch.arange(1, points + 1, device=centre.device, dtype=centre.dtype)
    pixel = torch.arange(1, pixels + 1, device=centre.device, dtype=centre.dtype)
    means = centre.unsqueeze(-1) + (index - points / 2 - 0.5) * stride.unsqueeze(-1)
    distance = pixel - means.unsqueeze(-1)
    return (-distance.square() / (2 * variance[:, None, None])).softmax(-1)


class WindowMap(nn.Module):
    """A window from a hidden state, by a linear map to g̃x, g̃y, log σ², log δ̃ and log γ.

    The centre is ((width + 1) / 2 · (g̃x + 1), (height + 1) / 2 · (g̃y + 1)), the stride δ̃ · (longer side - 1) / (points - 1).
    All five numbers are bounded, by u / √(1 + u²) of the map's outputs, whose slope falls slowly enough to lead back from
    anywhere. The centre stays within half a pixel of the image; a filter has at least half a pixel and at most the
    longer side as its σ; and as δ̃ < 1, a window has a filter on the image wherever its centre is. The map starts at zero: a
    window in the middle, over ¾ of the image, with filters of σ half a stride, so that nothing between them is missed, and
    a gain of stride ** `power`. These wide filters are means over about stride² pixels, and with a gain of 1 would see and
    paint next to nothing. At a power of 1 what is read keeps its standard deviation, as of pixels that are independent; at
    a power of -2 a patch of ones is painted as ones.
    """

    middle: Tensor
    reach: Tensor
    start: Tensor

    def __init__(self, features: int, points: int, size: tuple[int, int], power: int) -> None:
        super().__init__()
        self.points, self.size = points, size
        self.widest = (max(size) - 1) / (points - 1)
        stride = _START * self.widest
        gain = power * log(stride)
        sigma = max(stride / 2, 0.55)
        limits = [(-1.0, 1.0), (-1.0, 1.0), (2 * log(0.5), 2 * log(max(size))), (-4.0, 0.0), (gain - 4, gain + 4)]
        begin = [0.0, 0.0, 2 * log(sigma), log(_START), gain]
        low, high = torch.tensor(limits).T
        self.register_buffer("middle", (low + high) / 2, persistent=False)
        self.register_buffer("reach", (high - low) / 2, persistent=False)
        share = (torch.tensor(begin) - self.middle) / self.reach
        self.register_buffer("start", share / (1 - share.square()).sqrt(), persistent=False)
        self.linear = nn.Linear(features, 5)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, h: Tensor) -> Window:
        """The windows of hidden states `(batch, features)`."""
        u = self.start + full_precision(self.linear(h)) / self.reach
        bounded = self.middle + self.reach * u / torch.hypot(u, torch.ones_like(u))
        x, y, log_variance, log_stride, log_gain = bounded.unbind(-1)
        height, width = self.size
        return Window(
            (width + 1) / 2 * (x + 1),
            (height + 1) / 2 * (y + 1),
            self.widest * log_stride.exp(),
            log_variance.exp(),
            log_gain.exp(),
        )

    def filters(self, window: Window) -> tuple[Tensor, Tensor]:
        """Along the rows `(batch, points, height)` and along the columns `(batch, points, width)`."""
        height, width = self.size
        return (
            filters(window.y, window.stride, window.variance, self.points, height),
            filters(window.x, window.stride, window.variance, self.points, width),
        )


_START = 0.75
"""The part of the image's longer side that a window spans at first."""


class ReadWindow(nn.Module):
    """What a window sees of images `(batch, channel, height, width)`: γ F_y image F_xᵀ, `(batch, features)`."""

    def __init__(self, hidden: int, points: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.window = WindowMap(hidden, points, (height, width), 1)
        self.features = channels * points * points

    def forward(self, h: Tensor, images: Tensor) -> Tensor:
        """The patches at hidden states `(batch, hidden)`."""
        window = self.window(h)
        return read(window, *self.window.filters(window), images).flatten(1)


class WriteWindow(nn.Module):
    """What a window adds to a canvas `(batch, channel, height, width)`: F_yᵀ patch F_x / γ, the patch linear in h."""

    def __init__(self, hidden: int, points: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.window = WindowMap(hidden, points, (height, width), -2)
        self.patch = nn.Linear(hidden, channels * points * points)
        self.layout = (channels, points, points)

    def forward(self, h: Tensor) -> Tensor:
        """What is written at hidden states `(batch, hidden)`."""
        window = self.window(h)
        return write(window, *self.window.filters(window), self.patch(h).unflatten(1, self.layout))


class ReadAll(nn.Module):
    """The images themselves, `(batch, features)`, wherever one looks."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.features = channels * height * width

    def forward(self, h: Tensor, images: Tensor) -> Tensor:
        """The images `(batch, channel, height, width)`, flat."""
        return images.flatten(1)


class WriteAll(nn.Module):
    """An addition to the whole canvas, `(batch, channel, height, width)`, linear in h."""

    def __init__(self, hidden: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = shape
        self.patch = nn.Linear(hidden, channels * height * width)
        self.layout = shape

    def forward(self, h: Tensor) -> Tensor:
        """What is written at hidden states `(batch, hidden)`."""
        patch: Tensor = self.patch(h)
        return patch.unflatten(1, self.layout)


def read(window: Window, rows: Tensor, columns: Tensor, images: Tensor) -> Tensor:
    """Patches `(batch, channel, points, points)` of images, by filters along the rows and along the columns."""
    narrow = (images.flatten(1, 2) @ columns.mT).unflatten(1, images.shape[1:3])
    return window.gain[:, None, None, None] * (rows.unsqueeze(1) @ narrow)


def write(window: Window, rows: Tensor, columns: Tensor, patches: Tensor) -> Tensor:
    """Images of patches `(batch, channel, points, points)`, by filters along the rows and along the columns."""
    wide = (patches.flatten(1, 2) @ columns).unflatten(1, patches.shape[1:3])
    return (rows.mT.unsqueeze(1) @ wide) / window.gain[:, None, None, None]
