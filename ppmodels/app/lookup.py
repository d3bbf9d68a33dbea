"""Finds a recipe: by its name, or in a Python file."""

import difflib
import hashlib
import os
import sys
import types
from pathlib import Path
from typing import NamedTuple

from ppmodels.app.old_names import new_command
from ppmodels.app.recipe import Recipe
from ppmodels.app.recipes import RECIPES


class UnknownRecipe(ValueError):
    """There is no such recipe; the message names close ones."""


class RecipeFile(NamedTuple):
    """A Python file that defines a recipe, and its text as it was executed."""

    path: Path
    text: bytes


class NamedRecipe(NamedTuple):
    """A recipe, its name, and the file that defines it if it is not built in."""

    name: str
    recipe: Recipe
    file: RecipeFile | None = None


def find(name_or_path: str | Path) -> NamedRecipe:
    """The recipe of that name, or the one that a Python file defines as `recipe = Recipe(…)`.

    The file is executed. Raises UnknownRecipe where there is neither, and ValueError where the file has no recipe.
    """
    name = str(name_or_path)
    if name in RECIPES:
        return NamedRecipe(name, RECIPES[name])
    path = Path(os.path.expanduser(name))
    if path.suffix == ".py" and path.is_file():
        file = RecipeFile(path, path.read_bytes())
        return NamedRecipe(path.stem, defined_in(file), file)
    raise UnknownRecipe(_unknown(name, path))


def _unknown(name: str, path: Path) -> str:
    new = new_command(name)
    if new is not None:
        return f"{name!r}: a recipe is a model now, and its data are an argument. Train it by: {new}"
    if path.suffix == ".py":
        beside = [str(other) for other in path.parent.glob("*.py") if other.is_file()] if path.parent.is_dir() else []
        close, known = difflib.get_close_matches(str(path), beside, n=1), f"there is no file {name}."
    else:
        close = difflib.get_close_matches(name.lower(), RECIPES, n=3, cutoff=0.5)
        known = f"{name!r} is neither a recipe nor a Python file (.py) that defines one."
    suggestion = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"{known}{suggestion} `ppmodels recipes` lists the recipes."


def defined_in(file: RecipeFile) -> Recipe:
    """The recipe that a file defines. Its text is executed: this one, whatever the disk or a cache holds by now.

    Raises ValueError where it defines none, or needs a file beside it.
    """
    path = file.path
    # The name depends on path and text: two files called my_model.py must not be one module.
    digest = hashlib.sha256(str(path.resolve()).encode() + file.text).hexdigest()[:16]
    module = types.ModuleType(f"ppmodels_recipe_{digest}")
    module.__file__ = str(path.absolute())
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        code = compile(file.text, module.__file__, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # ValueError: it holds null bytes
        place = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        why = error.msg if isinstance(error, SyntaxError) else error
        raise ValueError(f"{path}{place}: expected Python, but it can not be read ({why}). Correct it.") from error
    try:
        exec(code, module.__dict__)
    except ModuleNotFoundError as error:
        if (path.parent / f"{(error.name or '').split('.')[0]}.py").is_file():
            raise ValueError(
                f"{path} imports {error.name}, a file beside it, which a run would not hold. Put what it needs into "
                "the one file, which is copied into the run, or install it as a package."
            ) from error
        raise ValueError(f"{path} needs {error.name}, which is not installed here; install it.") from error
    except SystemExit as error:
        raise ValueError(
            f"{path} ends the process when it is executed (SystemExit). Keep what it runs as a script below "
            "if __name__ == '__main__'."
        ) from error
    recipe = getattr(module, "recipe", None)
    if not isinstance(recipe, Recipe):
        found = "nothing of that name" if recipe is None else f"a {type(recipe).__name__}"
        raise ValueError(f"{path}: expected it to define `recipe = Recipe(program=…)`, got {found}.")
    return recipe
