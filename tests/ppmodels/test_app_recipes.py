"""The built-in recipes: every one is fitted on every kind of data that it is for, by the presets of that kind."""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from inference import Step
from ppmodels.app import RECIPES, Recipe
from ppmodels.app.old_names import new_command
from ppmodels.app.presets import LARGE, TABLE, Kind, Preset
from ppmodels.app.recipe import cosine
from ppmodels.app.settings import parsed
from ppmodels.data import Dataset, Shuffled, Split


def _images(shape: tuple[int, int, int], levels: int, binarisation: str = "none") -> Dataset:
    """Random images with labels of three classes."""
    generator = torch.Generator().manual_seed(0)

    def split() -> Split:
        values = torch.randint(0, levels, (12, *shape), generator=generator, dtype=torch.uint8)
        return Split(values, torch.arange(12) % 3)

    return Dataset("noise", split(), split(), split(), levels).binarized(binarisation)


def _table(columns: int) -> Dataset:
    """Random rows with labels of three classes."""
    generator = torch.Generator().manual_seed(0)

    def split() -> Split:
        return Split(torch.randn(12, columns, generator=generator), torch.arange(12) % 3)

    return Dataset("noise", split(), split(), split(), None)


KINDS = {
    "few levels": _images((1, 8, 8), 17),
    "two levels": _images((1, 8, 8), 17, "dynamic"),
    "colour": _images((3, 8, 8), 17),
    "large, grey": _images((1, 18, 17), 256),
    "large, two levels": _images((1, 18, 17), 256, "dynamic"),
    "large, binarised once": _images((1, 18, 17), 2),
    "large, colour": _images((3, 18, 17), 256),
    "plane": _table(2),
    "table": _table(5),
}
OF_IMAGES = {
    *("air", "conv-vae", "pixelvae", "draw", "draw-64"),
    *("charrnn", "row-lstm", "diagonal-bilstm", "pixelcnn", "gated-pixelcnn"),
}
TINY: Mapping[str, tuple[object, ...]] = {  # of each name the values for recipes that take one number, or several
    "hidden": (4, (8,)),
    "features": (12, (4,)),
    "layers": (1,),
    "glimpses": (2,),
    "critic_hidden": ((8,),),
    "batch_size": (3,),
}


