"""One checkpoint on the disk: a folder of safetensors and JSON under a manifest of SHA-256 digests."""

import errno
import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from inference.programs.program import ProgramError
from inference.training.files import contents_of, temporary_name, write_folder
from inference.training.saved import Saved, packed, under, unpacked

FORMAT = 2
MANIFEST, TENSORS, RECORD = "manifest.json", "state.safetensors", "state.json"
LOCK = ".checkpoints.lock"
_FILES = (MANIFEST, TENSORS, RECORD)
_NAMES = r"(step|non-finite)-[0-9]{9,18}"


class Refused(ProgramError):
    """A checkpoint that can not be gone on from; the message begins with its folder."""


class Contents(NamedTuple):
    """What a checkpoint holds."""

    folder: Path
    settings: dict[str, Any]
    """What the run is made of; another run is told by it."""
    environment: dict[str, Any]
    """Versions, threads and the like, on which the last bits depend."""
    parts: dict[str, Saved]


def name_of(count: int) -> str:
    """The folder of a checkpoint, by the count of the step."""
    return f"step-{count:09d}"


def count_of(name: str) -> int | None:
    """The count of the step, by the name of a checkpoint's folder; None of any other name."""
    return int(name.removeprefix("step-")) if re.fullmatch(r"step-[0-9]{9,18}", name) else None


def in_order(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    paths = [path for path in folder.iterdir() if count_of(path.name) is not None] if folder.is_dir() else []
    return sorted(
        (path for path in paths if not path.is_symlink()), key=lambda path: count_of(path.name) or 0, reverse=True
    )


def evidence_name(count: int) -> str:
    """The folder of what led to a step that is not finite."""
    return f"non-finite-{count:09d}"


def sweep(folder: Path) -> None:
    """Removes what writes and removals left behind whose process was killed."""
    for path in folder.iterdir():
        if _is_leftover(path.name) and path.is_dir() and not path.is_symlink():
            _empty(path)


def remove(path: Path) -> None:
    """Removes a checkpoint, which is at once no checkpoint any more. One that can not be removed stays.

    A folder of such a name that holds anything else is its owner's.
    """
    if _is_checkpoint(path):
        with suppress(OSError):
            _empty(path.rename(path.with_name(temporary_name(path.name))))


def clear(folder: Path, evidence: bool) -> None:
    """Removes the checkpoints in a folder and, where `evidence`, what led to steps that are not finite.

    The folder goes, too, if there is nothing else in it.
    """
    for path in [*folder.iterdir()]:
        if count_of(path.name) is not None or (evidence and re.fullmatch(_NAMES, path.name)):
            remove(path)
    sweep(folder)
    with suppress(OSError):
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()


def foreign(folder: Path) -> list[str]:
    """What a folder of checkpoints holds that no run wrote, by names in it."""
    names = []
    for path in folder.iterdir():
        is_ours = re.fullmatch(_NAMES, path.name) or _is_leftover(path.name)
        if is_ours and path.is_dir() and not path.is_symlink():
            names += [f"{path.name}/{each.name}" for each in path.iterdir() if not _is_plain(each, _FILES)]
        elif not _is_plain(path, (LOCK,)):
            names.append(path.name)
    return sorted(names)


def _is_checkpoint(path: Path) -> bool:
    """Whether a folder is a checkpoint, be it damaged, and holds nothing else."""
    held = [*path.iterdir()] if path.is_dir() and not path.is_symlink() else []
    return bool(held) and all(each.name in _FILES and (each.is_file() or each.is_symlink()) for each in held)


def _is_plain(path: Path, names: tuple[str, ...]) -> bool:
    return path.name in names and path.is_file() and not path.is_symlink()


def _is_leftover(name: str) -> bool:
    return re.fullmatch(rf"\.{_NAMES}\.[0-9a-f]{{8}}", name) is not None


def _empty(path: Path) -> None:
    """Removes the files of a checkpoint, and their folder if there is nothing else in it."""
    with suppress(OSError):
        for name in _FILES:
            (path / name).unlink(missing_ok=True)
        path.rmdir()


def write(checkpoint: Contents) -> None:
    """Writes a checkpoint, whole or not at all, in the place of another of its name.

    Raises OSError with the folder's name, also where that is no checkpoint's.
    """
    folder = checkpoint.folder
    if os.path.lexists(folder) and not _is_checkpoint(folder):
        raise FileExistsError(errno.EEXIST, "what has this name is no checkpoint, and is not replaced", str(folder))
    tensors: dict[str, Tensor] = {}
    records: dict[str, Any] = {}
    for name, part in checkpoint.parts.items():
        tensors |= under(name, part.tensors)
        records[name] = part.record
    files, forms = packed(tensors)
    record = {
        "settings": checkpoint.settings,
        "environment": checkpoint.environment,
        "parts": records,
        "forms": forms,
    }
    contents = {TENSORS: safetensors.torch.save(files), RECORD: json.dumps(record).encode()}
    manifest = {"format": FORMAT, "sha256": {name: _digest(each) for name, each in contents.items()}}
    write_folder(folder, {**contents, MANIFEST: json.dumps(manifest, indent=2).encode()})


def read(folder: Path) -> Contents:
    """Reads a checkpoint.

    Raises:
        Refused: a file is missing or damaged, or of another format.
    """
    manifest = _parsed(folder, MANIFEST, _contents(folder, MANIFEST))
    if manifest.get("format") != FORMAT:
        raise Refused(
            f"{folder} is a checkpoint of format {manifest.get('format')!r:.20}, and this version reads {FORMAT}."
        )
    digests = manifest.get("sha256")
    if not isinstance(digests, dict) or digests.keys() != {TENSORS, RECORD}:
        raise Refused(f"{folder}: {MANIFEST} is damaged: it does not have the digests of {TENSORS} and {RECORD}.")
    contents = {name: _contents(folder, name) for name in digests}
    for name, each in contents.items():
        if _digest(each) != digests[name]:
            raise Refused(f"{folder}: {name} is damaged: its {len(each):,} bytes are not those that were written.")
    record = _parsed(folder, RECORD, contents[RECORD])
    try:
        tensors = unpacked(safetensors.torch.load(contents[TENSORS]), record["forms"])
        whole = Saved(tensors, {})
        parts = {name: Saved(whole.under(name), each) for name, each in record["parts"].items()}
        return Contents(folder, record["settings"], record["environment"], parts)
    except (SafetensorError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        raise Refused(f"{folder} is damaged: {type(error).__name__}: {error}") from error


def _contents(folder: Path, name: str) -> bytes:
    try:
        return contents_of(folder / name)
    except FileNotFoundError:
        raise Refused(f"{folder} is incomplete: {name} is missing.") from None
    except (OSError, ValueError) as error:
        raise Refused(f"{folder} can not be read: {error}") from error


def _parsed(folder: Path, name: str, contents: bytes) -> dict[str, Any]:
    try:
        found = json.loads(contents)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{folder}: {name} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise Refused(f"{folder}: {name} is damaged: expected an object, got a {type(found).__name__}.")
    return found


def _digest(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()
