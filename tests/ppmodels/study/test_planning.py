"""The plan of a study, from what is asked for."""

import dataclasses
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ppmodels.app.cli import app
from ppmodels.app.experiment import chosen_rows
from ppmodels.app.lookup import UnknownRecipe
from ppmodels.app.recipes import RECIPES
from ppmodels.app.study.choices import choice_of, choices_of, default_models
from ppmodels.app.study.experiments import recipe_of
from ppmodels.app.study.planning import Asked, continued, planned, settled, steps_by_model
from ppmodels.app.study.protocol import Protocol
from ppmodels.data import load
from tests.ppmodels.app_helpers import COLUMNS, write_recipe, write_table


def test_settings_stand_after_a_colon_and_commas_belong_to_sequences() -> None:
    found = choice_of("vae:hidden=32,64,latent=2")
    assert found.settings == ["hidden=32,64", "latent=2"]
    assert found.name == "vae hidden=32,64,latent=2"
    assert found.found.recipe.settings["hidden"] == (32, 64)
    assert choice_of("vae").name == "vae"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vae:latent", "expected NAME=VALUE"),
        ("vae:", "expected NAME=VALUE"),
        ("vae:lattent=2", "Did you mean latent"),
        ("vae:latent=two", "latent: expected a whole number"),
    ],
)
def test_a_model_that_can_not_be_read_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        choice_of(text)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UnknownRecipe, match="vea"):
        choice_of("vea:latent=2")


def test_a_file_has_settings_too(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, write_table(tmp_path))
    found = choice_of(f"{path}:latent=2")
    assert (found.recipe, found.name) == (str(path), "my_model latent=2")


def test_names_are_unique(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vae and vae go by one name"):
        choices_of(["vae", "gan", "vae"])
    assert [each.name for each in choices_of(["vae", "vae:latent=2"])] == ["vae", "vae latent=2"]
    path = tmp_path / "vae-latent=2.py"  # its runs would have the folder of the recipe with that setting
    path.write_text(COLUMNS.replace("DATA", "digits"))
    with pytest.raises(ValueError, match="go by one name in the study, vae-latent=2"):
        choices_of(["vae:latent=2", str(path)])


def test_default_models_are_of_three_families(tmp_path: Path) -> None:
    names, notes = default_models(load("digits"))
    assert (names, notes) == (["vae", "gan", "gated-pixelcnn"], [])
    assert [RECIPES[each].family for each in names] == [
        "variational autoencoders",
        "adversarial models",
        "autoregressive models",
    ]
    names, _ = default_models(load(str(write_table(tmp_path))))
    assert names[:2] == ["vae", "gan"]


def test_what_is_not_installed_is_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppmodels.app.study.choices.find_spec", lambda name: None)
    names, notes = default_models(load(str(write_table(tmp_path))))
    assert names == ["vae", "gan"]
    assert notes == ["flow is left out, as zuko is not installed: pip install 'ppmodels[flows]'"]


def test_what_takes_no_missing_cells_is_left_out_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "holes.csv"
    path.write_text("a,b\n" + "".join(f"{row},{row % 7 or ''}\n" for row in range(60)))
    plan = planned(Asked(data=str(path)))
    assert [each.name for each in plan.models] == ["vae"]
    assert [note for note in plan.notes if "gan is left out, as cells are missing" in note]


def test_steps_are_given_for_all_or_by_model() -> None:
    choices = choices_of(["vae", "vae:latent=2", "gan:steps=5"])
    found = steps_by_model(["vae=20", "vae:latent=2=30"], choices, None)
    assert found == {"vae": 20, "vae latent=2": 30}
    assert steps_by_model(["7"], choices[:2], None) == {"vae": 7, "vae latent=2": 7}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["many"], "expected N or MODEL=N"),
        (["0"], "expected N or MODEL=N"),
        (["vae=-3"], "expected N or MODEL=N"),
        (["var=3"], "'var' is none of the models: vae"),
        (["vae=3", "vae=4"], "steps of vae are given twice"),
        (["3"], "steps of gan steps=5 are given twice"),
    ],
)
def test_steps_that_say_nothing_or_too_much_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        steps_by_model(texts, choices_of(["vae", "gan:steps=5"]), None)


def test_minutes_and_steps_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="give one of the two"):
        planned(Asked(models=["vae"], minutes=1.0, steps=["5"]))
    with pytest.raises(ValueError, match="expected a positive and finite number, got inf"):
        planned(Asked(models=["vae"], minutes=float("inf")))
    with pytest.raises(ValueError, match="those of gan steps=5 are set"):
        planned(Asked(models=["vae", "gan:steps=5"], minutes=1.0))