def _tiny(recipe: Recipe) -> Recipe:
    known = recipe.all_settings
    fitting = {
        name: [each for each in values if known[name].holds(each)]
        for name, values in TINY.items()
        if name in known and known[name].default
    }
    return replace(recipe.with_settings({name: values[0] for name, values in fitting.items()}), traced=None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_a_step_on_every_kind_of_data(name: str, kind: str) -> None:
    if name in ("flow", "flow-vae"):
        pytest.importorskip("zuko")
    data = KINDS[kind]
    recipe = _tiny(RECIPES[name].for_data(data))
    if name == "flow" and data.levels is not None:
        with pytest.raises(ValueError, match="recipe vae"):
            recipe.make_program(data)
        return
    if name in OF_IMAGES and data.levels is None:
        with pytest.raises(ValueError, match=r"real numbers.*vae|choose an MLP for vectors"):
            recipe.make_program(data)
        return
    objective = recipe.make_objective(recipe.make_program(data))
    step = Step(objective, recipe.optimizer(recipe.learning_rate), clip=recipe.clip, average=recipe.average)
    metrics = step(Shuffled(data, batch_size=recipe.batch_size, labelled=recipe.labelled)(0))
    assert all(math.isfinite(value) for value in metrics.values())


# What RESULTS.md was obtained with.
RESOLVED: list[tuple[str, str, dict[str, object]]] = [
    ("vae", "few levels", {"latent": 10, "steps": 2000, "batch_size": 64, "learning_rate": 1e-3, "average": 0.99}),
    ("vae", "two levels", {"latent": 10, "steps": 4000, "activation": "relu", "clip": None}),
    (
        *("vae", "large, two levels"),
        {"latent": 50, "activation": "tanh", "centred": True, "steps": 36_000, "batch_size": 200, "patience": None},
    ),
    ("vae", "large, two levels", {"learning_rate": 2e-3, "average": 0.999, "validate_every": 5000, "clip": None}),
    ("vae", "large, binarised once", {"latent": 50, "steps": 36_000, "validate_every": 1000, "patience": 5}),
    ("iwae", "large, two levels", {"latent": 50, "particles": 5, "steps": 36_000}),
    (
        "conv-vae",
        "large, grey",
        {"latent": 32, "features": (32, 64), "steps": 20_000, "batch_size": 100, "clip": 200.0},
    ),
    ("conv-vae", "large, colour", {"latent": 128, "features": (32, 64, 128), "steps": 20_000}),
    (
        "draw",
        "large, binarised once",
        {"glimpses": 16, "latent": 100, "hidden": 256, "read": 2, "write": 5, "clip": 10.0},
    ),
    ("draw", "large, two levels", {"batch_size": 100, "learning_rate": 1e-3, "average": 0.999, "steps": 20_000}),
    (
        "draw-64",
        "large, binarised once",
        {"glimpses": 64, "latent": 100, "hidden": 256, "batch_size": 400, "steps": 20_000},
    ),
    ("gated-pixelcnn", "few levels", {"layers": 5, "steps": 600, "batch_size": 64, "learning_rate": 4e-3}),
    ("gated-pixelcnn", "large, binarised once", {"layers": 5, "steps": 15_000, "batch_size": 16, "clip": 100.0}),
    ("diagonal-bilstm", "few levels", {"hidden": 16, "layers": 7}),
    ("diagonal-bilstm", "large, binarised once", {"hidden": 24, "layers": 2, "learning_rate": 4e-3}),
    ("row-lstm", "large, binarised once", {"hidden": 24, "layers": 2}),
    ("gan", "few levels", {"latent": 32, "steps": 10_000, "learning_rate": 5e-4, "features": ()}),
    ("r1gan", "large, grey", {"latent": 64, "features": (64, 32), "critic_features": (32, 64), "steps": 8000}),
    ("r3gan", "colour", {"steps": 5000, "batch_size": 128, "penalty_weight": 1.0}),
    ("r3gan", "plane", {"latent": 2, "hidden": (128, 128, 128), "critic_hidden": (64, 64, 64), "steps": 16_000}),
    ("r3gan", "plane", {"penalty_weight": 4.0, "anneal_to": 1e-7, "anneal_steps": 16_000, "learning_rate": 3e-3}),
    ("minimax-gan", "plane", {"latent": 2, "steps": 16_000, "turns": 1, "batch_size": 256}),
    ("gan", "table", {"latent": 32, "steps": 16_000}),
    ("wgan-gp", "few levels", {"steps": 5000, "turns": 5, "penalty_weight": 10.0}),
    ("wgan-gp", "colour", {"steps": 2500, "turns": 5}),
    ("wgan-gp", "large, grey", {"steps": 4000, "turns": 5}),
    ("wgan-gp", "plane", {"steps": 8000, "turns": 5}),
    ("ali", "few levels", {"latent": 16, "learning_rate": 5e-4, "steps": 6000}),
    ("avb", "few levels", {"latent": 10, "learning_rate": 1e-3, "progression": None}),
]


@pytest.mark.parametrize(("name", "kind", "expected"), RESOLVED)
def test_presets_are_those_of_the_results(name: str, kind: str, expected: dict[str, object]) -> None:
    known = RECIPES[name].for_data(KINDS[kind]).all_settings
    assert {setting: known[setting].default for setting in expected} == expected


def test_schedules_follow_the_kind_of_data() -> None:
    assert RECIPES["vae"].for_data(KINDS["large, two levels"]).schedule is cosine
    assert RECIPES["vae"].for_data(KINDS["large, binarised once"]).schedule is None
    assert RECIPES["gan"].for_data(KINDS["few levels"]).schedule is None
    assert RECIPES["gan"].for_data(KINDS["plane"]).schedule is cosine
    betas = [
        RECIPES["gan"]
        .for_data(KINDS[kind])
        .optimizer(1.0)([torch.nn.Parameter(torch.zeros(1))])
        .param_groups[0]["betas"]
        for kind in ("few levels", "large, grey")
    ]
    assert betas == [(0.0, 0.99), (0.5, 0.999)]


def test_the_network_of_burda_starts_as_it_did() -> None:
    """Xavier's weights, no biases, and an encoder that is given x less the mean image."""
    data = KINDS["large, two levels"]
    with torch.random.fork_rng():
        program = RECIPES["vae"].for_data(data).make_program(data)
    first = program.encoder.network[0]  # type: ignore[index, union-attr]  # a VAE's
    assert not first.bias.any()
    bound = math.sqrt(6 / (18 * 17 + 200))
    assert 0.98 * bound < float(first.weight.detach().abs().max()) <= bound
    mean = data.train.values.float().mean(0) / 255
    standardised = program.encoder.standardise(mean)  # type: ignore[operator, union-attr]
    assert torch.allclose(standardised, torch.zeros_like(mean), atol=1e-6)
    grey = RECIPES["vae"].with_settings({"centred": True}).make_program(KINDS["large, grey"])
    centre = KINDS["large, grey"].train.values.float().mean(0)
    assert torch.allclose(grey.encoder.standardise(centre), torch.zeros_like(centre), atol=1e-5)  # type: ignore[operator, union-attr]


def test_what_is_set_stands_whatever_the_data() -> None:
    recipe = RECIPES["vae"].with_settings({"steps": 7, "latent": 3})
    for kind in ("few levels", "large, two levels"):
        resolved = recipe.for_data(KINDS[kind])
        assert (resolved.steps, resolved.settings["latent"], resolved.presets) == (7, 3, ())
    assert recipe.for_data(KINDS["large, two levels"]).settings["activation"] == "tanh"


def test_the_last_preset_that_holds_counts() -> None:
    presets = [Preset(Kind("all", lambda data: True), {"steps": 1, "clip": 2.0}), Preset(LARGE, {"steps": 3})]
    recipe = Recipe(program=RECIPES["vae"].program, presets=[*presets, Preset(TABLE, {"steps": 5})])
    assert (recipe.for_data(KINDS["large, grey"]).steps, recipe.for_data(KINDS["few levels"]).steps) == (3, 1)
    assert recipe.for_data(KINDS["table"]).clip == 2.0


def test_the_cosine_falls_from_1_to_a_twentieth() -> None:
    values = [cosine(step / 100) for step in range(100)]
    assert values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert math.isclose(cosine(1.0), 0.05)


AUTOREGRESSIVE = ("charrnn", "row-lstm", "diagonal-bilstm", "pixelcnn", "gated-pixelcnn")
GANS, SETS = ("gan", "wgan-gp", "r1gan", "r3gan"), ("digits", "stacked-digits", "mnist", "fashion", "ring-8", "grid-25")
OLD_NAMES = [
    *("vae-digits", "vae-digits-binary", "iwae-digits", "vae-conv-digits", "vae-logistic-digits", "vae-normal-digits"),
    *("cvae-digits", "flow-vae-digits", "pixelvae-digits", "vae-mnist", "iwae-mnist", "vae-binarized-mnist"),
    *("vae-omniglot", "vae-fashion", "vae-cifar10", "minimax-ring-8", "minimax-grid-25", "cgan-digits", "cgan-mnist"),
    *("ali-digits", "avb-digits", "aae-digits", "gated-pixelcnn-mnist"),
    *(f"{name}-{data}" for name in GANS for data in SETS),
    *(
        f"{name}-{data}"
        for name in AUTOREGRESSIVE
        for data in ("digits", "digits-binary", "binarized-mnist", "fashion")
    ),
    *(f"{name}-cifar10" for name in AUTOREGRESSIVE),
]


@pytest.mark.parametrize("name", OLD_NAMES)
def test_old_names_are_answered_with_a_command_that_is_understood(name: str) -> None:
    command = new_command(name)
    assert command is not None
    program, verb, recipe, data, *options = command.split()
    assert (program, verb, data) == ("ppmodels", "train", "--data")
    parsed(
        RECIPES[recipe].all_settings,
        [value for flag, value in pairwise(options) if flag == "--set"],
    )


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("vae-mnist", "vae --data mnist --binarisation dynamic"),
        ("vae-binarized-mnist", "vae --data binarized-mnist"),
        ("gated-pixelcnn-digits-binary", "gated-pixelcnn --data digits --binarisation dynamic"),
        ("vae-fashion", "conv-vae --data fashion-mnist"),
        ("vae-logistic-digits", "vae --data digits --set likelihood=logistic-mixture --set clip=200"),
        ("r3gan-ring-8", "r3gan --data ring-8"),
        ("cgan-digits", "conditional-gan --data digits"),
        ("gan-mnist", "gan --data mnist"),
    ],
)
def test_old_names_mean_what_they_meant(name: str, command: str) -> None:
    assert new_command(name) == f"ppmodels train {command}"


def test_new_names_are_no_old_ones() -> None:
    assert [name for name in RECIPES if new_command(name)] == []
    assert new_command("resnet-digits") is None
