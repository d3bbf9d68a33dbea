"""The application: recipes, run folders and the command line, where `inference` and `ppmodels` meet.

The names below are imported on first use, so that the command line's help needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppmodels.app.arviz_export import export
    from ppmodels.app.comparison import compare
    from ppmodels.app.diagnostics import calibrate, diagnose
    from ppmodels.app.evaluation import evaluate
    from ppmodels.app.illustration import complete, reconstruct, sample
    from ppmodels.app.lookup import find
    from ppmodels.app.recipe import Recipe
    from ppmodels.app.recipes import RECIPES
    from ppmodels.app.resuming import resume, train_or_resume
    from ppmodels.app.run import Run
    from ppmodels.app.training import train

__all__ = [
    "RECIPES",
    "Recipe",
    "Run",
    "calibrate",
    "compare",
    "complete",
    "diagnose",
    "evaluate",
    "export",
    "find",
    "reconstruct",
    "resume",
    "sample",
    "train",
    "train_or_resume",
]

_HOMES = {
    "ppmodels.app.lookup": ("find",),
    "ppmodels.app.recipe": ("Recipe",),
    "ppmodels.app.recipes": ("RECIPES",),
    "ppmodels.app.run": ("Run",),
    "ppmodels.app.resuming": ("resume", "train_or_resume"),
    "ppmodels.app.training": ("train",),
    "ppmodels.app.evaluation": ("evaluate",),
    "ppmodels.app.comparison": ("compare",),
    "ppmodels.app.diagnostics": ("calibrate", "diagnose"),
    "ppmodels.app.arviz_export": ("export",),
    "ppmodels.app.illustration": ("complete", "reconstruct", "sample"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ppmodels.app' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
