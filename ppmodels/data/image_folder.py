"""A folder of images of your own, read by Pillow: loose, or in one subfolder for each class."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppmodels.data.assemble import Raw
from ppmodels.data.memory import OF_LEVEL, TooLarge, refuse_beyond
from ppmodels.data.reading import Reading

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp", ".gif")
_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP", "GIF")
"""What a file may be, whatever its name says: Pillow hands some other formats to programs of the system."""
_SPLIT_NAMES = {"train", "training", "valid", "validation", "val", "test"}
Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def read_image(path: Path) -> Pixels:
    """`(height, width)` of a grey image or `(height, width, 3)` of a colour one, turned as its EXIF says; uint8 or uint16.

    Raises ValueError, naming the file, if it can not be read, is transparent, or is larger than memory takes.
    """
    with _opened(path, 1) as image:
        return _pixels(image, path)


def own_images(folder: Path, reading: Reading) -> Raw:
    """Images of one size, sorted by name: loose (no labels), or in subfolders, whose sorted names are the classes.

    What is left out is named in the remarks: broken links, deeper folders, files of other kinds, and later pages.
    """
    left_out = _LeftOut(folder)
    entries = sorted(folder.iterdir())
    loose = left_out.images_of(entries)
    folders = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    classes = {entry: left_out.images_of(sorted(entry.iterdir()), deeper="folders below a class") for entry in folders}
    for entry in [entry for entry, files in classes.items() if not files]:
        left_out.add("folders without images", entry)
    classes = {entry: files for entry, files in classes.items() if files}
    if bool(loose) == bool(classes):
        got = f"{len(loose)} loose and {len(classes)} subfolders with images" if loose else "neither"
        raise ValueError(
            f"{folder}: expected images ({' '.join(SUFFIXES)}), or subfolders of images as classes, got {got}; "
            "keep one of the two" + "".join(f"; {remark}" for remark in left_out.remarks)
        )
    if {entry.name.lower() for entry in classes} & _SPLIT_NAMES:
        raise ValueError(
            f"{folder}: its subfolders {', '.join(entry.name for entry in classes)} look like splits, and subfolders "
            "are read as classes; save the splits in an .npz of arrays train, valid and test"
        )
    files = loose or [file for files in classes.values() for file in files]
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()]) if classes else None
    images, remarks = _stacked(folder, files, left_out)
    return Raw(images, labels, remarks=(*left_out.remarks, *remarks))


def _stacked(folder: Path, files: list[Path], left_out: "_LeftOut") -> tuple[Pixels, tuple[str, ...]]:
    remarks: tuple[str, ...] = ()
    with _opened(files[0], len(files)) as image:
        first = _pixels(image, files[0])
    images = np.empty((len(files), *first.shape), first.dtype)
    for at, file in enumerate(files):
        with _opened(file, 1) as image:
            if image.mode == "RGB" and "RGB;16" in str(image.tile):
                remarks = ("of colours of 16 bits the higher 8 are read, as Pillow gives them",)
            found = _pixels(image, file)
            if later := getattr(image, "n_frames", 1) - 1:
                left_out.add("later pages or frames", file, later)
        if (found.shape, found.dtype) != (first.shape, first.dtype):
            raise ValueError(
                f"{folder}: expected images of one size, all grey or all RGB, got {files[0].name} of "
                f"{_size(first)} and {file.name} of {_size(found)}; resize or convert them first"
            )
        images[at] = found
    return images, remarks


@contextmanager
def _opened(path: Path, count: int) -> Iterator[Any]:
    """An image, of whose size there are `count`, before its pixels are read."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size is held against memory instead
            Image.init()
            with Image.open(path, formats=[each for each in _FORMATS if each in Image.OPEN]) as image:
                values = image.width * image.height * len(image.getbands()) * count
                size = values * (2 if image.mode.startswith("I") else 1)
                what = f"{count} images of {image.width}×{image.height} pixels are"
                refuse_beyond(path, what, size, OF_LEVEL * values)
                yield image
    except TooLarge:
        raise
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: expected an image of a size that Pillow reads ({error}); make it smaller") from error
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, _Refused):
            raise
        raise ValueError(f"{path}: expected an image, but it can not be read ({error})") from error


class _Refused(ValueError):
    """An image that is whole, and of a kind that is not read."""


def _pixels(image: Any, path: Path) -> Pixels:
    from PIL import ImageOps

    mode = image.mode
    turned = ImageOps.exif_transpose(image)
    if mode == "P" and "transparency" not in image.info:
        return np.asarray(turned.convert("RGB"))
    if mode in ("1", "L", "RGB"):
        return np.asarray(turned.convert("L") if mode == "1" else turned).copy()
    if mode.startswith("I"):  # 16 bits, in 16 or 32
        values = np.asarray(turned)
        if values.min() >= 0 and values.max() < 1 << 16:
            return values.astype(np.uint16)
        raise _Refused(
            f"{path}: expected up to 16 bits a pixel, got {values.min()}..{values.max()}; scale and save as 8"
        )
    raise _Refused(
        f"{path}: expected grey or RGB of 8 bits, or grey of 16, got mode {mode}; convert it, for instance with Pillow's "
        "convert('RGB')"
    )


@dataclass
class _LeftOut:
    """What of a folder is not read: how many of each kind, and the first."""

    folder: Path
    _counts: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, path: Path, count: int = 1) -> None:
        """Counts a file or folder."""
        before, first = self._counts.get(kind, (0, str(path.relative_to(self.folder))))
        self._counts[kind] = before + count, first

    def images_of(self, entries: list[Path], deeper: str | None = None) -> list[Path]:
        """The images among the entries of a folder; others are counted, and folders too where they are `deeper`."""
        images = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if deeper:
                    self.add(deeper, entry)
            elif not entry.exists():
                self.add("broken links", entry)
            elif entry.suffix.lower() not in SUFFIXES or not entry.is_file():
                self.add("files of other kinds", entry)
            else:
                images.append(entry)
        return images

    @property
    def remarks(self) -> list[str]:
        """Each kind with its count and the first."""
        return [
            f"left out: {count} {kind}, such as {first}" if count > 1 else f"left out: {first} ({kind})"
            for kind, (count, first) in self._counts.items()
        ]


def _size(image: Pixels) -> str:
    bits = " of 16 bits" if image.dtype == np.uint16 else ""
    return f"{image.shape[0]}×{image.shape[1]} {'RGB' if image.ndim == 3 else 'grey'}{bits}"
