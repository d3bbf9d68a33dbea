"""Arrays of your own: `.npy` and `.npz`. Pickled objects are never read."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np

from ppmodels.data.assemble import Array, Raw
from ppmodels.data.dataset import SPLITS
from ppmodels.data.memory import OF_LEVEL, OF_NUMBER, TooLarge, refuse_beyond
from ppmodels.data.reading import Reading

VALUES = ("x", "images", "data", "arr_0")
LABELS = ("labels", "y")


def read_array(path: Path) -> Array:
    """The array in an `.npy` file. Raises ValueError, naming the file, if it is damaged, holds objects or is too large."""
    with _readable(path), path.open("rb") as file:
        return _array(file, path.stat().st_size, path, "the array is declared with")


def names_in(path: Path) -> list[str]:
    """The names of the arrays in an `.npz` file, of which none is read. Raises ValueError, as `read_archive` does."""
    with _archive(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_archive(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """The arrays of those names in an `.npz` file, as many of them as there are. What else it holds is not unpacked.

    Raises ValueError, naming the file, if it is damaged, holds objects, or unpacks to more than memory takes.
    """
    with _archive(path) as archive:
        members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
        wanted = {name: members[name] for name in names if name in members}
        size = sum(each.file_size for each in wanted.values())
        refuse_beyond(path, f"{', '.join(wanted)} unpack to", size, OF_LEVEL * size)
        found = {}
        for name, member in wanted.items():
            with archive.open(member) as file:
                found[name] = _array(file, member.file_size, path, f"the array {name} is declared with")
        return found


def own_array(path: Path, reading: Reading) -> Raw:
    """An `.npy` of images or of a table, without labels."""
    return Raw(read_array(path))


def own_archive(path: Path, reading: Reading) -> Raw:
    """An `.npz` of train, valid and test (labels: train_labels, …), or of one array (x, images, data or arr_0)."""
    names = names_in(path)
    if any(name in names for name in SPLITS):
        return _published_splits(path)
    values = [key for key in VALUES if key in names]
    labels = [key for key in LABELS if key in names]
    if len(values) != 1 or len(labels) > 1:
        raise ValueError(
            f"{path}: expected train, valid and test, or one array named {', '.join(VALUES)} and at most one named "
            f"{', '.join(LABELS)}, got {', '.join(names) or 'no arrays'}; rename its arrays"
        )
    arrays = read_archive(path, [*values, *labels])
    return Raw(arrays[values[0]], arrays[labels[0]] if labels else None)


def _published_splits(path: Path) -> Raw:
    keys = [f"{name}_labels" for name in SPLITS]
    arrays = read_archive(path, [*SPLITS, *keys])
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
    known = [key for key in keys if key in arrays]
    if known and known != keys:
        raise ValueError(f"{path}: expected labels for every split or for none ({', '.join(keys)}), got {known}")
    for key, part in zip(known, parts, strict=False):
        if arrays[key].shape != part.shape[:1]:
            raise ValueError(f"{path}: expected {key} of shape {part.shape[:1]}, got {arrays[key].shape}")
    train, valid, test = (len(part) for part in parts)
    labels = np.concatenate([arrays[key] for key in keys]) if known else None
    return Raw(np.concatenate(parts), labels, (train, valid, test))


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    with _readable(path):
        # Asked first, because numpy takes whatever is no zip archive for a pickle and says so.
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a whole zip archive")
        with zipfile.ZipFile(path) as archive:
            yield archive


def _array(file: IO[bytes], size: int, path: Path, what: str) -> Array:
    """The array in a file of `size` bytes, whose header is held against these and against memory before it is believed."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    declared = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject:  # whose size no header tells, and which are refused below
        is_table = len(shape) == 2 and dtype.kind == "f"
        refuse_beyond(path, what, declared, math.prod(shape) * (OF_NUMBER if is_table else OF_LEVEL))
        if declared != (follow := size - file.tell()):
            raise ValueError(f"{what} {declared:,} bytes, and {follow:,} follow")
    file.seek(0)
    array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """A block in which numpy's and zipfile's errors become one that names the file."""
    try:
        yield
    except TooLarge:
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        SyntaxError,
        TokenError,
    ) as error:  # the latter of headers, which are literals
        raise _unreadable(path, error) from error
    except (ValueError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    if "allow_pickle" in str(error):
        return ValueError(
            f"{path}: holds Python objects (a pickle), which are never read because loading one can run any code; "
            "save a plain numeric array: np.save(path, np.stack(list_of_arrays))"
        )
    return ValueError(f"{path}: expected an array file written by numpy, but it can not be read ({error})")
