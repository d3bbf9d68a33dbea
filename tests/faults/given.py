"""How a folder comes to be faulty: each gives a function of the folder."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Given = Callable[[Path], object]
NOTHING = object()
"""In place of a value of a record: there is none."""


def all_of(*each: Given) -> Given:
    return lambda folder: [one(folder) for one in each]


def text(name: str, contents: str | bytes) -> Given:
    """A file of these contents, in the place of what was there."""

    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)

    return write


def more(name: str, contents: str) -> Given:
    """A file with more at its end."""
    return lambda folder: (folder / name).write_text((folder / name).read_text() + contents)


def replaced(name: str, old: str, new: str) -> Given:
    """A file with a text in the place of another."""

    def write(folder: Path) -> None:
        contents = (folder / name).read_text()
        assert old in contents, f"{name} has no {old!r}"
        (folder / name).write_text(contents.replace(old, new))

    return write


def without(*names: str) -> Given:
    return lambda folder: [(folder / name).unlink() for name in names]


def folder_named(name: str) -> Given:
    """An empty folder, in the place of a file."""

    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir(parents=True)

    return make


def link(name: str, to: str) -> Given:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(to)

    return make


def moved(name: str, to: str) -> Given:
    return lambda folder: (folder / name).rename(folder / to)


def pipe(name: str) -> Given:
    return lambda folder: os.mkfifo(folder / name)


def mode(name: str, bits: int) -> Given:
    return lambda folder: (folder / name).chmod(bits)


def truncated(name: str, size: int) -> Given:
    return lambda folder: os.truncate(folder / name, size)


def flipped(name: str, at: int) -> Given:
    """A file with one bit another."""

    def flip(folder: Path) -> None:
        contents = bytearray((folder / name).read_bytes())
        contents[at] ^= 1
        (folder / name).write_bytes(contents)

    return flip


def record(run: str = "run", **values: Any) -> Given:
    """A run whose record has other values; those of its data are named data__NAME."""

    def edit(folder: Path) -> None:
        path = folder / run / "run.json"
        contents = json.loads(path.read_text())
        for name, value in values.items():
            *within, last = name.split("__")
            place = contents[within[0]] if within else contents
            if value is NOTHING:
                del place[last]
            else:
                place[last] = value
        path.write_text(json.dumps(contents))

    return edit


def copied(name: str, to: str) -> Given:
    return lambda folder: shutil.copytree(folder / name, folder / to)


def strangers(recipe: str, name: str = "stranger") -> Given:
    """A run whose recipe file is another's, of that text more than ours, and which is whole."""

    def make(folder: Path) -> None:
        copied("run", name)(folder)
        more(f"{name}/recipe.py", recipe)(folder)
        record(name, recipe_sha256=hashlib.sha256((folder / name / "recipe.py").read_bytes()).hexdigest())(folder)

    return make
