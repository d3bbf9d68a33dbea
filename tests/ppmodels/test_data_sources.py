"""The named sets: real files where PPMODELS_DATA names them, made ones for the layouts and for what is broken."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ppmodels.data import NAMES, load
from ppmodels.data.idx import read_idx
from ppmodels.data.sources import EMBEDDED


@pytest.fixture
def real() -> str:
    folder = os.environ.get("PPMODELS_DATA")
    if not folder:
        pytest.skip("reads the published files: set PPMODELS_DATA to their folder")
    return folder


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()


def write_mnist_format(folder: Path, balanced: bool) -> None:
    """Files as MNIST's, training plain and test gzipped; the first four pixels of an image spell its index."""
    folder.mkdir(parents=True)
    for stem, n in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((n, 28, 28), dtype=np.uint8)
        images[:, 0, :4] = np.arange(n, dtype="<u4").view(np.uint8).reshape(n, 4)
        labels = (np.arange(n) % 10).astype(np.uint8)
        if not balanced:
            labels[0] = 1
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{stem}-{kind}-ubyte"
            if stem == "train":
                path.write_bytes(idx(array))
            else:
                path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx(array), 1))


@pytest.fixture(scope="module")
def unbalanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("unbalanced")
    write_mnist_format(root / "MNIST" / "raw", balanced=False)
    return root


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("balanced")
    write_mnist_format(root / "FashionMNIST" / "raw", balanced=True)
    return root


def test_mnist_is_the_published_set_in_its_order(real: str) -> None:
    data = load("mnist")
    assert [len(data.train), len(data.valid), len(data.test)] == [50_000, 10_000, 10_000]
    assert (data.shape, data.levels, data.classes, data.binarisation) == ((1, 28, 28), 256, 10, "none")
    assert data.train.labels is not None
    assert data.valid.labels is not None
    assert data.test.labels is not None
    train = data.train.labels.bincount() + data.valid.labels.bincount()
    assert train.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    values = torch.cat([data.train.values, data.valid.values])
    assert round(values.sum(dtype=torch.float64).item() / values.numel() / 255, 4) == 0.1307


def test_fashion_mnist_is_not_mnist(real: str) -> None:
    data = load("fashion-mnist")
    assert data.train.labels is not None
    assert data.valid.labels is not None
    assert (data.train.labels.bincount() + data.valid.labels.bincount()).tolist() == [6000] * 10
    values = torch.cat([data.train.values, data.valid.values])
    assert round(values.sum(dtype=torch.float64).item() / values.numel() / 255, 4) == 0.2860


def test_binarized_mnist_is_published_binary_with_its_labels(real: str) -> None:
    data = load("binarized-mnist")
    assert (data.levels, data.binarisation, data.classes) == (2, "published", 10)
    assert [len(data.train), len(data.valid), len(data.test)] == [50_000, 10_000, 10_000]
    assert data.test.labels is not None
    assert data.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    with pytest.raises(ValueError, match=r"binary already .*published"):
        data.binarized("dynamic")


def test_omniglot_is_split_by_drawer_with_ink_on_zero(real: str) -> None:
    data = load("omniglot")
    assert [len(data.train), len(data.valid), len(data.test)] == [21_099, 3_246, 8_115]
    assert (data.shape, data.levels, data.classes) == ((1, 28, 28), 256, 1623)
    for split, drawers in ((data.train, 13), (data.valid, 2), (data.test, 5)):
        assert split.labels is not None
        assert split.labels.bincount().tolist() == [drawers] * 1623
        assert float(split.values.float().mean()) < 64  # paper is 0 and ink is rare


