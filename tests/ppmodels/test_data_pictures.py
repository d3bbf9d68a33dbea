"""Pictures and arrays as people bring them: how many levels they have, and what of a folder is left out."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ppmodels.data import Dataset, Reading, load

N = 20


def values_of(data: Dataset) -> torch.Tensor:
    return torch.cat([data.train.values, data.valid.values, data.test.values])


def drawn(values: Any, dtype: Any = np.uint8) -> Any:
    """Images of these values, all of them in every image."""
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(np.resize(values, 16)).reshape(4, 4) for _ in range(N)]).astype(dtype)


def saved(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


# ---- levels ----


@pytest.mark.parametrize(
    ("values", "levels", "expected"),
    [
        ([0, 1], 2, [0, 1]),
        ([0, 255], 2, [0, 1]),
        ([0, 85, 170, 255], 4, [0, 1, 2, 3]),
        ([17, 34, 255], 16, [1, 2, 15]),
        ([0, 1, 2, 3], 4, [0, 1, 2, 3]),
        ([0, 2], 3, [0, 2]),
        ([31, 3], 32, [3, 31]),
        ([0, 32], 256, [0, 32]),
        ([0, 85, 86, 255], 256, [0, 85, 86, 255]),
        ([0, 5, 255], 256, [0, 5, 255]),
    ],
)
def test_few_values_of_the_training_split_are_levels(
    values: list[int], levels: int, expected: list[int], tmp_path: Path
) -> None:
    data = load(saved(tmp_path / "a.npy", drawn(values)))
    assert (data.levels, data.reading.levels) == (levels, levels)
    assert values_of(data).unique().tolist() == expected
    said = [] if levels == 256 or max(values) == 1 else [f"are read as {levels} levels; --levels 256 reads them as 256"]
    assert [note[note.index("are read") :] for note in data.notes] == said
    whole = load(tmp_path / "a.npy", reading=Reading(levels=256))
    assert (whole.levels, values_of(whole).unique().tolist(), whole.notes) == (256, sorted(values), [])
    # As another file of these data is read: also where it has fewer values.
    again = load(saved(tmp_path / "b.npy", drawn(values[:1])), reading=data.reading)
    assert again.levels == levels


@pytest.mark.parametrize("name", ["digits", "stacked-digits", "multi-digits"])
def test_data_by_name_tell_their_levels_too(name: str) -> None:
    data = load(name)
    assert data.reading == Reading(levels=17) == data.binarized("static").reading


def test_held_out_values_beyond_those_of_training_leave_all_levels(tmp_path: Path) -> None:
    parts = {"train": drawn([0, 3]), "valid": drawn([1, 3]), "test": drawn([0, 4])}
    np.savez(tmp_path / "a.npz", **parts)
    data = load(tmp_path / "a.npz")
    assert (data.levels, values_of(data).unique().tolist()) == (256, [0, 1, 3, 4])
    assert data.notes == ["its training values are 0, 3, and other splits have values to 4: read as 256 levels"]
    assert load(tmp_path / "a.npz", reading=Reading(levels=5)).levels == 5
    with pytest.raises(ValueError, match=r"a.npz: expected 4 levels, whole numbers 0..3, and example 40 .* has 4"):
        load(tmp_path / "a.npz", reading=Reading(levels=4))


@pytest.mark.parametrize("dtype", [">u2", "<u2"])
def test_16_bits_are_divided_and_never_clipped(dtype: str, tmp_path: Path) -> None:
    values = np.r_[0, 128, 129, 257, 385, 386, 65535, np.arange(0, 65536, 4097)]
    path = saved(tmp_path / "a.npy", drawn(values, dtype).repeat(2, 1).repeat(2, 2))
    data = load(path)
    used = np.resize(values, 16)
    assert data.levels == 256
    assert values_of(data).unique().tolist() == sorted(set(np.rint(used / 257).astype(int).tolist()))
    assert data.notes == ["its 16 bits, 0..65535, are divided by 257, into 256 levels"]
    with pytest.raises(ValueError, match=r"a.npy: expected 17 levels, whole numbers 0..16, got 0..65535"):
        load(path, reading=Reading(levels=17))
    small = load(saved(path, drawn([0, 16], dtype)))  # numbers of a byte, whatever holds them
    assert (small.levels, values_of(small).unique().tolist()) == (17, [0, 16])


def test_whole_floats_are_levels_where_these_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", drawn([0, 3, 16], np.float64))
    with pytest.raises(ValueError, match=r"expected levels: .* got float64 in 0.0..16.0; .*--levels"):
        load(path)
    assert values_of(load(path, reading=Reading(levels=17))).unique().tolist() == [0, 3, 16]


@pytest.mark.parametrize(
    ("label", "dtype"), [(-1, np.int64), (2**64 - 1, np.uint64), (10**9, np.int64), (65536, np.uint32)]
)
def test_a_label_out_of_range_is_named(label: int, dtype: Any, tmp_path: Path) -> None:
    labels = np.zeros(N, dtype)
    labels[3] = label
    np.savez(tmp_path / "a.npz", x=drawn([0, 9]), y=labels)
    with pytest.raises(
        ValueError, match=rf"a.npz: expected labels 0..65535, got {label} at example 3 \(from 0\) and 0 more"
    ):
        load(tmp_path / "a.npz")


# ---- folders ----


def picture(path: Path, array: Any, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **settings)
    return path


def pictures(folder: Path, array: Any, suffix: str = "png") -> Path:
    for at, each in enumerate(array):
        picture(folder / f"{at:02}.{suffix}", each)
    return folder


def test_what_is_left_out_is_named_with_a_count(tmp_path: Path) -> None:
    pictures(tmp_path / "a", drawn([0, 40, 200]))
    pictures(tmp_path / "b", drawn([0, 40, 200]))
    pictures(tmp_path / "a" / "deep", drawn([9])[:3])
    for name in ("x.txt", "y.pt", ".hidden"):
        (tmp_path / name).write_text("")
    (tmp_path / "b" / "zz.png").symlink_to("nowhere.png")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "all.png").symlink_to("nowhere.png")
    (tmp_path / "empty").mkdir()
    data = load(tmp_path)
    assert (data.classes, len(values_of(data))) == (2, 2 * N)
    assert data.notes == [
        "left out: 2 files of other kinds, such as x.txt",
        "left out: a/deep (folders below a class)",
        "left out: 2 broken links, such as b/zz.png",
        "left out: 2 folders without images, such as c",
    ]


def test_later_pages_and_frames_are_left_out_and_counted(tmp_path: Path) -> None:
    pages = [Image.fromarray(each) for each in drawn([0, 40, 200])[:3]]
    for at in range(6):
        pages[0].save(tmp_path / f"{at}.tiff", save_all=True, append_images=pages[1:])
    data = load(tmp_path)
    assert len(values_of(data)) == 6
    assert (values_of(data)[:, 0] == torch.from_numpy(np.array(pages[0]))).all()
    assert data.notes == ["left out: 12 later pages or frames, such as 0.tiff"]
    moving = tmp_path / "gif"
    moving.mkdir()
    for at in range(6):
        pages[0].save(moving / f"{at}.gif", save_all=True, append_images=pages[1:])
    found = load(moving)
    assert found.notes == ["left out: 12 later pages or frames, such as 0.gif"]
    assert (values_of(found)[:, 0] == torch.from_numpy(np.array(pages[0]))).all()


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    array = drawn([0, 40, 200])[0][:3]  # 3×4
    turn = Image.Exif()
    turn[0x0112] = 6  # a quarter to the right
    for at in range(6):
        picture(tmp_path / f"{at}.png", array, exif=turn)
    data = load(tmp_path)
    assert (values_of(data)[:, 0] == torch.from_numpy(np.rot90(array, -1).copy())).all()


def test_a_picture_of_16_bits_is_divided_and_not_clipped(tmp_path: Path) -> None:
    pictures(tmp_path, drawn([0, 300, 30_000, 65_535], np.uint16))
    data = load(tmp_path)
    assert values_of(data).unique().tolist() == [0, 1, 117, 255]
    assert data.notes == ["its 16 bits, 0..65535, are divided by 257, into 256 levels"]
    picture(tmp_path / "19.png", drawn([0, 40, 200])[0])
    with pytest.raises(
        ValueError, match=r"got 00.png of 4×4 grey of 16 bits and 19.png of 4×4 grey; resize or convert"
    ):
        load(tmp_path)


def test_colours_of_16_bits_are_read_by_the_higher_8_which_is_said(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    about = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    row = b"\0" + np.array([300, 30_000, 65_535] * 4, ">u2").tobytes()
    for at in range(6):
        content = chunk(b"IHDR", about) + chunk(b"IDAT", zlib.compress(row * 4)) + chunk(b"IEND", b"")
        (tmp_path / f"{at}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    data = load(tmp_path)
    assert values_of(data)[0, :, 0, 0].tolist() == [1, 117, 255]
    assert data.notes == ["of colours of 16 bits the higher 8 are read, as Pillow gives them"]


def test_a_picture_of_another_format_is_not_read_whatever_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow gives PostScript to a program of the system."""
    called: list[object] = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *about, **more: called.append(about))
    pictures(tmp_path, drawn([0, 40, 200]))
    (tmp_path / "19.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=r"19.png: expected an image, but it can not be read"):
        load(tmp_path)
    assert called == []
