"""The folder of a study: one process at a time writes it, and what it holds is known by name."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference.training.files import contents_of, is_temporary, write_whole
from ppmodels.app import run_folder
from ppmodels.app.run import LOCK
from ppmodels.app.study.measurement import Measurement, Samples, read_json
from ppmodels.app.study.protocol import FORMAT, RUNS, Protocol, StudyModel

PLAN, MEASURED, LOGS, PICTURES = "study.json", "measured", "logs", "pictures"
REPORTS = ("report.html", "report.md", "report.json")
REAL, DATA = "real.json", "data.npz"
_OF_THE_DATA = (REAL, DATA, "features.json", "features.safetensors")
"""What is measured once a study."""


@contextmanager
def claimed(out: Path, data: Path | None = None) -> Iterator[None]:
    """A block that alone writes a study. Raises ValueError where the folder holds something else, or another is at it.

    Data of the user's own must not lie there, as a study that is replaced could take them with it.
    """
    fresh = not os.path.lexists(out)
    if not fresh:
        refuse_foreign(out)
    if data is not None and Path(os.path.realpath(data)).is_relative_to(os.path.realpath(out)):
        raise ValueError(f"the data {data} lie in {out}, the folder of the study; choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    with run_folder.locked(out):
        try:
            yield
        finally:
            (out / LOCK).unlink(missing_ok=True)
            if fresh and not os.listdir(out):
                out.rmdir()


def refuse_foreign(out: Path) -> None:
    """Raises ValueError where a folder is none, or holds what no study has written."""
    if not out.is_dir():
        raise ValueError(f"--out {out} is no folder; name one.")
    ours = (PLAN, *REPORTS, LOCK)
    folders = (RUNS, MEASURED, LOGS, PICTURES)
    foreign = [
        name
        for name in sorted(os.listdir(out))
        if not (name in folders and (out / name).is_dir() and (out / PLAN).exists())
        and not any(name == each or is_temporary(name, each) for each in ours)
    ]
    if foreign:
        shown = ", ".join(foreign[:4]) + (f" and {len(foreign) - 4} more" if len(foreign) > 4 else "")
        raise ValueError(f"--out {out} holds {shown}, which no study has written; choose another folder.")


def plan_in(out: Path) -> Protocol | None:
    """The plan of the study in a folder; None where there is none. Raises ValueError for one that is damaged."""
    path = out / PLAN
    if not os.path.lexists(path):
        return None
    try:
        found = Protocol.of_json(contents_of(path).decode())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError) as error:
        raise ValueError(f"{path}: expected the plan of a study, but it is damaged ({error}).") from error
    if found.format != FORMAT:
        raise ValueError(f"{path}: written in format {found.format!r}, and this version reads {FORMAT}.")
    return found


def plan_of(out: Path) -> Protocol:
    """The plan of the study in a folder. Raises FileNotFoundError where there is none, ValueError where it is damaged."""
    found = plan_in(out)
    if found is None:
        raise FileNotFoundError(f"{out} holds no study ({PLAN} is missing).")
    return found


def write_plan(out: Path, protocol: Protocol) -> None:
    """Writes the plan, and makes the folders of what follows from it."""
    for name in (RUNS, MEASURED, LOGS):
        (out / name).mkdir(exist_ok=True)
    write_whole(out / PLAN, protocol.as_json().encode())


def measured(out: Path, protocol: Protocol, model: StudyModel, seed: int) -> Path:
    """The file of a run's measurement."""
    return out / MEASURED / f"{protocol.name_of(model, seed)}.json"


def measurements(out: Path, protocol: Protocol) -> list[Measurement]:
    """Those that there are, model by model. Raises ValueError where one is damaged."""
    files = [measured(out, protocol, model, seed) for model in protocol.models for seed in protocol.seeds]
    return [read_json(Measurement, path) for path in files if path.exists()]


def real_data(out: Path) -> Samples | None:
    """What was measured of real data in the place of samples, if it was. Raises ValueError where it is damaged."""
    path = out / MEASURED / REAL
    return read_json(Samples, path) if path.exists() else None


def log(out: Path, protocol: Protocol, model: StudyModel, seed: int) -> Path:
    """The file to which the process of a run prints."""
    return out / LOGS / f"{protocol.name_of(model, seed)}.txt"


def clear(out: Path, protocol: Protocol) -> None:
    """Removes the runs and measurements of a study, and its reports; pictures are replaced by those of the next report.

    Raises ValueError, before anything is removed, where there is what the study has not written.
    """
    runs = [out / protocol.run_of(model, seed) for model in protocol.models for seed in protocol.seeds]
    names = {f"{path.name}.{kind}" for path in runs for kind in ("json", "npz")} | set(_OF_THE_DATA)
    measured = sorted((out / MEASURED).iterdir()) if (out / MEASURED).is_dir() else []
    for path in measured:
        if path.is_dir() or not any(path.name == each or is_temporary(path.name, each) for each in names):
            raise ValueError(f"{path} is not of this study, and would be removed with it; put it elsewhere.")
    for run in runs:
        run_folder.refuse(run.name, run, overwrite=True)
    for run in runs:
        if run.is_dir():
            run_folder.remove(run)
    for path in (*measured, *(out / each for each in (*REPORTS, PLAN))):
        path.unlink(missing_ok=True)
