"""Arrays of your own: `.npy` and `.npz`. Pickled objects are never read."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from ppmodels.data.assemble import Array, Raw
from ppmodels.data.dataset import SPLITS

VALUES = ("x", "images", "data", "arr_0")
LABELS = ("labels", "y")


def read_array(path: Path) -> Array:
    """The array in an `.npy` file. Raises ValueError, naming the file, if it is damaged or holds objects."""
    try:
        with path.open("rb") as file:
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
            return array
    except (ValueError, EOFError, OSError) as error:
        raise _unreadable(path, error) from error


def read_archive(path: Path) -> dict[str, Array]:
    """The arrays in an `.npz` file by key. Raises ValueError, naming the file, if it is damaged or holds objects."""
    try:
        # Asked first, because numpy takes whatever is no zip archive for a pickle and says so.
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a whole zip archive")
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error


def own_array(path: Path) -> Raw:
    """An `.npy` of images or of a table, without labels."""
    return Raw(read_array(path))


def own_archive(path: Path) -> Raw:
    """An `.npz` of train, valid and test (labels: train_labels, …), or of one array (x, images, data or arr_0)."""
    arrays = read_archive(path)
    if any(name in arrays for name in SPLITS):
        return _published_splits(arrays, path)
    values = [key for key in VALUES if key in arrays]
    labels = [key for key in LABELS if key in arrays]
    if len(values) != 1 or len(labels) > 1:
        raise ValueError(
            f"{path}: expected train, valid and test, or one array named {', '.join(VALUES)} and at most one named "
            f"{', '.join(LABELS)}, got {', '.join(arrays) or 'no arrays'}; rename its arrays"
        )
    return Raw(arrays[values[0]], arrays[labels[0]] if labels else None)


def _published_splits(arrays: dict[str, Array], path: Path) -> Raw:
    missing = [name for name in SPLITS if name not in arrays]
    if missing:
        raise ValueError(
            f"{path}: expected arrays train, valid and test, got no {' and no '.join(missing)}; "
            "add it, or store all examples in one array x to have them split"
        )
    parts = [arrays[name] for name in SPLITS]
    for name, part in zip(SPLITS, parts, strict=True):
        if part.shape[1:] != parts[0].shape[1:] or part.dtype != parts[0].dtype or not part.size:
            raise ValueError(
                f"{path}: expected {name} to be as train, {parts[0].dtype} of shape (n, *{parts[0].shape[1:]}), "
                f"got {part.dtype} of shape {part.shape}"
            )
    keys = [f"{name}_labels" for name in SPLITS]
    known = [key for key in keys if key in arrays]
    if known and known != keys:
        raise ValueError(f"{path}: expected labels for every split or for none ({', '.join(keys)}), got {known}")
    for key, part in zip(known, parts, strict=False):
        if arrays[key].shape != part.shape[:1]:
            raise ValueError(f"{path}: expected {key} of shape {part.shape[:1]}, got {arrays[key].shape}")
    train, valid, test = (len(part) for part in parts)
    labels = np.concatenate([arrays[key] for key in keys]) if known else None
    return Raw(np.concatenate(parts), labels, (train, valid, test))


def _unreadable(path: Path, error: Exception) -> ValueError:
    if "allow_pickle" in str(error):
        return ValueError(
            f"{path}: holds Python objects (a pickle), which are never read because loading one can run any code; "
            "save a plain numeric array: np.save(path, np.stack(list_of_arrays))"
        )
    return ValueError(f"{path}: expected an array file written by numpy, but it can not be read ({error})")
