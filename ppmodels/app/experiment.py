"""What a run is about: a recipe, its data, and the program that it makes of them."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference import Objective
from inference.programs.noise import mix, own_noise
from ppmodels.app.lookup import find
from ppmodels.app.recipe import Recipe
from ppmodels.app.run import RECIPE, Run
from ppmodels.data import NAMES, Dataset, InOrder, Shuffled, Standardisation, load


@dataclass(frozen=True)
class Experiment:
    """A recipe, its data, and what fits its program to them, on a device."""

    recipe: Recipe
    data: Dataset
    objective: Objective
    device: torch.device

    @property
    def program(self) -> Any:  # an nn.Module that is a Program; Python has no intersection types
        """What is fitted."""
        return self.objective.program

    def in_order(self, split: str, batch_size: int = 100, limit: int | None = None) -> InOrder:
        """The split's examples, or a fixed choice of `limit` of them, as batches."""
        data = self.data if limit is None else limited(self.data, split, limit)
        return InOrder(data, split, batch_size, self.recipe.labelled)

    def examples(self, count: int, split: str = "test") -> tuple[Tensor, ...]:
        """A fixed choice of at most `count` examples of a split, as one batch."""
        (batch,) = self.in_order(split, count, count)
        return batch

    @property
    def is_images(self) -> bool:
        """Whether examples can be shown as pictures."""
        return len(self.data.shape) == 3 and min(self.data.shape[1:]) >= 2


def device_named(name: str) -> torch.device:
    """cpu, cuda, or auto: cuda where there is one. Raises ValueError for a device that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no CUDA device here. Use --device cpu or auto.")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"device: expected auto, cpu or cuda, got {name!r}")
    return torch.device(name)


def prepared(recipe: Recipe, folder: str | Path | None, seed: int, device: torch.device) -> Experiment:
    """The recipe's data, read and binarised, and its program, newly made and with its parameters.

    Raises FileNotFoundError or ValueError for data that are not there or do not fit the recipe.
    """
    data = load(recipe.data, folder, standardise=recipe.standardise).binarized(recipe.binarisation).to(device)
    if recipe.labelled and not data.classes:
        raise ValueError(f"the program is called with labels (labelled=True), and {data.name} has none in every split.")
    with own_noise(mix(seed, 0)):
        program = recipe.program(data)
        if not isinstance(program, nn.Module):
            raise ValueError(
                f"the recipe's program gave a {type(program).__name__}; expected an nn.Module with model and guide, or "
                "inference.Pair(model, guide)."
            )
        # What fits it can have networks of its own, a critic's, which are made by the same noise.
        objective = recipe.objective(program.to(device)).to(device)
        objective.prepare(Shuffled(data, batch_size=recipe.batch_size, seed=seed, labelled=recipe.labelled)(0))
    return Experiment(recipe, data, objective.to(device), device)


def restored(run: Run, data: str | None = None, folder: str | Path | None = None, device: str = "auto") -> Experiment:
    """The experiment of a run, with the run's weights; on other data of the same shape where `data` names them.

    Raises FileNotFoundError or ValueError where data, recipe or weights are missing or not those of the run.
    """
    record = run.record
    name = record["recipe"]
    recipe = find(run.folder / RECIPE if name == RECIPE else name).recipe
    recipe = replace(
        recipe,
        data=data or record["data"],
        binarisation=record["binarisation"],
        # A run's own, on other data too: they tell what its program takes for 1.
        standardise=Standardisation.recorded(record.get("standardisation")) or False,
        batch_size=record["batch_size"],
    )
    where = record["folder"] if data is None and folder is None else folder
    experiment = prepared(recipe, where, record["seed"], device_named(device))
    if data is None and experiment.data.train.fingerprint != record["fingerprint"]:
        raise ValueError(
            f"the data {record['data']} are not those that the run was trained on: their training examples have "
            f"changed, and the test split may hold examples that were trained on. Restore them, or name other data: --data."
        )
    run.load_weights(experiment.program)
    return experiment


def located(data: str, folder: str | Path | None) -> tuple[str, str | None]:
    """Data and folder as a run records them: paths are absolute, so that they are found from anywhere."""
    where = None if folder is None else str(Path(folder).expanduser().resolve())
    return (data if data in NAMES or folder is not None else os.path.abspath(Path(data).expanduser())), where


def limited(data: Dataset, split: str, limit: int) -> Dataset:
    """The data with a split of at most `limit` examples, a fixed random choice: some splits are sorted by class."""
    if limit < 1:
        raise ValueError(f"limit: expected at least 1 example, got {limit}")
    whole = data.split(split)
    if limit >= len(whole):
        return data
    index = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:limit].sort().values
    part = whole.take(index.to(whole.values.device))
    return {
        "train": lambda: replace(data, train=part),
        "valid": lambda: replace(data, valid=part),
        "test": lambda: replace(data, test=part),
    }[split]()