def test_cifar10_says_how_much_of_it_is_at_hand(real: str) -> None:
    data = load("cifar10")
    assert data.name == "cifar10 (10,000 of the 50,000 training images)"
    assert [len(data.train), len(data.valid), len(data.test)] == [9_000, 1_000, 10_000]
    assert (data.shape, data.levels) == ((3, 32, 32), 256)
    assert data.train.labels is not None
    assert data.valid.labels is not None
    assert data.test.labels is not None
    assert data.test.labels.bincount().tolist() == [1000] * 10
    train = data.train.labels.bincount() + data.valid.labels.bincount()
    assert train.tolist() == [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981]
    row = np.asarray(Image.open(Path(real) / "cifar10" / "test_batch.png").crop((0, 7, 1024, 8))).reshape(32, 32, 3)
    assert torch.equal(data.test.values[7], torch.from_numpy(row.copy()).permute(2, 0, 1))


def test_mnist_layouts_plain_and_gzipped(unbalanced: Path) -> None:
    for root in (unbalanced, unbalanced / "MNIST", unbalanced / "MNIST" / "raw"):
        data = load("mnist", folder=root)
        for split, first in ((data.train, 0), (data.valid, 50_000), (data.test, 0)):
            spelled = split.values[:, 0, 0, :4].contiguous().numpy().view("<u4").ravel()
            assert np.array_equal(spelled, np.arange(first, first + len(split)))


def test_the_environment_names_the_default_folder(unbalanced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPMODELS_DATA", str(unbalanced))
    assert load("mnist").name == "mnist"


def test_fashion_files_are_not_taken_for_mnist(unbalanced: Path, balanced: Path) -> None:
    for root in (balanced, balanced / "FashionMNIST", balanced / "FashionMNIST" / "raw"):
        assert load("fashion-mnist", folder=root).name == "fashion-mnist"
        with pytest.raises(FileNotFoundError, match="mnist: found no train-images-idx3-ubyte"):
            load("mnist", folder=root)
    with pytest.raises(FileNotFoundError, match=r"fashion-mnist: found no .* the folder should hold FashionMNIST/raw"):
        load("fashion-mnist", folder=unbalanced / "MNIST")


def test_fashion_files_in_a_nameless_folder_are_told_by_their_classes(balanced: Path, tmp_path: Path) -> None:
    nameless = tmp_path / "downloads"
    nameless.mkdir()
    for file in (balanced / "FashionMNIST" / "raw").iterdir():
        (nameless / file.name).hardlink_to(file)
    with pytest.raises(ValueError, match=r"equally many images in every class, as Fashion-MNIST"):
        load("mnist", folder=nameless)


def test_mnist_of_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((5, 28, 28), dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte: mnist has 60,000 images .* got \(5, 28, 28\)"):
        load("mnist", folder=tmp_path)


def test_idx_reads_plain_and_gzipped_alike(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(4, 3, 2)
    (tmp_path / "a").write_bytes(idx(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array)))
    for name in ("a", "a.gz"):
        assert np.array_equal(read_idx(tmp_path / name, 3), array)


GOOD = idx(np.zeros((4, 3, 2), dtype=np.uint8))
ZIPPED = gzip.compress(GOOD, mtime=0)  # without the time, as these bytes name tests


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"broken: expected an IDX file"),
        (b"\x89PNG" + GOOD[4:], r"broken: expected an IDX file \(its first two bytes 0\), got '89 50 4e 47'"),
        (b"\0\0\x0d\x03" + GOOD[4:], "broken: expected IDX values of type 0x08 .* got 0x0d"),
        (idx(np.zeros(4, dtype=np.uint8)), "broken: expected 3 dimensions, got 1; were images and labels exchanged"),
        (GOOD[:9], "broken: expected a header of 16 bytes, the file ends after 9"),
        (GOOD[:-1], r"broken: the header says \[4, 3, 2\], but 23 bytes of values follow; fetch"),
        (GOOD + b"\0", "but more than 24 bytes of values follow"),
        (idx(np.zeros((0, 3, 2), dtype=np.uint8)), r"the header says \[0, 3, 2\]"),
        (ZIPPED[:-9], "broken: expected a whole gzip file"),
        (ZIPPED[:12] + b"\xff" * 20, "broken: expected (a whole gzip|an IDX) file"),
        (ZIPPED[:-8] + bytes(8), "broken: expected a whole gzip file"),
    ],
)
def test_a_broken_idx_file_is_named_with_its_fault(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "broken", 3)


