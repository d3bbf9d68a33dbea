"""What a dataset is: types, shapes, levels, binarisation and the description of what a number is measured on."""

import math

import pytest
import torch
from torch import Tensor

from ppmodels.data import NAMES, Dataset, Split, load
from ppmodels.data.noise import bernoulli, fixed_draw, mix
from ppmodels.data.simulated import grid_modes, ring_modes


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def table(rows: int = 6, features: int = 3) -> Dataset:
    values = torch.arange(rows * features).view(rows, features).float()
    return Dataset("table", Split(values), Split(values), Split(values), None)


def images(*sizes: int, top: int = 255) -> list[Split]:
    return [Split(torch.full((n, 1, 2, 2), top, dtype=torch.uint8)) for n in sizes]


def test_digits_are_embedded_and_split_as_documented(digits: Dataset) -> None:
    assert NAMES[0] == "digits"
    assert [len(digits.train), len(digits.valid), len(digits.test)] == [1437, 180, 180]
    assert (digits.shape, digits.levels, digits.classes, digits.discrete) == ((1, 8, 8), 17, 10, True)
    assert digits.train.values.dtype == torch.uint8
    values = torch.cat([digits.train.values, digits.valid.values, digits.test.values])
    assert (int(values.min()), int(values.max())) == (0, 16)
    # scikit-learn documents the class counts of the 1,797 digits; a split that loses or repeats one would change them.
    labels = torch.cat(
        [split.labels for split in (digits.train, digits.valid, digits.test) if split.labels is not None]
    )
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert len(values.flatten(1).unique(dim=0)) == 1797


def test_the_split_of_digits_is_fixed_by_its_seed(digits: Dataset) -> None:
    again, other = load("digits"), load("digits", seed=1)
    assert torch.equal(digits.test.values, again.test.values)
    assert not torch.equal(digits.test.values, other.test.values)


def test_description_says_what_a_number_is_measured_on(digits: Dataset) -> None:
    described = digits.description("test")
    fingerprint = described.pop("fingerprint")
    assert described == {
        "data": "digits",
        "split": "test",
        "examples": 180,
        "levels": 17,
        "binarisation": "none",
    }
    assert isinstance(fingerprint, str)
    assert len(fingerprint) == 12
    assert fingerprint == load("digits").description("test")["fingerprint"] == digits.test.fingerprint
    assert digits.description("valid")["fingerprint"] == digits.valid.fingerprint
    assert len({digits.description(name)["fingerprint"] for name in ("train", "valid", "test")}) == 3
    assert [digits.description(name)["examples"] for name in ("train", "valid", "test")] == [1437, 180, 180]
    assert fingerprint != load("digits", seed=1).description("test")["fingerprint"]
    assert table().description("train")["levels"] == "none"
    dynamic = digits.binarized("dynamic").description("test")
    assert dynamic["binarisation"] == (
        "dynamic (a fresh Bernoulli draw each epoch in training; one fixed draw, seed 0, in evaluation)"
    )
    assert dynamic["levels"] == 2


def test_a_fingerprint_tells_shape_and_type_from_equal_bytes() -> None:
    same = torch.zeros(4, 6), torch.zeros(6, 4)
    assert Split(same[0]).fingerprint != Split(same[1]).fingerprint
    assert Split(torch.zeros(2, 1, 2, 2, dtype=torch.uint8)).fingerprint != Split(torch.zeros(1, 2)).fingerprint


def test_static_binarisation_is_one_draw_with_the_grey_levels_as_probabilities(digits: Dataset) -> None:
    drawn = digits.binarized("static", seed=3)
    assert drawn.levels == 2
    assert drawn.binarisation == "static"
    assert torch.equal(drawn.train.values, digits.binarized("static", seed=3).train.values)
    assert not torch.equal(drawn.train.values, digits.binarized("static", seed=4).train.values)
    p = digits.train.values.double() / 16
    error = (drawn.train.values.double() - p).sum() / (p * (1 - p)).sum().sqrt()
    # |z| < 5.5: false alarm 4e-8; about 92,000 pixels catch a shift of the mean probability of 0.006.
    assert abs(float(error)) < 5.5
    assert drawn.train.labels is digits.train.labels


