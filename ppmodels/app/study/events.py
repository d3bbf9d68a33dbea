"""What is told of a study while it runs: a line for each run that is trained, and for each that is measured."""

import time
from collections.abc import Sequence
from pathlib import Path

from ppmodels.app.computing import say
from ppmodels.app.run import RECORD, TRAINING, Run
from ppmodels.app.study import folder
from ppmodels.app.study.budget import makespan
from ppmodels.app.study.measurement import FAILED, LogLikelihood, Measurement
from ppmodels.app.study.protocol import Protocol, StudyModel
from ppmodels.app.study.workers import Process


class Events:
    """Tells what becomes of the processes of a study, and how long the others will take."""

    def __init__(self, protocol: Protocol, out: Path, processes: int) -> None:
        self.protocol, self.out, self.processes = protocol, out, processes
        self.undone: list[str] = []
        self.runs = {
            f"{model.name}, seed {seed}": (model, seed) for seed in protocol.seeds for model in protocol.models
        }
        self.left = [name for name, (model, seed) in self.runs.items() if not self._file(model, seed).exists()]
        self.trained = {name for name, (model, seed) in self.runs.items() if self._is_trained(model, seed)}
        self.took: dict[str, list[float]] = {}
        """Seconds of the runs that have ended, by model."""
        self.running: Sequence[Process] = ()
        self.first_shown = self._has_first()

    def look(self, running: Sequence[Process]) -> None:
        """Tells of the runs that have been trained since."""
        self.running = running
        for each in running:
            name = each.job.name
            if name in self.runs and name not in self.trained and self._is_trained(*self.runs[name]):
                self.trained.add(name)
                model, seed = self.runs[name]
                record = Run.open(self.out / self.protocol.run_of(model, seed)).record
                say(f"{name}: trained, {record['steps']:,} steps in {record['seconds']:.0f} s")

    def ended(self, process: Process) -> bool:
        """Tells of a process that has ended; whether every model has a first seed by now, and others are to follow."""
        name = process.job.name
        if name in self.left:
            self.left.remove(name)
        if process.code != 0:
            self.undone.append(f"{name}: {process.last_words()} (see {process.job.log})")
            said = f"not done, {process.last_words()}"
        elif name in self.runs:
            self.took.setdefault(self.runs[name][0].name, []).append(process.seconds)
            said = self._found(*self.runs[name])
        else:
            said = "measured"
        say(f"{name}: {said}; {len(self.runs) - len(self.left)} of {len(self.runs)} runs done{self._time_left()}")
        if self.first_shown or not self._has_first():
            return False
        self.first_shown = True
        return bool(self.left)

    def _time_left(self) -> str:
        """In words, by what the runs that have ended took; empty while none has."""
        known = [seconds for each in self.took.values() for seconds in each]
        if not known or not self.left:
            return ""
        begun = {each.job.name: time.monotonic() - each.began for each in self.running}
        durations = []
        for name in sorted(self.left, key=lambda name: name not in begun):
            same = self.took.get(self.runs[name][0].name, known)
            durations.append(max(sum(same) / len(same) - begun.get(name, 0.0), 0.0))
        seconds = makespan(durations, self.processes)
        return f", about {f'{seconds:.0f} s' if seconds < 90 else f'{seconds / 60:.0f} min'} left"

    def _has_first(self) -> bool:
        return all(self._file(model, self.protocol.seeds[0]).exists() for model in self.protocol.models)

    def _file(self, model: StudyModel, seed: int) -> Path:
        return folder.measured(self.out, self.protocol, model, seed)

    def _is_trained(self, model: StudyModel, seed: int) -> bool:
        run = self.out / self.protocol.run_of(model, seed)
        return (run / RECORD).exists() and not (run / TRAINING).exists()

    def _found(self, model: StudyModel, seed: int) -> str:
        found = Measurement.of_json(self._file(model, seed).read_text())
        if found.status == FAILED:
            return f"failed after step {found.training.steps:,}: {found.reason}"
        scored = found.log_likelihood
        if not isinstance(scored, LogLikelihood):
            return "measured"
        kind = scored.kind.removesuffix(" in expectation")
        return f"measured, {scored.nats:.2f} ± {scored.standard_error:.2f} nats ({kind})"
