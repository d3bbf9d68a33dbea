"""Data of your own: arrays, archives, images and tables, and every way in which they are refused."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ppmodels.data import Dataset, load

N = 20


def grey(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, size=shape, dtype=np.uint8)


def save(path: Path, array: Any) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def everything(data: Dataset) -> torch.Tensor:
    return data.original(torch.cat([data.train.values, data.valid.values, data.test.values]))


def rows(values: torch.Tensor) -> list[tuple[float, ...]]:
    return sorted(tuple(row.tolist()) for row in values.flatten(1))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((N, 5, 4), None), ((N, 5, 4, 3), (0, 3, 1, 2)), ((N, 5, 4, 1), (0, 3, 1, 2)), ((N, 3, 5, 4), (0, 1, 2, 3))],
)
def test_images_in_every_layout_become_channel_first(tmp_path: Path, shape: tuple[int, ...], axes: Any) -> None:
    array = grey(*shape)
    data = load(save(tmp_path / "mine.npy", array))
    expected = array[:, None] if axes is None else array.transpose(axes)
    assert (data.name, data.levels, data.shape) == ("mine", 256, expected.shape[1:])
    assert [len(data.train), len(data.valid), len(data.test)] == [16, 2, 2]
    assert rows(everything(data)) == rows(torch.from_numpy(expected.copy()))


def test_the_split_is_fixed_by_the_seed(tmp_path: Path) -> None:
    path = save(tmp_path / "mine.npy", grey(N, 4, 4))
    assert torch.equal(everything(load(path)), everything(load(path)))
    assert not torch.equal(everything(load(path)), everything(load(path, seed=1)))
    assert torch.equal(everything(load(path)), everything(load("mine.npy", folder=tmp_path)))


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32])
def test_zeros_and_ones_are_two_levels(tmp_path: Path, dtype: Any) -> None:
    data = load(save(tmp_path / "binary.npy", (grey(N, 4, 4) > 128).astype(dtype)))
    assert data.levels == 2
    assert set(everything(data).unique().tolist()) == {0, 1}


def test_floats_are_levels_only_as_multiples_of_a_255th(tmp_path: Path) -> None:
    array = grey(N, 4, 4)
    for dtype in (np.float32, np.float64):
        data = load(save(tmp_path / "scaled.npy", (array / 255).astype(dtype)))
        assert data.levels == 256
        assert rows(everything(data)) == rows(torch.from_numpy(array))
    every = np.arange(256, dtype=np.float32).reshape(16, 4, 4) / np.float32(255)
    for near in (every, np.nextafter(every, 0), np.nextafter(every, 2)):  # the nearest level, not the one below
        data = load(save(tmp_path / "every.npy", near.clip(0, 1)))
        assert everything(data).flatten().sort().values.tolist() == list(range(256))
    for wrong in (array / 256, array / 127.5 - 1, array.astype(np.float32), array.astype(np.int64) - 1):
        with pytest.raises(ValueError, match=r"scaled.npy: expected levels: .* multiples of 1/255 .* scale and round"):
            load(save(tmp_path / "scaled.npy", wrong))
    with pytest.raises(ValueError, match="got NaN or infinity among levels"):
        load(save(tmp_path / "scaled.npy", np.full((N, 4, 4), np.nan)))


def test_a_float_matrix_is_a_table(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(N, 3))
    data = load(save(tmp_path / "table.npy", array))
    assert (data.levels, data.discrete, data.shape, data.classes) == (None, False, (3,), 0)
    assert data.train.values.dtype == torch.float32
    np.testing.assert_allclose(rows(everything(data)), rows(torch.from_numpy(array)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e300])
def test_a_table_with_a_number_that_is_none_names_row_and_column(tmp_path: Path, bad: float) -> None:
    array = np.zeros((N, 3))
    array[7, 2] = bad
    with pytest.raises(ValueError, match=r"table.npy: expected finite numbers, got .* in row 7, column 2 \(from 0\)"):
        load(save(tmp_path / "table.npy", array))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (grey(N, 5, 4, 2), r"expected 1 or 3 channels .* got shape \(20, 5, 4, 2\): neither is"),
        (grey(N, 3, 5, 3), "both could be; crop or pad"),
        (grey(N, 16), r"or a table of floats \(n, features\), got uint8 of shape \(20, 16\)"),
        (np.zeros(N), "or a table of floats"),
        (np.zeros((N, 2), dtype=np.int64), "got int64 of shape"),
        (np.zeros((0, 4, 4), dtype=np.uint8), "expected at least one value"),
        (np.array(["a", "b"]), "expected numbers, got dtype <U1"),
        (grey(5, 4, 4), "expected at least 6 examples .* got 5; give the splits yourself"),
    ],
)
def test_arrays_that_are_neither_images_nor_table_are_refused(tmp_path: Path, array: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"wrong.npy: .*{message}"):
        load(save(tmp_path / "wrong.npy", array))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    ragged = np.array([[1, 2], [3]], dtype=object)
    np.savez(tmp_path / "objects.npz", x=ragged)
    for path in (save(tmp_path / "objects.npy", ragged), tmp_path / "objects.npz"):
        with pytest.raises(
            ValueError, match=rf"{path.name}: holds Python objects .* never read .* save a plain numeric"
        ):
            load(path)


def test_damaged_arrays_are_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.npy", grey(N, 4, 4)).read_bytes()
    np.savez(tmp_path / "b.npz", x=grey(N, 4, 4))
    archive = (tmp_path / "b.npz").read_bytes()
    for name, content in (
        ("short.npy", whole[:-10]),
        ("text.npy", b"1,2,3"),
        ("empty.npy", b""),
        ("short.npz", archive[:-30]),
        ("flipped.npz", archive[:200] + bytes([archive[200] ^ 255]) + archive[201:]),
        ("empty.npz", b""),
        ("array.npz", whole),
        ("pickled.npz", pickle.dumps([1, 2, 3])),
        ("pickled.npy", pickle.dumps([1, 2, 3])),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"{name}: expected an array file written by numpy, but it can not be read"
        ):
            load(tmp_path / name)


@pytest.mark.parametrize("key", ["x", "images", "data", "arr_0"])
@pytest.mark.parametrize("label", ["labels", "y", None])
def test_an_archive_of_one_array_with_or_without_labels(tmp_path: Path, key: str, label: str | None) -> None:
    array = np.arange(N, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    np.savez(tmp_path / "mine.npz", **{key: array}, **({label: np.arange(N)} if label else {}))
    data = load(tmp_path / "mine.npz")
    assert data.classes == (N if label else 0)
    if data.test.labels is not None:
        assert torch.equal(data.test.labels, data.test.values[:, 0, 0, 0].long())


def test_an_archive_with_splits_keeps_them(tmp_path: Path) -> None:
    parts = {"train": grey(7, 4, 4), "valid": grey(1, 4, 4, seed=1), "test": grey(3, 4, 4, seed=2)}
    labels = {f"{name}_labels": np.full(len(part), at, dtype=np.uint8) for at, (name, part) in enumerate(parts.items())}
    np.savez(tmp_path / "mine.npz", **parts, **labels)
    data = load(tmp_path / "mine.npz")
    for at, (name, part) in enumerate(parts.items()):
        split = data.split(name)
        assert torch.equal(split.values[:, 0], torch.from_numpy(part))
        assert split.labels is not None
        assert split.labels.tolist() == [at] * len(part)
    np.savez(tmp_path / "bare.npz", **parts)
    assert load(tmp_path / "bare.npz").classes == 0


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"train": grey(6, 4, 4), "test": grey(2, 4, 4)}, "got no valid; add it, or store all examples in one array x"),
        ({"train": grey(6, 4, 4), "valid": grey(2, 4, 5), "test": grey(2, 4, 4)}, "expected valid to be as train"),
        (
            {"train": grey(6, 4, 4), "valid": grey(2, 4, 4) / 255, "test": grey(2, 4, 4)},
            r"expected valid to be as train, uint8 of shape \(n, \*\(4, 4\)\), got float64",
        ),
        ({"x": grey(N, 4, 4), "images": grey(N, 4, 4)}, "or one array named .* got x, images; rename"),
        ({"pixels": grey(N, 4, 4)}, "expected train, valid and test, or one array named x, images, .* got pixels"),
        ({"x": grey(N, 4, 4), "y": np.arange(N - 1)}, r"expected labels as whole numbers .* shape \(19,\)"),
        ({"x": grey(N, 4, 4), "y": np.zeros(N)}, "expected labels as whole numbers .* got float64"),
        ({"x": grey(N, 4, 4), "y": np.full(N, -1)}, r"expected labels 0\.\.65535, got -1 at example 0"),
        (
            {"train": grey(6, 4, 4), "valid": grey(2, 4, 4), "test": grey(2, 4, 4), "test_labels": np.zeros(2, int)},
            r"expected labels for every split or for none .* got \['test_labels'\]",
        ),
        (
            {name: grey(2, 4, 4) for name in ("train", "valid", "test")}
            | {f"{name}_labels": np.zeros(3, int) for name in ("train", "valid", "test")},
            r"expected train_labels of shape \(2,\), got \(3,\)",
        ),
    ],
)
def test_archives_that_are_unclear_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(ValueError, match=f"wrong.npz: .*{message}"):
        load(tmp_path / "wrong.npz")


def image_file(path: Path, array: Any, mode: str | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)
    return path


def test_loose_images_have_no_labels(tmp_path: Path) -> None:
    array = grey(N, 5, 4)
    for at, image in enumerate(array):
        image_file(tmp_path / f"{at:03}.png", image)
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "notes.txt").write_text("ignored")
    data = load(tmp_path)
    assert (data.levels, data.shape, data.classes) == (256, (1, 5, 4), 0)
    assert rows(everything(data)) == rows(torch.from_numpy(array))


def test_images_in_subfolders_are_classes(tmp_path: Path) -> None:
    for at, name in enumerate(["ant", "bee", "cat"]):
        for number in range(4):
            image_file(tmp_path / name / f"{number}.PNG", np.full((5, 4, 3), 50 * at + 3, dtype=np.uint8))
    data = load(tmp_path)
    assert (data.shape, data.classes) == ((3, 5, 4), 3)
    for split in (data.train, data.valid, data.test):
        assert torch.equal(split.labels, (split.values[:, 0, 0, 0].long() - 3) // 50)


def test_images_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    image_file(tmp_path / "a.png", grey(5, 4))
    image_file(tmp_path / "b.png", grey(5, 4))
    odd = image_file(tmp_path / "c.png", grey(5, 6))
    with pytest.raises(ValueError, match=r"got a\.png of 5×4 grey and c\.png of 5×6 grey; resize or convert"):
        load(tmp_path)
    image_file(odd, grey(5, 4, 3))
    with pytest.raises(ValueError, match=r"got a\.png of 5×4 grey and c\.png of 5×4 RGB"):
        load(tmp_path)
    image_file(odd, grey(5, 4, 4))
    with pytest.raises(
        ValueError, match=r"c\.png: expected grey or RGB of 8 bits, or grey of 16, got mode RGBA; convert"
    ):
        load(tmp_path)
    odd.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"c\.png: expected an image, but it can not be read"):
        load(tmp_path)
    odd.write_bytes(image_file(tmp_path / "b.png", grey(50, 40)).read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"c\.png: expected an image, but it can not be read|of 5×4 grey and b\.png"):
        load(odd.parent)


def test_palettes_and_bits_become_colours_and_greys(tmp_path: Path) -> None:
    for number in range(6):
        image_file(tmp_path / "palette" / f"{number}.png", grey(5, 4, 3), mode="P")
        image_file(tmp_path / "bits" / f"{number}.png", grey(5, 4), mode="1")
    assert load(tmp_path / "palette").shape == (3, 5, 4)
    assert load(tmp_path / "bits").levels == 2


def test_folders_that_are_unclear_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected images \(\.png .* got neither"):
        load(tmp_path)
    for name in ("train", "test"):
        image_file(tmp_path / name / "a.png", grey(5, 4))
    with pytest.raises(ValueError, match=r"its subfolders test, train look like splits.* save the splits in an \.npz"):
        load(tmp_path)
    image_file(tmp_path / "a.png", grey(5, 4))
    with pytest.raises(ValueError, match="got 1 loose and 2 subfolders with images; keep one of the two"):
        load(tmp_path)


def csv(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_is_a_table_with_or_without_header(tmp_path: Path) -> None:
    numbers = [[float(a), a * 0.5 - 3, -1e-3 * a] for a in range(N)]
    body = "".join(",".join(map(repr, row)) + "\n" for row in numbers)
    expected = rows(torch.tensor(numbers))
    names = {"w": ("width", "height", "label")}
    for text in (body, "width, height,label\n" + body, "\ufeff" + body + "\n\n"):
        data = load(csv(tmp_path, text))
        assert (data.levels, data.shape, data.classes) == (None, (3,), 0)
        assert data.columns == names.get(text[0], ())
        np.testing.assert_allclose(rows(everything(data)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,b\n1,2\n3,four\n",
            r"expected a number in row 3, column 2 \(b\), got 'four'; leave .*: --columns=-b, .* --categories b",
        ),
        ("1,2\n3,4\nx,5\n", "expected a number in row 3, column 1, got 'x'"),
        (
            "1,NA\n",
            "missing value 'NA' in row 1, column 2, the first: if that row names .*; if it is data, --no-header",
        ),
        ("a,b\n1,2\n,four\n", r"expected a number in row 3, column 2 \(b\), got 'four'"),
        ("1,2\n3,-inf\n", "expected a finite number in row 2, column 2, got '-inf'"),
        ("1,2\n3\n", "expected 2 columns as in the first row, got 1 in row 2"),
        ("a,b\n", "expected rows of numbers, got a header alone"),
        ("", "expected rows of numbers, got an empty file"),
        ("a b\n1 2\n", r"expected a number in row 2, column 1 \(a b\), got '1 2'; separate columns by commas"),
        ("1,1_000\n", "expected a number in row 1, column 2, got '1_000'; write it without _"),
        ("1,5;2,5\n3,5;4,5\n", r"expected a number in row 2, column 1 \(1,5\), got '3,5'; write it .* with a point"),
        ("a;b\n1,5;2\n", r"expected a number in row 2, column 1 \(a\), got '1,5'; write it .* with a point"),
        ("a,2\n1,2\n", "expected a number in row 1, column 1, got 'a'"),
        ("1,1e39\n" * N, "expected finite numbers, got 1e.39 in row 0, column 1"),
    ],
)
def test_a_cell_that_is_no_number_is_named_by_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"table.csv: {message}"):
        load(csv(tmp_path, text))


def test_a_csv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match=r"table.csv: expected text in UTF-8"):
        load(tmp_path / "table.csv")


def test_other_files_are_refused_with_the_kinds_that_are_read(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"model.pt: expected a file .npy, .npz, .csv, .* or a folder .* got .pt; convert"
    ):
        load(tmp_path / "model.pt")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz"])
def test_a_pipe_is_refused_and_not_waited_for(suffix: str, tmp_path: Path) -> None:
    """The record of a run that someone sent can name one."""
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"expected a file or a folder of images, got a device or a pipe"):
        load(path)
