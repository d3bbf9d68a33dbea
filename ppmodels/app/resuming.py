"""`resume`, and `train --resume auto`: a run that was cut short goes on."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.training.saved import differences
from ppmodels.app.computing import say
from ppmodels.app.experiment import Experiment, begun, device_named, prepared
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.run import FINISHED, RECORD, TRAINING, Run, as_json
from ppmodels.app.run_folder import asked, reclaimed, resumable
from ppmodels.app.saving import Saving
from ppmodels.app.training import train, trained
from ppmodels.app.training_record import configuration_of

_OF_A_PLACE = ("source", "folder", "name")
"""Where data lie, which may be elsewhere by now: they are known by their fingerprints."""


def resume(
    run: str | Path,
    steps: int | None = None,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: bool = True,
    on_nan: str | None = None,
    trust: bool = False,
) -> tuple[Run, list[str]]:
    """Goes on with a run that was killed or interrupted, from its newest checkpoint; gives the run, and notes.

    On the same machine, with the same versions, device and threads, it ends with the bits of a run that was left alone. One
    that has finished is given as it is, unless it has kept its checkpoints and is asked for more steps.

    Args:
        run: the folder.
        steps: of the whole run, those that it has taken among them; by default as many as it was begun with.
        data, folder: where the data lie now; by default where they were.
        device, threads: by default those of the run.
        progress: whether to show progress on stderr.
        on_nan: as of `Saving`; by default the run's.
        trust: whether a recipe file is executed that this user has neither trained nor trusts.

    Raises:
        FileNotFoundError: there is no such run, or its data are not there.
        ValueError: it left no checkpoint, or recipe or data are not those that it was begun with.
        OSError: the folder can not be written.
    """
    path = Path(os.path.expanduser(run))
    at = resumable(path)
    started = None if at is None else Run.begun(at)
    count = steps if started is None or steps is not None else _steps_of(started)
    whole = _finished(path, started, count)
    if whole is not None:
        return whole, [f"{path} has finished: there is nothing to go on with."]
    if started is None or count is None:
        raise _without_checkpoints(Run.open(path), steps)
    if device is None:
        device = "cpu" if started.record.get("device") == "cpu" else "cuda"
    experiment = begun(started, count, data, folder, device, trust)
    record = started.record
    configuration = configuration_of(
        experiment, NamedRecipe(record["recipe"], experiment.recipe), folder or record["data"]["folder"], record["seed"]
    )
    configuration |= {name: record.get(name) for name in ("recipe", "file", "recipe_sha256")}
    where = {name: record["data"].get(name) for name in _OF_A_PLACE}
    there = {**record, "training": {**record["training"], "steps": count}}
    _refuse_difference(path, there, {**configuration, "data": {**configuration["data"], **where}})
    saving = Saving.recorded(record.get("saving"))
    if on_nan is not None:
        saving = dataclasses.replace(saving, on_nan=on_nan)
    return _gone_on(path, started, experiment, configuration, threads, saving, progress)


def train_or_resume(
    found: NamedRecipe,
    out: str | Path,
    folder: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    progress: bool = True,
    saving: Saving = Saving(),  # noqa: B008  # a frozen value
) -> tuple[Run, list[str]]:
    """As `train`, for a launcher that repeats its command: a run that is there goes on, or is given if it has finished.

    Raises:
        ValueError: beside what `train` refuses, a run that is there and was trained as something else.
    """
    path = asked(out)
    at = resumable(path)
    started = Run.begun(at) if at is not None else Run.open(path) if os.path.lexists(path / RECORD) else None
    if started is None:
        return train(found, out, folder, seed, device, threads, progress=progress, saving=saving)
    experiment = prepared(found.recipe, folder, seed, device_named(device))
    configuration = configuration_of(experiment, found, folder, seed)
    _refuse_difference(path, started.record, configuration)
    whole = _finished(path, started, _steps_of(started))
    if whole is not None:
        return whole, [f"{path} has finished: there is nothing left to do."]
    if at is None:
        raise _without_checkpoints(started, None)
    return _gone_on(path, started, experiment, configuration, threads, saving, progress)


def _gone_on(
    path: Path,
    started: Run,
    experiment: Experiment,
    configuration: Mapping[str, Any],
    threads: int | None,
    saving: Saving,
    progress: bool,
) -> tuple[Run, list[str]]:
    record, steps, checkpoint = started.record, experiment.recipe.steps, saving.checkpoint(started.folder)
    if checkpoint is None:
        raise ValueError(f"{path} is a run without checkpoints, and a run that goes on needs them; train it again.")
    latest = checkpoint.latest()
    if latest is not None and latest.steps > steps:
        raise ValueError(f"--steps {steps}: {path} has taken {latest.steps} steps already, which count; ask for more.")
    if progress:
        where = "from the start, as there is no checkpoint" if latest is None else f"from step {latest.steps}"
        say(f"{path}: {started.recipe_name} on {record['data']['source']} goes on {where} of {steps}")
    if threads is None and type(record.get("threads")) is int:
        threads = record["threads"]
    found = NamedRecipe(record["recipe"], experiment.recipe)
    return trained(experiment, configuration, found, threads, saving, progress, reclaimed(path))


def _finished(path: Path, started: Run | None, steps: int | None) -> Run | None:
    """The run at a path if it has taken so many steps, or stopped early; None if there is something to go on with."""
    if started is not None and (started.folder != path or not os.path.lexists(path / RECORD)):
        return None
    run = Run.open(path)
    taken, stopped = run.record.get("steps"), run.record.get("stopped")
    enough = stopped == "early stopping" or steps is None or (type(taken) is int and taken >= steps)
    return run if stopped in FINISHED and enough else None


def _steps_of(started: Run) -> int:
    steps = started.record["training"].get("steps")
    if type(steps) is not int:
        raise ValueError(f"{started.folder / TRAINING}: expected the number of steps, got {steps!r:.80}.")
    return steps


def _without_checkpoints(run: Run, steps: int | None) -> ValueError:
    taken = f"{run.folder} was {run.record.get('stopped')} after {run.record.get('steps')} steps"
    more = "" if steps is None else " `train --keep-checkpoints` keeps them."
    return ValueError(f"{taken}, and has kept no checkpoint to go on from: train it again.{more}")


def _refuse_difference(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Raises ValueError where two configurations are not of one run, naming what differs."""
    others = list(differences({name: there.get(name) for name in here}, json.loads(as_json(here))))
    if others:
        shown = "; ".join(others[:4]) + (f"; and {len(others) - 4} more" if len(others) > 4 else "")
        raise ValueError(
            f"{path} holds a run that is trained as something else: {shown}. Give the run's own settings, or train this one "
            "into another --out."
        )
