"""What pictures of a run are made of, as plain arrays in the data's own units."""

import io
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.programs.noise import mix, own_noise
from ppmodels.app.drawn import completed, decoded, latents_given
from ppmodels.app.experiment import Experiment, chosen_rows
from ppmodels.app.pictures import codes, great_circles, interpolated
from ppmodels.app.study.measurement import Missing
from ppmodels.app.study.missing import found_or_missing
from ppmodels.app.study.samples import Compared
from ppmodels.app.study.settled import is_images, original
from ppmodels.data import Dataset

SHOWN, FEW = 64, 16
Arrays = dict[str, NDArray[np.float32]]


def arrays_of(experiment: Experiment, samples: Tensor, compared: Compared, seed: int = 0) -> Arrays:
    """By name, as far as they can be had: samples and their nearest training rows, originals and what was made of them."""
    data = experiment.data
    found = {"samples": samples[:SHOWN], "nearest": compared.nearest[:FEW]}

    def add(make: Callable[[], Mapping[str, Tensor]]) -> None:
        with own_noise(mix(seed, 9)):
            made = found_or_missing(make)
        found.update({} if isinstance(made, Missing) else made)

    add(lambda: _reconstructions(experiment))
    if is_images(data):
        add(lambda: _completions(experiment))
        add(lambda: _interpolation(experiment))
    return {name: _own(data, values) for name, values in found.items() if len(values)}


def of_data(data: Dataset) -> Arrays:
    """`samples`: 64 held-out examples, a fixed choice."""
    return {"samples": _own(data, data.test.values[chosen_rows(len(data.test), SHOWN)])}


def packed(arrays: Arrays) -> bytes:
    """The contents of an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its options
    return buffer.getvalue()


def _own(data: Dataset, values: Tensor) -> NDArray[np.float32]:
    """In the data's own units, whatever axes stand before those of an example."""
    rows = original(data, values.reshape(-1, *data.shape))
    return rows.reshape(values.shape).numpy().astype(np.float32)


def _reconstructions(experiment: Experiment) -> dict[str, Tensor]:
    """Of a guide that reads x; of a table draws or means too."""
    batch = experiment.examples(FEW)
    latents = latents_given(experiment, batch)
    if not latents:
        return {}
    return {"originals": batch[0], "reconstructions": decoded(experiment, batch, latents)[0]}


def _completions(experiment: Experiment) -> dict[str, Tensor]:
    """Test images of which the upper half was given, and the rest drawn."""
    batch = experiment.examples(FEW)
    known = torch.zeros_like(batch[0], dtype=torch.bool)
    known[:, :, : batch[0].shape[2] // 2] = True
    return {"completions": completed(experiment, batch, known), "originals": batch[0]}


def _interpolation(experiment: Experiment) -> dict[str, Tensor]:
    """`(rows, columns, channel, height, width)`: between test images by their codes, or between draws of z."""
    if latents_given(experiment, experiment.examples(2)):
        return {"interpolation": interpolated(experiment, *codes(experiment))[0]}
    return {"interpolation": great_circles(experiment)[0]}
