"""Runs a row in a child of its own, and says what came of it."""

import fnmatch
import hashlib
import multiprocessing
import os
import re
import shutil
import signal
import time
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from tests.faults import child
from tests.faults.case import Case
from tests.ppmodels.app_helpers import COLUMNS, write_recipe, write_table

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.faults.child"])

VERDICTS = ("right", "otherwise", "silent", "executed", "lost", "hanging")
"""Otherwise: it was said, but in Python's words, or without the thing's name or the remedy."""
CANARY = "EXECUTED"
"""The file that whatever must not be executed leaves behind."""

_TRAINED = (
    "train my_model.py --out run",
    "train vae --data digits --steps 3 --batch-size 32 --set latent=2 --set hidden=8 --out digits",
)


@dataclass(frozen=True)
class Outcome:
    verdict: str
    why: str


def write_template(template: Path) -> None:
    """The folder that all rows begin with."""
    project, beside = template / "project", template / "beside"
    project.mkdir(parents=True)
    beside.mkdir()
    write_recipe(project, "table.csv", COLUMNS)
    write_table(project)
    for command in _TRAINED:
        process = FORKS.Process(target=child.trained, args=(command, str(project), str(beside)))
        process.start()
        process.join()
        assert process.exitcode == 0, (beside / "stderr").read_text()
    for written in ("stdout", "stderr"):
        (beside / written).unlink()


def outcome(case: Case, module: str, place: int, template: Path, room: Path) -> Outcome | None:
    """What came of a row; None where this system can not be made to fail in that way."""
    folder, beside = room / "project", room / "beside"
    shutil.copytree(template, room)
    for record in folder.glob("*/run.json"):
        record.write_text(record.read_text().replace(str(template), str(room)))
    case.given(folder)
    before = _contents(folder)
    process = FORKS.Process(target=child.born, args=(module, place, str(folder), str(beside)))
    process.start()
    hanging = not _awaited(process, case, folder)
    said = {name: (beside / name).read_bytes() if (beside / name).exists() else b"" for name in ("stdout", "stderr")}
    if process.exitcode == child.NOT_TO_BE_HAD:
        return None
    changed = _changed(before, _contents(folder), case.changes)
    words = {name: text.decode(errors="replace") for name, text in said.items()}
    told = f"exit code {process.exitcode}\n{words['stdout']}\n{words['stderr']}"
    if any(folder.rglob(CANARY)) or any(beside.rglob(CANARY)):
        return Outcome("executed", told)
    if changed:
        return Outcome("lost", f"changed: {changed}\n{told}")
    if hanging:
        return Outcome("hanging", told)
    return _judged(case, process.exitcode, words, told, _litter(folder) - _litter_of(before))


def _awaited(process: multiprocessing.process.BaseProcess, case: Case, folder: Path) -> bool:
    """Whether the child ended by itself, or by the signal of its row, in time."""
    deadline = time.monotonic() + case.seconds
    if case.sent is not None:
        pattern = str(folder / case.sent.when)
        while process.is_alive() and time.monotonic() < deadline and not any(map(os.path.getsize, glob(pattern))):
            time.sleep(0.02)
        os.kill(process.pid, case.sent.number)  # type: ignore[arg-type]  # it was started
    process.join(max(deadline - time.monotonic(), 0.0))
    if not process.is_alive():
        return True
    os.killpg(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
    process.join()
    return False


def _judged(case: Case, code: int | None, words: dict[str, str], told: str, litter: set[str]) -> Outcome:
    everything = words["stdout"] + words["stderr"]
    errors = [line for line in words["stderr"].splitlines() if re.match("error: |ended by ", line, re.IGNORECASE)]
    heard = case.system.err == "file"
    if code == 0 and case.code != 0:
        return Outcome("silent", f"it was accepted\n{told}")
    refused = case.code in (1, 2) and heard
    if refused and not errors and "Traceback" not in everything:
        return Outcome("silent", f"no word was said\n{told}")
    faults = []
    if code != case.code:
        faults.append(f"expected exit code {case.code}")
    if "Traceback" in everything:
        faults.append("a traceback")
    if any(not each.isprintable() for each in everything.replace("\n", "")):
        faults.append("characters that are not printable")
    if refused and len(errors) != 1:
        faults.append(f"{len(errors)} lines of errors")
    where = errors[0] if refused and errors else everything
    missing = [each for each in case.holds if each not in where] if heard else []
    if missing and case.code == 0 and code == 0:
        return Outcome("silent", f"not said: {missing}\n{told}")
    faults += [f"not said: {missing}"] * bool(missing)
    faults += [f"said: {each}" for each in case.absent if each in everything]
    if case.code >= 0:  # who is killed leaves what the next one sweeps
        faults += [f"left behind: {sorted(litter)}"] * bool(litter)
    return Outcome("otherwise", "; ".join(faults) + f"\n{told}") if faults else Outcome("right", told)


def _contents(folder: Path) -> dict[str, str]:
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_symlink() or not path.is_file():
                found[str(path.relative_to(folder))] = (
                    f"link to {os.readlink(path)}" if path.is_symlink() else "no file"
                )
            else:
                found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _changed(before: dict[str, str], after: dict[str, str], allowed: tuple[str, ...]) -> list[str]:
    changed = [name for name, contents in before.items() if after.get(name) != contents]
    return [name for name in changed if not any(fnmatch.fnmatch(name, pattern) for pattern in allowed)]


def _litter(folder: Path) -> set[str]:
    return _litter_of(_contents(folder))


def _litter_of(contents: dict[str, str]) -> set[str]:
    """What writes leave behind that were not finished."""
    return {name for name in contents if re.search(r"(^|/)\.[^/]*\.[0-9a-f]{8}(/|$)", name)}
