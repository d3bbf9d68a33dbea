"""A run folder: what training writes, and all that evaluation and sampling need."""

import difflib
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ppmodels.app.old_names import retraining

RECORD, WEIGHTS, METRICS, RECIPE = "run.json", "weights.safetensors", "metrics.jsonl", "recipe.py"
FORMAT = 2
_HELD: dict[str, type | tuple[type, ...]] = {
    "recipe": str,
    "file": (str, type(None)),
    "data": dict,
    "settings": dict,
    "training": dict,
    "seed": int,
    "weights_sha256": str,
}
"""What a record needs to hold so that the run can be opened again."""
_HELD_OF_DATA: dict[str, type | tuple[type, ...]] = {
    "source": str,
    "folder": (str, type(None)),
    "binarisation": str,
    "shape": list,
    "levels": (int, type(None)),
    "classes": int,
    "fingerprint": str,
}
"""And of its data."""


@dataclass(frozen=True)
class Run:
    """A folder with the weights of a trained program and the record of its configuration."""

    folder: Path
    record: Mapping[str, Any]
    """The contents of run.json."""

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Reads a run. Raises FileNotFoundError if the folder holds none, ValueError if its record is damaged."""
        path = Path(folder).expanduser()
        if not (path / RECORD).is_file():
            raise FileNotFoundError(_no_run(path))
        try:
            record = json.loads((path / RECORD).read_text(encoding="utf-8"))
            known = record["format"] == FORMAT
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path / RECORD}: expected the record of a run, but it is damaged ({error}).") from error
        if not known:
            old = record["format"] == 1
            again = f" A recipe is a model now. Train it again: {retraining(record, str(path / RECIPE))}" if old else ""
            raise ValueError(
                f"{path / RECORD}: written in format {record['format']}, and this version reads {FORMAT}.{again}"
            )
        _refuse_damage(path / RECORD, record, _HELD)
        _refuse_damage(path / RECORD, record["data"], _HELD_OF_DATA)
        return cls(path, record)

    @classmethod
    def write(cls, folder: Path, weights: Mapping[str, Tensor], record: Mapping[str, Any]) -> "Run":
        """Writes weights, then the record: a folder that has a record is whole."""
        # Copies, because a parameter that goes by two names may not share its memory in the file.
        plain = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
        contents = safetensors.torch.save(plain)
        write_whole(folder / WEIGHTS, contents)
        full = {"format": FORMAT, **record, "weights_sha256": hashlib.sha256(contents).hexdigest()}
        run = cls(folder, full)
        run.write_json(RECORD, full)
        return run

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes values to a file of the run; a number that is not finite, which JSON lacks, becomes null."""
        write_whole(self.folder / name, (json.dumps(_finite(values), indent=2, allow_nan=False) + "\n").encode())

    def history(self) -> list[dict[str, float]]:
        """The metrics recorded in training, by step."""
        lines = (self.folder / METRICS).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def load_weights(self, program: nn.Module) -> None:
        """Gives the program the run's weights. Raises ValueError, naming what differs, if they are not its own."""
        path = self.folder / WEIGHTS
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; restore it, or train again.")
        contents = path.read_bytes()
        if hashlib.sha256(contents).hexdigest() != self.record["weights_sha256"]:
            raise ValueError(f"{path} is damaged: it is not what training wrote. Restore it, or train again.")
        try:
            state = safetensors.torch.load(contents)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}. Restore it, or train again.") from error
        _refuse_difference(path, state, program.state_dict())
        program.load_state_dict(state)


def write_whole(path: Path, contents: bytes) -> None:
    """Writes a file so that it is never seen half written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(contents)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def new_folder(name: str, out: Path | None, overwrite: bool) -> Path:
    """Where a new run goes: `out`, or the first free one of runs/NAME, runs/NAME-2, …

    Raises ValueError if `out` holds a run already and it is not to be overwritten.
    """
    if out is None:
        candidates = (Path("runs") / each for each in chain([name], (f"{name}-{number}" for number in count(2))))
        return next(folder for folder in candidates if overwrite or not folder.exists())
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder.")
    if (out / RECORD).exists() and not overwrite:
        raise ValueError(f"{out} already holds a run; choose another --out, or give --overwrite to replace it.")
    return out


def clear(folder: Path, names: tuple[str, ...]) -> None:
    """Makes the folder, without those files of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _no_run(path: Path) -> str:
    places = [path.parent, Path("runs")]
    runs = [str(other.parent) for place in places if place.is_dir() for other in place.glob(f"*/{RECORD}")]
    close = difflib.get_close_matches(str(path), runs, n=1) or difflib.get_close_matches(
        str(Path("runs") / path.name), runs, n=1
    )
    what = f"{path} holds no run ({RECORD} is missing)" if path.is_dir() else f"there is no run folder {path}"
    return f"{what}.{f' Did you mean {close[0]}?' if close else ' `ppmodels train RECIPE` makes one.'}"


def _refuse_damage(path: Path, record: Mapping[str, Any], held: Mapping[str, type | tuple[type, ...]]) -> None:
    for name, kind in held.items():
        if not isinstance(record.get(name), kind) or name not in record:
            came = repr(record[name]) if name in record else "nothing"
            raise ValueError(f"{path}: expected the record of a run, but it is damaged ({name} is {came}).")


def _refuse_difference(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    changed = [
        f"{name} is {_described(state[name])} and the program's {_described(expected[name])}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape or state[name].dtype != expected[name].dtype
    ]
    parts = [f"it lacks {_few(missing)}"] * bool(missing) + [f"it has {_few(extra)} too many"] * bool(extra)
    parts += [_few(changed)] * bool(changed)
    if parts:
        raise ValueError(
            f"{path} does not fit the program: {'; '.join(parts)}. The recipe or the shape of the data is not the one "
            "that was trained."
        )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _few(items: list[str]) -> str:
    return ", ".join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")


def versions() -> dict[str, str]:
    """The versions of what a run depends on."""
    found = {"torch": str(torch.__version__)}
    for name, package in (("pyro", "pyro-ppl"), ("ppmodels", "ppmodels")):
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found
