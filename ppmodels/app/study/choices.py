"""The models of a study as they are named: a recipe or FILE.py, with settings after a colon."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from ppmodels.app.lookup import NamedRecipe, find
from ppmodels.app.recipes import RECIPES
from ppmodels.app.settings import parsed
from ppmodels.data import Dataset

_OF_IMAGES = ("vae", "gan", "gated-pixelcnn")
_OF_TABLES = ("vae", "gan", "flow")
"""One of each family; exact densities of real numbers come of a flow."""
_OF_WHOLE_EXAMPLES = ("gan", "flow")
"""Those that take no missing cells."""


@dataclass(frozen=True)
class Choice:
    """A model that was asked for."""

    text: str
    """As it was typed: vae:latent=2,hidden=64,64."""
    recipe: str
    settings: list[str]
    """NAME=VALUE, as --set takes them."""
    found: NamedRecipe
    """With these settings."""

    @property
    def name(self) -> str:
        """Its name in the study."""
        return " ".join([self.found.name, ",".join(self.settings)]).rstrip()

    @property
    def sets_steps(self) -> bool:
        """Whether its steps are one of its settings."""
        return any(each.startswith("steps=") for each in self.settings)


def choice_of(text: str) -> Choice:
    """The model that a text names, such as vae:latent=2,hidden=64,64: what has no name of its own belongs to the one before.

    Raises ValueError for a recipe or setting that there is not.
    """
    recipe, settings = _taken_apart(text)
    found = find(recipe)
    chosen = found.recipe.with_settings(parsed(found.recipe.all_settings, settings))
    return Choice(text, recipe, settings, found._replace(recipe=chosen))


def choices_of(texts: Sequence[str]) -> list[Choice]:
    """The models that texts name. Raises ValueError where two of them have one name."""
    found = [choice_of(text) for text in texts]
    for name, count in Counter(_in_a_path(each.name) for each in found).items():
        if count > 1:
            same = " and ".join(each.text for each in found if _in_a_path(each.name) == name)
            raise ValueError(
                f"{same} go by one name in the study, {name}; give each model once, with other settings, or as a file of "
                "another name."
            )
    return found


def default_models(data: Dataset) -> tuple[list[str], list[str]]:
    """A model of each family that suits such data, and notes on those that can not be had."""
    names = _OF_IMAGES if len(data.shape) == 3 and data.levels is not None else _OF_TABLES
    left_out = {
        name: "zuko is not installed: pip install 'ppmodels[flows]'"
        for name in names
        if name == "flow" and find_spec("zuko") is None
    }
    if data.missing:
        left_out |= {
            name: "cells are missing, and it takes whole examples; fill them in to have it"
            for name in names
            if name in _OF_WHOLE_EXAMPLES
        }
    notes = [f"{name} is left out, as {why}" for name, why in left_out.items()]
    return [name for name in names if name in RECIPES and name not in left_out], notes


def _taken_apart(text: str) -> tuple[str, list[str]]:
    parts = re.fullmatch(r"(.*\.py|[^:]*)(?::(.*))?", text, re.DOTALL)
    assert parts is not None  # all texts have this form: what is before the colon may hold others only in a path
    recipe, settings = parts[1], []
    for piece in (parts[2] or "").split(","):
        if "=" in piece:
            settings.append(piece.strip())
        elif settings:
            settings[-1] += f",{piece.strip()}"
        elif parts[2] is not None:
            raise ValueError(f"{text}: expected NAME=VALUE,… after the colon, such as vae:latent=2,hidden=64")
    return recipe, settings


def _in_a_path(name: str) -> str:
    """What of a name is left in the names of files, where upper and lower case can be one."""
    return name.replace(" ", "-").replace("/", "-").lower()