@pytest.fixture(scope="module")
def plan() -> Protocol:
    asked = Asked(models=["vae:latent=2", "vae:batch_size=9"], seeds=2, steps=["vae:latent=2=30"], limit=50)
    return settled(planned(asked), {}, Path("out"))


def test_a_plan_says_what_is_done(plan: Protocol) -> None:
    assert [each.name for each in plan.models] == ["vae latent=2", "vae batch_size=9"]
    assert [each.steps for each in plan.models] == [30, RECIPES["vae"].steps]
    assert [each.batch_size for each in plan.models] == [64, 9]
    assert plan.seeds == [0, 1]
    assert plan.examples == chosen_rows(180, 50).tolist()  # those of `evaluate --limit 50`
    assert (plan.data.levels, plan.data.test, plan.data.shape) == (17, 180, [1, 8, 8])
    assert plan.data.digest == load("digits").train.fingerprint
    assert Protocol.of_json(plan.as_json()) == plan


def test_the_recipe_of_a_run_has_the_plan_s_settings(plan: Protocol) -> None:
    recipe = recipe_of(plan, plan.models[0]).recipe
    assert (recipe.steps, recipe.settings["latent"], recipe.data) == (30, 2, "digits")


def test_the_command_repeats_the_plan(plan: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is printed for, what it asks for is the same plan."""
    came: list[Protocol] = []

    def study(asked: Asked, out: Path, **others: object) -> None:
        came.append(settled(planned(asked), {}, out))
        raise ValueError("enough")

    monkeypatch.setattr("ppmodels.app.study.running.study", study)
    program, *arguments = shlex.split(plan.command)
    assert program == "ppmodels"
    CliRunner().invoke(app, arguments)
    assert came == [plan]


def test_tables_are_read_alike_by_command_and_by_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = write_table(tmp_path)
    came: list[Protocol] = []

    def study(asked: Asked, out: Path, **others: object) -> None:
        came.append(settled(planned(asked), {}, out))
        raise ValueError("enough")

    monkeypatch.setattr("ppmodels.app.study.running.study", study)
    typed = ["study", "vae", "--data", table.name, "--folder", str(tmp_path), "--columns", "a,c", "--header"]
    CliRunner().invoke(app, [*typed, "--steps", "9", "--out", "x"])
    CliRunner().invoke(app, shlex.split(came[0].command)[1:])
    assert came[0].data.shape == [2]
    assert came[0] == came[1]


def test_a_file_s_own_reading_gives_way_with_a_note(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "digits")
    path.write_text(path.read_text().replace('data="digits"', 'data="digits", binarisation="threshold"'))
    found = planned(Asked(models=[str(path)], data="digits"))
    assert found.data.levels == 17
    assert found.notes == ["my_model: its own binarisation gives way to the study's, none"]


def test_a_model_that_does_not_fit_the_data_is_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="levels"):
        planned(Asked(models=["vae", "pixelcnn"], data=str(write_table(tmp_path))))


def test_a_study_goes_on_as_what_it_was_begun(plan: Protocol, tmp_path: Path) -> None:
    asked = dataclasses.replace(plan, minutes=2.0)
    timed = settled(asked, {"vae latent=2": 11, "vae batch_size=9": 13}, Path("out"))
    again = continued(timed, asked, Path("out"))
    assert [each.steps for each in again.models] == [11, 13]  # those of the first time, not timed anew
    repeated = settled(dataclasses.replace(timed, minutes=None), {}, Path("out"))
    assert continued(timed, repeated, Path("out")).minutes == 2.0  # its own command goes on with it, too


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": [0, 1, 2]}, r"seeds: \[0, 1\] there, \[0, 1, 2\] here"),
        ({"minutes": 3.0}, "minutes: None there, 3.0 here"),
        ({"device": "some GPU"}, "device: cpu there, some GPU here"),
        ({"examples": [1, 2]}, "examples: "),
        ({"versions": {"torch": "0"}}, "versions torch: "),
    ],
)
def test_another_study_is_refused_by_what_differs(plan: Protocol, change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        continued(plan, dataclasses.replace(plan, **change), Path("out"))


def test_a_study_of_other_steps_is_another(plan: Protocol) -> None:
    with pytest.raises(ValueError, match=r"models\[0\] steps: 30 there, 31 here"):
        continued(plan, settled(plan, {"vae latent=2": 31}, Path("out")), Path("out"))


def test_an_edited_recipe_is_another_study(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, write_table(tmp_path))
    asked = Asked(models=[str(path)], data=str(tmp_path / "table.csv"))
    before = planned(asked)
    path.write_text(path.read_text() + "\n# edited\n")
    with pytest.raises(ValueError, match="recipe_sha256"):
        continued(before, planned(asked), tmp_path)
    with pytest.raises(ValueError, match="has changed since the study was begun"):
        recipe_of(before, before.models[0])
