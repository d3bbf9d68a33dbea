"""Pictures draw by noise of their own and leave the caller's generators as they were."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ppmodels.app import RECIPES, pictures
from ppmodels.app.experiment import Experiment, prepared
from ppmodels.app.pictures import (
    completions,
    draw_samples,
    latent_pictures,
    pictures_of_test_images,
    reconstructions,
    samples,
)
from ppmodels.app.plots import boxed
from ppmodels.app.sample_progression import SampleProgression

SMALL: dict[str, dict[str, object]] = {
    "vae": {"hidden": (8,)},
    "gan": {"hidden": (8,), "critic_hidden": (8,)},
    "ali": {"hidden": (8,)},
    "gated-pixelcnn": {"features": 4, "layers": 1},
    "air": {"hidden": 8, "layer": 8},
}
PICTURES: list[Callable[[Experiment], object]] = [
    samples,
    reconstructions,
    completions,
    latent_pictures,
    pictures_of_test_images,
    lambda experiment: draw_samples(experiment, 3, 0),
    lambda experiment: SampleProgression(experiment, 0, 10, 3, Path("none-kept")).pictures(),
]


@pytest.fixture(scope="module", params=SMALL)
def experiment(request: pytest.FixtureRequest) -> Experiment:
    recipe = RECIPES[request.param].with_settings(SMALL[request.param])
    return prepared(recipe, None, 0, torch.device("cpu"))


def test_no_picture_moves_a_generator(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ppmodels.app.plots.png", lambda figure: b""
    )  # what is drawn counts, and not how it is rendered
    for make in PICTURES:
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
        make(experiment)
        after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]


def test_scenes_are_shown_with_boxes_object_by_object_and_made_anew() -> None:
    recipe = RECIPES["air"].with_settings({"hidden": 8, "layer": 8})
    scenes = prepared(recipe, None, 0, torch.device("cpu"))
    found = pictures_of_test_images(scenes) | samples(scenes)
    assert found.notes == []
    assert found.files.keys() == {
        "reconstructions.png",
        "scenes.png",
        "objects.png",
        "generated.png",
        "samples.png",
        "samples.npy",
    }


def test_boxes_stand_where_they_are_given() -> None:
    figure = boxed(torch.zeros(3, 1, 6, 5), [torch.tensor([[1.0, 2.0, 3.0, 4.0]])] * 3, 2, "boxes")
    corners = [patch.get_xy() for patch in figure.axes[0].patches]
    assert corners == [(1 + 1.0, 1 + 2.0), (1 + 1.0 + 6, 1 + 2.0), (1 + 1.0, 1 + 2.0 + 7)]


def test_many_samples_are_drawn_as_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")
    recipe = RECIPES["conditional-vae"].with_settings({"hidden": (8,)})
    images = prepared(recipe, None, 0, torch.device("cpu"))
    largest: list[int] = []
    decoded = pictures.decoded

    def counted(experiment: Experiment, batch: tuple[torch.Tensor, ...], *more: Any) -> Any:
        largest.append(len(batch[0]))
        if len(largest) > 1:
            assert batch[1].tolist() == [label % 10 for label in range(1000 * (len(largest) - 1), sum(largest))]
        return decoded(experiment, batch, *more)

    monkeypatch.setattr(pictures, "decoded", counted)
    samples(images, 2500, seed=3).write(tmp_path)
    assert largest == [1000, 1000, 500]
    drawn = np.load(tmp_path / "samples.npy", allow_pickle=False)
    assert (drawn.shape, drawn.dtype) == ((2500, 1, 8, 8), np.float32)
    assert len(np.unique(drawn.reshape(2500, -1), axis=0)) == 2500
    monkeypatch.setattr(pictures, "decoded", decoded)
    samples(images, 3, seed=3).write(tmp_path)
    assert not (tmp_path / "samples.npy").exists()  # they were not of these

    rows = prepared(replace(RECIPES["gan"].with_settings(SMALL["gan"]), data="ring-8"), None, 0, torch.device("cpu"))
    assert not rows.is_images
    samples(rows, 2100).write(tmp_path)
    lines = (tmp_path / "samples.csv").read_text().splitlines()
    assert len(set(lines)) == 2101