def test_binarized_mnist_without_labels_and_broken(tmp_path: Path) -> None:
    path = tmp_path / "binarized_mnist_larochelle.npz"
    parts = {
        name: np.eye(4, dtype=np.uint8)[None].repeat(n, 0) for name, n in (("train", 5), ("valid", 3), ("test", 2))
    }
    np.savez(path, **parts)
    data = load("binarized-mnist", folder=tmp_path)
    assert (len(data.valid), data.classes, data.shape) == (3, 0, (1, 4, 4))
    np.savez(path, train=parts["train"], test=parts["test"])
    with pytest.raises(ValueError, match="expected an array 'valid', got train, test"):
        load("binarized-mnist", folder=tmp_path)
    np.savez(path, **{name: part * 9 for name, part in parts.items()})
    with pytest.raises(ValueError, match="expected binary pixels 0 and 1, got values to 9"):
        load("binarized-mnist", folder=tmp_path)


def test_no_drawer_of_omniglot_is_in_two_splits(tmp_path: Path) -> None:
    """The first pixel of each image is its drawer, the second its character."""
    images = np.zeros((7, 20, 4, 4), dtype=np.uint8)
    images[:, :, 0, 0] = np.arange(1, 21)
    images[:, :, 0, 1] = np.arange(7)[:, None]
    np.savez(tmp_path / "omniglot_28x28.npz", images=images)
    data = load("omniglot", folder=tmp_path)
    for split, drawers in ((data.train, range(1, 14)), (data.valid, (14, 15)), (data.test, range(16, 21))):
        drawer, character = split.values[:, 0, 0, :2].long().T
        assert split.labels is not None
        assert torch.equal(character, split.labels)
        assert sorted(zip(drawer.tolist(), character.tolist(), strict=True)) == [
            (one, other) for one in drawers for other in range(7)
        ]


def test_omniglot_and_cifar10_refuse_other_shapes(tmp_path: Path) -> None:
    np.savez(tmp_path / "omniglot_28x28.npz", images=np.zeros((3, 19, 4, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"expected images \(character, 20 drawers, height, width\), got .*19"):
        load("omniglot", folder=tmp_path)
    Image.fromarray(np.zeros((2, 1000, 3), dtype=np.uint8)).save(tmp_path / "data_batch_1.png")
    with pytest.raises(ValueError, match=r"data_batch_1.png: expected RGB rows of 1,024 pixels"):
        load("cifar10", folder=tmp_path)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in EMBEDDED])
def test_a_missing_folder_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PPMODELS_DATA", raising=False)
    with pytest.raises(
        ValueError, match=rf"{name} is read from a folder .* set PPMODELS_DATA or pass folder= .* nothing"
    ):
        load(name)
    with pytest.raises(FileNotFoundError, match=rf"{name}: expected a folder, got .*nowhere \(from folder=\)"):
        load(name, folder=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=rf"{name}.*: found no .* the folder should hold "):
        load(name, folder=tmp_path)
    monkeypatch.setenv("PPMODELS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"\(from PPMODELS_DATA\), which is none"):
        load(name)


def test_a_typo_lists_the_names_and_suggests_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'mnsit' is neither .*\(digits, .*mnist, .* Did you mean 'mnist'\?"):
        load("mnsit")
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'digits'\?"):
        load("Digits")
    (tmp_path / "flowers.csv").write_text("1,2\n")
    with pytest.raises(FileNotFoundError, match=r"Did you mean '.*flowers\.csv'\?"):
        load(str(tmp_path / "flower.csv"))
    with pytest.raises(FileNotFoundError, match=r"neither a known name .* nor a file or folder at qqqq\.$"):
        load("qqqq")
