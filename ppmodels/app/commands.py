"""The commands as functions: train, evaluate, compare, sample, reconstruct, complete."""

import dataclasses
import errno
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inference import Estimator, Evaluation, Fitted, Step, Validation, elbo, fit
from inference.evaluation.estimators import EXACT, Importance
from inference.programs.check import check_data
from inference.training.average import tensors_of
from inference.training.differentiate import backward
from inference.training.progress import tell
from inference.training.signals import remembered
from ppmodels.app import plots
from ppmodels.app.canvases import growing_reconstructions, growing_samples
from ppmodels.app.experiment import Experiment, device_named, located, path_of, prepared, restored
from ppmodels.app.files import write_whole
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.pictures import (
    Pictures,
    attempted,
    completions,
    latent_pictures,
    pictures_of_test_images,
    reconstructions,
    samples,
)
from ppmodels.app.recipe import TRAINING, Recipe
from ppmodels.app.run import METRICS, RECIPE, Run, sha256, versions
from ppmodels.app.run_folder import claimed, refuse
from ppmodels.app.sample_progression import SampleProgression
from ppmodels.app.scores import write_scores
from ppmodels.app.scoring import best_of, scoring_of, suited, unvalidated, with_particles
from ppmodels.app.terminal import printable
from ppmodels.app.threads import computing_on, suitable
from ppmodels.app.trust import approved, enter
from ppmodels.data import NAMES, Shuffled

_ENDING = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if sys.platform != "win32":
    _ENDING[signal.SIGHUP] = "hung up"
"""The signals that end training once the step under way is done, and what the run records."""

ROWS = 2000
"""How many examples × particles an estimator runs at once."""


