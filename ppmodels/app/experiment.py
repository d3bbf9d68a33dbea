"""An experiment: a recipe, its data, and the program that it makes of them."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inference import Objective, Pair, ProgramError
from inference.evaluation.likelihood import Likelihood, likelihood_of
from inference.programs.entries import Examples, mapped
from inference.programs.execution import is_out_of_memory
from inference.programs.noise import mix, own_noise
from inference.programs.program import evaluating
from ppmodels.app.lookup import RecipeFile, defined_in
from ppmodels.app.missing import refuse_missing
from ppmodels.app.recipe import Recipe
from ppmodels.app.recipes import RECIPES
from ppmodels.app.run import RECORD, Run
from ppmodels.app.trust import approved, approved_text
from ppmodels.data import NAMES, Dataset, InOrder, Reading, Shuffled, Standardisation, load
from ppmodels.data.levels import OtherLevels
from ppmodels.data.sources import TEXTS


@dataclass(frozen=True)
class Experiment:
    """A recipe, its data, and what fits its program to them, on a device."""

    recipe: Recipe
    data: Dataset
    objective: Objective
    device: torch.device
    notes: tuple[str, ...] = ()
    """What a person who trains it should know."""

    @property
    def program(self) -> Any:  # an nn.Module that is a Program; Python has no intersection types
        """What is fitted."""
        return self.objective.program

    def in_order(self, split: str, batch_size: int = 100, limit: int | None = None) -> InOrder:
        """The split's examples, or a fixed choice of `limit` of them, as batches."""
        data = self.data if limit is None else limited(self.data, split, limit)
        return InOrder(data, split, batch_size, self.recipe.labelled)

    def scored(self, split: str, batch_size: int = 100, limit: int | None = None) -> InOrder:
        """The same for scoring: one batch where no plate counts the examples, or the guide has values for all of these."""
        batches = self.in_order(split, batch_size, limit)
        if self.likelihood.dataset is None or (split == "train" and self.has_values_of_rows):
            return InOrder(batches.dataset, split, len(batches.dataset.split(split)), self.recipe.labelled)
        return batches

    def examples(self, count: int, split: str = "test") -> Examples:
        """A fixed choice of at most `count` examples of a split, as one batch."""
        (batch,) = self.in_order(split, count, count)
        return batch

    def rows(self, split: str, limit: int | None = None) -> Tensor:
        """Where the examples that `in_order` gives stand in their split."""
        return chosen_rows(len(self.data.split(split)), limit)

    @cached_property
    def likelihood(self) -> Likelihood:
        """What kind of number the program's log p(x) is."""
        return self._likelihood_of(next(iter(self.in_order("train", self.recipe.batch_size))))

    @cached_property
    def has_values_of_rows(self) -> bool:
        """Whether the guide has values for the training examples, as an AutoGuide of local latents has, not for others."""
        if not isinstance(self.program, Pair) or self.program.rows is None:
            return False
        batch = next(iter(self.in_order("train", self.recipe.batch_size)))
        try:
            self._likelihood_of(mapped(lambda tensor: tensor[1:], batch))
        except ProgramError:
            return True
        return False

    def _likelihood_of(self, batch: Examples) -> Likelihood:
        with torch.no_grad(), evaluating(self.program), own_noise(0):
            return likelihood_of(self.program, batch)

    @property
    def fits_rows(self) -> bool:
        """Whether the guide was fitted to the very rows of the training split, and is not one of other examples."""
        own_rows = isinstance(self.program, Pair) and self.program.rows is not None
        return own_rows or not self.likelihood.per_example

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
    """The recipe for its data, which are read and binarised, and its program, newly made and with its parameters.

    Raises FileNotFoundError or ValueError for data that are not there or do not fit the recipe.
    """
    return _assembled(recipe, _read(recipe, folder, device), seed)


def restored(
    run: Run, data: str | None = None, folder: str | Path | None = None, device: str = "auto", trust: bool = False
) -> Experiment:
    """The experiment of a run, with the run's settings and weights; on other data of its kind where `data` names them.

    A recipe file is executed if this user has trained or trusts its text, or by `trust`.
    Raises FileNotFoundError or ValueError where data, recipe or weights are missing or not those of the run.
    """
    source = run.record["data"]
    (text,) = approved([run], trust)
    recipe, found = _with_data(run, text, data, folder, device)
    if data is None and found.train.fingerprint != source["fingerprint"]:
        raise ValueError(
            f"the data {source['source']} are not those that the run was trained on: their training examples have "
            f"changed, and the test split may hold examples that were trained on. Restore them, or name other data: --data."
        )
    experiment = _assembled(recipe, found, run.record["seed"])
    run.load_weights(experiment.program)
    return experiment


