"""Pictures of DRAW at work: which steps are shown, where frames stand, and that runs have them."""

from pathlib import Path

import pytest
import torch
from matplotlib.patches import Rectangle

from ppmodels import DRAW
from ppmodels.app import reconstruct, sample, train
from ppmodels.app.canvases import strip
from ppmodels.app.lookup import find
from ppmodels.app.plots import GAP

SHAPE = (1, 7, 9)


def rectangles(figure) -> list[Rectangle]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]


def test_frames_stand_where_the_windows_are() -> None:
    torch.manual_seed(0)
    program = DRAW(SHAPE, 2, 3, 2, 8, read=2, write=3)
    torch.nn.init.normal_(program.write.window.linear.weight)
    z = torch.randn(2, 3, 2)
    found = rectangles(strip(program, z, "three steps"))
    assert len(found) == 2 * 3
    with torch.no_grad():
        window = program.write.window(list(program.strokes(z))[1].h)
    middle = found[4].get_center()  # the second example's second step
    column, row = 1 * (9 + GAP) + GAP, 1 * (7 + GAP) + GAP
    assert middle[0] - column == pytest.approx(window.x[1].item() - 1, abs=1e-4)
    assert middle[1] - row == pytest.approx(window.y[1].item() - 1, abs=1e-4)
    assert found[4].get_width() == pytest.approx(2 * window.stride[1].item(), rel=1e-4)


def test_what_is_read_stands_above_what_is_written() -> None:
    program = DRAW(SHAPE, 2, 3, 2, 8, read=2, write=3)
    x = torch.ones(2, *SHAPE)
    figure = strip(program, torch.randn(2, 3, 2), "both", x)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["read", "canvas"] * 2
    assert len(rectangles(figure)) == 2 * 2 * 3
    shown = figure.axes[0].images[0].get_array()
    assert (shown[GAP : GAP + 7, GAP : GAP + 9] == 1).all(), "the first row is x"


@pytest.mark.parametrize(("glimpses", "columns"), [(1, 1), (16, 16), (17, 9), (64, 16)])
def test_the_last_of_many_steps_is_shown(glimpses: int, columns: int) -> None:
    program = DRAW(SHAPE, 17, glimpses, 2, 4, read=None, write=None)
    figure = strip(program, torch.randn(1, glimpses, 2), "many")
    assert figure.axes[0].images[0].get_array().shape[1] == columns * (9 + GAP) + GAP
    assert f"{glimpses}" in figure.axes[0].get_title().replace("\n", " ").split(": after step ")[1].split(", ")[-1]
    assert rectangles(figure) == []


def test_a_run_of_draw_has_pictures_of_its_canvases(tmp_path: Path) -> None:
    recipe = find("draw")
    tiny = {"glimpses": 2, "hidden": 8, "latent": 2, "steps": 2, "validate_every": None}
    found = recipe._replace(recipe=recipe.recipe.with_settings(tiny))
    run, _ = train(found, tmp_path / "run", progress=False)
    assert {"canvases.png", "reading.png"} <= {path.name for path in run.folder.iterdir()}
    train(found, run.folder, overwrite=True, progress=False)  # they are the run's own files
    for name in ("canvases.png", "reading.png"):
        (run.folder / name).unlink()
    sample(run, 10, progress=False)
    reconstruct(run, progress=False)
    assert (run.folder / "canvases.png").exists()
    assert (run.folder / "reading.png").exists()
