"""`study`: models are trained with several seeds, measured on one scale, and reported."""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from inference.training.signals import remembered
from ppmodels.app.computing import say
from ppmodels.app.experiment import path_of
from ppmodels.app.study import folder, workers
from ppmodels.app.study.budget import steps_within
from ppmodels.app.study.costs import costs
from ppmodels.app.study.events import Events
from ppmodels.app.study.measurement import FINISHED
from ppmodels.app.study.planning import Asked, continued, planned, settled
from ppmodels.app.study.protocol import Protocol, StudyModel
from ppmodels.app.study.report import Report, write_report
from ppmodels.app.study.workers import Job

_WORKER = "ppmodels.app.study.worker"
_ENDING = [signal.SIGINT, signal.SIGTERM] if sys.platform == "win32" else [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
Show = Callable[[Report], object]


@dataclass(frozen=True)
class Studied:
    """What a study came to."""

    protocol: Protocol
    report: Report
    undone: list[str]
    """What could not be done, by no fault of a model, and why: the same command tries it again."""


def study(asked: Asked, out: Path, show: Show, overwrite: bool = False, processes: int | None = None) -> Studied:
    """Trains, measures and reports what is asked for, or goes on with it; shows what is found after one seed of each model.

    Runs are processes of one thread each. A training that fails is a measurement like others. Signals end the processes,
    which save what they have, and then this one.

    Args:
        asked: what is asked for.
        out: the study's folder.
        show: is given the first report, when every model has a seed.
        overwrite: whether a study in `out` is replaced.
        processes: at a time; by default as many as there are cores, and one on a GPU.

    Raises:
        ValueError: what is asked for can not be done, or `out` holds something else, or another process is at it.
        FileNotFoundError: data or a recipe are not there.
        OSError: the folder can not be written.
    """
    with folder.claimed(out, path_of(asked.data, asked.folder)):
        there, here = folder.plan_in(out), planned(asked)
        many = processes or (workers.cores() if here.device == "cpu" else 1)
        with remembered(*_ENDING) as came:
            found = _studied(asked, out, show, overwrite, many, there, here, lambda: came() is not None)
        ended = came()
    if found is None:
        assert ended is not None
        if folder.plan_in(out) is not None:
            say(f"go on with it by the same command; what was trained and measured is in {out}")
        signal.raise_signal(ended)  # who asked this process to end is obeyed, now that its own have ended
        raise KeyboardInterrupt
    return found


def _studied(
    asked: Asked,
    out: Path,
    show: Show,
    overwrite: bool,
    processes: int,
    there: Protocol | None,
    here: Protocol,
    stopping: Callable[[], bool],
) -> Studied | None:
    """What the study came to; None where it was stopped."""
    if there is not None and not overwrite:
        protocol = continued(there, here, out)
        say(f"{out} holds this study; it goes on")
    else:
        steps: dict[str, int] | None = {}
        if asked.minutes is not None:
            say(f"timing {len(here.models)} models, {processes} at a time")
            steps = _steps_within(asked.minutes, here, processes, stopping)
        if steps is None:
            return None
        if there is not None:
            folder.clear(out, there)
        protocol = settled(here, steps, out)
    folder.write_plan(out, protocol)
    for note in protocol.notes:
        say(f"note: {note}")
    say(f"{_in_words(protocol)}; {processes} at a time, which print to {out / folder.LOGS}")
    return _run(protocol, out, show, processes, stopping)


def _run(protocol: Protocol, out: Path, show: Show, processes: int, stopping: Callable[[], bool]) -> Studied | None:
    events = Events(protocol, out, processes)

    def ended(process: workers.Process) -> None:
        first = events.ended(process)
        if first:
            show(write_report(out))

    if not workers.run(jobs_left(protocol, out), processes, ended, events.look, stopping):
        return None
    return Studied(protocol, write_report(out), events.undone)


def jobs_left(protocol: Protocol, out: Path) -> list[Job]:
    """What is still to be done: a seed of each model, then real data in the place of samples, then the other seeds."""
    first, *others = ([_job(protocol, out, model, seed) for model in protocol.models] for seed in protocol.seeds)
    real = Job("real data", (_WORKER, str(out)), out / folder.LOGS / "real.txt", lambda: _has_finished(protocol, out))
    done = {real.name} if (out / folder.MEASURED / folder.REAL).exists() else set()
    done |= {f"{each.model}, seed {each.seed}" for each in folder.measurements(out, protocol)}
    return [job for job in chain(first, [real], *others) if job.name not in done]


def _job(protocol: Protocol, out: Path, model: StudyModel, seed: int) -> Job:
    arguments = (_WORKER, str(out), model.name, str(seed))
    return Job(f"{model.name}, seed {seed}", arguments, folder.log(out, protocol, model, seed))


def _has_finished(protocol: Protocol, out: Path) -> bool:
    """Whether a run is trained and measured, by whose data, and whose features, real data can be measured too."""
    return any(each.status == FINISHED for each in folder.measurements(out, protocol))


def _steps_within(
    minutes: float, protocol: Protocol, processes: int, stopping: Callable[[], bool]
) -> dict[str, int] | None:
    """The steps that fit into minutes; None where it was told to stop."""
    timed = costs(protocol, processes, stopping)
    if timed is None:
        return None
    own = {each.name: each.steps for each in protocol.models}
    return steps_within(minutes, timed, own, len(protocol.seeds), processes)


def _in_words(protocol: Protocol) -> str:
    models = ", ".join(f"{each.name} ({each.steps:,} steps)" for each in protocol.models)
    return f"{models}; {len(protocol.seeds)} seed{'s' if len(protocol.seeds) > 1 else ''} on {protocol.data.name}"