def test_threshold_is_on_from_half(digits: Dataset) -> None:
    assert torch.equal(digits.binarized("threshold").test.values, (digits.test.values >= 8).to(torch.uint8))
    grey = Split(torch.tensor([0, 127, 128, 255], dtype=torch.uint8).view(1, 1, 2, 2))
    assert Dataset("grey", grey, grey, grey, 256).binarized("threshold").test.values.flatten().tolist() == [0, 0, 1, 1]


def test_dynamic_binarisation_keeps_grey_and_evaluates_on_the_static_draw(digits: Dataset) -> None:
    dynamic = digits.binarized("dynamic")
    assert (dynamic.levels, dynamic.grey_levels, dynamic.binarisation) == (2, 17, "dynamic")
    assert torch.equal(dynamic.test.values, digits.test.values)
    assert torch.equal(dynamic.evaluated("test").values, digits.binarized("static").test.values)
    assert digits.evaluated("test") is digits.test
    seeded = digits.binarized("dynamic", seed=3).evaluated("test").values
    assert torch.equal(seeded, digits.binarized("static", seed=3).test.values)
    assert not torch.equal(seeded, dynamic.evaluated("test").values)


def test_no_binarisation_is_the_same_dataset(digits: Dataset) -> None:
    assert digits.binarized("none") is digits
    assert table().binarized("none").levels is None


@pytest.mark.parametrize("top", [1, 2, 16, 129, 255])
def test_level_zero_is_never_on_and_the_top_level_always(top: int) -> None:
    generator = torch.Generator().manual_seed(top)
    assert not bernoulli(torch.zeros(200_000, dtype=torch.uint8), top, generator).any()
    assert bernoulli(torch.full((200_000,), top, dtype=torch.uint8), top, generator).all()


def test_the_extremes_of_the_uniform_noise_keep_both_ends_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    for extreme in (0.0, 1 - 2**-24):  # the smallest and largest float32 that torch.rand returns
        monkeypatch.setattr(torch, "rand", lambda shape, extreme=extreme, **_: torch.full(shape, extreme))
        for top in range(1, 256):
            ends = torch.tensor([0, top], dtype=torch.uint8)
            assert bernoulli(ends, top, torch.Generator()).tolist() == [0.0, 1.0]


def test_splits_do_not_share_their_fixed_draw() -> None:
    half = Split(torch.ones(10, 1, 8, 8, dtype=torch.uint8))
    drawn = Dataset("half", half, half, half, 3).binarized("static")
    assert not torch.equal(drawn.train.values, drawn.valid.values)
    assert not torch.equal(drawn.valid.values, drawn.test.values)


