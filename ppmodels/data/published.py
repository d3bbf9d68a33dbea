"""Published data sets by name: digits from scikit-learn, the others read from a folder of yours. Nothing is downloaded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ppmodels.data.arrays import names_in, read_archive, read_array
from ppmodels.data.assemble import Array, Raw
from ppmodels.data.dataset import SPLITS
from ppmodels.data.idx import read_idx
from ppmodels.data.image_folder import read_image


def digits() -> Raw:
    """8×8 handwritten digits, 17 levels (Alpaydin and Kaynak, 1998), the part that scikit-learn carries: 1,797."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # scikit-learn ships no types

    data = load_digits()
    return Raw(data.images.astype(np.uint8), data.target.astype(np.int64))


def mnist(folder: Path) -> Raw:
    """28×28 digits (LeCun, Bottou, Bengio and Haffner, 1998): 50,000 train, the next 10,000 valid, 10,000 test."""
    places = [folder / "MNIST" / "raw", folder / "MNIST"]
    if "fashion" not in _own_name(folder):
        places += [folder / "raw", folder]
    raw = _mnist_format("mnist", places)
    assert raw.labels is not None
    if len(set(np.bincount(raw.labels).tolist())) == 1:
        # The file names are the same, so the contents decide: MNIST's classes are not equally frequent.
        raise ValueError(
            f"mnist: the files found under {folder} have equally many images in every class, as Fashion-MNIST has and "
            "MNIST has not; move them to FashionMNIST/raw and load 'fashion-mnist'"
        )
    return raw


def fashion_mnist(folder: Path) -> Raw:
    """28×28 clothes (Xiao, Rasul and Vollgraf, 2017, arXiv:1708.07747): 50,000 train, 10,000 valid, 10,000 test.

    Valid is the end of the published training set, as for MNIST. The files are named as MNIST's, so they count only in
    `FashionMNIST/` or in a folder whose name says fashion.
    """
    places = [folder / "FashionMNIST" / "raw", folder / "FashionMNIST"]
    if "fashion" in _own_name(folder):
        places += [folder / "raw", folder]
    return _mnist_format("fashion-mnist", places)


def binarized_mnist(folder: Path) -> Raw:
    """MNIST in the fixed binarisation of Larochelle and Murray (2011): 50,000 train, 10,000 valid, 10,000 test.

    Read from `binarized_mnist_larochelle.npz` (train, valid, test); labels from `derived_labels.npz` if it is there.
    The published test split is sorted by class.
    """
    path = _first("binarized-mnist", [folder / "binarized_mnist", folder], ["binarized_mnist_larochelle.npz"])
    arrays = read_archive(path, SPLITS)
    parts = [_key(arrays, name, path) for name in SPLITS]
    labels = path.with_name("derived_labels.npz")
    targets = None
    if labels.exists():
        keys = [f"{name}_labels" for name in SPLITS]
        known = read_archive(labels, keys)
        targets = np.concatenate([_key(known, key, labels) for key in keys])
    values = np.concatenate(parts)
    if values.max() > 1:
        raise ValueError(f"{path}: expected binary pixels 0 and 1, got values to {values.max()}; fetch the file again")
    return Raw(values, targets, _sizes(parts))


