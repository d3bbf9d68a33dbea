"""`train`: a recipe becomes a run folder."""

import errno
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

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
from ppmodels.app.record import FORMAT
from ppmodels.app.run import DRAWN, FINISHED, METRICS, RECIPE, TRAINING, Run, as_json, steps_saved
from ppmodels.app.run_folder import Place, claimed, finish, refuse
from ppmodels.app.sample_progression import SampleProgression
from ppmodels.app.saving import Saving
from ppmodels.app.scoring import unvalidated
from ppmodels.app.training_record import computed_on, configuration_of, record_of
from ppmodels.app.trust import enter
from ppmodels.data import NAMES, Shuffled
from ppmodels.data.sources import stem_of

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
    saving: Saving = Saving(),  # noqa: B008  # a frozen value
) -> tuple[Run, list[str]]:
    """Trains a recipe and writes a run folder; gives the run, and notes on what could not be done.

    Notes on the data are said before it begins, or, where there is no progress to show, among those that are given.

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
        saving: how the run is saved while it is trained.

    Raises:
        ValueError: the recipe, its data or the folder are refused (`ProgramError` for the program).
        FileNotFoundError: the data are not there.
        OSError: the folder can not be written.
    """
    name = _run_name(found)
    refuse(name, out, overwrite, path_of(found.recipe.data, folder))
    experiment = prepared(found.recipe, folder, seed, device_named(device))
    configuration = configuration_of(experiment, found, folder, seed)
    return trained(experiment, configuration, found, threads, saving, progress, claimed(name, out, overwrite))


def trained(
    experiment: Experiment,
    configuration: Mapping[str, Any],
    found: NamedRecipe,
    threads: int | None,
    saving: Saving,
    progress: bool,
    claim: AbstractContextManager[Place],
) -> tuple[Run, list[str]]:
    """Trains an experiment in the place that is claimed for it, from its newest checkpoint there if there is one.

    Args:
        experiment: newly made.
        configuration: of the run, as `training_record` has it.
        found: the recipe; its file is copied into the run.
        threads, saving, progress: as of `train`.
        claim: gives the place where this process alone writes a run.
    """
    recipe, seed = experiment.recipe, configuration["seed"]
    with computing(experiment, threads, progress, recipe.batch_size):
        batches = Shuffled(experiment.data, batch_size=recipe.batch_size, seed=seed, labelled=recipe.labelled)
        step = step_of(experiment, seed)
        step.prepare(batches(0))  # a program that is refused leaves no folder behind
        check_data(experiment.program, experiment.scored("train", 500))
        left_out = _not_saved(experiment.program)
        with claim as place:
            _refuse_a_full_disk(place.folder, experiment.program)
            times, drawn = recipe.progression, place.folder / DRAWN
            progression = None if times is None else SampleProgression(experiment, seed, recipe.steps, times, drawn)
            if found.file is not None:
                write_whole(place.folder / RECIPE, found.file.text)
            entered = _entered(found)
            begun = {"format": FORMAT, **configuration, **computed_on(experiment), "saving": saving.record}
            write_whole(place.folder / TRAINING, as_json(begun))
            if progress:
                for note in experiment.notes:
                    say(f"note: {note}")
                say(f"metrics while it trains: {place.folder / METRICS}")
                say(saving.in_words(place.path))
            with remembered(*_ENDING) as came, _told(place):
                fitted = _fitted(experiment, step, batches, progression, came, place.folder, saving, progress)
                with remembered(*_ENDING) as late:  # a second Ctrl-C ends training at once, but not while it is saved
                    Run.write(
                        place.folder, tensors_of(experiment.program), record_of(configuration, experiment, fitted)
                    )
                    if saving.every is None or (fitted.stopped in FINISHED and not saving.keep):
                        finish(place.folder)
                    run = Run.open(place.settle())
            notes = [*([] if progress else experiment.notes), *entered, *left_out, *place.notes]
            ended = came() or late()
            if ended is None or fitted.stopped == _ENDING[signal.SIGINT]:
                notes += _illustrated(run, experiment, fitted, progression, seed)
                return run, notes
    say(run.in_words() + (f"; go on with it: ppmodels resume {run.folder}" if run.can_resume else ""))
    signal.raise_signal(ended)  # who asked this process to end is obeyed, now that the run is saved
    return run, notes


@contextmanager
def _told(place: Place) -> Iterator[None]:
    """A block of which it is said, where it fails, how what was saved is gone on with."""
    try:
        yield
    except BaseException:
        saved = steps_saved(place.folder)
        if saved and not place.settled:
            say(f"{place.path} is saved up to step {saved}; go on with it: ppmodels resume {place.path}")
        raise


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
    folder: Path,
    saving: Saving,
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
            metrics=folder / METRICS,
            progress=progress,
            signals=(),
            checkpoint=saving.checkpoint(folder),
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
    data = found.recipe.data
    return f"{found.name}-{data if data in NAMES else stem_of(data)}"


def _entered(found: NamedRecipe) -> list[str]:
    """Enters a recipe file that was trained among those that this user trusts; a note where that is not possible."""
    try:
        if found.file is not None:
            enter(found.file.text, str(found.file.path.absolute()))
    except ValueError as error:
        return [str(error)]
    return []
