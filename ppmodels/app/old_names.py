"""Old recipe names, which joined a model and its data, and runs of format 1.

Neither works any more: the error names the command that trains the same now.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_DATA = {
    "digits": ("digits",),
    "digits-binary": ("digits", "--binarisation", "dynamic"),
    "mnist": ("mnist",),
    "binarized-mnist": ("binarized-mnist",),
    "omniglot": ("omniglot",),
    "fashion": ("fashion-mnist",),
    "cifar10": ("cifar10",),
    "stacked-digits": ("stacked-digits",),
    "ring-8": ("ring-8",),
    "grid-25": ("grid-25",),
}
_BINARISED = {"vae-mnist", "iwae-mnist", "vae-omniglot"}
_CONVOLUTIONAL = {"vae-fashion", "vae-cifar10"}
_SAME = (
    *("vae", "iwae", "flow-vae", "pixelvae", "charrnn", "row-lstm", "diagonal-bilstm", "pixelcnn", "gated-pixelcnn"),
    *("gan", "wgan-gp", "r1gan", "r3gan", "ali", "avb", "aae"),
)
_MODELS: dict[str, tuple[str, ...]] = {
    **{name: (name,) for name in _SAME},
    "vae-conv": ("conv-vae",),
    "vae-logistic": ("vae", "--set", "likelihood=logistic-mixture", "--set", "clip=200"),
    "vae-normal": ("vae", "--set", "likelihood=discretized-normal", "--set", "clip=200"),
    "cvae": ("conditional-vae",),
    "cgan": ("conditional-gan",),
    "minimax": ("minimax-gan",),
}


def new_command(name: str) -> str | None:
    """The command that replaces an old recipe name; None for any other name."""
    parts = _parts(name)
    if parts is None:
        return None
    (recipe, *settings), data = parts
    return _command(recipe, data, settings)


def retraining(record: Mapping[str, Any], own_recipe: str) -> str:
    """The command that trains the run of a record of format 1 again; `own_recipe` is its recipe file."""
    try:
        parts = _parts(record["recipe"])
        recipe, *settings = (own_recipe if record["recipe"] == "recipe.py" else record["recipe"],)
        if parts is not None:
            recipe, *settings = parts[0]
        data = [record["data"]]
        for option, value, default in (
            ("--folder", record["folder"], None),
            ("--binarisation", record["binarisation"], "none"),
            ("--steps", record["steps_asked"], None),
            ("--batch-size", record["batch_size"], None),
            ("--lr", record["learning_rate"], None),
            ("--seed", record["seed"], None),
        ):
            data += [] if value == default else [option, str(value)]
        return _command(recipe, data, settings)
    except (KeyError, TypeError, AttributeError):  # a damaged record
        return "ppmodels train RECIPE --data NAME|PATH"


def _parts(name: str) -> tuple[Sequence[str], Sequence[str]] | None:
    """The recipe with its settings, and the data with their binarisation."""
    for where in sorted(_DATA, key=len, reverse=True):  # binarized-mnist before mnist
        model = name.removesuffix(f"-{where}")
        if model != name and model in _MODELS:
            recipe = ("conv-vae",) if name in _CONVOLUTIONAL else _MODELS[model]
            return recipe, (*_DATA[where], *(("--binarisation", "dynamic") if name in _BINARISED else ()))
    return None


def _command(recipe: str, data: Sequence[str], settings: Sequence[str]) -> str:
    return shlex.join(["ppmodels", "train", recipe, "--data", *data, *settings])
