"""The app's verbs as functions: train, evaluate, sample, reconstruct, complete."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

import inference
from inference import Estimator, Evaluation, Fitted, Step, Validation, elbo, fit
from inference.evaluation.estimators import EXACT, Importance
from inference.training.average import restore
from inference.training.differentiate import backward
from inference.training.progress import shown
from ppmodels.app import plots
from ppmodels.app.experiment import Experiment, device_named, located, prepared, restored
from ppmodels.app.lookup import Found
from ppmodels.app.pictures import Pictures, completions, inferred, latent_pictures, reconstructions, samples
from ppmodels.app.recipe import Recipe
from ppmodels.app.run import METRICS, RECIPE, RECORD, WEIGHTS, Run, clear, new_folder, versions, write_whole
from ppmodels.app.sample_progression import SampleProgression
from ppmodels.data import InOrder, Shuffled

WRITTEN = (
    *(
        RECORD,
        WEIGHTS,
        METRICS,
        RECIPE,
        "loss.png",
        "training.png",
        "samples.png",
        "samples.csv",
        "reconstructions.png",
    ),
    *(
        "traversal.png",
        "interpolation.png",
        "completions.png",
        "evaluation.json",
        "evaluation-train.json",
        "evaluation-valid.json",
    ),
)
"""What a run may hold, and --overwrite removes."""

NO_DENSITY = (
    "estimators: the recipe has none, as its program draws x or z without a density, so that log p(x) is not to be had. "
    "Look at samples, or give a generator an observation noise: ppmodels.NoisyGenerator(generator, scale)."
)


def train(
    found: Found,
    out: str | Path | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[Run, list[str]]:
    """Trains a recipe and writes a run folder; gives the run, and notes on the pictures that could not be made.

    Ctrl-C ends training after the step under way, and what was reached is saved.

    Raises:
        ValueError: the recipe, its data or the folder are not as they should be (`ProgramError` for the program).
        FileNotFoundError: the data are not there.
    """
    recipe = found.recipe
    target = new_folder(found.name, Path(out).expanduser() if out is not None else None, overwrite)
    experiment = prepared(recipe, folder, seed, device_named(device))
    batches = Shuffled(experiment.data, batch_size=recipe.batch_size, seed=seed, labelled=recipe.labelled)
    step = _step(experiment, seed)
    step.prepare(batches(0))  # a program that is refused leaves no folder behind
    code = None if found.file is None else found.file.read_bytes()
    clear(target, WRITTEN)
    if code is not None:
        write_whole(target / RECIPE, code)
    progression = (
        None if recipe.progression is None else SampleProgression(experiment, seed, recipe.steps, recipe.progression)
    )
    with pyro.validation_enabled(False):  # the first batch has been checked, and levels stay levels
        fitted = fit(
            step,
            batches,
            recipe.steps,
            validation=_validation(experiment),
            callbacks=() if progression is None else (progression,),
            metrics=target / METRICS,
            progress=progress,
        )
    if fitted.best is None and step.average is not None:
        restore(experiment.program, step.average.state)
    record = _record(experiment, found, folder, seed, fitted)
    run = Run.write(target, experiment.program.state_dict(), record)
    write_whole(target / "loss.png", plots.png(plots.losses(fitted.history, fitted.best)))
    made = samples(experiment, seed=seed)
    if experiment.is_images:
        made |= inferred(experiment, seed)
    if progression is not None:
        made |= progression.pictures()
    made.write(run.folder)
    return run, [*experiment.data.notes, *made.notes]


def evaluate(
    run: Run,
    split: str = "test",
    particles: int | None = None,
    limit: int | None = None,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Scores a run by its recipe's estimators and writes evaluation.json (evaluation-SPLIT.json of other splits).

    Args:
        run: the run.
        split: train, valid or test.
        particles: draws per example of the importance-weighted bounds, in place of the recipe's.
        limit: score a fixed random choice of so many examples.
        data: a name or path, in place of the data that the run was trained on.
        folder: where the data lie, in place of the folder of the run.
        device: auto, cpu or cuda.
        seed: of the estimators' noise.
        progress: whether to show how far it has come.
    """
    experiment = restored(run, data, folder, device)
    began = time.perf_counter()
    result = _scored(experiment, with_particles(experiment.recipe.estimators, particles), split, limit, seed, progress)
    name = "evaluation.json" if split == "test" else f"evaluation-{split}.json"
    about = {
        "recipe": run.record["recipe"],
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 2),
        "weights_sha256": run.record["weights_sha256"],
        "versions": versions(),
    }
    run.write_json(name, result.summary() | about)
    return result


@dataclass(frozen=True)
class Standing:
    """A run in a comparison, with the number that stands for it."""

    run: Run
    estimate: str
    result: Evaluation

    def ahead_of(self, other: "Standing") -> tuple[float, float]:
        """The paired mean difference, this run's number less the other's, and its standard error, in nats."""
        return self.result.difference(other.result, self.estimate, other.estimate)


def compare(
    runs: Sequence[Run],
    split: str = "test",
    particles: int | None = None,
    limit: int | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: bool = True,
) -> list[Standing]:
    """Runs by the best number that each recipe has for log p(x) on the same examples, the best run first.

    That number is the exact one where there is one, and else the last of the recipe's bounds. Raises ProgramError for
    runs that were not trained on the same kind of data, and for bounds of different settings.
    """
    found: list[Standing] = []
    for run in runs:
        experiment = restored(run, None, folder, device)
        estimators = with_particles(experiment.recipe.estimators, particles)
        name = best_of(estimators)
        result = _scored(experiment, {name: estimators[name]}, split, limit, seed, progress)
        found.append(Standing(run, name, result))
    found.sort(key=lambda each: each.result.mean(each.estimate), reverse=True)
    for other in found[1:]:
        found[0].ahead_of(other)  # refuses what can not be compared, before anything is shown
    return found


