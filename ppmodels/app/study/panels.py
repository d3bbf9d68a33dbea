"""Pictures of what was measured: samples beside data and their nearest training examples, as pixels or as columns."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from inference.training.files import contents_of
from ppmodels.app import plots
from ppmodels.app.study.protocol import StudyData

Array = NDArray[Any]
WIDTH = 560
"""Pixels that a picture has about, so that it is sharp where it is shown."""


@dataclass(frozen=True)
class Scale:
    """How values become shades, the same for all pictures of a study."""

    low: float
    high: float

    def __call__(self, values: Array) -> Array:
        return np.clip((values.astype(np.float32) - self.low) / (self.high - self.low), 0.0, 1.0)


def scale_of(data: StudyData, examples: Array) -> Scale:
    """Of the data's levels; of other values, between the least and the largest of the examples."""
    if data.levels is not None:
        return Scale(0.0, data.levels - 1.0)
    low, high = float(examples.min()), float(examples.max())
    return Scale(low, high if high > low else low + 1.0)


def is_images(data: StudyData) -> bool:
    """Whether examples can be shown as pictures."""
    return len(data.shape) == 3 and min(data.shape[1:]) >= 2


def arrays_of(path: Path) -> dict[str, Array]:
    """The arrays of a file by name; none where it is not there yet.

    Raises ValueError where the file is damaged.
    """
    try:
        contents = contents_of(path)
    except FileNotFoundError:
        return {}
    try:
        with np.load(io.BytesIO(contents), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (ValueError, OSError, zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}). Remove it, and measure again.") from error


def mosaic(images: Array, scale: Scale, columns: int = 8) -> bytes:
    """Images `(n, channel, height, width)` in rows, as a PNG; of other than 1 or 3 channels, the first."""
    shown = images if images.shape[1] in (1, 3) else images[:, :1]
    tiled = plots.tiled(torch.from_numpy(np.ascontiguousarray(scale(shown))), min(columns, len(shown)))
    pixels = np.rint(255 * tiled).astype(np.uint8)
    times = max(1, round(WIDTH / pixels.shape[1]))
    picture = Image.fromarray(pixels.repeat(times, 0).repeat(times, 1))
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def paired(first: Array, second: Array, scale: Scale, columns: int = 8) -> bytes:
    """Rows of the one above rows of the other."""
    count = min(len(first), len(second))
    blocks = [
        some[start : start + columns]
        for start in range(0, count - count % columns or count, columns)
        for some in (first[:count], second[:count])
    ]
    return mosaic(np.concatenate(blocks), scale, min(columns, count))


def rows(sequences: Array, scale: Scale) -> bytes:
    """Sequences `(rows, steps, channel, height, width)`, a row each; of images without steps, eight in a row."""
    if sequences.ndim == 4:
        return mosaic(sequences, scale)
    return mosaic(sequences.reshape(-1, *sequences.shape[2:]), scale, sequences.shape[1])


def columns(data: Array, samples: Array, title: str) -> bytes:
    """Columns of a table: histograms and scatter plots of samples over data."""
    first, second = (
        torch.from_numpy(np.asarray(some, dtype=np.float32).reshape(len(some), -1)) for some in (data, samples)
    )
    names = [f"x{column}" for column in range(first.shape[1])]
    return plots.png(plots.pairs(first, second, title, names))


def of_images(arrays: Mapping[str, Array], name: str) -> Array | None:
    """An array that can be shown as pictures."""
    found = arrays.get(name)
    return found if found is not None and found.ndim in (4, 5) and len(found) > 0 else None
