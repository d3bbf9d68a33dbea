"""The folder that a run is trained into: one process claims it, and an old run stands until the new one is whole."""

import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain, count
from pathlib import Path
from typing import Any

from inference.training import checkpoint_files
from inference.training.files import contents_of, flocked, is_temporary, temporary_name
from ppmodels.app.exchange import exchange
from ppmodels.app.run import (
    CHECKPOINTS,
    DRAWN,
    LOCK,
    METRICS,
    NOISE,
    RECIPE,
    RECORD,
    TRAINING,
    WEIGHTS,
    no_user,
    sha256,
    steps_saved,
)

SPLITS = ("", "-train", "-valid")
"""The endings of files about a split; those about the test split have none."""

WRITTEN = (
    *(RECORD, WEIGHTS, METRICS, RECIPE, NOISE, TRAINING, DRAWN),
    *("loss.png", "training.png", "samples.png", "samples.csv", "samples.npy", "reconstructions.png"),
    "imputed.csv",
    *("traversal.png", "interpolation.png", "completions.png", "canvases.png", "reading.png"),
    *("scenes.png", "objects.png", "generated.png"),
    *(f"evaluation{split}.json" for split in SPLITS),
    *("diagnosis.json", "diagnosis.png", "calibration.json", "calibration.png"),
    *(f"scores{split}.csv" for split in SPLITS),
    *(f"bounds{split}.png" for split in SPLITS),
)
"""The files of a run, beside the folder of its checkpoints. Any other file in its folder is its owner's."""

_TRAINING = (LOCK, WEIGHTS, METRICS, RECIPE, TRAINING, DRAWN)
"""Those that are there before the record is."""

_BYTECODE = "__pycache__"
"""Beside the recipe.py of a run that an earlier version has opened."""


class _Holds(Enum):
    NOTHING = "nothing"
    UNFINISHED = "a run whose training did not finish"
    RUN = "a run"


@dataclass
class Place:
    """Where a run is written, and why it is elsewhere than was asked for, if it is."""

    path: Path
    """Where it is to stand."""
    folder: Path
    """Where its files are: `path`, or a hidden folder beside it until `settle`."""
    notes: list[str] = field(default_factory=list)
    settled: bool = False

    def settle(self) -> Path:
        """Puts the run, which is whole by now, in the place of the old one, and tells where it stands.

        Where that is not possible both are kept, the new one under the next free name.
        """
        self.settled = True
        if self.folder == self.path:
            return self.path
        real, new = Path(os.path.realpath(self.path)), self.folder
        try:
            _examined(self.path, overwrite=True)  # its owner may have put a file there since
            exchange(new, real)
        except (OSError, ValueError) as error:
            free = next(each for each in _numbered(real.parent, real.name) if not os.path.lexists(each))
            self.folder = new.rename(free)
            self.notes.append(f"{self.path} could not be replaced and is as it was; the new run is in {free}. {error}")
            return self.folder
        self.folder = self.path
        remove(new)  # the old run has this name now
        return self.path


def refuse(name: str, out: str | Path | None, overwrite: bool, data: Path | None = None) -> None:
    """Raises ValueError where a run of that name may not be written, before anything is computed.

    Data of the user's own must not lie there, as a run that is replaced takes them with it.
    """
    path = _asked(name, out, overwrite)
    if path is None:
        _refuse_below_a_file(Path("runs", name))
    else:
        _examined(path, overwrite)
        if data is not None and Path(os.path.realpath(data)).is_relative_to(os.path.realpath(path)):
            raise ValueError(f"the data {data} lie in {path}, the folder of the run; choose another --out.")


@contextmanager
def claimed(name: str, out: str | Path | None, overwrite: bool) -> Iterator[Place]:
    """A block that alone writes a run: to `out`, or to the first free one of runs/NAME, runs/NAME-2, …

    A folder that holds anything but a run is refused. A run is replaced where `overwrite` is set, by `Place.settle`; one
    that did not finish is replaced at once. Where the block fails before a metric was written it leaves no folder.

    Raises:
        ValueError: the folder holds something else, or another process writes a run there.
        OSError: it can not be made.
    """
    path, fresh = _made(name, out, overwrite)
    with _held(path):
        holds = _examined(path, overwrite)
        with _beside(path) if holds is _Holds.RUN else _within(path, fresh) as place:
            if holds is _Holds.UNFINISHED:
                place.notes.append(f"{path} held {holds.value}; it is replaced.")
            yield place


@contextmanager
def reclaimed(path: Path) -> Iterator[Place]:
    """A block that alone goes on with the run that is to stand at a path, and which can be resumed.

    Raises:
        FileNotFoundError: there is none.
        ValueError: another process is at it.
    """
    with _held(path):
        folder = resumable(path)
        if folder is None:
            raise FileNotFoundError(f"{path} holds no run to go on with: {TRAINING} is missing.")
        place = Place(path, folder)
        if folder == path:
            yield place
            return
        with locked(folder):
            yield place
        if place.settled:
            (place.folder / LOCK).unlink(missing_ok=True)