def omniglot(folder: Path) -> Raw:
    """28×28 characters of 50 alphabets (Lake, Salakhutdinov and Tenenbaum, 2015), ink 255 on paper 0, split by drawer.

    Of the 20 drawers of each of 1,623 characters, 1-13 are train (21,099 images), 14 and 15 valid (3,246) and 16-20
    test (8,115): every character is in every split. Labels are the character's index, 0..1622. This is not the split
    of `chardata.mat` that Burda et al. (2016) and others report on. Read from `omniglot_28x28.npz` (images).
    """
    path = _first("omniglot", [folder / "omniglot", folder], ["omniglot_28x28.npz"])
    images = _key(read_archive(path, ["images"]), "images", path)
    if images.ndim != 4 or images.shape[1] != 20:
        raise ValueError(f"{path}: expected images (character, 20 drawers, height, width), got shape {images.shape}")
    parts = [images[:, drawers].reshape(-1, *images.shape[2:]) for drawers in (slice(13), slice(13, 15), slice(15, 20))]
    targets = np.concatenate([np.repeat(np.arange(len(images)), len(part) // len(images)) for part in parts])
    return Raw(np.concatenate(parts), targets, _sizes(parts))


def cifar10(folder: Path) -> Raw:
    """32×32 colour photographs (Krizhevsky, 2009): batch 1 of the 5 published for training, and the test batch.

    9,000 train, the next 1,000 valid, 10,000 test. Read from `data_batch_1.png` and `test_batch.png`, one image a row
    of 1,024 pixels, with labels in `data_batch_1_labels.npy` and `test_batch_labels.npy`.
    """
    parts, targets = [], []
    for batch in ("data_batch_1", "test_batch"):
        path = _first("cifar10", [folder / "cifar10", folder], [f"{batch}.png"])
        rows = read_image(path)
        if rows.ndim != 3 or rows.shape[1:] != (1024, 3):
            raise ValueError(f"{path}: expected RGB rows of 1,024 pixels, one an image, got shape {rows.shape}")
        parts.append(rows.reshape(-1, 32, 32, 3))
        targets.append(read_array(_first("cifar10", [path.parent], [f"{batch}_labels.npy"])))
    train = len(parts[0]) * 9 // 10
    return Raw(np.concatenate(parts), np.concatenate(targets), (train, len(parts[0]) - train, len(parts[1])))


FOLDER_SETS: dict[str, Callable[[Path], Raw]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "binarized-mnist": binarized_mnist,
    "omniglot": omniglot,
    "cifar10": cifar10,
}
LAYOUT = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte.gz and its three companions (.gz or unpacked)",
    "fashion-mnist": "FashionMNIST/raw/train-images-idx3-ubyte.gz and its three companions (.gz or unpacked)",
    "binarized-mnist": "binarized_mnist/binarized_mnist_larochelle.npz",
    "omniglot": "omniglot/omniglot_28x28.npz",
    "cifar10": "cifar10/data_batch_1.png, test_batch.png and their _labels.npy",
}


def _mnist_format(name: str, places: list[Path]) -> Raw:
    images, labels = [], []
    for stem, n in (("train", 60_000), ("t10k", 10_000)):
        files = [f"{stem}-images-idx3-ubyte", f"{stem}-images-idx3-ubyte.gz"]
        path = _first(name, places, files)
        images.append(read_idx(path, 3))
        if images[-1].shape != (n, 28, 28):
            raise ValueError(
                f"{path}: {name} has {n:,} images of 28×28 here, got {images[-1].shape}; "
                "save images of your own as .npz and load them by path"
            )
        files = [file.replace("images-idx3", "labels-idx1") for file in files]
        path = _first(name, [path.parent], files)
        labels.append(read_idx(path, 1))
        if len(labels[-1]) != n or labels[-1].max() > 9:
            raise ValueError(
                f"{path}: expected {n:,} labels 0..9, got {len(labels[-1]):,} in 0..{labels[-1].max()}; "
                "fetch the file again"
            )
    return Raw(np.concatenate(images), np.concatenate(labels), (50_000, 10_000, 10_000))


def _own_name(folder: Path) -> str:
    folder = folder.resolve()
    return (folder.parent.name if folder.name == "raw" else folder.name).lower()


def _first(name: str, places: list[Path], files: list[str]) -> Path:
    for place in places:
        for file in files:
            if (place / file).is_file():
                return place / file
    raise FileNotFoundError(
        f"{name}: found no {' or '.join(files)} in {', '.join(str(place) for place in places)}; "
        f"the folder should hold {LAYOUT[name]}"
    )


def _key(arrays: dict[str, Array], key: str, path: Path) -> Array:
    if key not in arrays:
        raise ValueError(f"{path}: expected an array '{key}', got {', '.join(names_in(path))}; fetch the file again")
    return arrays[key]


def _sizes(parts: list[Array]) -> tuple[int, int, int]:
    train, valid, test = (len(part) for part in parts)
    return train, valid, test
