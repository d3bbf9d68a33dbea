"""`train`: a recipe becomes a run folder."""

import errno
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from torch import nn

from inference import Fitted, Step, fit
from inference.programs.check import check_data
from inference.training.average import tensors_of
from inference.training.files import write_whole
from inference.training.signals import remembered
from ppmodels.app import plots
from ppmodels.app.canvases import growing_reconstructions, growing_samples
from ppmodels.app.computing import computing, say
from ppmodels.app.experiment import Experiment, device_named, path_of, prepared
from ppmodels.app.fitting import step_of, validation_of
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.pictures import attempted, pictures_of_test_images, samples
from ppmodels.app.run import METRICS, RECIPE, Run
from ppmodels.app.run_folder import claimed, refuse
from ppmodels.app.sample_progression import SampleProgression
from ppmodels.app.scoring import unvalidated
from ppmodels.app.training_record import record_of
from ppmodels.app.trust import enter
from ppmodels.data import NAMES, Shuffled

_ENDING = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if sys.platform != "win32":
    _ENDING[signal.SIGHUP] = "hung up"
"""The signals that end training once the step under way is done, and what the run records."""


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
        check_data(experiment.program, experiment.scored("train", 500))
        times = recipe.progression
        progression = None if times is None else SampleProgression(experiment, seed, recipe.steps, times)
        left_out = _not_saved(experiment.program)
        with claimed(name, out, overwrite) as place:
            _refuse_a_full_disk(place.folder, experiment.program)
            if found.file is not None:
                write_whole(place.folder / RECIPE, found.file.text)
            if progress:
                say(f"metrics while it trains: {place.folder / METRICS}")
            with remembered(*_ENDING) as came:
                fitted = _fitted(experiment, step, batches, progression, came, place.folder / METRICS, progress)
                with remembered(*_ENDING) as late:  # a second Ctrl-C ends training at once, but not while it is saved
                    record = record_of(experiment, found, folder, seed, fitted)
                    Run.write(place.folder, tensors_of(experiment.program), record)
                    run = Run.open(place.settle())
                    entered = _entered(found)
            notes = [*experiment.notes, *entered, *left_out, *place.notes]
            ended = came() or late()
            if ended is None or fitted.stopped == _ENDING[signal.SIGINT]:
                notes += _illustrated(run, experiment, fitted, progression, seed)
                return run, notes
    say(run.in_words())
    signal.raise_signal(ended)  # who asked this process to end is obeyed, now that the run is saved
    return run, notes


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
            validation=validation_of(experiment),
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
        say(run.in_words())
        raise
    return pictures.notes


def _not_saved(program: nn.Module) -> list[str]:
    """A note on the state of a program that is no tensor."""
    names = sorted(program.state_dict().keys() - tensors_of(program).keys())
    if not names:
        return []
    return [f"{', '.join(names)}: not saved, as get_extra_state gives no tensor; a run that is opened has what is new."]


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
