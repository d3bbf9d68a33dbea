"""Reads the record of a run, run.json, which can be damaged or a stranger's."""

import json
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ppmodels.app.old_names import retraining

FORMAT = 2
Test = Callable[[object], bool]
_ABSENT = object()


def read_record(path: Path, contents: bytes, recipe: Path) -> dict[str, Any]:
    """The record in the contents of a file, if it holds all that the run needs to be opened again.

    `recipe` is the one recipe file that it can mean. Raises ValueError, naming the field, for a damaged record.
    """
    return _read(path, contents, recipe, _HELD)


def read_training(path: Path, contents: bytes, recipe: Path) -> dict[str, Any]:
    """The same of a run that has no weights yet: what it is trained as."""
    return _read(path, contents, recipe, _HELD_AT_FIRST)


def _read(path: Path, contents: bytes, recipe: Path, held: Mapping[str, Test]) -> dict[str, Any]:
    try:
        record = json.loads(contents)
        known = record["format"] == FORMAT
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not known:
        old = record["format"] == 1
        again = f" A recipe is a model now. Train it again: {retraining(record, str(recipe))}" if old else ""
        raise ValueError(
            f"{path}: written in format {reprlib.repr(record['format'])}, and this version reads {FORMAT}.{again}"
        )
    _refuse_damage(path, record, held)
    _refuse_damage(path, record["data"], _HELD_OF_DATA)
    if record["file"] is not None and record["recipe"] != recipe.name:
        raise _damaged(
            path, f"recipe is {reprlib.repr(record['recipe'])}, and a run has no recipe file but {recipe.name}"
        )
    return record  # type: ignore[no-any-return]  # a dict, or "format" were no index of it


def _refuse_damage(path: Path, record: Mapping[str, Any], held: Mapping[str, Test]) -> None:
    for name, holds in held.items():
        if not holds(record.get(name, _ABSENT)):
            came = reprlib.repr(record[name]) if name in record else "nothing"
            raise _damaged(path, f"{name} is {came}")


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(f"{path}: expected the record of a run, but it is damaged ({why}).")


def _is(kind: type) -> Test:
    return lambda value: type(value) is kind


def _each(kind: type) -> Test:
    return lambda value: isinstance(value, list) and all(type(each) is kind for each in value)


def _or_none(holds: Test) -> Test:
    return lambda value: value is None or holds(value)


def _or_absent(holds: Test) -> Test:
    """For what earlier versions did not record."""
    return lambda value: value is _ABSENT or holds(value)


def _is_seed(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and Path(value).name == value


_HELD_AT_FIRST: dict[str, Test] = {
    "recipe": _is(str),
    "file": _or_none(_is_file_name),
    "recipe_sha256": _or_absent(_or_none(_is(str))),
    "data": _is(dict),
    "settings": _is(dict),
    "training": _is(dict),
    "seed": _is_seed,
}
"""What the record of a run needs to hold before it is trained."""
_HELD: dict[str, Test] = {**_HELD_AT_FIRST, "weights_sha256": _is(str)}
"""What it needs to hold afterwards."""
_HELD_OF_DATA: dict[str, Test] = {
    "source": _is(str),
    "folder": _or_none(_is(str)),
    "binarisation": _is(str),
    "standardisation": _or_absent(_or_none(_is(dict))),
    "reading": _or_absent(_is(dict)),
    "shape": _each(int),
    "columns": _or_absent(_each(str)),
    "levels": _or_none(_is(int)),
    "classes": _is(int),
    "fingerprint": _is(str),
    "masked": _or_absent(_is(bool)),
}
"""And of its data."""
