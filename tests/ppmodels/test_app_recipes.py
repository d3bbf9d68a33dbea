"""The built-in recipes: every one makes a program that passes the preflight on data of its kind."""

import math
from dataclasses import replace

import pytest
import torch

from ppmodels.app import RECIPES
from ppmodels.app.experiment import prepared
from ppmodels.app.recipes import cosine
from ppmodels.data import Dataset, Shuffled, Split
from ppmodels.data.sources import EMBEDDED

SHAPES = {
    "mnist": ((1, 28, 28), 256),
    "fashion-mnist": ((1, 28, 28), 256),
    "omniglot": ((1, 28, 28), 256),
    "binarized-mnist": ((1, 28, 28), 2),
    "cifar10": ((3, 32, 32), 256),
}


def stand_in(name: str) -> Dataset:
    """Random images in the shape and levels of a set that is not embedded."""
    shape, levels = SHAPES[name]
    generator = torch.Generator().manual_seed(0)

    def split() -> Split:
        values = torch.randint(0, levels, (40, *shape), generator=generator, dtype=torch.uint8)
        return Split(values, torch.arange(40) % 10)

    return Dataset(name, split(), split(), split(), levels)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_a_program_that_can_be_trained(name: str) -> None:
    if name.startswith("flow"):
        pytest.importorskip("zuko")
    recipe = replace(RECIPES[name], batch_size=8)
    if recipe.data in EMBEDDED:
        experiment = prepared(recipe, None, 0, torch.device("cpu"))
        data, program = experiment.data, experiment.program
    else:
        data = stand_in(recipe.data).binarized(recipe.binarisation)
        program = recipe.program(data)
    batch = Shuffled(data, batch_size=8, labelled=recipe.labelled)(0)
    objective = recipe.objective(program)
    objective.prepare(batch)
    objective.check(batch)
    for player in objective.players().values():
        assert torch.isfinite(player.loss(batch))


def test_the_cosine_falls_from_1_to_a_twentieth() -> None:
    values = [cosine(step / 100) for step in range(100)]
    assert values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert math.isclose(cosine(1.0), 0.05)
