"""`load`: a dataset by its name or from a path of your own."""

import difflib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ppmodels.data import published, scenes, simulated
from ppmodels.data.arrays import own_archive, own_array
from ppmodels.data.assemble import Raw, assemble
from ppmodels.data.dataset import Dataset
from ppmodels.data.image_folder import own_images
from ppmodels.data.reading import Reading
from ppmodels.data.standardisation import Standardisation
from ppmodels.data.table import own_table

FOLDER_VARIABLE = "PPMODELS_DATA"
TEXTS = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
"""How the names of text files end, whose columns can be chosen."""
_READERS: dict[str, Callable[[Path, Reading], Raw]] = {
    ".npy": own_array,
    ".npz": own_archive,
    **dict.fromkeys(TEXTS, own_table),
}

EMBEDDED: dict[str, Callable[[str, int], Dataset]] = {
    "digits": lambda name, seed: assemble(name, published.digits(), name, seed, levels=17),
    "ring-8": lambda name, seed: assemble(name, simulated.ring(seed), name, seed),
    "grid-25": lambda name, seed: assemble(name, simulated.grid(seed), name, seed),
    "stacked-digits": lambda name, seed: simulated.stacked(load("digits", seed=seed), seed),
    "multi-digits": lambda name, seed: scenes.multi_digits(load("digits", seed=seed), seed),
}
FOLDER_SETS = {**published.FOLDER_SETS, "multi-mnist": scenes.multi_mnist}
LAYOUT = {**published.LAYOUT, "multi-mnist": published.LAYOUT["mnist"]}
NAMES = (*EMBEDDED, *FOLDER_SETS)


def load(
    name_or_path: str | Path,
    folder: str | Path | None = None,
    seed: int = 0,
    standardise: bool | Standardisation = True,
    reading: Reading | None = None,
) -> Dataset:
    """A dataset by name (one of `NAMES`), or from a file or folder of your own.

    "digits" is embedded; "ring-8", "grid-25" and "stacked-digits" are made (see `ppmodels.data.simulated`), as is
    "multi-digits" (`ppmodels.data.scenes`), and "multi-mnist" of MNIST. The other names are read from `folder`, by default
    the environment's PPMODELS_DATA; each keeps its published order and splits (see `ppmodels.data.published`), and nothing
    is downloaded. Any other text is a path, relative to `folder` if that is given:
    `.npy`, `.npz`, `.csv`, `.tsv`, `.csv.gz`, or a folder of images, read as `reading` says where they leave that open.
    Digits and your own examples are split 80/10/10 by a permutation of `seed`, unless an `.npz` has train, valid and test.

    The columns of a table of your own are standardised by their training mean and standard deviation, and every number of
    `inference` is still of the units that you gave: batches carry the logarithm of the Jacobian. A column without spread is
    shifted alone. Give another table the `standardisation` of the first, or False where a program is in the data's units,
    as with counts, or observes only some of the columns.
    Raises FileNotFoundError for what is not there and ValueError for what can not be read as levels or as a table.
    """
    name, reading = str(name_or_path), reading or Reading()
    if name in NAMES and reading != Reading():
        raise ValueError(
            f"{name} is read as it is published; header, columns, categories and levels are of data of your own"
        )
    if name in EMBEDDED:
        return EMBEDDED[name](name, seed)
    if name in FOLDER_SETS:
        return _published(name, folder, seed)
    path = Path(os.path.expanduser(name)) if folder is None else Path(os.path.expanduser(folder)) / name
    if not path.exists():
        raise FileNotFoundError(_unknown(name, path))
    if not path.is_dir() and not path.is_file():
        raise ValueError(
            f"{path}: expected a file or a folder of images, got a device or a pipe; save it as a file first"
        )
    suffix = _ending(path)
    if not path.is_dir() and suffix not in _READERS:
        raise ValueError(
            f"{path}: expected a file {', '.join(_READERS)} or a folder of images, "
            f"got {suffix or 'no suffix'}; convert it, a table to .csv and an array by numpy.save"
        )
    if reading.of_text and (path.is_dir() or suffix not in TEXTS):
        raise ValueError(
            f"{path}: {' and '.join(reading.of_text)} are of a table in a text file ({', '.join(TEXTS)}); "
            "choose columns of an array with numpy"
        )
    raw = (own_images if path.is_dir() else _READERS[suffix])(path, reading)
    stem = path.name if path.is_dir() else stem_of(path)
    return assemble(stem, raw, str(path), seed, reading.levels, standardise)


def stem_of(path: str | Path) -> str:
    """The name of a file or folder of your own without its ending: that of t.csv.gz is t."""
    name = Path(path).name
    return name[: len(name) - len(_ending(Path(name)))]


def _ending(path: Path) -> str:
    """How the name of a file ends: .csv.gz is one ending."""
    return next((end for end in reversed(_READERS) if path.name.lower().endswith(end)), path.suffix)


def _published(name: str, folder: str | Path | None, seed: int) -> Dataset:
    chosen = folder or os.environ.get(FOLDER_VARIABLE)
    if not chosen:
        raise ValueError(
            f"{name} is read from a folder of yours, and none is named: set {FOLDER_VARIABLE} or pass folder= to a "
            f"folder that holds {LAYOUT[name]}; nothing is downloaded. {', '.join(EMBEDDED)} need no folder"
        )
    root = Path(os.path.expanduser(chosen))
    if not root.is_dir():
        raise FileNotFoundError(
            f"{name}: expected a folder, got {root} (from {'folder=' if folder else FOLDER_VARIABLE}), which is none; "
            f"name the folder that holds {LAYOUT[name]}"
        )
    raw = FOLDER_SETS[name](root)
    if name == "binarized-mnist":
        return replace(assemble(name, raw, name, seed, levels=2), binarisation="published")
    title = "cifar10 (10,000 of the 50,000 training images)" if name == "cifar10" else name
    return assemble(title, raw, name, seed, levels=256)


def _unknown(name: str, path: Path) -> str:
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(name.lower(), NAMES, n=1) or [
        str(path.parent / found) for found in difflib.get_close_matches(path.name, beside, n=1)
    ]
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    return f"{name!r} is neither a known name ({', '.join(NAMES)}) nor a file or folder at {path}.{suggestion}"
