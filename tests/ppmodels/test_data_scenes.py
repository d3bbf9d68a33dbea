"""Scenes of several digits: as many as their labels say, apart from each other, and the published ones to the pixel."""

import os

import pytest
import torch

from ppmodels.data import load
from ppmodels.data.scenes import CANVAS, MOST, SCENES


def test_multi_digits_are_what_their_labels_say() -> None:
    data, digits = load("multi-digits", seed=3), load("digits", seed=3)
    assert (data.shape, data.levels) == ((1, CANVAS, CANVAS), digits.levels)
    for name, size in zip(("train", "valid", "test"), SCENES, strict=True):
        split, own = data.split(name), digits.split(name)
        assert split.labels is not None
        assert len(split) == size
        assert torch.bincount(split.labels).tolist() == pytest.approx([size / (MOST + 1)] * (MOST + 1), rel=0.15)
        assert not split.values[split.labels == 0].any()
        # The ink of a scene of one is that of a digit of the same split.
        ink = split.values[split.labels == 1].int().flatten(1).sum(1)
        assert set(ink.tolist()) <= set(own.values.int().flatten(1).sum(1).tolist())
        assert int(split.values.max()) < data.levels


def test_scenes_follow_their_seed_and_leave_the_generators_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (load("multi-digits", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.test.values, again.test.values)
    assert not torch.equal(first.test.values, other.test.values)
    assert not torch.equal(first.train.values[:2000], first.test.values)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("PPMODELS_DATA"), reason="PPMODELS_DATA names no folder of data")
def test_multi_mnist_is_that_of_pyro() -> None:
    """Pyro's own check: the sum over all pixels of its 60,000 scenes, and how many have 0, 1 and 2 digits."""
    data = load("multi-mnist")
    scenes = (data.train, data.valid)
    assert sum(int(split.values.sum(dtype=torch.int64)) for split in scenes) == 883_114_919
    counts = [split.labels for split in scenes if split.labels is not None]
    assert torch.bincount(torch.cat(counts)).tolist() == [19_909, 20_054, 20_037]
    assert len(data.test) == 10_000
    assert data.shape == (1, 50, 50)
