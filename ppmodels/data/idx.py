"""IDX, the file format of MNIST: two zero bytes, a type, the number of dimensions, the dimensions, the values."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """The uint8 array of `ndim` dimensions in an IDX file, plain or gzipped.

    Raises ValueError, naming the file, if it is damaged, is no IDX file of bytes, or has other dimensions.
    """
    raw = _bytes(path)
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise ValueError(f"{path}: expected an IDX file (its first two bytes 0), got {raw[:4].hex(' ')!r}; {_AGAIN}")
    if raw[2] != UNSIGNED_BYTE:
        raise ValueError(f"{path}: expected IDX values of type 0x08 (unsigned byte), got {raw[2]:#04x}; {_AGAIN}")
    if raw[3] != ndim:
        raise ValueError(f"{path}: expected {ndim} dimensions, got {raw[3]}; were images and labels exchanged?")
    start = 4 + 4 * ndim
    if len(raw) < start:
        raise ValueError(f"{path}: expected a header of {start} bytes, the file ends after {len(raw)}; {_AGAIN}")
    shape = [int(size) for size in np.frombuffer(raw, dtype=">i4", count=ndim, offset=4)]
    if min(shape) < 1 or len(raw) - start != math.prod(shape):
        raise ValueError(f"{path}: the header says {shape}, but {len(raw) - start} bytes of values follow; {_AGAIN}")
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape).copy()


_AGAIN = "fetch the file again"


def _bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: expected a whole gzip file, but it does not unpack ({error}); {_AGAIN}") from error