def test_a_fixed_draw_depends_on_position_and_not_on_how_many_follow() -> None:
    grey = torch.randint(0, 256, (3000, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    drawn = fixed_draw(grey, 255, seed=5)
    assert torch.equal(drawn[:1001], fixed_draw(grey[:1001], 255, seed=5))
    assert torch.equal(drawn[:2001], fixed_draw(grey[:2001], 255, seed=5))


def test_mix_separates_words_and_their_order() -> None:
    seeds = [mix(a, b, c) for a in range(-2, 10) for b in range(4) for c in range(200)]
    # Generators on the CPU keep the low 32 bits only: 9,600 seeds there collide by chance with probability 0.011.
    assert len({seed & 0xFFFFFFFF for seed in seeds}) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert mix(1, 2) != mix(2, 1)
    ones = sum(bin(seed).count("1") for seed in seeds) / (64 * len(seeds))
    # z < 6 (false alarm 2e-9) for 614,400 bits.
    assert abs(ones - 0.5) < 6 * 0.5 / math.sqrt(64 * len(seeds))


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        (
            torch.zeros(3, 4, 4, dtype=torch.uint8),
            None,
            r"values: expected uint8 images .* got torch.uint8 .*\(3, 4, 4\)",
        ),
        (torch.zeros(3, 1, 4, 4), None, "expected uint8 images"),
        (torch.zeros(3, 2, dtype=torch.float64), None, r"or a table \(n, features\), .* got torch.float64"),
        (torch.zeros(0, 2), None, "at least one number"),
        (torch.tensor([[1.0, math.nan]]), None, "expected finite numbers, got NaN or infinity; drop"),
        (torch.zeros(3, 2), torch.zeros(2, dtype=torch.int64), r"labels: expected int64 of shape \(3,\)"),
        (torch.zeros(3, 2), torch.zeros(3), "labels: expected int64"),
    ],
)
def test_a_split_refuses_what_is_neither_images_nor_table(values: Tensor, labels: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split(values, labels)


def test_a_dataset_refuses_splits_and_levels_that_disagree(digits: Dataset) -> None:
    train, valid, test = images(3, 2, 2)
    with pytest.raises(ValueError, match=r"test: expected values 0\.\.15, got 255; check `levels`"):
        Dataset("x", *images(3, 2, top=15), test, levels=16)
    with pytest.raises(ValueError, match="uint8 images have a number of levels and tables have None, got None"):
        Dataset("x", train, valid, test, levels=None)
    with pytest.raises(ValueError, match=r"valid: .* of shape \(1, 2, 2\) as in train, got .*\(1, 8, 8\)"):
        Dataset("x", train, digits.valid, test, levels=256)
    with pytest.raises(ValueError, match="expected 2 with published binarisation, got 256"):
        Dataset("x", train, valid, test, levels=256, binarisation="published")
    with pytest.raises(ValueError, match="binarisation: expected one of none, dynamic"):
        Dataset("x", train, valid, test, levels=256, binarisation="often")
    with pytest.raises(ValueError, match="grey_levels: belongs to dynamic"):
        Dataset("x", *images(3, 2, 2, top=1), levels=2, binarisation="dynamic")


def test_binarising_what_has_no_grey_levels_is_refused(digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"table is a table of real numbers .* use 'none'"):
        table().binarized("static")
    for how in ("static", "dynamic", "threshold"):
        with pytest.raises(ValueError, match=rf"digits is binary already \(binarisation: {how}\); use it as it is"):
            digits.binarized(how).binarized("dynamic")
    with pytest.raises(ValueError, match="expected one of none, dynamic, static, threshold, got 'bernoulli'"):
        digits.binarized("bernoulli")


def test_a_wrong_split_is_named(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="split: expected one of train, valid, test, got 'training'"):
        digits.split("training")


def test_to_moves_every_tensor(digits: Dataset) -> None:
    moved = digits.binarized("dynamic").to("cpu")
    assert torch.equal(moved.train.values, digits.train.values)
    assert (moved.grey_levels, moved.name) == (17, "digits")


def test_classes_are_counted_over_all_splits() -> None:
    assert table().classes == 0
    splits = [Split(torch.zeros(2, 1), torch.tensor(labels)) for labels in ([0, 1], [0, 4], [2, 2])]
    assert Dataset("x", *splits, levels=None).classes == 5
    bare = Split(torch.zeros(2, 1))
    assert Dataset("x", *splits[:2], bare, levels=None).classes == 0


@pytest.mark.parametrize(("name", "sd", "modes"), [("ring-8", 0.01, 8), ("grid-25", 0.05, 25)])
def test_a_toy_has_the_spread_around_its_modes_that_it_is_documented_for(name: str, sd: float, modes: int) -> None:
    train = load(name).train
    assert train.labels is not None
    assert train.labels.unique().tolist() == list(range(modes))
    centres = {"ring-8": ring_modes, "grid-25": grid_modes}[name]()
    deviation = train.values - centres[train.labels]
    # 40,000 numbers: the standard deviation to 0.35 %, held to 7 of these; the mean to 0.5 %, likewise.
    assert float(deviation.std()) == pytest.approx(sd, rel=0.025)
    assert abs(float(deviation.mean())) < 7 * sd / 200
