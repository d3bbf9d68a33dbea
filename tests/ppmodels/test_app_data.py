"""Data as people bring them, from `train` to what a run leaves: read by every command as in training."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ppmodels.app.cli import app
from ppmodels.app.experiment import restored
from ppmodels.app.run import Run

SMALL = ("--steps", 2, "--set", "hidden=8", "--set", "latent=2", "--set", "validate_every=1")


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def trained(out: Path, data: Path, *options: object) -> Any:
    result = call("train", "vae", "--data", data, *SMALL, "--out", out, *options)
    assert result.exit_code == 0, result.output
    return result


def people(path: Path, count: int = 40, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    rows = [(at, f"p{at}", rng.integers(20, 60), ("Uri", "Bern")[at % 2], 7e6) for at in range(count)]
    path.write_text("".join(";".join(map(str, row)) + "\n" for row in [("", "name", "age", "city", "kind"), *rows]))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    said = trained(folder / "run", people(folder / "people.csv"), "--columns=-1,-name", "--categories", "city").stderr
    assert "note: a batch has all 32 examples of the training split, in place of 64" in said
    assert "note: column 4 (kind) has no spread: samples keep its value" in said
    return folder / "run"


@pytest.fixture
def run(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")
    return shutil.copytree(table, tmp_path / "run")


COLUMNS = ["age", "city=Bern", "city=Uri", "kind"]


@pytest.mark.filterwarnings("ignore:k̂ of the weights")
def test_a_table_is_read_by_every_command_as_in_training(run: Path, tmp_path: Path) -> None:
    assert json.loads((run / "run.json").read_text())["data"]["reading"] == {
        "header": None,
        "columns": ["age", "city", "kind"],
        "categories": {"city": ["Bern", "Uri"]},
        "levels": None,
    }
    arviz = tmp_path / "draws.nc"
    other = people(tmp_path / "other.csv", 20, seed=1)
    for command in (
        ("evaluate", run, "--estimators", "elbo"),
        ("evaluate", run, "--estimators", "elbo", "--data", other),
        ("compare", run, run, "--particles", 2),
        ("export", run, "--arviz", arviz, "--draws", 25),
        ("sample", run, "--count", 5),
    ):
        result = call(*command)
        assert result.exit_code == 0, result.output
    with (run / "samples.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == COLUMNS
    assert [row[3] for row in rows[1:]] == ["7000000"] * 5


def test_other_data_can_be_an_array_of_the_chosen_columns(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "chosen.npy", np.random.default_rng(0).normal(size=(20, 4)))
    result = call("evaluate", run, "--estimators", "elbo", "--data", tmp_path / "chosen.npy")
    assert "chosen, test split, 2 examples, real numbers" in result.stdout
    result = call("evaluate", run, "--data", "ring-8")
    assert "shape (4,), and ring-8 has shape (2,)" in result.stderr


def test_a_text_that_training_did_not_know_is_refused_by_its_place(run: Path, tmp_path: Path) -> None:
    other = people(tmp_path / "other.csv")
    other.write_text(other.read_text().replace("Uri", "Genf"))
    result = call("evaluate", run, "--data", other)
    assert result.exit_code == 1
    assert "other.csv: expected Bern, Uri in row 2, column 4 (city), got 'Genf'" in result.stderr


@pytest.mark.parametrize("header", ["--header", "--no-header"])
def test_a_header_of_numbers_is_read_as_it_was(header: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")
    path = tmp_path / "years.csv"
    np.savetxt(path, np.random.default_rng(0).normal(size=(59, 2)), delimiter="\t", header="2001\t2002", comments="")
    trained(tmp_path / "run", path, header)
    data = restored(Run.open(tmp_path / "run")).data
    named = header == "--header"
    assert (data.columns, len(data.train)) == ((("2001", "2002") if named else ()), 47 if named else 48)
    assert (tmp_path / "run" / "samples.csv").read_text().startswith("2001,2002\n" if named else "x0,x1\n")


def test_a_table_of_levels_is_one_of_probabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")
    path = tmp_path / "answers.csv"
    answers = np.random.default_rng(0).integers(0, 3, (60, 5))
    np.savetxt(path, answers, delimiter=",", header="a,b,c,d,e", comments="", fmt="%d")
    trained(tmp_path / "run", path, "--levels", 4)
    result = call("evaluate", tmp_path / "run", "--estimators", "elbo")
    assert "answers, test split, 6 examples, 4 levels" in result.stdout
    written = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert written["estimates"]["elbo"]["bits_per_dim"] > 0
    header, *rows = (tmp_path / "run" / "samples.csv").read_text().splitlines()
    assert header == "a,b,c,d,e"
    assert {cell for row in rows for cell in row.split(",")} <= set("0123")
    few = np.zeros((20, 5), int)  # of fewer values, and still of 4 levels
    np.savetxt(path.with_name("few.csv"), few, delimiter=",", header="a,b,c,d,e", comments="", fmt="%d")
    assert (
        "2 examples, 4 levels"
        in call("evaluate", tmp_path / "run", "--estimators", "elbo", "--data", path.with_name("few.csv")).stdout
    )


def test_the_smallest_tables_are_trained_and_drawn(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(6, 2))
    np.savetxt(tmp_path / "six.csv", values, delimiter=",")
    np.savez(tmp_path / "one.npz", train=values[:1], valid=values[1:2], test=values[2:3])
    for name in ("six.csv", "one.npz"):
        out = tmp_path / name.replace(".", "-")
        trained(out, tmp_path / name)
        assert len((out / "samples.csv").read_text().splitlines()) == 1001
        assert (out / "samples.png").exists()
        result = call("evaluate", out, "--estimators", "elbo")
        assert "test split, 1 examples" in result.stdout


def images(path: Path, values: list[int], count: int = 40) -> Path:
    rng = np.random.default_rng(0)
    np.save(path, rng.choice(values, (count, 8, 8)).astype(np.uint8))
    return path


def test_levels_are_those_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")
    run, two = tmp_path / "run", images(tmp_path / "two.npy", [0, 255])
    said = trained(run, two).stderr
    assert "note: its training values 0, 255 are read as 2 levels; --levels 256 reads them as 256" in said
    assert json.loads((run / "run.json").read_text())["data"]["reading"]["levels"] == 2
    black = images(tmp_path / "black.npy", [0], 7)
    said = call("reconstruct", run, "--data", black).stderr
    assert "note: no traversal: the test split has a single image" in said
    result = call("evaluate", run, "--estimators", "elbo", "--data", black)  # 5 training images, and a batch of 32
    assert "black, test split, 1 examples, 2 levels" in result.stdout
    for values, levels in (([0, 3], 4), ([0, 128, 255], 256)):
        result = call("evaluate", run, "--data", images(tmp_path / "other.npy", values))
        assert result.exit_code == 1
        assert f"two.npy of 2 levels, and other has {levels} levels" in result.stderr
    grey = tmp_path / "grey"
    trained(grey, two, "--levels", 256)
    assert restored(Run.open(grey)).data.levels == 256
    record = json.loads((grey / "run.json").read_text())
    del record["data"]["reading"]  # as an earlier version wrote it
    (grey / "run.json").write_text(json.dumps(record))
    assert restored(Run.open(grey)).data.levels == 256
    drawn = tmp_path / "drawn"
    trained(drawn, images(tmp_path / "four.npy", [0, 85, 170, 255]), "--binarisation", "static")
    assert restored(Run.open(drawn)).data.levels == 2
    assert restored(Run.open(drawn), data=str(black)).data.reading.levels == 4


def test_settings_of_a_file_are_refused_for_data_by_name() -> None:
    result = call("train", "vae", "--data", "digits", "--levels", 4)
    assert result.exit_code == 1
    assert "digits is read as it is published" in result.stderr
    assert call("train", "vae", "--data", "digits", "--levels", 300).exit_code == 2
