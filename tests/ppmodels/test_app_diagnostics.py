"""`ppmodels diagnose`, `calibrate` and `export`."""

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ppmodels.app import RECIPES, Run, evaluate, train
from ppmodels.app.cli import app
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