def train(
    found: NamedRecipe,
    out: str | Path | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[Run, list[str]]:
    """Trains a recipe and writes a run folder; gives the run, and notes on what could not be done.

    Weights and record are saved before anything else is tried. Ctrl-C, SIGTERM and SIGHUP end training after the step
    under way, and the run is saved: the best weights by validation where there is one, else the last. After SIGTERM and
    SIGHUP no picture is drawn, and the signal is sent on. A second one ends training at once.

    Args:
        found: the recipe, under the name that it goes by.
        out: the folder of the run; by default a free one, runs/RECIPE-DATA. One that holds anything else is refused.
        folder: where the data lie.
        seed: of all noise.
        device: auto, cpu or cuda.
        threads: of torch; by default what suits the size of a step (see `ppmodels.app.threads`).
        overwrite: whether a run in `out` is replaced, once the new one is whole.
        progress: whether to show progress on stderr.

    Raises:
        ValueError: the recipe, its data or the folder are refused (`ProgramError` for the program).
        FileNotFoundError: the data are not there.
        OSError: the folder can not be written.
    """
    name = _run_name(found)
    refuse(name, out, overwrite, path_of(found.recipe.data, folder))
    experiment = prepared(found.recipe, folder, seed, device_named(device))
    recipe = experiment.recipe
    with computing(experiment, threads, progress, recipe.batch_size):
        batches = Shuffled(experiment.data, batch_size=recipe.batch_size, seed=seed, labelled=recipe.labelled)
        step = step_of(experiment, seed)
        step.prepare(batches(0))  # a program that is refused leaves no folder behind
        check_data(experiment.program, experiment.in_order("train", 500))
        times = recipe.progression
        progression = None if times is None else SampleProgression(experiment, seed, recipe.steps, times)
        left_out = _not_saved(experiment.program)
        with claimed(name, out, overwrite) as place:
            _refuse_a_full_disk(place.folder, experiment.program)
            if found.file is not None:
                write_whole(place.folder / RECIPE, found.file.text)
            if progress:
                _tell(f"metrics while it trains: {place.folder / METRICS}")
            with remembered(*_ENDING) as came:
                fitted = _fitted(experiment, step, batches, progression, came, place.folder / METRICS, progress)
                with remembered(*_ENDING) as late:  # a second Ctrl-C ends training at once, but not while it is saved
                    record = _record(experiment, found, folder, seed, fitted)
                    Run.write(place.folder, tensors_of(experiment.program), record)
                    run = Run.open(place.settle())
                    entered = _entered(found)
            notes = [*experiment.data.notes, *entered, *left_out, *place.notes]
            ended = came() or late()
            if ended is None or fitted.stopped == _ENDING[signal.SIGINT]:
                notes += _illustrated(run, experiment, fitted, progression, seed)
                return run, notes
    _tell(run.in_words())
    signal.raise_signal(ended)  # who asked this process to end is obeyed, now that the run is saved
    return run, notes


def _tell(line: str) -> None:
    """Prints a line on standard error; a path in it can hold any character."""
    tell(printable(line))


def _refuse_a_full_disk(folder: Path, program: nn.Module) -> None:
    """Raises OSError where the weights would not find room: before training, not after it."""
    needed = sum(each.nbytes for each in tensors_of(program).values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(errno.ENOSPC, f"the weights need {needed:,} bytes, and the disk has {free:,} left", str(folder))


def _fitted(
    experiment: Experiment,
    step: Step,
    batches: Shuffled,
    progression: SampleProgression | None,
    came: Callable[[], signal.Signals | None],
    metrics: Path,
    progress: bool,
) -> Fitted:
    """Trains until the steps are done or a signal came."""
    with unvalidated():
        fitted = fit(
            step,
            batches,
            experiment.recipe.steps,
            validation=_validation(experiment),
            callbacks=[*([progression] if progression else []), lambda step, values: came() is not None],
            metrics=metrics,
            progress=progress,
            signals=(),
        )
    number = came()
    if number is not None:
        fitted.stopped = _ENDING[number]
    return fitted


def _illustrated(
    run: Run, experiment: Experiment, fitted: Fitted, progression: SampleProgression | None, seed: int
) -> list[str]:
    """Writes the pictures of a run that is saved; notes on what was not to be had, which ends nothing."""
    try:
        pictures = attempted(
            "loss.png", seed, lambda: {"loss.png": plots.png(plots.losses(fitted.history, fitted.best))}
        )
        pictures |= samples(experiment, seed=seed) | growing_samples(experiment, seed)
        if experiment.is_images:
            pictures |= pictures_of_test_images(experiment, seed) | growing_reconstructions(experiment, seed)
        if progression is not None:
            pictures |= progression.pictures()
        pictures.write(run.folder)
    except OSError as error:
        return [*pictures.notes, f"pictures are missing: {error.filename}: {error.strerror}"]
    except BaseException:  # Ctrl-C, among others
        _tell(run.in_words())
        raise
    return pictures.notes


def _not_saved(program: nn.Module) -> list[str]:
    """A note on the state of a program that is no tensor."""
    names = sorted(program.state_dict().keys() - tensors_of(program).keys())
    if not names:
        return []
    return [f"{', '.join(names)}: not saved, as get_extra_state gives no tensor; a run that is opened has what is new."]


def evaluate(
    run: Run,
    split: str = "test",
    particles: int | None = None,
    limit: int | None = None,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    estimators: Mapping[str, Estimator] | None = None,
    show: Callable[[Evaluation], object] | None = None,
    trust: bool = False,
) -> Evaluation:
    """Scores a run and writes evaluation.json, scores.csv of every example, and bounds.png (-SPLIT for other splits).

    Where these can not be written the numbers are given all the same, with a warning.

    Args:
        run: the run.
        split: train, valid or test.
        particles: draws per example of the importance-weighted bounds, in place of the recipe's.
        limit: score a fixed random choice of so many examples.
        data: a name or path, in place of the data that the run was trained on.
        folder: where the data lie, in place of the folder of the run.
        device: auto, cpu or cuda.
        seed: of the estimators' noise.
        threads: of torch; by default what suits the size of the model.
        progress: whether to show progress on stderr.
        estimators: by name, in place of the recipe's.
        show: called with the result before it is written.
        trust: whether to execute a recipe file that this user has neither trained nor trusts.
    """
    experiment = restored(run, data, folder, device, trust)
    began = time.perf_counter()
    chosen = with_particles(estimators or suited(experiment, split), particles)
    with computing(experiment, threads, progress):
        used = torch.get_num_threads()
        result = scoring_of(experiment, chosen, seed).result(experiment, split, limit, seed, progress)
    about = {
        "recipe": run.record["recipe"],
        "seed": seed,
        "threads": used,
        "seconds": round(time.perf_counter() - began, 2),
        "weights_sha256": run.record["weights_sha256"],
        "recipe_sha256": run.record.get("recipe_sha256"),
        "versions": versions(),
    }
    if show is not None:
        show(result)
    write_scores(run, result, about, "" if split == "test" else f"-{split}")
    return result


@dataclass(frozen=True)
class RankedRun:
    """A run in a comparison, with the estimate that it is ranked by."""

    run: Run
    estimate: str
    result: Evaluation

    def ahead_of(self, other: "RankedRun") -> tuple[float, float]:
        """The paired mean difference, this run's number less the other's, and its standard error, in nats."""
        return self.result.difference(other.result, self.estimate, other.estimate)


def compare(
    runs: Sequence[Run],
    split: str = "test",
    particles: int | None = None,
    limit: int | None = None,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    estimators: Mapping[str, Estimator] | None = None,
    trust: bool = False,
) -> list[RankedRun]:
    """Runs by the best number that each recipe has for log p(x) on the same examples, the best run first.

    That number is the exact one where there is one, and else the last of `estimators`, or of the recipe's bounds. Raises
    ProgramError for runs that were not trained on the same kind of data, and for bounds of different settings.
    """
    approved(runs, trust)  # all of them, before anything of the first is executed
    found: list[RankedRun] = []
    for run in runs:
        experiment = restored(run, data, folder, device, trust)
        with computing(experiment, threads, progress):
            scoring = scoring_of(experiment, with_particles(_own_or(experiment, estimators), particles), seed)
            name = best_of(scoring.estimators)
            best = dataclasses.replace(scoring, estimators={name: scoring.estimators[name]})
            result = best.result(experiment, split, limit, seed, progress)
        found.append(RankedRun(run, name, result))
    found.sort(key=lambda each: each.result.mean(each.estimate), reverse=True)
    for other in found[1:]:
        found[0].ahead_of(other)  # refuses what can not be compared, before anything is shown
    return found


def sample(
    run: Run,
    count: int | None = None,
    seed: int = 0,
    draws: bool = False,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: bool = True,
    trust: bool = False,
) -> Pictures:
    """Writes samples.png of a run: means of p(x | z) at z from the prior, or draws of x; of a table samples.csv too.

    Of DRAW canvases.png too: how these grow, with the windows.
    """
    experiment = restored(run, data, folder, device, trust)
    with computing(experiment, threads, progress):
        pictures = samples(experiment, count, seed, draws) | growing_samples(experiment, seed)
    pictures.write(run.folder)
    return pictures


def reconstruct(
    run: Run,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    trust: bool = False,
) -> Pictures:
    """Writes reconstructions.png of a run and, where it has one vector of latents, traversal.png and interpolation.png.

    Of DRAW reading.png too: what is read, and how the canvas grows, with the windows.
    """
    experiment = restored(run, data, folder, device, trust)
    with computing(experiment, threads, progress):
        pictures = reconstructions(experiment, seed) | latent_pictures(experiment, seed)
        pictures |= growing_reconstructions(experiment, seed)
    pictures.write(run.folder)
    return pictures


def complete(
    run: Run,
    given: float = 0.5,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    trust: bool = False,
) -> Pictures:
    """Writes completions.png of a run: test images of which the first rows are given, a fraction, and several endings."""
    if not 0 <= given < 1:
        raise ValueError(f"given: expected a fraction of the rows, at least 0 and below 1, got {given}")
    experiment = restored(run, data, folder, device, trust)
    with computing(experiment, threads, progress):
        pictures = completions(experiment, seed, given)
    pictures.write(run.folder)
    return pictures


def _own_or(experiment: Experiment, estimators: Mapping[str, Estimator] | None) -> dict[str, Estimator]:
    """The estimators that a comparison may use of a run: the recipe's own, or the given ones beside an exact one."""
    own = experiment.recipe.estimators
    if estimators is None:
        return dict(own)
    return {name: each for name, each in own.items() if each.kind == EXACT} | dict(estimators)


@contextmanager
def computing(experiment: Experiment, threads: int | None, progress: bool, rows: int = ROWS) -> Iterator[None]:
    """A block that computes with the given number of threads, or one that suits so many rows at once, and prints it."""
    chosen = suitable(parameters_of(experiment.program), rows, experiment.device) if threads is None else threads
    with computing_on(chosen):
        if progress:
            why = "" if threads is not None else ", by the size of the model; --threads N sets another number"
            _tell(f"{chosen} thread{'s' if chosen > 1 else ''}{why}")
        yield


def _run_name(found: NamedRecipe) -> str:
    """The name of a run's folder: the recipe and its data."""
    return f"{found.name}-{found.recipe.data if found.recipe.data in NAMES else Path(found.recipe.data).stem}"


def _entered(found: NamedRecipe) -> list[str]:
    """Enters a recipe file that was trained among those that this user trusts; a note where that is not possible."""
    try:
        if found.file is not None:
            enter(found.file.text, str(found.file.path.absolute()))
    except ValueError as error:
        return [str(error)]
    return []


def step_of(experiment: Experiment, seed: int) -> Step:
    """The step that trains an experiment's program as its recipe says."""
    recipe = experiment.recipe
    optimizer = recipe.optimizer(recipe.learning_rate)
    if not (callable(optimizer) or isinstance(optimizer, Mapping)):
        raise ValueError(
            f"optimizer: expected a function of the learning rate that gives one of the parameters, such as inference.adam, "
            f"got one that gives a {type(optimizer).__name__}"
        )
    return Step(
        experiment.objective,
        optimizer,
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
    # Over many examples one draw of each is enough; other estimators, such as exact(), are used as they are.
    first = next(iter(recipe.estimators.values()))
    estimator = Importance(1, elbo) if isinstance(first, Importance) else first
    return Validation(experiment.scored("valid", 500), recipe.validate_every, recipe.patience, estimator)


def _record(
    experiment: Experiment, found: NamedRecipe, folder: str | Path | None, seed: int, fitted: Fitted
) -> dict[str, Any]:
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
            "shape": list(data.shape),
            "columns": list(data.columns),
            "levels": data.levels,
            "classes": data.classes,
            "fingerprint": data.train.fingerprint,
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
        "steps": fitted.steps,
        "stopped": fitted.stopped,
        "weights_of_step": fitted.steps if fitted.best is None else int(fitted.best["step"]),
        "best_validation": fitted.best,
        "parameters": parameters_of(experiment.program),
        "seconds": round(fitted.seconds, 2),
        "device": torch.cuda.get_device_name() if experiment.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


def parameters_of(program: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in program.parameters())


def _name_of(function: object) -> str | None:
    """The name of a function, class or partial; None for None."""
    inner = getattr(function, "func", function)
    return None if function is None else str(getattr(inner, "__name__", type(inner).__name__)).strip("_")
