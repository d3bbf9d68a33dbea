"""From what a file held, as numpy arrays, to a dataset: levels, layout, labels and splits."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ppmodels.data.dataset import Dataset, Split, fingerprint_of
from ppmodels.data.levels import as_bytes, levelled
from ppmodels.data.noise import PARTITION, mix
from ppmodels.data.reading import Reading
from ppmodels.data.standardisation import Standardisation

Array = NDArray[Any]
_CLASSES = 1 << 16


@dataclass(frozen=True)
class Raw:
    """Values and labels as a file held them; `sizes` are those of train, valid and test if the source split them.

    `columns` are a table's names, if it has any; `reading` is how it was read, and `remarks` what one should know of that.
    """

    values: Array
    labels: Array | None = None
    sizes: tuple[int, int, int] | None = None
    columns: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    remarks: tuple[str, ...] = ()


def assemble(
    name: str,
    raw: Raw,
    where: str,
    seed: int,
    levels: int | None = None,
    standardise: bool | Standardisation = False,
) -> Dataset:
    """A dataset of `raw`: its own splits, else a seeded permutation cut into 80 % train, 10 % valid, 10 % test.

    `levels` of images are found from the training split unless given; a table has levels where they are given. Other
    tables are standardised by their training split where `standardise` is True, or as a given one says. `where` names the
    source in errors, which are ValueErrors.
    """
    values, observed, remarks = as_values(raw.values, where, levels)
    labels = None if raw.labels is None else _labels(raw.labels, len(values), where)
    sizes, order = raw.sizes, torch.arange(len(values))
    if sizes is None:
        held_out = round(len(values) / 10)
        if held_out < 1:
            raise ValueError(
                f"{where}: expected at least 6 examples to split into train, valid and test, "
                f"got {len(values)}; give the splits yourself, in an .npz of train, valid and test"
            )
        sizes = (len(values) - 2 * held_out, held_out, held_out)
        order = torch.randperm(len(values), generator=torch.Generator().manual_seed(mix(seed, PARTITION)))
    parts = order.split(list(sizes))
    known = [None if labels is None else labels[index] for index in parts]
    seen = [None if observed is None else observed[index] for index in parts]
    about: dict[str, Any] = {"columns": raw.columns, "masked": observed is not None}
    if values.dtype == torch.uint8:
        values, levels, found = levelled(values, parts[0], levels, where)
        train, valid, test = (
            Split(values[index], some, observed=cells) for index, some, cells in zip(parts, known, seen, strict=True)
        )
        about |= {"reading": replace(raw.reading, levels=levels), "remarks": (*raw.remarks, *remarks, *found)}
        return Dataset(name, train, valid, test, levels, **about)
    if standardise is True:
        standardise = _standardisation(values[parts[0]], seen[0], where)
    train, valid, test = (
        _standardised(values[index], some, cells, standardise or None, where)
        for index, some, cells in zip(parts, known, seen, strict=True)
    )
    about |= {"reading": raw.reading, "remarks": raw.remarks, "standardisation": standardise or None}
    return Dataset(name, train, valid, test, None, **about)


def _standardisation(train: torch.Tensor, observed: torch.Tensor | None, where: str) -> Standardisation:
    try:
        return Standardisation.of(train, observed)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _standardised(
    table: torch.Tensor,
    labels: torch.Tensor | None,
    observed: torch.Tensor | None,
    standardisation: Standardisation | None,
    where: str,
) -> Split:
    """A split of a float64 table, in float32 only once it is standardised: a year and its hundredths need more.

    What is missing is 0 before and afterwards.
    """
    try:
        values = table if standardisation is None else standardisation.standardised(table, observed)
        return Split(values.float(), labels, fingerprint_of(table, observed), observed)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def as_values(
    array: Array, where: str, levels: int | None = None
) -> tuple[torch.Tensor, torch.Tensor | None, tuple[str, ...]]:
    """uint8 images `(n, channel, height, width)` or levels `(n, features)`, or a float64 table `(n, features)`; and remarks.

    Between them, which cells of a table are observed, where some are NaN; these become 0. A table has levels where their
    number is given. Raises ValueError for anything else.
    """
    if array.dtype.kind not in "buif":
        raise ValueError(
            f"{where}: expected numbers, got dtype {array.dtype}; convert to uint8 (images) or float32 (table)"
        )
    if array.size == 0:
        raise ValueError(f"{where}: expected at least one value, got an array of shape {array.shape}")
    observed = None
    if array.ndim == 2 and array.dtype.kind == "f" and (missing := np.isnan(array)).any():
        array, observed = np.where(missing, 0, array), torch.from_numpy(~missing)
    if array.ndim == 2 and levels is None and array.dtype.kind == "f":
        return _table(array, where), observed, ()
    if array.ndim not in (3, 4) and (array.ndim != 2 or levels is None):
        raise ValueError(
            f"{where}: expected images (n, height, width), (n, height, width, channel) or (n, channel, height, width), "
            f"or a table of floats (n, features), got {array.dtype} of shape {array.shape}; reshape or convert it, or name "
            "how many levels a table of whole numbers has: --levels"
        )
    whole, remarks = as_bytes(array, where, levels)
    arranged = whole if whole.ndim == 2 else _channel_first(whole, where)
    return torch.from_numpy(np.ascontiguousarray(arranged)), observed, remarks


def _table(array: Array, where: str) -> torch.Tensor:
    with np.errstate(over="ignore"):  # an overflow becomes infinite and is named below
        wrong = np.argwhere(~np.isfinite(array.astype(np.float32)))
    if len(wrong):
        row, column = (int(index) for index in wrong[0])
        raise ValueError(
            f"{where}: expected finite numbers, got {array[row, column]} in row {row}, column {column} (from 0) and "
            f"{len(wrong) - 1} more like it; drop or impute those rows"
        )
    return torch.from_numpy(array.astype(np.float64, copy=False))


def _channel_first(images: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
    if images.ndim == 3:
        return images[:, None]
    first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
    if first == last:
        trouble = "both could be; crop or pad one" if first else "neither is; transpose, or keep 1 or 3 channels"
        raise ValueError(
            f"{where}: expected 1 or 3 channels on axis 1 or on the last axis, got shape {images.shape}: {trouble}"
        )
    return images if first else images.transpose(0, 3, 1, 2)


def _labels(labels: Array, n: int, where: str) -> torch.Tensor:
    if labels.shape != (n,) or labels.dtype.kind not in "ui":
        raise ValueError(
            f"{where}: expected labels as whole numbers from 0, one for each of {n} examples, "
            f"got {labels.dtype} of shape {labels.shape}; number the classes 0, 1, …"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= _CLASSES))
    if len(wrong):
        raise ValueError(
            f"{where}: expected labels 0..{_CLASSES - 1}, got {labels[wrong[0]]} at example {wrong[0]} (from 0) and "
            f"{len(wrong) - 1} more like it; number the classes 0, 1, …"
        )
    return torch.from_numpy(labels.astype(np.int64))
