"""Runs that go on: after a kill, a signal or a step that is not finite, and what is refused."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from inference import Fitted, NonFinite, Step
from ppmodels.app import RECIPES, Run, find, resume, train, train_or_resume
from ppmodels.app import training as training_of_runs
from ppmodels.app.cli import app
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.recipe import Recipe, cosine
from ppmodels.app.run import CHECKPOINTS, LOCK, TRAINING, steps_saved
from ppmodels.app.saving import Saving
from tests.ppmodels.app_helpers import write_recipe, write_table

TINY = dataclasses.replace(
    RECIPES["vae"].with_settings({"steps": 8, "hidden": (8,), "latent": 2, "validate_every": 3, "average": 0.9}),
    data="ring-8",
    schedule=cosine,
    progression=3,
)
OFTEN = Saving(every=2)


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Has every training end at once after so many steps, as `kill -9` would; None has them go on."""
    fit, at = training_of_runs.fit, [0]

    def fitted(*arguments: Any, callbacks: list[Any], **options: Any) -> Fitted:
        def kill(step: Step, values: object) -> None:
            if step.count == at[0]:
                raise Killed

        return fit(*arguments, callbacks=[*callbacks, kill], **options)

    monkeypatch.setattr(training_of_runs, "fit", fitted)
    return lambda count: at.__setitem__(0, count or 0)


def tiny(recipe: Recipe = TINY) -> NamedRecipe:
    return NamedRecipe("vae", recipe)


def trained(folder: Path, recipe: Recipe = TINY, **options: Any) -> Run:
    return train(tiny(recipe), folder, progress=False, **{"saving": OFTEN, **options})[0]


def cut_short(
    folder: Path, at: int, killing: Callable[[int | None], None], recipe: Recipe = TINY, **options: Any
) -> None:
    killing(at)
    with pytest.raises(Killed):
        trained(folder, recipe, **options)
    killing(None)


def left(folder: Path) -> dict[str, Any]:
    """All that a run leaves but for times."""
    run = Run.open(folder)
    metrics = [{name: value for name, value in row.items() if name != "seconds"} for row in run.history()]
    record = {name: value for name, value in run.record.items() if name != "seconds"}
    return {"record": record, "metrics": metrics, "weights": run.weights(), "files": sorted(os.listdir(folder))}


def test_a_run_that_was_killed_ends_as_one_that_was_left_alone(
    tmp_path: Path, killing: Callable[[int | None], None]
) -> None:
    trained(tmp_path / "alone")
    alone = left(tmp_path / "alone")
    for at in (1, 3, 8):
        folder = tmp_path / f"killed at {at}"
        cut_short(folder, at, killing)
        killing(at + 2)  # and once more
        if at + 2 <= 8:
            with pytest.raises(Killed):
                resume(folder, progress=False)
        killing(None)
        resume(folder, progress=False)
        assert left(folder) == alone, at
    assert not {CHECKPOINTS, TRAINING, LOCK} & {*alone["files"]}


