"""Runs that exist are compared as a study compares its own."""

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ppmodels.app import RECIPES, Run, plots, train
from ppmodels.app.cli import app
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.study import existing, folder
from ppmodels.app.study.groups import VARIATIONAL
from ppmodels.app.study.measurement import Measurement, Samples
from ppmodels.app.study.protocol import Protocol, StudyModel
from tests.ppmodels.study import made_up


def trained(folder: Path, seed: int, latent: int) -> Run:
    recipe = dataclasses.replace(RECIPES["vae"], data="digits", steps=2, validate_every=None, traced=None)
    small = recipe.with_settings({"latent": latent, "hidden": (8,)})
    return train(NamedRecipe("vae", small), folder / f"latent{latent}-{seed}", seed=seed, progress=False)[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("runs")
    return [trained(folder, seed, latent) for latent, seed in ((2, 0), (2, 1), (3, 1))]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What was measured, by numbers that nobody measured."""
    asked: list[tuple[str, int]] = []

    def measure(protocol: Protocol, out: Path, model: StudyModel, seed: int, threads: int = 1) -> Measurement:
        assert Run.open(out / protocol.run_of(model, seed)).record["seed"] == seed
        found = made_up.run("vae", seed, model=model.name, family=model.family, run=protocol.run_of(model, seed))
        (out / "measured" / f"{Path(found.run).name}.json").write_text(found.as_json())
        asked.append((model.name, seed))
        return found

    def measure_real(protocol: Protocol, out: Path) -> Samples:
        found = made_up.samples(0.0, 0.0)
        (out / "measured" / "real.json").write_text(json.dumps(dataclasses.asdict(found)))
        return found

    monkeypatch.setattr(existing, "measure", measure)
    monkeypatch.setattr(existing, "measure_real", measure_real)
    monkeypatch.setattr(plots, "png", lambda figure: b"\x89PNG")
    return asked


def test_runs_that_differ_in_their_seed_are_one_model(
    runs: list[Run], measured: list[tuple[str, int]], tmp_path: Path
) -> None:
    folders = [str(run.folder) for run in runs]
    found = CliRunner().invoke(app, ["compare", *folders, "--out", str(tmp_path / "out"), "--limit", "50"])
    assert found.exit_code == 0, found.output
    names = ["vae latent=2", "vae latent=3"]
    assert measured == [(names[0], 0), (names[0], 1), (names[1], 1)]
    assert all(name in found.output for name in names)
    assert "wrote" in found.output
    plan = folder.plan_of(tmp_path / "out")
    assert [(model.name, model.family, model.steps) for model in plan.models] == [
        (name, VARIATIONAL, 2) for name in names
    ]
    assert plan.seeds == [0, 1]
    assert len(plan.examples) == 50
    assert plan.data.digest == runs[0].record["data"]["fingerprint"]
    assert (plan.data.train, plan.data.classes) == (1437, 10)
    assert {"report.html", "report.md", "report.json"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_a_second_comparison_replaces_the_first_and_its_numbers(
    runs: list[Run], measured: list[tuple[str, int]], tmp_path: Path
) -> None:
    first = existing.report_of_runs(runs, tmp_path / "out")
    second = existing.report_of_runs(runs[:1], tmp_path / "out")
    assert [row[0].text for row in first.main.rows] == ["vae latent=2", "vae latent=3", "real data"]
    assert [row[0].text for row in second.main.rows] == ["vae", "real data"]
    third = existing.report_of_runs([runs[0], runs[2]], tmp_path / "out")  # of either model one seed of two
    assert [row[-1].text for row in third.main.rows[:2]] == ["1 of 2", "1 of 2"]
    assert all(run.folder.is_dir() and (run.folder / "run.json").is_file() for run in runs)


def test_two_runs_of_one_seed_are_told_apart(runs: list[Run], tmp_path: Path) -> None:
    again = trained(tmp_path, 0, 2)
    found = existing.members_of([runs[0], again], [VARIATIONAL] * 2)
    assert [member.model.name for member in found] == ["vae 1", "vae 2"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--split", "valid"], "--split"),
        (["--estimators", "elbo", "--trust"], "--estimators, --trust"),
    ],
)
def test_options_of_the_ranking_do_not_mix_with_a_report(
    runs: list[Run], tmp_path: Path, options: list[str], said: str
) -> None:
    found = CliRunner().invoke(app, ["compare", str(runs[0].folder), "--out", str(tmp_path / "out"), *options])
    assert found.exit_code == 1
    assert said in found.output
    assert not (tmp_path / "out").exists()


def test_folders_of_others_are_left_alone(runs: list[Run], measured: list[tuple[str, int]], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds mine\.txt, which no study has written"):
        existing.report_of_runs(runs, tmp_path)
    study = made_up.written(tmp_path / "study", made_up.study(), [])
    with pytest.raises(ValueError, match="holds a study"):
        existing.report_of_runs(runs, study)
    assert measured == []


def test_runs_of_other_data_are_refused_before_anything_is_measured(
    runs: list[Run], measured: list[tuple[str, int]], tmp_path: Path
) -> None:
    other = Run(runs[0].folder, {**runs[0].record, "data": {**runs[0].record["data"], "fingerprint": "other"}})
    moved = dataclasses.replace(other, folder=runs[1].folder)
    with pytest.raises(ValueError, match=r"are of different data.*fingerprint"):
        existing._refuse_other_data([runs[0], moved])
    assert measured == []


def test_another_who_writes_there_is_refused(runs: list[Run], measured: list[tuple[str, int]], tmp_path: Path) -> None:
    with folder.claimed(tmp_path / "out"), pytest.raises(ValueError, match="choose another --out"):
        existing.report_of_runs(runs, tmp_path / "out")
    assert measured == []
