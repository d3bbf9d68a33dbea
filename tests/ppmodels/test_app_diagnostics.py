"""`ppmodels diagnose`, `calibrate` and `export`."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from inference.evaluation import annealing
from ppmodels.app import RECIPES, Run, diagnose, evaluate, export, plots, train
from ppmodels.app.cli import app
from ppmodels.app.experiment import restored
from ppmodels.app.lookup import NamedRecipe, find
from tests.ppmodels.app_helpers import AUTOGUIDE, picture_size, write_recipe, write_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = dataclasses.replace(RECIPES["vae"], data="digits", steps=20, validate_every=None, traced=None)
    return train(NamedRecipe("vae", recipe), tmp_path_factory.mktemp("diagnosed") / "vae", progress=False)[0]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("shared")
    return train(find(write_recipe(folder, write_table(folder), AUTOGUIDE)), folder / "run", progress=False)[0]


def call(command: str, run: Run, *arguments: object) -> Result:
    return CliRunner().invoke(app, [command, str(run.folder), *map(str, arguments)])


def test_diagnose_prints_and_writes_what_the_weights_say(run: Run) -> None:
    result = call("diagnose", run, "--limit", 5, "--draws", 30, "--refine", 3)
    assert result.exit_code == 0, result.output
    written = json.loads((run.folder / "diagnosis.json").read_text())
    assert written["examples"] == 5
    assert written["amortisation_gap"] is not None
    assert f"{written['kl']['z']['nats']:.3f}" in result.output
    assert picture_size(run.folder / "diagnosis.png")[0] > 600
    assert "not measured" in call("diagnose", run, "--limit", 3, "--draws", 30, "--refine", 0).output


def test_calibrate_ranks_what_made_simulated_data(run: Run) -> None:
    result = call("calibrate", run, "--simulations", 30, "--draws", 9)
    assert result.exit_code == 0, result.output
    written = json.loads((run.folder / "calibration.json").read_text())
    assert "log p(x | z)" in written["p_values"]
    assert "mean rank" in result.output
    assert picture_size(run.folder / "calibration.png")[0] > 400


def test_shared_latents_are_calibrated_by_refits_and_scored_by_their_predictive_density(shared: Run) -> None:
    result = call("calibrate", shared, "--simulations", 20, "--draws", 4)
    assert result.exit_code == 0, result.output
    assert any(
        name.startswith("mean") for name in json.loads((shared.folder / "calibration.json").read_text())["p_values"]
    )
    found = evaluate(shared, progress=False)
    assert list(found.kind.values()) == ["predictive density"]
    assert found.per_example
    assert not evaluate(shared, split="train", particles=3, progress=False).per_example


@pytest.mark.filterwarnings("ignore:k̂ of the weights")  # of guides that were hardly trained
def test_export_writes_what_arviz_reads(run: Run, shared: Run, tmp_path: Path) -> None:
    import arviz

    for each, site in ((run, "z"), (shared, "mean")):
        path = tmp_path / f"{site}.nc"
        arguments = ("--arviz", path, "--draws", 25, *(("--limit", 4) if each is run else ()))
        result = call("export", each, *arguments)
        assert result.exit_code == 0, result.output
        assert site in arviz.from_netcdf(str(path)).posterior
        before = path.read_bytes()
        assert "is there already" in call("export", each, *arguments).output
        assert path.read_bytes() == before
        assert call("export", each, *arguments, "--overwrite").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mean.nc", "z.nc"]
    assert "there is no folder" in call("export", run, "--arviz", tmp_path / "nowhere" / "a.nc").output


def test_an_exports_name_is_judged_before_anything_is_computed(
    shared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppmodels.app.arviz_export.to_arviz", lambda *_, **more: pytest.fail("it was computed"))
    before = {path.name: path.read_bytes() for path in shared.folder.iterdir()}
    for name in ("run.json", "weights.safetensors", "metrics.jsonl", "observation_noise.json", "scores-valid.csv"):
        result = call("export", shared, "--arviz", shared.folder / name, "--overwrite")
        assert result.exit_code == 1
        assert f"{name} is the name of a file of the run there" in result.output
    folder = call("export", shared, "--arviz", tmp_path, "--overwrite")
    assert folder.exit_code == 1
    assert f"--arviz {tmp_path} is a folder; name a file in it" in folder.output
    data = Path(shared.record["data"]["source"])
    table = data.read_bytes()
    (tmp_path / "link").symlink_to(data.parent)
    for path in (data, tmp_path / "link" / data.name):
        assert "holds the data of the run" in call("export", shared, "--arviz", path, "--overwrite").output
    assert data.read_bytes() == table
    assert {path.name: path.read_bytes() for path in shared.folder.iterdir()} == before


@pytest.mark.filterwarnings("ignore:k̂ of the weights")
def test_examples_are_exported_by_their_rows(run: Run, tmp_path: Path) -> None:
    import arviz

    export(run, tmp_path / "draws.nc", draws=25, limit=4, progress=False)
    found = arviz.from_netcdf(str(tmp_path / "draws.nc"))
    places = found.posterior.coords["data"].values
    assert list(places) != [0, 1, 2, 3]
    shown = torch.tensor(found.observed_data["x"].values.tolist())
    assert torch.equal(shown, restored(run).data.test.values[places.tolist()].float())


def test_a_guide_is_diagnosed_on_the_examples_that_it_serves(run: Run, shared: Run) -> None:
    own = call("diagnose", shared, "--draws", 30)
    assert "the train split, as the guide was fitted to these very examples; --split NAME" in own.stderr
    assert own.stdout.startswith("table, train split, 40 examples")
    assert json.loads((shared.folder / "diagnosis.json").read_text())["split"] == "train"
    assert call("diagnose", shared, "--draws", 30, "--split", "test").stdout.startswith("table, test split")
    amortised = call("diagnose", run, "--limit", 3, "--draws", 30, "--refine", 0)
    assert amortised.stdout.startswith("digits, test split, 3 examples")
    assert "train split" not in amortised.stderr


def test_every_panel_of_a_diagnosis_says_what_it_shows(run: Run, shared: Run) -> None:
    for each, panels in ((run, 3), (shared, 2)):  # what all examples share has no units that move with x
        axes = plots.diagnosis(diagnose(each, draws=30, limit=None, refine=0, progress=False)).axes
        assert len(axes) == panels
        assert all(one.get_title() and one.get_xlabel() and one.get_ylabel() for one in axes)


@pytest.mark.filterwarnings("ignore:k̂ of the weights", "ignore:.*transitions were accepted")
def test_slow_commands_say_how_far_they_are(
    run: Run, shared: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a minute passed between any two looks at the clock."""
    monkeypatch.setattr(annealing, "_PILOT_TRANSITIONS", 5)
    monkeypatch.setattr("inference.training.progress.time.perf_counter", itertools.count(0, 60).__next__)
    chains = ("--estimators", "iwae:9,annealed:3", "--limit", 3)
    exported = ("--arviz", tmp_path / "a.nc", "--draws", 25)
    for command, each, arguments, said in (
        ("evaluate", run, chains, "annealed, temperature 2 of 3"),
        ("diagnose", run, ("--limit", 3, "--draws", 30, "--refine", 4), "refined, step 3 of 4"),
        ("calibrate", shared, ("--simulations", 20, "--draws", 4), "simulation 7 of 20, step 3 of 4"),
        ("export", shared, exported, "log-likelihood, draw 5 of 25"),
    ):
        lines = [line for line in call(command, each, *arguments).stderr.splitlines() if f"%  {said}  " in line]
        assert lines, command
        assert lines[0].endswith(" s left")
