"""IDX, the file format of MNIST: two zero bytes, a type, the number of dimensions, the dimensions, the values."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ppmodels.data.memory import OF_LEVEL, refuse_beyond

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """The uint8 array of `ndim` dimensions in an IDX file, plain or gzipped.

    Raises ValueError, naming the file, if it is damaged, is no IDX file of bytes, has other dimensions, or declares more
    than memory takes.
    """
    with path.open("rb") as plain:
        zipped = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        try:
            with gzip.open(plain) if zipped else plain as file:
                shape = _shape(file, ndim, path)
                declared = math.prod(shape)
                refuse_beyond(path, f"the header says {shape}, which is", declared, OF_LEVEL * declared)
                raw = file.read(declared + 1)  # one more byte than there should be, however many follow
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path}: expected a whole gzip file, but it does not unpack ({error}); {_AGAIN}"
            ) from error
    if len(raw) != declared:
        follow = len(raw) if len(raw) < declared else f"more than {declared}"
        raise ValueError(f"{path}: the header says {shape}, but {follow} bytes of values follow; {_AGAIN}")
    return np.frombuffer(raw, dtype=np.uint8).reshape(shape).copy()


def _shape(file: BinaryIO | gzip.GzipFile, ndim: int, path: Path) -> list[int]:
    start = 4 + 4 * ndim
    header = file.read(start)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise ValueError(f"{path}: expected an IDX file (its first two bytes 0), got {header[:4].hex(' ')!r}; {_AGAIN}")
    if header[2] != UNSIGNED_BYTE:
        raise ValueError(f"{path}: expected IDX values of type 0x08 (unsigned byte), got {header[2]:#04x}; {_AGAIN}")
    if header[3] != ndim:
        raise ValueError(f"{path}: expected {ndim} dimensions, got {header[3]}; were images and labels exchanged?")
    if len(header) < start:
        raise ValueError(f"{path}: expected a header of {start} bytes, the file ends after {len(header)}; {_AGAIN}")
    shape = [int(size) for size in np.frombuffer(header, dtype=">i4", count=ndim, offset=4)]
    if min(shape) < 1:
        raise ValueError(f"{path}: expected dimensions of at least 1, and the header says {shape}; {_AGAIN}")
    return shape


_AGAIN = "fetch the file again"
