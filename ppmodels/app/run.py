"""A run folder: what training writes, and all that evaluation and sampling need."""

import difflib
import glob
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from inference.training.average import tensors_of
from inference.training.checkpoint_files import count_of, in_order
from inference.training.files import contents_of, write_whole
from ppmodels.app.record import FORMAT, read_record, read_training

RECORD, WEIGHTS, METRICS, RECIPE = "run.json", "weights.safetensors", "metrics.jsonl", "recipe.py"
NOISE = "observation_noise.json"
"""The noise by which a generator without a density is scored, and what it was fitted by."""
LOCK = ".ppmodels.lock"
"""There while a run is trained, and in one whose training did not finish."""
TRAINING, CHECKPOINTS, DRAWN = "training.json", "checkpoints", "training.safetensors"
"""What a run is trained as, how far it has come, and what it has drawn on the way: there as long as it can be resumed."""

FINISHED = ("finished", "early stopping")
"""How a run can have stopped that has nothing left to do."""


@dataclass(frozen=True)
class Run:
    """A folder with the weights of a trained program and the record of its configuration."""

    folder: Path
    record: Mapping[str, Any]
    """The contents of run.json."""

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Reads a run. Raises FileNotFoundError if the folder holds none, ValueError if its record is damaged."""
        path = Path(os.path.expanduser(folder))
        if (stranger := no_user(folder)) is not None and not path.exists():
            raise FileNotFoundError(f"{folder}: {stranger}")
        if not os.path.lexists(path / RECORD):
            raise FileNotFoundError(_no_run(path))
        return cls(path, read_record(path / RECORD, contents_of(path / RECORD), path / RECIPE))

    @classmethod
    def begun(cls, path: str | Path) -> "Run | None":
        """A run that can be resumed, which may have no weights yet: what it is trained as; None where there is none.

        Raises ValueError if that record is damaged.
        """
        folder = Path(os.path.expanduser(path))
        if not os.path.lexists(folder / TRAINING):
            return None
        return cls(folder, read_training(folder / TRAINING, contents_of(folder / TRAINING), folder / RECIPE))

    @classmethod
    def write(cls, folder: Path, weights: Mapping[str, Tensor], record: Mapping[str, Any]) -> "Run":
        """Writes weights, then the record: a folder that has a record is whole. Raises OSError with the file's name."""
        # Copies, because a parameter that goes by two names may not share its memory in the file.
        plain = {name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}
        contents = safetensors.torch.save(plain)
        write_whole(folder / WEIGHTS, contents)
        full = {"format": FORMAT, **record, "weights_sha256": sha256(contents)}
        run = cls(folder, full)
        run.write_json(RECORD, full)
        return run

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """Writes values to a file of the run, `as_json`."""
        write_whole(self.folder / name, as_json(values))

    def begun_in_words(self) -> str:
        """What is trained, and how far it has come by its newest checkpoint."""
        record, saved = self.record, steps_saved(self.folder)
        name = self.recipe_name
        reached = "no checkpoint" if saved is None else f"its newest checkpoint at step {saved}"
        return f"{name} on {record['data']['source']}, {reached} of {record['training'].get('steps')}"

    @property
    def can_resume(self) -> bool:
        """Whether there is something to go on from."""
        return (self.folder / TRAINING).exists()

    @property
    def recipe_name(self) -> str:
        """The name that the recipe went by."""
        file = self.record["file"]
        return self.record["recipe"] if file is None else file  # type: ignore[no-any-return]  # a text

    def in_words(self) -> str:
        """What training came to: its steps, and which weights are saved."""
        about, best = self.record, self.record["best_validation"]
        ended = {"finished": "trained", "early stopping": "stopped early after"}
        state = ended.get(about["stopped"], f"{about['stopped']} after")
        which = f"step {best['step']:.0f}, the best by validation ({best['score']:.2f} nats)" if best else ""
        return (
            f"{state} {about['steps']} steps in {about['seconds']:.0f} s, the weights of {which or 'the last step'} "
            f"written to {self.folder}"
        )

    def history(self) -> list[dict[str, float]]:
        """The metrics recorded in training, by step."""
        lines = contents_of(self.folder / METRICS).decode().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def recipe_file(self) -> Path:
        """Where the recipe file of a run lies, if its recipe is one: in the folder itself, whatever the record says."""
        return self.folder / RECIPE

    def weights(self) -> bytes:
        """The contents of the run's weights. Raises ValueError if they are not what training wrote."""
        return _intact(self.folder / WEIGHTS, self.record["weights_sha256"])

    def recipe_text(self) -> bytes | None:
        """The text of the run's recipe file, which is not executed; None of a built-in recipe.

        Raises ValueError if it is a link, or not what was trained.
        """
        if self.record["file"] is None:
            return None
        return _intact(self.recipe_file, self.record.get("recipe_sha256"))

    def load_weights(self, program: nn.Module) -> None:
        """Gives the program the run's weights. Raises ValueError, naming what differs, if they are not its own."""
        path = self.folder / WEIGHTS
        try:
            state = safetensors.torch.load(self.weights())
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}. Restore it, or train again.") from error
        _refuse_difference(path, state, tensors_of(program))
        program.load_state_dict(state, strict=False)  # what `get_extra_state` adds and is no tensor, no file holds


