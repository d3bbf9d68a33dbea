"""A model of a study as what `train` takes: its recipe, with the study's data, steps and device."""

import dataclasses

from ppmodels.app.lookup import NamedRecipe, find
from ppmodels.app.run import sha256
from ppmodels.app.settings import parsed
from ppmodels.app.study.protocol import Protocol, StudyModel
from ppmodels.data import Reading


def recipe_of(protocol: Protocol, model: StudyModel) -> NamedRecipe:
    """The recipe of a model, found anew, on the study's data, read as the study reads them.

    Raises ValueError where its file is no longer the one that was planned.
    """
    found = find(model.recipe)
    if digest_of(found) != model.recipe_sha256:
        raise ValueError(f"{model.recipe} has changed since the study was begun; restore it, or begin another study.")
    values = parsed(found.recipe.all_settings, model.settings)
    chosen = found.recipe.with_settings({**values, "steps": model.steps})
    data = protocol.data
    recipe = dataclasses.replace(
        chosen, data=data.source, binarisation=data.binarisation, reading=Reading.recorded(data.reading)
    )
    return found._replace(recipe=recipe)


def digest_of(found: NamedRecipe) -> str | None:
    """The digest of a recipe's file; None of a built-in recipe."""
    return None if found.file is None else sha256(found.file.text)


def device_of(protocol: Protocol) -> str:
    """The device as --device takes it: a study on a GPU records its name."""
    return "cpu" if protocol.device == "cpu" else "cuda"
