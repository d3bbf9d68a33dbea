"""A recipe file of a user's own, on a table, on images, and on what the app cannot picture."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ppmodels.app import Run, evaluate, find, reconstruct, sample, train
from ppmodels.app.experiment import restored
from ppmodels.app.run_folder import claimed
from tests.ppmodels.app_helpers import AUTOGUIDE, picture_size, write_recipe, write_table


def test_a_table_gives_samples_as_csv_and_a_density_has_no_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    run, notes = train(find(write_recipe(tmp_path, "table.csv")), progress=False)
    assert notes == []
    assert run.folder == Path("runs/my_model-table")
    assert picture_size(run.folder / "samples.png")
    assert not (run.folder / "reconstructions.png").exists()
    opened = Run.open(tmp_path / "runs" / "my_model-table")
    monkeypatch.chdir("/")  # the data are found again from anywhere
    sample(opened, 12)
    rows = list(csv.reader((opened.folder / "samples.csv").read_text().splitlines()))
    assert rows[0] == ["a", "b", "c"]
    assert np.isfinite(np.array(rows[1:], dtype=float)).all()
    assert len(rows) == 13
    evaluate(opened, particles=2, progress=False)
    written = json.loads((opened.folder / "evaluation.json").read_text())
    assert written["measured_on"]["likelihood"] == "density"
    assert all(row["bits_per_dim"] is None for row in written["estimates"].values())
    assert "no reconstructions: examples of shape (3,) are no images" in reconstruct(opened).notes


INCOME = """
from ppmodels import VAE
from ppmodels.app import Recipe

recipe = Recipe(
    program=lambda data: VAE(data.shape, data.levels, 2), data="DATA", steps=150, batch_size=32, learning_rate=1e-2,
    validate_every=50,
)
"""


def write_incomes(path: Path, seed: int = 0, later: float = 0.0) -> Path:
    values = np.random.default_rng(seed).normal(size=(200, 3)) * [2.0, 2e4, 0.0] + [2000.0 + later, 5e4, 7.0]
    np.savetxt(path, values, delimiter=",", header="year,income,kind", comments="", fmt="%.12g")
    return path


def test_a_table_in_real_units_is_scored_and_drawn_in_them(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, write_incomes(tmp_path / "incomes.csv"), INCOME)
    run, notes = train(find(recipe), tmp_path / "run", progress=False)
    assert notes == [
        "column 3 (kind) has no spread: samples keep its value, and no density fits a constant, so better leave it out"
    ]
    text = (run.folder / "samples.csv").read_text().splitlines()
    assert text[0] == "year,income,kind"
    rows = np.array([line.split(",") for line in text[1:]], dtype=float)
    # Within a standard deviation, as training is short.
    assert (abs(rows.mean(0) - [2000, 5e4, 7]) < [1.5, 1.5e4, 1.0]).all()
    assert 0.5 < rows.std(0)[0] < 5
    assert (rows[:, 2] == 7).all()
    opened = Run.open(run.folder)
    result = evaluate(opened, particles=8, progress=False)
    # A plain normal of year and income has -13.4 nats, and the constant column only adds to them.
    assert -20 < result.mean("iwae") < 0
    best = opened.record["best_validation"]
    assert best["score"] == pytest.approx(result.mean("elbo"), abs=3)
    assert result.measured_on["standardised"].startswith("by the mean and standard deviation of the training split")
    limited = evaluate(opened, particles=8, limit=5, progress=False)
    assert limited.measured_on["examples"] == 5


def test_a_run_reads_other_data_in_its_own_units(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, write_incomes(tmp_path / "incomes.csv"), INCOME)
    run, _ = train(find(recipe), tmp_path / "run", progress=False)
    near, far = (
        evaluate(run, data=str(write_incomes(tmp_path / f"{later}.csv", 1, later)), particles=8, progress=False)
        for later in (0.0, 40.0)
    )
    # Twenty standard deviations later: by its own mean it would look like the data of the run.
    assert far.mean("iwae") < near.mean("iwae") - 50
    assert near.mean("iwae") == pytest.approx(evaluate(run, particles=8, progress=False).mean("iwae"), abs=3)


def test_columns_in_another_order_are_other_data(tmp_path: Path) -> None:
    table = write_incomes(tmp_path / "incomes.csv")
    run, _ = train(
        find(write_recipe(tmp_path, table, INCOME.replace("steps=150", "steps=2"))), tmp_path / "run", progress=False
    )
    with table.open(newline="") as file:
        rows = [row[::-1] for row in csv.reader(file)]
    with (tmp_path / "turned.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    with pytest.raises(ValueError, match=r"columns: the run was trained on .* in this order"):
        evaluate(run, data=str(tmp_path / "turned.csv"), progress=False)


def test_a_recipe_can_keep_the_units(tmp_path: Path) -> None:
    source = INCOME.replace("steps=150", "steps=2, standardise=False")
    recipe = write_recipe(tmp_path, write_incomes(tmp_path / "incomes.csv"), source)
    run, notes = train(find(recipe), tmp_path / "run", progress=False)
    assert notes == []
    assert run.record["data"]["standardisation"] is None
    assert evaluate(Run.open(run.folder), particles=2, progress=False).measured_on["standardised"] == "no"


def test_images_and_a_run_that_stands_on_its_own(tmp_path: Path) -> None:
    brightness = np.linspace(0, 250, 60).astype(np.uint8)  # differs enough between images for q(z | x) to see it
    images = np.random.default_rng(0).permutation(brightness)[:, None, None, None] + np.zeros((5, 7, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    recipe = write_recipe(tmp_path, tmp_path / "images.npy")
    run, notes = train(find(recipe), tmp_path / "run", progress=False)
    assert notes == []
    assert (run.record["recipe"], run.record["file"]) == ("recipe.py", "my_model.py")
    recipe.write_text("raise SystemExit")  # the run has its own copy
    shutil.move(tmp_path / "run", tmp_path / "moved")
    moved = Run.open(tmp_path / "moved")
    first = evaluate(moved, particles=2, limit=4, progress=False)
    assert first.bits_per_dim("iwae") > 0
    assert first.dimensions == 5 * 7 * 3
    assert "traversal.png" in reconstruct(moved).files


def test_settings_of_ones_own_are_recorded_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")
    found = find(write_recipe(tmp_path, write_table(tmp_path)))
    recipe = found.recipe.with_settings({"latent": 5, "steps": 2})
    run, _ = train(found._replace(recipe=recipe), tmp_path / "run", progress=False)
    opened = Run.open(run.folder)
    assert opened.record["settings"] == {"latent": 5, "hidden": [16], "particles": 1}
    experiment = restored(opened)
    assert (experiment.program.latent, experiment.recipe.settings["hidden"]) == (5, (16,))


def test_runs_are_numbered_where_no_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("my_model", "my_model-2", "my_model-3"):
        with claimed("my_model", None, overwrite=False) as place:
            (place.folder / "metrics.jsonl").write_text("{}")
        assert place.folder == Path("runs") / expected


def test_shared_latents_and_an_autoguide_come_back(tmp_path: Path) -> None:
    found = find(write_recipe(tmp_path, write_table(tmp_path), AUTOGUIDE))
    run, notes = train(found, tmp_path / "run", progress=False)
    assert notes == []
    opened = Run.open(run.folder)
    result = evaluate(opened, "train", particles=3, progress=False)
    assert not result.per_example
    assert result.log_prob["elbo"].shape == (1,)
    assert len((run.folder / "samples.csv").read_text().splitlines()) == 1001


def test_a_program_without_a_picture_says_why(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, (40, 4, 4)).astype(np.uint8))
    source = """