def no_user(path: str | Path) -> str | None:
    """What is said of a path that begins with the name of a user whom there is not, such as ~nobody/run; else None."""
    expanded = os.path.expanduser(path)
    if not expanded.startswith("~"):
        return None
    return f"there is no user {expanded.split('/')[0][1:]!r}; write ./{path} for that name."


def steps_saved(folder: Path) -> int | None:
    """The step of a run's newest checkpoint, by its name; None where there is none."""
    return next((count_of(path.name) for path in in_order(folder / CHECKPOINTS)), None)


def sha256(contents: bytes) -> str:
    """The digest by which a file is known, in hexadecimal."""
    return hashlib.sha256(contents).hexdigest()


def as_json(values: Mapping[str, Any]) -> bytes:
    """Values as the contents of a file; a number that is not finite, which JSON lacks, becomes null."""
    return (json.dumps(_finite(values), indent=2, allow_nan=False) + "\n").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _no_run(path: Path) -> str:
    if (path / LOCK).exists():
        return f"{path} holds a run whose training has not finished ({RECORD} is missing){_begun_in_words(path)}"
    # A disk that can not exchange two folders at once, and a process that ended between the two steps.
    aside = sorted(path.parent.glob(f".{glob.escape(path.name)}.aside.*")) if path.parent.is_dir() else []
    if aside and not path.exists():
        return f"there is no run folder {path}. It was being replaced; the run before that is {aside[0]}: give it its name."
    places = [path.parent, Path("runs")]
    runs = [str(other.parent) for place in places if place.is_dir() for other in place.glob(f"*/{RECORD}")]
    close = difflib.get_close_matches(str(path), runs, n=1) or difflib.get_close_matches(
        str(Path("runs") / path.name), runs, n=1
    )
    what = f"{path} holds no run ({RECORD} is missing)" if path.is_dir() else f"there is no run folder {path}"
    return f"{what}.{f' Did you mean {close[0]}?' if close else ' `ppmodels train RECIPE` makes one.'}"


def _begun_in_words(path: Path) -> str:
    try:
        run = Run.begun(path)
    except (OSError, ValueError):
        run = None
    if run is None:
        return ". Wait for it, or train it again."
    return f": {run.begun_in_words()}. Wait for it, or go on with it: ppmodels resume {path}"


def _intact(path: Path, digest: str | None) -> bytes:
    """The contents of a file with that digest; of any, where a run of an earlier version records none."""
    contents = contents_of(path)
    if digest is not None and sha256(contents) != digest:
        raise ValueError(
            f"{path} is damaged or edited: its hash is not that of what training wrote. Restore it, or train again."
        )
    return contents


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
