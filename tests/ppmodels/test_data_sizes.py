"""Sizes that data files declare are held against memory before anything of them is allocated."""

import gzip
import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppmodels.data import Reading, load, memory
from ppmodels.data.idx import read_idx

FREE = 1 << 20
"""The memory that there is to be, in bytes."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine of little memory, and no more than four times as much of it taken."""
    monkeypatch.setattr(memory, "available", lambda: FREE)
    load("digits")  # what is imported at first use is not counted
    tracemalloc.start()
    yield
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken < 4 * FREE


def header(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def png(width: int, height: int) -> bytes:
    """A whole PNG of a single colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj()
    rows = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    about = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", about) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        (
            (6_000, 1_000, 1_000),
            "|u1",
            r"6,000,000,000 bytes, which need 24,000,000,000 .* and 1,048,576 are available",
        ),
        ((2**62, 2**62), "<f8", r"are available"),
        ((100, 8, 8), "|u1", r"declared with 6,400 bytes, and 10 follow"),
        ((-1, 8, 8), "|u1", r"declared with -64 bytes"),
        ((5,), "<U0", r"declared with 0 bytes, and 10 follow"),
    ],
)
def test_an_array_is_held_against_memory_and_its_file(
    shape: tuple[int, ...], dtype: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.npy").write_bytes(header(shape, dtype) + bytes(10))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", header(shape, dtype) + bytes(10))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
            load(tmp_path / name)


def test_what_an_archive_unpacks_to_is_known_before_and_what_is_not_used_stays_packed(tmp_path: Path) -> None:
    bomb = header((8 * FREE,)) + bytes(8 * FREE)
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", x=images)
    with zipfile.ZipFile(tmp_path / "a.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("unused.npy", bomb)
    tracemalloc.reset_peak()
    assert len(load(tmp_path / "a.npz").train) == 16
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bomb)
    del bomb
    tracemalloc.reset_peak()
    with pytest.raises(ValueError, match=r"b.npz: x unpack to 8,388,\d+ bytes, .* and 1,048,576 are available"):
        load(tmp_path / "b.npz")


@pytest.mark.parametrize("zipped", [False, True])
def test_an_idx_file_is_read_as_far_as_its_header_says(zipped: bool, tmp_path: Path) -> None:
    start = bytes([0, 0, 8, 3])
    path = tmp_path / "idx"

    def written(shape: tuple[int, ...], follow: int) -> None:
        content = start + np.array(shape, ">i4").tobytes() + bytes(follow)
        path.write_bytes(gzip.compress(content, 1) if zipped else content)

    written((60_000, 280, 280), 10)
    with pytest.raises(ValueError, match=r"which is 4,704,000,000 bytes, .* and 1,048,576 are available"):
        read_idx(path, 3)
    written((10, 2, 2), 30 * FREE)
    tracemalloc.reset_peak()
    with pytest.raises(ValueError, match=r"the header says \[10, 2, 2\], but more than 40 bytes of values follow"):
        read_idx(path, 3)


def test_pictures_are_held_against_memory_before_they_are_decoded(tmp_path: Path) -> None:
    content = png(1000, 500)
    tracemalloc.reset_peak()
    (tmp_path / "0.png").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"0.png: 1 images of 1000×500 pixels are 500,000 bytes, which need 2,000,000 bytes"
    ):
        load(tmp_path)
    small = png(100, 100)
    for at in range(60):
        (tmp_path / f"{at}.png").write_bytes(small)
    with pytest.raises(ValueError, match=r"0.png: 60 images of 100×100 pixels are 600,000 bytes"):
        load(tmp_path)


def test_a_decompression_bomb_is_a_picture_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1 << 40)
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 10_000)
    for name, side in (("warned.png", 130), ("refused.png", 160)):
        folder = tmp_path / name
        folder.mkdir()
        for at in range(6):
            (folder / f"{at}.png").write_bytes(png(side, side))
    load(tmp_path / "warned.png")  # its size is held against memory, and a warning would be a second opinion
    with pytest.raises(ValueError, match=r"0.png: expected an image of a size that Pillow reads .*25600 pixels"):
        load(tmp_path / "refused.png")


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1,2\n" * 20_000, r"its first 12,484 rows are 199,736 bytes, which need 1,048,614 bytes of memory"),
        (b"1," * 200_000, r"a line has more than"),
        (b'"' + b"1\n" * 200_000, r"it can not be read \(field larger than field limit"),
    ],
    ids=["long", "wide", "open"],
)
def test_a_text_is_read_as_far_as_memory_goes(suffix: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    with pytest.raises(ValueError, match=rf"t{suffix}: .*{message}"):
        load(path)


def test_categories_count_as_the_columns_that_they_become(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{at},x{at}\n" for at in range(400)))
    with pytest.raises(ValueError, match=r"t.csv: its first 15\d rows are"):
        load(path, reading=Reading(categories={"b": ()}))


def test_a_wide_table_takes_little_more_than_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1 << 40)
    path = tmp_path / "wide.csv"
    lines = (",".join([f"{at}.{'1' * 40}"] * 3500) for at in range(20))  # longer than a cell may be
    path.write_text("\n".join(lines))
    tracemalloc.reset_peak()
    assert load(path).shape == (3500,)
    assert tracemalloc.get_traced_memory()[1] < 8 * 8 * 70_000


def test_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 << 20 < memory.available() < 1 << 50
    resource: Any = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1 << 50, 1 << 50))
    assert memory._of_the_process() < 1 << 50
