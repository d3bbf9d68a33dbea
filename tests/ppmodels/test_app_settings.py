"""Settings: read from signatures, checked by name and type, and the fields of a recipe checked where it is built."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from inference import SVI, Traced, adam
from ppmodels.app import RECIPES, Recipe, find
from ppmodels.app.presets import LARGE, Preset
from ppmodels.app.settings import REQUIRED, Count, accepted, parsed, settings_of, written
from ppmodels.data import Dataset


def example(
    data: object,
    count: int = 3,
    rate: float = 0.5,
    on: bool = False,
    name: str = "a",
    sizes: Sequence[int] = (1, 2),
    pair: tuple[int, ...] = (1,),
    limit: int | None = None,
    kind: Literal["one", "two"] = "one",
    scheduled: float | Callable[[int], float] = 1.0,
    function: Callable[[], int] | None = None,
    plain=4,
    listed=(1, 2),
    nothing=None,
    least: Count = 1,
    leasts: Sequence[Count] = (),
    optional: Count | None = None,
) -> None:
    """Every kind of parameter."""


KNOWN = settings_of(example)


def test_settings_are_the_parameters_that_can_be_written() -> None:
    assert set(KNOWN) == {
        *("count", "rate", "on", "name", "sizes", "pair", "limit", "kind", "scheduled", "plain", "listed"),
        *("least", "leasts", "optional"),
    }
    assert settings_of(partial(example, count=7))["count"].default == 7
    assert settings_of(lambda data: data) == {}

    class Program(nn.Module):
        def __init__(self, data: object, latent: int) -> None:
            super().__init__()

    assert settings_of(Program)["latent"].default is REQUIRED
    with pytest.raises(ValueError, match=r"latent: it has no default.*--set latent=…"):
        accepted(Program, {})
    assert accepted(Program, {"latent": 3, "other": 4}) == {"latent": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("count=5", 5),
        ("rate=1", 1.0),
        ("rate=1e-3", 1e-3),
        ("on=true", True),
        ("on=false", False),
        ("name=none", "none"),
        ("name=", ""),
        ("name=a=b", "a=b"),
        ("sizes=32,64", (32, 64)),
        ("sizes=7", (7,)),
        ("sizes=", ()),
        ("pair=3,4", (3, 4)),
        ("limit=none", None),
        ("limit=3", 3),
        ("kind=two", "two"),
        ("scheduled=0.5", 0.5),
        ("plain=6", 6),
        ("listed=3", (3,)),
    ],
)
def test_values_are_read_by_type(text: str, value: object) -> None:
    (found,) = parsed(KNOWN, [text]).values()
    assert found == value
    assert type(found) is type(value)
    assert parsed(KNOWN, [f"{text.split('=')[0]}={written(found)}"]) == parsed(KNOWN, [text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("least=0", r"least: expected a whole number, at least 1, got '0'"),
        ("leasts=3,0", r"leasts: expected whole numbers, such as 32,64, each at least 1, got '3,0'"),
        ("optional=0", r"optional: expected a whole number, at least 1 or none, got '0'"),
        ("count=5.0", r"count: expected a whole number, got '5.0'"),
        ("count=", r"count: expected a whole number, got ''"),
        ("count=none", r"count: expected a whole number, got 'none'"),
        ("limit=x", r"limit: expected a whole number or none, got 'x'"),
        ("rate=nan", r"rate: expected a finite number, got 'nan'"),
        ("rate=inf", r"rate: expected a finite number, got 'inf'"),
        ("on=yes", r"on: expected true or false, got 'yes'"),
        ("sizes=32,x", r"sizes: expected whole numbers, such as 32,64, got '32,x'"),
        ("kind=three", r"kind: expected one or two, got 'three'"),
        ("cuont=3", r"'cuont' is no setting of this recipe. Did you mean count\? Its settings: count, kind"),
        ("function=3", r"'function' is no setting"),
        ("count", r"--set count: expected name=value"),
    ],
)
def test_what_is_no_value_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(KNOWN, [text])


def test_values_from_code_are_checked_as_texts_are() -> None:
    assert KNOWN["sizes"].checked([3, 4]) == (3, 4)
    assert isinstance(KNOWN["rate"].checked(2), float)
    for name, value in (("count", True), ("count", "3"), ("rate", False), ("sizes", "34"), ("on", 1), ("kind", 1)):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            KNOWN[name].checked(value)
    with pytest.raises(ValueError, match="count is given twice"):
        parsed(KNOWN, ["count=1", "count=2"])


def program(data: Dataset, latent: int = 2, width: float = 1.0) -> nn.Module:
    """A stand-in."""
    return nn.Linear(latent, 1)


def test_a_recipe_has_the_settings_of_program_objective_and_training() -> None:
    known = Recipe(program=program, settings={"latent": 5}, steps=7).all_settings
    assert (known["latent"].default, known["width"].default, known["particles"].default) == (5, 1.0, 1)
    assert (known["steps"].default, known["clip"].default) == (7, None)
    assert "data" not in known
    assert "labelled" not in known


def test_settings_reach_program_and_objective() -> None:
    recipe = Recipe(program=program).with_settings({"latent": 3, "particles": 4, "steps": 5, "clip": 2})
    made = recipe.make_program(None)  # type: ignore[arg-type]  # the stand-in looks at no data
    assert isinstance(made, nn.Linear)
    assert (made.in_features, recipe.make_objective(made).particles) == (3, 4)
    assert (recipe.steps, recipe.clip) == (5, 2.0)
    assert Recipe(program=program).make_objective(made).particles == 1


FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"program": 3}, "program: expected a function of the data"),
    ({"objective": None}, "objective: expected a function of the program"),
    ({"objective": 3}, "objective: expected"),
    (
        {"optimizer": torch.optim.Adam},
        r"optimizer: expected a function of the learning rate that gives one of the parameters, such as inference.adam",
    ),
    ({"optimizer": None}, "optimizer: expected"),
    ({"optimizer": lambda rate: None}, "optimizer: expected .* got one that gives None"),
    ({"optimizer": adam(1e-3)}, "optimizer: expected .* got one that fails at 0.001"),
    ({"schedule": lambda fraction: math.nan}, "schedule: expected .* got one that gives nan"),
    ({"schedule": lambda: 1.0}, "schedule: expected .* got one that fails at 0"),
    ({"traced": Traced()}, "traced: expected inference.Traced"),
    ({"binarisation": "sometimes"}, "binarisation: expected none or dynamic"),
    ({"standardise": "yes"}, "standardise: expected True, False or"),
    ({"steps": 0}, "steps: expected a whole number, at least 1, got 0"),
    ({"steps": "100"}, "steps: expected a whole number, at least 1, got '100'"),
    ({"steps": 1.5}, "steps: expected"),
    ({"steps": True}, "steps: expected"),
    ({"batch_size": 16.0}, r"batch_size: expected a whole number, at least 1, got 16.0"),
    ({"validate_every": 0}, "validate_every: expected a whole number, at least 1, or None"),
    ({"patience": 0}, "patience: expected"),
    ({"progression": -1}, "progression: expected"),
    ({"learning_rate": None}, "learning_rate: expected a positive and finite number, got None"),
    ({"learning_rate": float("nan")}, "learning_rate: expected"),
    ({"learning_rate": float("inf")}, "learning_rate: expected"),
    ({"learning_rate": 0.0}, "learning_rate: expected"),
    ({"clip": 0}, "clip: expected a positive and finite number, or None, got 0"),
    ({"clip": -1.0}, "clip: expected"),
    ({"average": 1.0}, "average: expected a number of at least 0 and below 1, or None, got 1.0"),
    ({"average": "x"}, "average: expected"),
    ({"schedule": 0.1}, "schedule: expected a function"),
    ({"traced": True}, "traced: expected"),
    ({"labelled": 1}, "labelled: expected True or False"),
    ({"estimators": 3}, "estimators: expected estimators by name"),
    ({"estimators": {"iwae": 3}}, "estimators: expected estimators by name"),
    ({"data": Path("x.csv")}, "data: expected a text"),
    ({"summary": None}, "summary: expected a text"),
    ({"presets": [3]}, "presets: expected"),
    ({"settings": ["latent=3"]}, "settings: expected values by name"),
    ({"settings": {"latnt": 3}}, r"'latnt' is no setting of this recipe. Did you mean latent\?"),
    ({"settings": {"latent": 3.5}}, r"latent: expected a whole number, got 3.5"),
    (
        {"presets": [Preset(LARGE, {"latnt": 3})]},
        r"preset for images above 16.*'latnt' is no setting.*presets of its own",
    ),
    ({"presets": [Preset(LARGE, {"program": program})]}, "'program' is no setting"),
    ({"validate_every": None, "patience": 3}, "set validate_every too"),
    ({"estimators": {}}, "validate_every: without estimators"),
]


@pytest.mark.parametrize(("fields", "message"), FIELDS)
def test_a_recipe_refuses_what_no_field_can_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**{"program": program, **fields})


def test_a_preset_is_checked_like_a_recipe_where_it_is_taken() -> None:
    large = Dataset("noise", *[_split() for _ in range(3)], 256)
    with pytest.raises(ValueError, match="steps: expected"):
        Recipe(program=program, presets=[Preset(LARGE, {"steps": 0})]).for_data(large)


def test_one_name_means_one_thing() -> None:
    def counted(data: Dataset, steps: int = 3) -> nn.Module:
        return nn.Linear(steps, 1)

    with pytest.raises(ValueError, match="steps: the program or its objective has a parameter of that name"):
        Recipe(program=counted)


def test_a_name_that_is_no_setting_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"'laetnt' is no setting of this recipe. Did you mean latent\?"):
        RECIPES["vae"].with_settings({"laetnt": 3})
    with pytest.raises(ValueError, match="'data' is no setting"):
        RECIPES["vae"].with_settings({"data": "mnist"})


def test_a_file_of_ones_own_has_settings(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from torch import nn\n"
        "from ppmodels.app import Recipe\n"
        "class Mixture(nn.Module):\n"
        "    def __init__(self, data, latent=4, components: int = 8):\n"
        "        super().__init__()\n"
        "        self.shape = (latent, components)\n"
        "recipe = Recipe(program=Mixture)\n"
    )
    recipe = find(path).recipe
    values = parsed(recipe.all_settings, ["latent=8", "components=3"])
    assert recipe.with_settings(values).make_program(None).shape == (8, 3)  # type: ignore[arg-type]
    assert recipe.objective is SVI


def _split() -> Any:
    from ppmodels.data import Split

    return Split(torch.zeros(2, 1, 20, 20, dtype=torch.uint8))
