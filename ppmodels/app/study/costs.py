"""What the training of each model costs: timed as it will be done, in processes beside one another."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from inference.training.files import write_whole
from ppmodels.app.study.budget import TIMED, Cost
from ppmodels.app.study.protocol import Protocol
from ppmodels.app.study.workers import Job, Process, run


def costs(protocol: Protocol, processes: int, stopping: Callable[[], bool]) -> dict[str, Cost] | None:
    """By model; None where it was told to stop. Raises ValueError for a model that can not be timed."""
    found: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        plan = folder / "plan.json"
        write_whole(plan, protocol.as_json().encode())
        files = {model.name: folder / f"{place}" for place, model in enumerate(protocol.models)}

        def ended(process: Process) -> None:
            name = process.job.name
            if process.code != 0:
                raise ValueError(f"{name} could not be timed: {process.last_words()}")
            about = json.loads(files[name].read_bytes())
            start = process.seconds - TIMED * about["step"] - about["score"]
            found[name] = Cost(max(start, 0.0), about["step"], about["score"], about["score_every"])

        jobs = [
            Job(name, ("ppmodels.app.study.timing", str(plan), name, str(file)), file.with_suffix(".txt"))
            for name, file in files.items()
        ]
        return found if run(jobs, processes, ended, lambda running: None, stopping) else None