def resumable(path: Path) -> Path | None:
    """The folder of the run that is to stand at a path and can be resumed: beside it where it is to replace another."""
    beside = [left for left in _left_beside(Path(os.path.realpath(path))) if (left / TRAINING).exists()]
    beside.sort(key=lambda left: (left / TRAINING).stat().st_mtime)
    return next(reversed(beside), path if (path / TRAINING).exists() else None)


def finish(folder: Path) -> None:
    """Removes what a run that has finished needs no more."""
    if (folder / CHECKPOINTS).is_dir():
        checkpoint_files.clear(folder / CHECKPOINTS, evidence=False)
    for name in (DRAWN, TRAINING):
        (folder / name).unlink(missing_ok=True)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """A block that alone writes to a folder; its lock stays where it holds a run that did not finish."""
    with locked(path):
        try:
            yield
        finally:
            if (path / RECORD).exists() or not _tells_anything(path):  # else the lock's file tells whose the others are
                (path / LOCK).unlink(missing_ok=True)


@contextmanager
def _within(path: Path, fresh: bool) -> Iterator[Place]:
    _clear(path)
    try:
        yield Place(path, path)
    finally:
        if not (path / RECORD).exists() and not _tells_anything(path):
            _clear(path)
            if fresh:
                remove(path)


@contextmanager
def _beside(path: Path) -> Iterator[Place]:
    real = Path(os.path.realpath(path))
    _refuse_unmovable(path, real)
    place = Place(path, real.with_name(temporary_name(real.name)))
    for left in _left_beside(real):
        saved = steps_saved(left)
        if saved:
            place.notes.append(f"a training that was to replace {path} had come to step {saved}; it is removed.")
        remove(left)
    place.folder.mkdir()
    try:
        with locked(place.folder):
            yield place
    finally:
        if place.settled:
            (place.folder / LOCK).unlink(missing_ok=True)
        elif not steps_saved(place.folder) and not _has_evidence(place.folder):
            remove(place.folder)


def _left_beside(real: Path) -> list[Path]:
    """Runs that were to replace another, of trainings that were killed: for a process that has the lock of the other."""
    if not real.parent.is_dir():
        return []
    found = [left for left in real.parent.iterdir() if is_temporary(left.name, real.name)]
    folders = [left for left in found if left.is_dir() and not left.is_symlink()]
    return [left for left in folders if (left / LOCK).exists() and not _foreign(left)]


def _tells_anything(folder: Path) -> bool:
    """Whether a run has come as far as a metric, or to a step that is not finite."""
    metrics = folder / METRICS
    return (metrics.exists() and metrics.stat().st_size > 0) or _has_evidence(folder)


def _has_evidence(folder: Path) -> bool:
    return any((folder / CHECKPOINTS).glob("non-finite-*"))


def _asked(name: str, out: str | Path | None, overwrite: bool) -> Path | None:
    """The folder that is asked for; None for any free one."""
    if out is None:
        return Path("runs", name) if overwrite else None
    return asked(out)


def asked(out: str | Path) -> Path:
    """The folder that `--out` names. Raises ValueError where it names none."""
    if not str(out).strip():
        raise ValueError("--out is empty; name a folder.")
    if (stranger := no_user(out)) is not None:
        raise ValueError(f"--out {out}: {stranger}")
    return Path(os.path.expanduser(out))


def _made(name: str, out: str | Path | None, overwrite: bool) -> tuple[Path, bool]:
    """The folder, made where there is none, and whether it was. Of processes that make the same one, one does."""
    asked = _asked(name, out, overwrite)
    if asked is None:
        Path("runs").mkdir(exist_ok=True)
    else:
        _examined(asked, overwrite)
        asked.parent.mkdir(parents=True, exist_ok=True)
    for path in _numbered(Path("runs"), name) if asked is None else (asked,):
        try:
            path.mkdir()
            return path, True
        except FileExistsError:
            if path == asked:
                return path, False
    raise AssertionError("there is always another number")


def _numbered(parent: Path, name: str) -> Iterator[Path]:
    return (parent / each for each in chain([name], (f"{name}-{number}" for number in count(2))))


