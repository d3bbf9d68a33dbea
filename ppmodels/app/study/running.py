"""`study`: models are trained with several seeds, measured on one scale, and reported."""

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference.training.signals import remembered
from ppmodels.app.computing import say
from ppmodels.app.experiment import path_of
from ppmodels.app.study import folder, workers
from ppmodels.app.study.budget import steps_within
from ppmodels.app.study.costs import costs
from ppmodels.app.study.events import Events
from ppmodels.app.study.measurement import Measurement
from ppmodels.app.study.planning import Asked, continued, planned, settled
from ppmodels.app.study.protocol import Protocol
from ppmodels.app.study.report import write_report
from ppmodels.app.study.workers import Job

_WORKER = "ppmodels.app.study.worker"
_ENDING = [signal.SIGINT, signal.SIGTERM] if sys.platform == "win32" else [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
Show = Callable[[Protocol, list[Measurement]], object]


@dataclass(frozen=True)
class Studied:
    """What a study came to."""

    protocol: Protocol
    measurements: list[Measurement]
    undone: list[str]
    """What could not be done, by no fault of a model, and why: the same command tries it again."""


def study(asked: Asked, out: Path, show: Show, overwrite: bool = False, processes: int | None = None) -> Studied:
    """Trains, measures and reports what is asked for, or goes on with it; shows what is found after one seed of each model.

    Runs are processes of one thread each. A training that fails is a measurement like others. Signals end the processes,
    which save what they have, and then this one.

    Args:
        asked: what is asked for.
        out: the study's folder.
        show: is given the first results, when every model has one.
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
            show(protocol, folder.measurements(out, protocol))
            write_report(out)

    if not workers.run(jobs_left(protocol, out), processes, ended, events.look, stopping):
        return None
    write_report(out)
    return Studied(protocol, folder.measurements(out, protocol), events.undone)


def jobs_left(protocol: Protocol, out: Path) -> list[Job]:
    """What is still to be done: real data, then one seed of each model after another."""
    jobs = []
    if not (out / folder.MEASURED / folder.REAL).exists():
        jobs.append(Job("real data", (_WORKER, str(out)), out / folder.LOGS / "real.txt"))
    for seed in protocol.seeds:
        for model in protocol.models:
            if not folder.measured(out, protocol, model, seed).exists():
                arguments = (_WORKER, str(out), model.name, str(seed))
                jobs.append(Job(f"{model.name}, seed {seed}", arguments, folder.log(out, protocol, model, seed)))
    return jobs


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