def begun(
    run: Run,
    steps: int,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    trust: bool = False,
) -> Experiment:
    """The experiment of a run that is to be gone on with up to `steps`, with its settings and newly made weights.

    A recipe file is executed as it is by `restored`.
    Raises FileNotFoundError or ValueError where data or recipe are missing or not those of the run.
    """
    recipe, found = _with_data(run, approved_text(run, trust), data, folder, device)
    fingerprint = run.record["data"]["fingerprint"]
    if found.train.fingerprint != fingerprint:
        raise ValueError(
            f"the data {recipe.data} are not those that {run.folder} was begun on: their training examples have the "
            f"fingerprint {found.train.fingerprint}, and those had {fingerprint}. Restore them, or train a run of its own."
        )
    found = replace(found, name=run.record["data"].get("name", found.name))  # a file may have another name by now
    return _assembled(recipe.with_settings({"steps": steps}), found, run.record["seed"])


def _with_data(
    run: Run, text: bytes | None, data: str | None, folder: str | Path | None, device: str
) -> tuple[Recipe, Dataset]:
    """The recipe of a run and its data, or others of their kind."""
    recipe, source = _recorded(run, text), run.record["data"]
    if data is not None:
        recipe = replace(recipe, data=data)
    where = source["folder"] if data is None and folder is None else folder
    try:
        found = _read_as_recorded(recipe, where, device_named(device))
    except FileNotFoundError as error:
        if data is not None:
            raise
        raise FileNotFoundError(
            f"the data that the run was trained on are not there: {str(error).rstrip('.')}. Name where they are: --data, or "
            "--folder."
        ) from error
    _refuse_another_kind(recipe, source, found)
    found = replace(
        found, masked=source.get("masked") is True
    )  # its weights are of a program made for such data, or not
    for remark in found.remarks if data is not None else ():
        warnings.warn(remark, stacklevel=3)
    return recipe, found


def _read_as_recorded(recipe: Recipe, folder: str | Path | None, device: torch.device) -> Dataset:
    """The data read as those of the training were; those of other levels by their own, so that they can be refused."""
    if not recipe.data.lower().endswith(TEXTS):  # an array of the columns that were chosen, or another kind
        recipe = replace(recipe, reading=Reading(levels=None if recipe.data in NAMES else recipe.reading.levels))
    try:
        return _read(recipe, folder, device)
    except OtherLevels:
        return _read(replace(recipe, reading=replace(recipe.reading, levels=None)), folder, device)


def _read(recipe: Recipe, folder: str | Path | None, device: torch.device) -> Dataset:
    data = load(recipe.data, folder, standardise=recipe.standardise, reading=recipe.reading)
    data = data.binarized(recipe.binarisation).to(device)
    if recipe.labelled and not data.classes:
        raise ValueError(
            f"the program is called with labels (labelled=True), and {data.name} has none in every split; give them, or "
            "train a recipe that needs none."
        )
    return data


def _assembled(recipe: Recipe, data: Dataset, seed: int) -> Experiment:
    recipe, device, notes = recipe.for_data(data), data.train.values.device, data.notes
    if recipe.batch_size > len(data.train):
        notes.append(
            f"a batch has all {len(data.train)} examples of the training split, in place of {recipe.batch_size}"
        )
        recipe = replace(recipe, batch_size=len(data.train))
    with own_noise(mix(seed, 0)):
        try:
            program = recipe.make_program(data)
        except RuntimeError as error:  # a layer of a negative size, among others
            if is_out_of_memory(error):
                raise
            raise ValueError(
                f"the program can not be made of these settings: {str(error).splitlines()[0]}. `ppmodels recipes NAME` "
                "shows what they are."
            ) from error
        if not isinstance(program, nn.Module):
            raise ValueError(
                f"the recipe's program gave a {type(program).__name__}; expected an nn.Module with model and guide, or "
                "inference.Pair(model, guide)."
            )
        # What fits it can have networks of its own, a critic's, which are made by the same noise.
        objective = recipe.make_objective(program.to(device))
        if not isinstance(objective, Objective):
            raise ValueError(
                f"the recipe's objective gave a {type(objective).__name__}; expected an inference.Objective, such as "
                "SVI(program)."
            )
        objective = objective.to(device)
        batch = Shuffled(data, batch_size=recipe.batch_size, seed=seed, labelled=recipe.labelled)(0)
        refuse_missing(data, objective, batch)
        objective.prepare(batch)
    return Experiment(recipe, data, objective.to(device), device, tuple(notes))


