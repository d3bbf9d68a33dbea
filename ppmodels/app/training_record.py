"""What the record of a run says of its training."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from inference import Fitted
from ppmodels.app.computing import parameters_of
from ppmodels.app.experiment import Experiment, located
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.recipe import TRAINING
from ppmodels.app.run import RECIPE, sha256, versions


def configuration_of(
    experiment: Experiment, found: NamedRecipe, folder: str | Path | None, seed: int
) -> dict[str, Any]:
    """What a run is trained as, in plain values: two runs that agree in it are one."""
    recipe, data = experiment.recipe, experiment.data
    where, base = located(recipe.data, folder)
    every = recipe.all_settings.items()
    values = {name: setting.default for name, setting in every if setting.holds(setting.default)}  # not a function
    return {
        "recipe": found.name if found.file is None else RECIPE,
        "file": None if found.file is None else found.file.path.name,
        "recipe_sha256": None if found.file is None else sha256(found.file.text),
        "data": {
            "source": where,
            "folder": base,
            "name": data.name,
            "binarisation": recipe.binarisation,
            "standardisation": None if data.standardisation is None else dataclasses.asdict(data.standardisation),
            "reading": dataclasses.asdict(data.reading),
            "shape": list(data.shape),
            "columns": list(data.columns),
            "levels": data.levels,
            "classes": data.classes,
            "fingerprint": data.train.fingerprint,
            "valid_fingerprint": data.valid.fingerprint,
            **({"masked": True} if data.masked else {}),
        },
        "settings": {name: value for name, value in values.items() if name not in TRAINING},
        "training": {name: values[name] for name in TRAINING},
        "fitted_by": {
            "objective": type(experiment.objective).__name__,
            "optimizer": _name_of(recipe.optimizer),
            "schedule": _name_of(recipe.schedule),
            "differentiate": _name_of(recipe.traced),
            "labelled": recipe.labelled,
            "estimators": {name: {"kind": each.kind, **each.settings} for name, each in recipe.estimators.items()},
        },
        "seed": seed,
    }


def computed_on(experiment: Experiment) -> dict[str, Any]:
    """What a run is trained on: with another one its last bits differ. And how large it is."""
    return {
        "device": torch.cuda.get_device_name() if experiment.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "parameters": parameters_of(experiment.program),
    }


def record_of(configuration: Mapping[str, Any], experiment: Experiment, fitted: Fitted) -> dict[str, Any]:
    """The contents of run.json, as plain values."""
    return {
        **configuration,
        "steps": fitted.steps,
        "stopped": fitted.stopped,
        "weights_of_step": fitted.steps if fitted.best is None else int(fitted.best["step"]),
        "best_validation": fitted.best,
        "rollbacks": fitted.rollbacks,
        "seconds": round(fitted.seconds, 2),
        **computed_on(experiment),
    }


def _name_of(function: object) -> str | None:
    """The name of a function, class or partial; None for None."""
    inner = getattr(function, "func", function)
    return None if function is None else str(getattr(inner, "__name__", type(inner).__name__)).strip("_")