import pyro
from torch import nn
from ppmodels import make_head
from ppmodels.app import Recipe


class Independent(nn.Module):
    def __init__(self, data):
        super().__init__()
        self.head = make_head(256, "discretized-normal")
        self.free = nn.Parameter(pyro.distributions.Normal(0.0, 1.0).sample((2, 4, 4)))

    def model(self, x):
        with pyro.plate("data", len(x)):
            return pyro.sample("x", self.head(self.free.expand(len(x), 2, 4, 4)), obs=x)

    def guide(self, x):
        pass


recipe = Recipe(program=Independent, data="DATA", steps=2, batch_size=8)
"""
    run, notes = train(find(write_recipe(tmp_path, tmp_path / "images.npy", source)), tmp_path / "run", progress=False)
    assert notes == [
        "no completions: only a program with one Autoregressive site draws the rest of an image given a part"
    ]
    assert picture_size(run.folder / "samples.png")
    assert reconstruct(run).notes == [
        "no reconstructions: the program has no latent variables",
        "no traversal: it needs a program with one vector of latents, this has none",
        "no interpolation: it needs a program with one vector of latents, this has none",
    ]


def test_a_file_without_a_recipe_is_told(tmp_path: Path) -> None:
    path = tmp_path / "my_model.py"
    path.write_text("recipe = 3")
    with pytest.raises(ValueError, match=r"expected it to define `recipe = Recipe\(program=…\)`, got a int"):
        find(path)


def test_a_file_that_needs_its_neighbour_is_told(tmp_path: Path) -> None:
    (tmp_path / "my_networks.py").write_text("")
    path = tmp_path / "my_model.py"
    path.write_text("import my_networks")
    with pytest.raises(ValueError, match="a file beside it, which a run would not hold"):
        find(path)


def test_a_program_that_is_no_module_is_told(tmp_path: Path) -> None:
    path = tmp_path / "my_model.py"
    path.write_text("from ppmodels.app import Recipe\nrecipe = Recipe(program=lambda data: 3)")
    with pytest.raises(ValueError, match="the recipe's program gave a int"):
        train(find(path), tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("objective=lambda program: None", "the recipe's objective gave a NoneType; expected an inference.Objective"),
        ("optimizer=lambda rate: None", "optimizer: expected a function of the learning rate that gives.* gives None"),
        ("optimizer=lambda rate: rate", "optimizer: expected .* got one that gives 0.001"),
    ],
)
def test_what_fits_a_program_is_checked_before_it_does(field: str, message: str, tmp_path: Path) -> None:
    source = f"from ppmodels.app import RECIPES, Recipe\nrecipe = Recipe(program=RECIPES['vae'].program, {field})"
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(ValueError, match=message):
        train(find(path), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_labels_that_are_not_there_are_told(tmp_path: Path) -> None:
    source = "from ppmodels.app import Recipe\nrecipe = Recipe(program=lambda data: 3, data='DATA', labelled=True)"
    with pytest.raises(ValueError, match="called with labels"):
        train(find(write_recipe(tmp_path, write_table(tmp_path), source)), tmp_path / "run", progress=False)