def _recorded(run: Run, text: bytes | None) -> Recipe:
    """The recipe of a run, by the text of its file if it is not built in, with the settings and data on record."""
    record = run.record
    if text is None and record["recipe"] not in RECIPES:
        raise ValueError(f"{run.folder / RECORD}: there is no recipe {record['recipe']!r} in this version.")
    recipe = RECIPES[record["recipe"]] if text is None else defined_in(RecipeFile(run.recipe_file, text))
    source = record["data"]
    try:
        recipe = recipe.with_settings({**record["settings"], **record["training"]})
        # The run's own standardisation, on other data too: its program was trained in these units.
        standardise = Standardisation.recorded(source.get("standardisation")) or False
        # An earlier version recorded how many levels there are, and not how many there were before binarisation.
        before = {"levels": source["levels"] if source["binarisation"] == "none" else None}
        reading = Reading.recorded(source.get("reading", before))
    except ValueError as error:
        raise ValueError(f"{run.folder / RECORD}: the recipe is not the one that was trained: {error}") from error
    return replace(
        recipe, data=source["source"], binarisation=source["binarisation"], standardise=standardise, reading=reading
    )


def _refuse_another_kind(recipe: Recipe, source: Mapping[str, Any], data: Dataset) -> None:
    """Refuses data of another shape, number of levels or number of classes than the run was trained on."""
    compared: dict[str, tuple[Any, Any]] = {
        "shape": (tuple(source["shape"]), data.shape),
        "levels": (source["levels"], data.levels),
    }
    if recipe.labelled:
        compared["classes"] = (source["classes"], data.classes)
    if source.get("columns") and data.columns:
        compared["columns"] = (tuple(source["columns"]), data.columns)
    for what, (trained, came) in compared.items():
        if trained != came:
            raise ValueError(
                f"{what}: the run was trained on {source['source']} of {_in_words(what, trained)}, and {data.name} has "
                f"{_in_words(what, came)}. Its numbers would mean nothing there; name data of the same kind: --data."
            )


def _in_words(what: str, value: object) -> str:
    if what == "columns" and isinstance(value, tuple):
        return f"the columns {', '.join(value)}, in this order"
    if what == "shape":
        return f"shape {value}"
    return "real numbers" if value is None else f"{value} {what}"


def located(data: str, folder: str | Path | None) -> tuple[str, str | None]:
    """Data and folder as a run records them: paths are absolute, so that they are found from anywhere."""
    where = None if folder is None else os.path.realpath(os.path.expanduser(folder))
    return (data if data in NAMES or folder is not None else os.path.abspath(os.path.expanduser(data))), where


def path_of(data: str, folder: str | Path | None) -> Path | None:
    """Where data of the user's own lie; None of those that go by a name."""
    return None if data in NAMES else Path(os.path.expanduser(folder or ""), os.path.expanduser(data))


def chosen_rows(count: int, limit: int | None) -> Tensor:
    """The rows of a split of `count` examples that `limit` leaves, in order: all of them where it is None."""
    if limit is None or limit >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:limit].sort().values


def limited(data: Dataset, split: str, limit: int) -> Dataset:
    """The data with a split of at most `limit` examples, a fixed random choice: some splits are sorted by class."""
    if limit < 1:
        raise ValueError(f"limit: expected at least 1 example, got {limit}")
    whole = data.split(split)
    if limit >= len(whole):
        return data
    part = whole.take(chosen_rows(len(whole), limit).to(whole.values.device))
    return {
        "train": lambda: replace(data, train=part),
        "valid": lambda: replace(data, valid=part),
        "test": lambda: replace(data, test=part),
    }[split]()
