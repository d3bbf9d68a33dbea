"""A folder of images of your own, read by Pillow: loose, or in one subfolder for each class."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppmodels.data.assemble import Raw

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
_SPLIT_NAMES = {"train", "training", "valid", "validation", "val", "test"}


def read_image(path: Path) -> NDArray[np.uint8]:
    """uint8 `(height, width)` of a grey image or `(height, width, 3)` of a colour one.

    Raises ValueError, naming the file, if it can not be read, has 16 bits a channel, or is transparent.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode == "P" and "transparency" not in image.info:
                return np.asarray(image.convert("RGB"))
            if image.mode in ("1", "L", "RGB"):
                return np.asarray(image.convert("L") if image.mode == "1" else image).copy()
            mode = image.mode
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: expected an image, but it can not be read ({error})") from error
    raise ValueError(
        f"{path}: expected 8-bit grey or RGB, got mode {mode}; convert it, for instance with Pillow's convert('RGB')"
    )


def own_images(folder: Path) -> Raw:
    """Images of one size, sorted by name: loose (no labels), or in subfolders, whose sorted names are the classes."""
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    loose = _image_files(entries)
    classes = {entry: _image_files(sorted(entry.iterdir())) for entry in entries if entry.is_dir()}
    classes = {entry: files for entry, files in classes.items() if files}
    if bool(loose) == bool(classes):
        got = f"{len(loose)} loose and {len(classes)} subfolders with images" if loose else "neither"
        raise ValueError(
            f"{folder}: expected images ({' '.join(SUFFIXES)}), or subfolders of images as classes, got {got}; "
            "keep one of the two"
        )
    if {entry.name.lower() for entry in classes} & _SPLIT_NAMES:
        raise ValueError(
            f"{folder}: its subfolders {', '.join(entry.name for entry in classes)} look like splits, and subfolders "
            "are read as classes; save the splits in an .npz of arrays train, valid and test"
        )
    files = loose or [file for files in classes.values() for file in files]
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()]) if classes else None
    images = [read_image(file) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise ValueError(
                f"{folder}: expected images of one size, all grey or all RGB, got {files[0].name} of "
                f"{_size(images[0])} and {file.name} of {_size(image)}; resize or convert them first"
            )
    return Raw(np.stack(images), labels)


def _image_files(entries: list[Path]) -> list[Path]:
    return [entry for entry in entries if entry.is_file() and entry.suffix.lower() in SUFFIXES]


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[0]}×{image.shape[1]} {'RGB' if image.ndim == 3 else 'grey'}"
