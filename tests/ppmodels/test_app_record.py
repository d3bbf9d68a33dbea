"""A record that is damaged or meant to harm: one line says so, and no text of it moves the cursor."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ppmodels.app.cli import app
from ppmodels.app.terminal import printable

ESCAPE = "\x1b[2J\x1b]0;title\x07\r\u202e\nnote: all is well"


def call(*arguments: object) -> Any:  # typer does not name the class of results
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    path = folder / "a[bold]b:smile:.csv"
    np.savetxt(path, np.random.default_rng(0).normal(size=(60, 2)), delimiter=",", header="a,b", comments="")
    settings = ("--steps", 1, "--batch-size", 16, "--set", "hidden=4", "--set", "latent=2")
    result = call("train", "vae", "--data", path, *settings, "--out", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture
def run(table: Path, tmp_path: Path) -> Path:
    return shutil.copytree(table, tmp_path / "c[bold]d")


WRONG = [
    *(("recipe", value) for value in (3, "nowhere", ESCAPE)),
    *(("file", value) for value in (3, "", "../x.py", "/x.py")),
    *(("seed", value) for value in (-1, True, 1.5)),
    *(("settings", value) for value in ([], {"latent": "2"}, {"latent": 10**30}, {ESCAPE: 1}, {"hidden": [10**12]})),
    *(("training", value) for value in ({"clip": 10**400}, {"learning_rate": float("nan")}, {"steps": []})),
    *(("weights_sha256", value) for value in (0, "0" * 64, ESCAPE)),
    *(("data.source", value) for value in (0, "", ESCAPE, "~nosuchuser/x", "a\0b", "\ud800")),
    ("data.folder", []),
    *(("data.shape", value) for value in ("22", ["2"], [10**30], [True])),
    *(("data.columns", value) for value in ("ab", [1], 3, [ESCAPE, "b"])),
    *(
        ("data.reading", value)
        for value in (3, {"header": "x"}, {"columns": ["c", ESCAPE]}, {"columns": [1]}, {"levels": 10**30})
    ),
    *(("data.reading.categories", value) for value in ([], {"a": 3}, {"a": [3]}, {ESCAPE: []}, {"a": [ESCAPE]})),
    *(("data.levels", value) for value in ("2", 1.5, 10**30)),
    *(("data.binarisation", value) for value in (None, ESCAPE)),
    *(("data.standardisation", value) for value in (3, [], {}, {"shift": 1, "scale": 1})),
    *(("data.standardisation.shift", value) for value in ([0], [0, "0"], [0, float("nan")], [0, 10**400])),
    *(("data.standardisation.scale", value) for value in ([1], [1, 0], [1, -1], [1, float("inf")])),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}-{number}" for number, (name, _) in enumerate(WRONG)])
def test_a_wrong_value_is_one_line(name: str, value: object, run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    *outer, inner = name.split(".")
    place = record
    for each in outer:
        place = place[each]
    place[inner] = value
    (run / "run.json").write_text(json.dumps(record))
    result = call("evaluate", run, "--particles", 1, "--limit", 2)
    assert result.exit_code in (1, 2)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.startswith("error: ")
    assert result.stderr.rstrip("\n").isprintable()
    assert len(result.stderr) < 1000


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "[1]", "2", '{"format": "' + "x" * 10**6 + '"}', "\0", "\udcff"]
)
def test_a_text_that_is_no_record_is_one_line(text: str, run: Path) -> None:
    (run / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    result = call("evaluate", run)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) < 1000


def test_names_are_printed_as_they_are(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = call("evaluate", run, "--particles", 1, "--limit", 2)
    assert result.exit_code == 0, result.output
    assert "a[bold]b:smile:, test split" in result.stdout
    result = call("compare", run, "--particles", 1, "--limit", 2)
    assert "a[bold]b:smile:, test split" in result.stdout
    assert "c[bold]d" in result.stdout


def test_names_can_not_move_the_cursor(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    source = Path(record["data"]["source"])
    moving = source.rename(run.parent / "e\x1b[2J\rf.csv")
    (run / "run.json").write_text(json.dumps(record | {"data": record["data"] | {"source": str(moving)}}))
    other = run.rename(run.with_name("g\x1b[2Jh"))
    try:
        for command in ("evaluate", "compare"):
            result = call(command, other, "--particles", 1, "--limit", 2)
            assert result.exit_code == 0, result.output
            assert r"e\x1b[2J\rf, test split" in result.stdout
            assert not {"\x1b", "\r"} & set(result.stdout)
        result = call("sample", other, "--count", 2)
        assert r"g\x1b[2Jh/samples.png" in result.stdout
    finally:
        moving.rename(source)


def test_printable_keeps_what_can_be_seen() -> None:
    assert printable("Größe ± 3 σ, 图 [bold]") == "Größe ± 3 σ, 图 [bold]"
    assert printable("a\x1b\n\u202e\u200b\udcff") == r"a\x1b\n\u202e\u200b\udcff"
