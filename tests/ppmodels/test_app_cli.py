"""The command line: exit codes and messages, and what its help costs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ppmodels.app.cli import app
from ppmodels.app.recipes import RECIPES
from tests.ppmodels.app_helpers import picture_size, write_recipe

ROOT = Path(__file__).parents[2]


def call(*arguments: object) -> Any:  # typer does not name the class of results
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(code: int, *arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    result = call(
        *("train", "conditional-vae", "--data", "digits", "--steps", 3, "--batch-size", 32, "--lr", 0.01),
        *("--set", "latent=3", "--set", "hidden=16,16", "--out", folder),
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"trained 3 steps in \d+ s, the weights of step ", result.stdout)
    assert "the best by validation (-" in result.stdout
    assert str(folder) in result.stdout
    return folder


def test_recipes_are_listed_by_family_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = call("recipes")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    families = ["Variational autoencoders", "Autoregressive models", "Adversarial models"]
    assert [line for line in lines if line in families] == families
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert listed == list(RECIPES)


def test_one_recipe_is_shown_with_its_settings_and_presets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in RECIPES:
        result = call("recipes", name)
        assert result.exit_code == 0, result.output
        assert max(len(line.rstrip()) for line in result.stdout.splitlines()) <= 80
    text = call("recipes", "diagonal-bilstm").stdout
    assert ["hidden", "16", "a", "whole", "number,", "at", "least", "1"] in [line.split() for line in text.splitlines()]
    assert ["clip", "none", "a", "finite", "number", "or", "none"] in [line.split() for line in text.splitlines()]
    assert "images above 16 pixels a side" in text
    assert "layers=2" in text
    own = call("recipes", write_recipe(tmp_path, "digits"))
    assert ["hidden", "16", "whole", "numbers,", "such", "as", "32,64"] in [
        line.split() for line in own.stdout.splitlines()
    ]
    assert "Did you mean gated-pixelcnn" in refused(2, "recipes", "gated-pixelcn")


def test_options_and_settings_reach_the_run(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    training = record["training"]
    assert (training["steps"], training["batch_size"], training["learning_rate"]) == (3, 32, 0.01)
    assert (record["settings"]["latent"], record["settings"]["hidden"]) == (3, [16, 16])


def test_settings_are_refused_before_data_are_read() -> None:
    nowhere = ("--data", "nowhere.npy")
    assert "'latnt' is no setting of this recipe. Did you mean latent?" in refused(
        1, "train", "vae", *nowhere, "--set", "latnt=3"
    )
    assert "latent: expected a whole number, at least 1, got '3.5'" in refused(
        1, "train", "vae", *nowhere, "--set", "latent=3.5"
    )
    for name, value in (("latent", "0"), ("hidden", "32,0"), ("latent", "-1")):
        assert f"{name}: expected" in refused(1, "train", "vae", *nowhere, "--set", f"{name}={value}")
    assert "steps is given twice: --steps 3 and --set steps=4" in refused(
        1, "train", "vae", *nowhere, "--steps", 3, "--set", "steps=4"
    )
    for rate in ("nan", "inf", "0", "-1"):
        assert "learning_rate: expected" in refused(1, "train", "vae", *nowhere, "--lr", rate)
    assert "patience" in refused(1, "train", "gan", *nowhere, "--set", "patience=3")


def test_old_names_are_answered_with_the_new_command() -> None:
    assert "Train it by: ppmodels train vae --data mnist --binarisation dynamic" in refused(2, "train", "vae-mnist")


def test_evaluate_prints_and_writes_the_same_numbers(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1")  # no reason to cut a number off
    result = call("evaluate", run, "--particles", 3, "--limit", 20, "--split", "valid")
    assert result.exit_code == 0, result.output
    written = json.loads((run / "evaluation-valid.json").read_text())
    for name, row in written["estimates"].items():
        particles = 3 if name == "iwae" else row["settings"]["particles"]  # --particles tightens bounds alone
        assert row["settings"]["particles"] == particles
        assert f"{name}, K = {particles}" in result.stdout
        assert f"{row['nats']:.2f} ± {row['standard_error']:.2f}" in result.stdout
        assert f"{row['bits_per_dim']:.4f}" in result.stdout
        assert row["kind"] == "lower bound in expectation"
        assert "lower bound" in result.stdout
    assert "20 of 180 examples, 17 levels" in result.stdout


def test_sample_and_reconstruct_write_pictures(run: Path) -> None:
    result = call("sample", run, "--count", 20, "--seed", 2)
    assert result.exit_code == 0, result.output
    assert "samples.png" in result.stdout
    assert picture_size(run / "samples.png")[0] > 200
    result = call("reconstruct", run)
    assert result.exit_code == 0, result.output
    assert "reconstructions.png" in result.stdout


def test_typos_get_a_suggestion_and_exit_code_2(tmp_path: Path) -> None:
    assert "Did you mean vae" in refused(2, "train", "vea")
    assert "Did you mean 'digits'?" in refused(2, "train", "vae", "--data", "digist")
    (tmp_path / "table.csv").write_text("1,2\n")
    assert "table.csv" in refused(2, "train", "vae", "--data", tmp_path / "tabel.csv")
    assert "there is no run folder" in refused(2, "evaluate", tmp_path / "nowhere")
    assert "run.json is missing" in refused(2, "sample", tmp_path)


def test_mistakes_get_one_line_and_exit_code_1(run: Path, tmp_path: Path) -> None:
    assert "already holds a run" in refused(1, "train", "vae", "--out", run)
    assert "binary already" in refused(
        *(
            1,
            "train",
            "vae",
            "--data",
            _binary_images(tmp_path),
            "--binarisation",
            "dynamic",
            "--out",
            tmp_path / "run",
        ),
    )
    assert not (tmp_path / "run").exists()


def test_a_wrong_option_is_refused_with_its_choices() -> None:
    result = call("train", "vae", "--device", "gpu")
    assert result.exit_code == 2
    assert "cuda" in result.output


def test_faults_that_are_not_the_users_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("raise ValueError('mine')")
    result = call("train", path)
    assert isinstance(result.exception, ValueError)
    assert str(result.exception) == "mine"


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from ppmodels.app.cli import app\n"
        "for arguments in (['--help'], ['train', '--help']):\n"
        "    try:\n"
        "        app(arguments)\n"
        "    except SystemExit as exit:\n"
        "        assert exit.code == 0\n"
        "heavy = {'torch', 'pyro', 'numpy', 'matplotlib', 'sklearn', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, timeout=60)


def test_python_m_ppmodels_is_the_command_line() -> None:
    command = [sys.executable, "-m", "ppmodels"]
    result = subprocess.run([*command, "--help"], check=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("Usage: ppmodels [OPTIONS]")
    result = subprocess.run([*command, "train"], check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "Usage: ppmodels train" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
def test_ctrl_c_saves_what_was_reached(tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "ppmodels", "train", "vae", "--steps", "1000000", "--out", out],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    metrics = out / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted after" in stdout
    record = json.loads((out / "run.json").read_text())
    assert record["stopped"] == "interrupted"
    assert record["weights_of_step"] == record["steps"]  # before the first validation
    assert "the weights of the last step written to" in stdout
    assert 0 < record["steps"] < record["training"]["steps"]
    assert (out / "weights.safetensors").exists()
    assert (out / "samples.png").exists()


def test_a_system_without_a_place_for_temporary_files_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where all disks are full or read only; torch asks for one, and the error names no file."""

    def nowhere() -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("torch.optim.Adam", lambda *arguments, **more: nowhere())
    result = call("train", "vae", "--data", "ring-8", "--steps", 1, "--out", "never-made")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == "error: No usable temporary directory found in ['/tmp']"


def test_nothing_is_unpickled() -> None:
    """Loading a pickle runs any code that it holds; `weights_only` and `allow_pickle` are named nowhere but to refuse."""
    for package in ("inference", "ppmodels"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text().replace("safetensors.torch.load(", "")
            for forbidden in ("torch.load(", "import pickle", "allow_pickle=True", "joblib", "import dill", "shelve"):
                assert forbidden not in text, f"{path} has {forbidden}"


def _binary_images(folder: Path) -> Path:
    import numpy as np

    path = folder / "binary.npy"
    np.save(path, np.random.default_rng(0).integers(0, 2, (40, 8, 8)).astype(np.uint8))
    return path
