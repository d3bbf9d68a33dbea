"""How many threads compute, and that the number of before comes back."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from inference import NonFinite, importance
from ppmodels.app import RECIPES, Run, evaluate, sample, train
from ppmodels.app.cli import app
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.threads import LARGE, computing_on, suitable

CPU = torch.device("cpu")
SHORT = dataclasses.replace(
    RECIPES["vae"].with_settings({"steps": 2, "validate_every": None, "hidden": (8,)}),
    estimators={"iwae": importance(2)},
)


@pytest.fixture(autouse=True, scope="module")
def _nothing_rendered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppmodels.app.plots.png", lambda figure: b"")
        yield


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(NamedRecipe("vae", SHORT), tmp_path_factory.mktemp("threads") / "run", progress=False)[0]


def test_the_rule_is_one_thread_for_small_steps_and_on_a_gpu() -> None:
    assert suitable(LARGE // 100 - 1, 100, CPU) == 1
    assert suitable(LARGE // 100, 100, CPU) == 3
    assert suitable(LARGE, 100, torch.device("cuda")) == 1


def test_the_number_of_before_comes_back_after_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), computing_on(2):
        torch.get_num_threads() / (torch.get_num_threads() - 2)
    assert torch.get_num_threads() == 3
    with pytest.raises(ValueError, match="threads: expected at least 1 and at most 1024, got 0"), computing_on(0):
        pass


def test_commands_compute_on_what_they_say_and_leave_torch_as_it_was(run: Run) -> None:
    assert run.record["threads"] == 1
    evaluate(run, limit=3, progress=False)
    sample(run, 4, progress=False)
    assert torch.get_num_threads() == 3
    assert json.loads((run.folder / "evaluation.json").read_text())["threads"] == 1
    evaluate(run, limit=3, threads=2, progress=False)
    assert json.loads((run.folder / "evaluation.json").read_text())["threads"] == 2
    with pytest.raises(ValueError, match="threads: expected at least 1 and at most 1024, got 0"):
        evaluate(run, limit=3, threads=0, progress=False)


@pytest.mark.parametrize("steps", [1, 3])
def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path, steps: int) -> None:
    hot = SHORT.with_settings({"steps": steps, "learning_rate": 1e308})
    with pytest.raises((ValueError, NonFinite), match=r"not finite|out of the finite numbers"):
        train(NamedRecipe("vae", hot), tmp_path / "run", threads=2, progress=False)
    assert torch.get_num_threads() == 3
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_the_command_line_says_which_and_takes_another_number(tmp_path: Path) -> None:
    arguments = ["train", "vae", "--steps", "1", "--set", "hidden=8", "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "1 thread, by the size of the model; --threads N sets another number" in result.stderr
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run"), "--limit", "5", "--threads", "2"])
    assert result.exit_code == 0, result.output
    assert "2 threads\n" in result.stderr