def sample(
    run: Run,
    count: int | None = None,
    seed: int = 0,
    draws: bool = False,
    folder: str | Path | None = None,
    device: str = "auto",
) -> Pictures:
    """Writes samples.png of a run: means of p(x | z) at z from the prior, or draws of x; of a table samples.csv too."""
    made = samples(restored(run, None, folder, device), count, seed, draws)
    made.write(run.folder)
    return made


def reconstruct(
    run: Run, data: str | None = None, folder: str | Path | None = None, device: str = "auto", seed: int = 0
) -> Pictures:
    """Writes reconstructions.png of a run and, where it has one vector of latents, traversal.png and interpolation.png."""
    experiment = restored(run, data, folder, device)
    made = reconstructions(experiment, seed) | latent_pictures(experiment, seed)
    made.write(run.folder)
    return made


def complete(
    run: Run,
    given: float = 0.5,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Pictures:
    """Writes completions.png of a run: test images of which the first rows are given, a fraction, and several endings."""
    if not 0 <= given < 1:
        raise ValueError(f"given: expected a fraction of the rows, at least 0 and below 1, got {given}")
    made = completions(restored(run, data, folder, device), seed, given)
    made.write(run.folder)
    return made


def with_particles(estimators: Mapping[str, Estimator], particles: int | None) -> dict[str, Estimator]:
    """The estimators, the importance-weighted bounds with that many particles; an ELBO only gains precision by more."""
    if particles is None:
        return dict(estimators)
    return {
        name: dataclasses.replace(estimator, particles=particles)
        if isinstance(estimator, Importance) and estimator.bound != elbo
        else estimator
        for name, estimator in estimators.items()
    }


def best_of(estimators: Mapping[str, Estimator]) -> str:
    """The name of the exact estimator where there is one, else of the last: recipes have the tightest bound there."""
    if not estimators:
        raise ValueError(NO_DENSITY)
    return next((name for name, each in estimators.items() if each.kind == EXACT), list(estimators)[-1])


def _scored(
    experiment: Experiment,
    estimators: Mapping[str, Estimator],
    split: str,
    limit: int | None,
    seed: int,
    progress: bool,
) -> Evaluation:
    if not estimators:
        raise ValueError(NO_DENSITY)
    watched = _WithProgress(experiment.in_order(split, limit=limit), len(experiment.data.split(split)), progress)
    with pyro.validation_enabled(False):  # a dataset has checked its levels
        return inference.evaluate(experiment.program, watched, estimators, seed=seed)


@dataclass(frozen=True)
class _WithProgress:
    """Batches that show how many of them have been taken."""

    batches: InOrder
    of_examples: int
    """How many the whole split has."""
    progress: bool

    @property
    def description(self) -> dict[str, str | int]:
        about = self.batches.description
        return about if about["examples"] == self.of_examples else about | {"of_examples": self.of_examples}

    @property
    def log_jacobian(self) -> float:
        return self.batches.log_jacobian

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        with shown(len(self.batches), self.progress) as display:
            for done, batch in enumerate(self.batches, start=1):
                yield batch
                display.update(done, "batches scored")


def _step(experiment: Experiment, seed: int) -> Step:
    recipe = experiment.recipe
    return Step(
        experiment.objective,
        recipe.optimizer(recipe.learning_rate),
        seed=seed,
        clip=recipe.clip,
        learning_rate=_by_step(recipe),
        average=recipe.average,
        differentiate=recipe.traced() if recipe.traced else backward,
    )


def _by_step(recipe: Recipe) -> Callable[[int], float] | None:
    schedule = recipe.schedule
    return None if schedule is None else lambda step: schedule(step / recipe.steps)


def _validation(experiment: Experiment) -> Validation | None:
    recipe = experiment.recipe
    if recipe.validate_every is None:
        return None
    # Many examples make up for a single draw of each; other estimators, such as exact(), are taken as they are.
    first = next(iter(recipe.estimators.values()))
    estimator = Importance(1, elbo) if isinstance(first, Importance) else first
    return Validation(experiment.in_order("valid", 500), recipe.validate_every, recipe.patience, estimator)


def _record(
    experiment: Experiment, found: Found, folder: str | Path | None, seed: int, fitted: Fitted
) -> dict[str, Any]:
    recipe, data = experiment.recipe, experiment.data
    where, base = located(recipe.data, folder)
    return {
        "recipe": found.name if found.file is None else RECIPE,
        "file": None if found.file is None else found.file.name,
        "data": where,
        "folder": base,
        "binarisation": recipe.binarisation,
        "standardisation": None if data.standardisation is None else dataclasses.asdict(data.standardisation),
        "shape": list(data.shape),
        "levels": data.levels,
        "classes": data.classes,
        "fingerprint": data.train.fingerprint,
        "seed": seed,
        "steps_asked": recipe.steps,
        "steps": fitted.steps,
        "stopped": fitted.stopped,
        "batch_size": recipe.batch_size,
        "learning_rate": recipe.learning_rate,
        "best_validation": fitted.best,
        "parameters": sum(parameter.numel() for parameter in experiment.program.parameters()),
        "seconds": round(fitted.seconds, 2),
        "device": torch.cuda.get_device_name() if experiment.device.type == "cuda" else "cpu",
        "versions": versions(),
    }