def test_all_draws_of_a_progression_are_in_the_picture_of_a_run_that_went_on(
    tmp_path: Path, killing: Callable[[int | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[list[str]] = []
    monkeypatch.setattr("ppmodels.app.plots.panels", lambda rows, panels, title: shown.append([*panels]))
    cut_short(tmp_path / "run", 5, killing)
    resume(tmp_path / "run", progress=False)
    assert shown[-1] == ["step 1", "step 2", "step 8"]


def test_a_folder_that_was_killed_says_what_it_is_and_is_not_replaced_unasked(
    tmp_path: Path, killing: Callable[[int | None], None]
) -> None:
    folder = tmp_path / "run"
    cut_short(folder, 5, killing)
    with pytest.raises(
        FileNotFoundError, match=r"vae on ring-8, its newest checkpoint at step 4 of 8\. .*ppmodels resume"
    ):
        Run.open(folder)
    with pytest.raises(ValueError, match=r"with a checkpoint at step 4\. Go on with it: ppmodels resume"):
        trained(folder)
    (folder / CHECKPOINTS / "step-000000004" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds checkpoints/step-000000004/notes\.txt, which no run has written"):
        trained(folder, overwrite=True)
    (folder / CHECKPOINTS / "step-000000004" / "notes.txt").unlink()
    trained(folder, overwrite=True)
    assert Run.open(folder).record["stopped"] == "finished"


def test_a_run_that_was_to_replace_another_goes_on_and_replaces_it(
    tmp_path: Path, killing: Callable[[int | None], None]
) -> None:
    folder = tmp_path / "run"
    trained(folder)
    cut_short(folder, 5, killing, seed=1, overwrite=True)
    assert Run.open(folder).record["seed"] == 0
    resume(folder, progress=False)
    assert Run.open(folder).record["seed"] == 1
    assert os.listdir(tmp_path) == ["run"]
    trained(tmp_path / "alone", seed=1)
    assert left(folder) == left(tmp_path / "alone")


def test_a_run_that_was_interrupted_can_be_scored_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, calls = tmp_path / "run", iter([False, False, False, True])
    remembered = training_of_runs.remembered
    with monkeypatch.context() as patch:
        fit = training_of_runs.fit

        def pressed(*arguments: Any, callbacks: list[Any], **options: Any) -> Fitted:
            fitted = fit(*arguments, callbacks=[lambda step, values: next(calls, False)], **options)
            fitted.stopped = "interrupted"
            return fitted

        patch.setattr(training_of_runs, "fit", pressed)
        run = trained(folder)
    assert remembered is training_of_runs.remembered
    assert (run.record["stopped"], run.record["steps"], steps_saved(folder)) == ("interrupted", 4, 4)
    resume(folder, progress=False)
    trained(tmp_path / "alone")
    assert left(folder) == {**left(tmp_path / "alone"), "files": left(folder)["files"]}


def test_a_finished_run_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    trained(folder)
    before = left(folder)
    for steps in (None, 5, 8):
        run, notes = resume(folder, steps, progress=False)
        assert notes == [f"{folder} has finished: there is nothing to go on with."]
        assert run.record["steps"] == 8
    with pytest.raises(ValueError, match="finished after 8 steps, and has kept no checkpoint to go on from"):
        resume(folder, 16, progress=False)
    assert left(folder) == before
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        resume(tmp_path / "none", progress=False)


def test_a_finished_run_that_kept_its_checkpoints_takes_more_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady = dataclasses.replace(TINY, schedule=None, progression=None).with_settings({"validate_every": None})
    monkeypatch.setitem(RECIPES, "vae", steady)
    trained(tmp_path / "run", steady, saving=dataclasses.replace(OFTEN, keep=True))
    assert resume(tmp_path / "run", progress=False)[1]  # has finished
    resume(tmp_path / "run", 12, progress=False)
    alone = trained(tmp_path / "alone", steady.with_settings({"steps": 12}))
    run = Run.open(tmp_path / "run")
    assert run.weights() == alone.weights()
    assert run.record["training"] == alone.record["training"]
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(ValueError, match=r"--steps 10: .* has taken 12 steps already"):
        resume(tmp_path / "run", 10, progress=False)


def test_a_schedule_that_goes_by_the_fraction_of_steps_is_said(
    tmp_path: Path, killing: Callable[[int | None], None]
) -> None:
    cut_short(tmp_path / "run", 5, killing)
    with pytest.warns(UserWarning, match=r"not to the bit.*the factor on the learning rate"):
        resume(tmp_path / "run", 12, progress=False)
    assert Run.open(tmp_path / "run").record["steps"] == 12


def test_data_and_recipes_that_have_changed_are_refused_by_name(
    tmp_path: Path, killing: Callable[[int | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    table = write_table(tmp_path)
    killing(3)
    with pytest.raises(Killed):
        train(find(write_recipe(tmp_path, table)), folder, progress=False, saving=OFTEN)
    killing(None)
    whole = shutil.copytree(folder, tmp_path / "whole")
    values = np.loadtxt(table, delimiter=",", skiprows=1)
    np.savetxt(table, values + 1.0, delimiter=",", header="a,b,c", comments="")
    with pytest.raises(ValueError, match=r"table\.csv are not those that .* was begun on: .* fingerprint"):
        resume(folder, progress=False)
    np.savetxt(tmp_path / "moved.csv", values, delimiter=",", header="a,b,c", comments="")
    resume(folder, data=str(tmp_path / "moved.csv"), progress=False)
    assert Run.open(folder).record["data"]["source"] == str(tmp_path / "moved.csv")
    with (whole / "recipe.py").open("a") as file:
        file.write("\n# edited\n")
    with pytest.raises(ValueError, match=r"recipe\.py is damaged or edited"):
        resume(whole, data=str(tmp_path / "moved.csv"), progress=False)


def test_a_recipe_of_this_version_that_fits_otherwise_is_refused(
    tmp_path: Path, killing: Callable[[int | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_short(tmp_path / "run", 5, killing, TINY)  # the built-in recipe has no schedule, and this one has
    monkeypatch.setitem(RECIPES, "vae", dataclasses.replace(TINY, schedule=None))
    with pytest.raises(ValueError, match="trained as something else: fitted_by schedule: cosine there, None here"):
        resume(tmp_path / "run", progress=False)


def test_a_launcher_repeats_its_command(tmp_path: Path, killing: Callable[[int | None], None]) -> None:
    def launched(recipe: Recipe = TINY, **options: Any) -> list[str]:
        return train_or_resume(tiny(recipe), tmp_path / "run", progress=False, saving=OFTEN, **options)[1]

    killing(5)
    with pytest.raises(Killed):
        launched()
    killing(None)
    for changed, says in (
        (TINY.with_settings({"learning_rate": 0.5}), "training learning_rate: 0.001 there, 0.5 here"),
        (dataclasses.replace(TINY, data="grid-25"), "data source: ring-8 there, grid-25 here"),
        (TINY.with_settings({"steps": 9}), "training steps: 8 there, 9 here"),
    ):
        with pytest.raises(ValueError, match=f"trained as something else: .*{says}"):
            launched(changed)
    with pytest.raises(ValueError, match="seed: 0 there, 1 here"):
        launched(seed=1)
    launched()
    trained(tmp_path / "alone")
    assert left(tmp_path / "run") == left(tmp_path / "alone")
    assert launched() == [f"{tmp_path / 'run'} has finished: there is nothing left to do."]
    with pytest.raises(ValueError, match="seed: 0 there, 1 here"):
        launched(seed=1)


def test_resume_auto_on_the_command_line(tmp_path: Path) -> None:
    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["train", "vae", "--data", "ring-8", "--steps", "2", *arguments])

    out = ["--out", str(tmp_path / "run"), "--resume", "auto"]
    assert call(*out).exit_code == 0
    again = call(*out)
    assert (again.exit_code, "has finished" in again.stderr) == (0, True)
    for wrong in (["--resume", "auto"], [*out, "--overwrite"]):
        refused = call(*wrong)
        assert refused.exit_code == 1
        assert "--resume auto needs --out" in refused.stderr
    for wrong in (["--checkpoint-every", "5 weeks"], ["--checkpoint-every", "never", "--keep-checkpoints"]):
        refused = call("--out", str(tmp_path / "other"), *wrong)
        assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1), refused.stderr
    shown = CliRunner().invoke(app, ["resume", str(tmp_path / "run")])
    assert (shown.exit_code, "has finished" in shown.stderr) == (0, True)
    assert "trained 2 steps" in shown.stdout


DIVERGES = """
import pyro
import pyro.distributions as dist
import torch
from torch import nn

from inference import exact
from ppmodels.app import Recipe


class Bounded(nn.Module):
    def __init__(self, data):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(data.shape))

    def model(self, x):
        mean = torch.where(self.mean.abs() > 1.5, torch.nan, 1.0) * self.mean
        with pyro.plate("data", len(x)):
            return pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=torch.ones_like(x))

    def guide(self, x):
        pass


recipe = Recipe(
    program=Bounded, data="DATA", steps=6, batch_size=16, validate_every=None, standardise=False, learning_rate=1.9,
    estimators={"exact": exact()}, optimizer=lambda rate: lambda p: torch.optim.SGD(p, rate),
)
"""


def test_a_run_goes_back_where_it_is_asked_to_and_records_it(tmp_path: Path) -> None:
    found = find(write_recipe(tmp_path, write_table(tmp_path), DIVERGES))
    folder = tmp_path / "run"
    with pytest.raises(NonFinite, match=r"Its batch and the state before it are in .*non-finite-000000001"):
        train(found, folder, progress=False, saving=OFTEN)
    evidence = json.loads((folder / CHECKPOINTS / "non-finite-000000001" / "state.json").read_text())["parts"]
    assert len(evidence["batch"]["indices"]) == 16
    assert evidence["step"]["count"] == 1
    with pytest.warns(UserWarning, match=r"Back to step 0, with 0.5 of the learning rate \(1 of 3\)"):
        run, _ = resume(folder, on_nan="rollback", progress=False)
    assert run.record["rollbacks"] == [{"step": 1, "back_to": 0, "slowdown": 0.5}]
    assert (folder / CHECKPOINTS / "non-finite-000000001").is_dir()  # for whoever looks into it
    assert steps_saved(folder) is None