def _examined(path: Path, overwrite: bool) -> _Holds:
    """What a folder holds. Raises ValueError where that must not be replaced."""
    if path.is_symlink() and not path.exists():
        raise ValueError(f"--out {path} is a link that leads nowhere; name a folder.")
    _refuse_below_a_file(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"--out {path} is a file; name a folder.")
    names = sorted(os.listdir(path)) if path.exists() else []
    foreign = _foreign(path) if names else []
    if foreign:
        shown = ", ".join(foreign[:4]) + (f" and {len(foreign) - 4} more" if len(foreign) > 4 else "")
        raise ValueError(f"--out {path} holds {shown}, which no run has written; choose another folder.")
    if RECORD in names and not overwrite:
        raise ValueError(f"{path} already holds a run; choose another --out, or give --overwrite to replace it.")
    if RECORD in names:
        return _Holds.RUN
    saved = steps_saved(path)
    if saved and TRAINING in names and not overwrite:
        raise ValueError(
            f"{path} holds {_Holds.UNFINISHED.value}, with a checkpoint at step {saved}. Go on with it: ppmodels "
            f"resume {path}. Or choose another --out, or give --overwrite to replace it."
        )
    return _Holds.UNFINISHED if set(names) - {LOCK} else _Holds.NOTHING


def _refuse_below_a_file(path: Path) -> None:
    above = next((each for each in path.absolute().parents if os.path.lexists(each)), None)  # none is above the root
    if above is not None and not above.is_dir():
        raise ValueError(f"{path}: {above} is no folder; choose another --out.")


def _foreign(folder: Path) -> list[str]:
    """What a folder holds that no run wrote. A file with a run's name counts only beside a record or a lock of ours."""
    names = os.listdir(folder)
    record = _record(folder / RECORD)
    unfinished = _TRAINING if LOCK in names else ()
    known = unfinished if record is None else (*WRITTEN, LOCK, _BYTECODE)
    foreign = {name for name in names if name != CHECKPOINTS and not _is_ours(folder / name, known)}
    if CHECKPOINTS in names:
        foreign |= {*_foreign_checkpoints(folder / CHECKPOINTS, bool(known))}
    if record is not None and RECIPE in names and RECIPE not in foreign and _is_edited(folder / RECIPE, record):
        foreign.add(RECIPE)
    return sorted(foreign)


def _foreign_checkpoints(folder: Path, known: bool) -> list[str]:
    """What of a folder of checkpoints no run wrote; all of it where it does not stand in a run."""
    if not known or not folder.is_dir() or folder.is_symlink():
        return [folder.name]
    return [f"{folder.name}/{name}" for name in checkpoint_files.foreign(folder)]


def _is_edited(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether a recipe file is another one than was trained, so that its text may be nowhere else."""
    return "recipe_sha256" in record and sha256(contents_of(path)) != record["recipe_sha256"]


def _is_ours(path: Path, known: tuple[str, ...]) -> bool:
    """Whether a run has written a file: one of these names, or a temporary one of theirs."""
    if path.name == _BYTECODE and _BYTECODE in known and path.is_dir() and not path.is_symlink():
        return all(re.fullmatch(r"recipe\..*\.pyc", each.name) for each in path.iterdir())
    # A lock is written into, and with two names it can be another's file.
    if path.name == LOCK and path.lstat().st_nlink > 1:
        return False
    named = path.name in known or any(is_temporary(path.name, each) for each in known)
    return named and path.is_file() and not path.is_symlink()


def _record(path: Path) -> dict[str, Any] | None:
    """The record of a run, of any version, if a file is one."""
    try:
        record = json.loads(contents_of(path))
    except (OSError, ValueError, RecursionError):
        return None
    is_one = isinstance(record, dict) and {"format", "recipe", "data", "seed"} <= record.keys()
    return record if is_one else None


def _refuse_unmovable(path: Path, real: Path) -> None:
    if Path.cwd().is_relative_to(real):
        raise ValueError(f"--out {path} is where you are, and would be gone when it is replaced; go to another folder.")
    if real.is_mount():
        raise ValueError(f"--out {path} is a mount point, which can not be replaced; name a folder in it.")


def _clear(folder: Path) -> None:
    """Removes the files of a run, all but its lock; its record last, by which the others are known should this end early."""
    foreign = _foreign(folder)
    for path in sorted(folder.iterdir(), key=lambda path: path.name == RECORD):
        if path.name == LOCK or path.name in foreign:
            continue
        if path.name == CHECKPOINTS:
            checkpoint_files.clear(path, evidence=True)
        elif path.name == _BYTECODE:
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Removes a run and its folder, if there is nothing else in it."""
    with suppress(OSError):
        _clear(folder)
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A block in which no other process claims the folder; the system ends the claim where this process dies."""
    path = folder / LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        if not flocked(descriptor):
            who = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            raise ValueError(f"{folder}: {who} is training there; choose another --out, or wait until it has ended.")
        if not os.path.lexists(path) or not os.path.samestat(os.lstat(path), os.fstat(descriptor)):
            raise ValueError(f"{folder}: another process has just ended its training there; start again.")
        with suppress(OSError):  # a full disk, which what is to be written next names better
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)
