"""What strangers send: nothing of it is executed, followed or shown as more than text."""

import hashlib
import importlib.util
import marshal
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.faults.case import Case, System
from tests.faults.given import (
    Given,
    all_of,
    copied,
    flipped,
    folder_named,
    link,
    mode,
    more,
    moved,
    record,
    strangers,
    text,
    without,
)
from tests.faults.runner import CANARY
from tests.faults.section import rows_of

EVIL = f"\nopen({CANARY!r}, 'w').close()\n"
ESCAPE = "\x1b[31mred\x1b[0m"
ESCAPED = "\\x1b[31mred"
WEIGHTS = "run/weights.safetensors"
EXECUTES = ("stranger/recipe.py", "would be executed", "--trust", "Read it first")


class Payload:
    """What executes something where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (CANARY,)


def pickled(name: str) -> Given:
    return text(name, pickle.dumps(Payload()))


def an_object_array(folder: Path, name: str = "evil") -> Path:
    array = np.empty(100, dtype=object)
    array[:] = [Payload() for _ in range(100)]
    np.save(folder / f"{name}.npy", array, allow_pickle=True)
    return folder / f"{name}.npy"


def an_object_archive(folder: Path) -> None:
    path = an_object_array(folder)
    with zipfile.ZipFile(folder / "evil.npz", "w") as archive:
        archive.write(path, "labels.npy")
        np.save(folder / "x.npy", np.zeros((100, 4), dtype=np.uint8))
        archive.write(folder / "x.npy", "x.npy")


def torch_saved(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"mean": Payload()}, folder / WEIGHTS)


def vouched_for(folder: Path) -> None:
    """The record has the hash of the weights, so that only their reader is left to refuse them."""
    record(weights_sha256=hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest())(folder)


def safetensors(header: bytes, length: int | None = None) -> Given:
    contents = struct.pack("<Q", len(header) if length is None else length) + header
    return all_of(text(WEIGHTS, contents), vouched_for)


def bytecode(folder: Path) -> None:
    """Compiled from another text than recipe.py has, for its time and size."""
    recipe = folder / "run/recipe.py"
    cached = Path(importlib.util.cache_from_source(str(recipe)))
    cached.parent.mkdir()
    state = recipe.stat()
    header = importlib.util.MAGIC_NUMBER + struct.pack("<III", 0, int(state.st_mtime), state.st_size)
    cached.write_bytes(header + marshal.dumps(compile(recipe.read_text() + EVIL, str(recipe), "exec")))


def same_size_and_time(folder: Path) -> None:
    recipe = folder / "run/recipe.py"
    state, source = recipe.stat(), recipe.read_text()
    recipe.write_text((EVIL + source)[: len(source)])
    os.utime(recipe, ns=(state.st_atime_ns, state.st_mtime_ns))


def a_picture_named(name: str) -> Given:
    def write(folder: Path) -> None:
        (folder / "pictures").mkdir()
        for place in range(12):
            Image.new("L", (4, 4), place).save(folder / "pictures" / f"{place}.png")
        (folder / "pictures" / name).write_bytes(b"no picture")

    return write


def refused(command: str) -> Case:
    return Case(f"{command} of a stranger", f"{command} stranger", 1, EXECUTES, strangers(EVIL))


CASES = (
    *map(refused, ("evaluate", "sample", "reconstruct", "complete", "diagnose", "calibrate", "compare run", "export --arviz x.nc")),
    Case("compare with a stranger first", "compare stranger run", 1, EXECUTES, strangers(EVIL)),
    Case("a stranger whose weights are damaged", "evaluate stranger", 1, ("stranger/weights.safetensors is damaged",), all_of(strangers(EVIL), flipped("stranger/weights.safetensors", -1))),
    Case("a stranger whose weights are damaged, with --trust", "evaluate stranger --trust", 1, ("stranger/weights.safetensors is damaged",), all_of(strangers(EVIL), flipped("stranger/weights.safetensors", -1))),
    Case("a stranger, with --trust", "evaluate stranger --trust", 0, ("exact",), strangers("\n# harmless\n")),
    Case("--trust counts for one call", ("evaluate stranger --trust", "evaluate stranger"), 1, EXECUTES, strangers("\n# harmless\n")),
    Case("ppmodels trust executes nothing", "trust stranger", 0, ("stranger/recipe.py is trusted",), strangers(EVIL)),
    Case("a trusted stranger that is edited then", ("trust stranger", "trust run", "evaluate stranger --limit 3"), 0, ("exact",), strangers("\n# harmless\n")),
    Case("ppmodels trust of a link", "trust stranger", 1, ("stranger/recipe.py is a link",), all_of(strangers(EVIL), moved("stranger/recipe.py", "aside.py"), link("stranger/recipe.py", "../aside.py"))),
    Case("a recipe of a trusted run that is edited", "evaluate run", 1, ("run/recipe.py is damaged or edited",), more("run/recipe.py", EVIL)),
    Case("a recipe of a trusted run that is edited, with --trust", "evaluate run --trust", 1, ("run/recipe.py is damaged or edited",), more("run/recipe.py", EVIL)),
    Case("a recipe replaced by one of the same size and time", "evaluate run", 1, ("run/recipe.py is damaged or edited",), same_size_and_time),
    Case("bytecode beside a recipe", "evaluate run", 0, ("exact",), bytecode),
    Case("a recipe that is a link", "evaluate run", 1, ("run/recipe.py is a link",), all_of(moved("run/recipe.py", "r.py"), link("run/recipe.py", "../r.py"))),
    Case("a recipe elsewhere by its path", "evaluate run", 1, ("run.json", "a run has no recipe file but recipe.py"), all_of(text("x.py", EVIL), record(recipe="/tmp/x.py"))),
    Case("a recipe in the folder above", "evaluate run", 1, ("run.json", "a run has no recipe file but recipe.py"), all_of(text("x.py", EVIL), record(recipe="../x.py"))),
    Case("a built-in recipe by the name of a file", "evaluate digits", 1, ("digits/run.json", "no recipe 'x.py'"), all_of(text("x.py", EVIL), record("digits", recipe="x.py"))),
    Case("a recipe file whose name has folders", "evaluate run", 1, ("run.json", "file is"), record(file="../my_model.py")),
    Case("a record that says a stranger is built in", "evaluate stranger", 1, ("stranger/run.json", "no recipe"), all_of(strangers(EVIL), record("stranger", file=None))),
    Case("a stranger without the hash of its recipe", "evaluate stranger", 1, EXECUTES, all_of(strangers(EVIL), record("stranger", recipe_sha256=None))),
    Case("a list of trusted texts that others can write", "evaluate run", 1, ("run/recipe.py", "can be written by others", "chmod 600"), mode("../beside/trusted", 0o666)),
    Case("a list of trusted texts that is a folder", "evaluate run", 1, ("run/recipe.py", "Is a directory"), folder_named("../beside/trusted")),
    Case("a list of trusted texts by a relative path", "evaluate run", 1, ("run/recipe.py", "no absolute path", "PPMODELS_TRUSTED"), all_of(moved("../beside/trusted", "trusted")), System(environment={"PPMODELS_TRUSTED": "trusted"})),
    Case("a list of trusted texts that is no text", "evaluate run", 1, ("run/recipe.py", "would be executed"), text("../beside/trusted", os.urandom(1000))),
    Case("training with a list that can not be written", "train my_model.py --out new", 0, ("could not be entered among the recipes that this user trusts", "PPMODELS_TRUSTED"), folder_named("../beside/trusted")),
    # What is unpickled executes
    Case("an .npy of objects", "train vae --data evil.npy", 1, ("evil.npy", "Python objects (a pickle)", "never read", "np.save"), an_object_array),
    Case("an .npz of objects", "train vae --data evil.npz", 1, ("evil.npz", "Python objects (a pickle)", "never read"), an_object_archive),
    Case("an .npz that is a pickle", "train vae --data evil.npz", 1, ("evil.npz", "not a whole zip archive"), pickled("evil.npz")),
    Case("an .npy that is a pickle", "train vae --data evil.npy", 1, ("evil.npy", "can not be read"), pickled("evil.npy")),
    Case("a .csv that is a pickle", "train vae --data evil.csv", 1, ("evil.csv", "can not be read"), pickled("evil.csv")),
    Case("a .pkl", "train vae --data evil.pkl", 1, ("evil.pkl", "expected a file", ".npy"), pickled("evil.pkl")),
    Case("a .pt", "train vae --data evil.pt", 1, ("evil.pt", "expected a file", ".npy"), pickled("evil.pt")),
    Case("a Python file as data", "train vae --data evil.py", 1, ("evil.py", "expected a file"), text("evil.py", EVIL)),
    Case("weights that are a pickle", "evaluate run", 1, (WEIGHTS, "damaged or edited"), pickled(WEIGHTS)),
    Case("weights that torch.save wrote", "evaluate run", 1, (WEIGHTS, "damaged or edited"), torch_saved),
    Case("weights that torch.save wrote, with their hash", "evaluate run", 1, (WEIGHTS, "is damaged"), all_of(torch_saved, vouched_for)),
    # Weights with the hash on record
    Case("weights with a header of 2^63 bytes", "evaluate run", 1, (WEIGHTS, "is damaged"), safetensors(b"{}", 2**63), System(memory=500)),
    Case("weights with a header of 100 MB that is not there", "evaluate run", 1, (WEIGHTS, "is damaged"), safetensors(b"{}", 10**8), System(memory=500)),
    Case("weights with a header of 100,000 brackets", "evaluate run", 1, (WEIGHTS, "is damaged"), safetensors(b"[" * 100_000), System(memory=500)),
    Case("weights with a header of 100,000 nested objects", "evaluate run", 1, (WEIGHTS, "is damaged"), safetensors(b'{"a":' * 100_000), System(memory=500)),
    Case("weights whose tensors are not there", "evaluate run", 1, (WEIGHTS, "is damaged"), safetensors(b'{"mean":{"dtype":"F32","shape":[1000000000],"data_offsets":[0,4000000000]}}'), System(memory=500)),
    Case("weights without any tensor", "evaluate run", 1, (WEIGHTS, "lacks mean"), safetensors(b"{}      ")),
    Case("weights with a name of escape characters", "evaluate run", 1, (WEIGHTS, "\\x1b[31m"), safetensors(b'{"\\u001b[31m":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}')),
    Case("weights with a name of 10 million letters", "evaluate run", 1, (WEIGHTS, "too many"), safetensors(b'{"' + b"a" * 10**7 + b'":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}')),
    # Links that lead to the user's files
    Case("samples.png is a link to a file of the user's", "sample run", 0, ("wrote",), all_of(without("run/samples.png"), link("run/samples.png", "../table.csv")), changes=("run/*",)),
    Case("evaluation.json is a link to a file of the user's", "evaluate run", 0, ("exact",), link("run/evaluation.json", "../table.csv"), changes=("run/evaluation.json",)),
    Case("the lock is a link to a file of the user's", "train my_model.py --out new", 1, (".ppmodels.lock",), all_of(folder_named("new"), link("new/.ppmodels.lock", "../table.csv"))),
    Case("the lock is another name of a file of the user's", "train my_model.py --out new", 1, (".ppmodels.lock",), all_of(folder_named("new"), lambda folder: os.link(folder / "table.csv", folder / "new/.ppmodels.lock"))),
    Case("metrics.jsonl is a link to a file of the user's", "train my_model.py --out new", 1, ("metrics.jsonl", "no run has written"), all_of(text("new/.ppmodels.lock", "x"), link("new/metrics.jsonl", "../table.csv"))),
    Case("a run to replace whose samples.csv is a link", "train my_model.py --out run --overwrite", 1, ("samples.csv", "no run has written"), all_of(without("run/samples.csv"), link("run/samples.csv", "../table.csv"))),
    Case("a run to replace with a folder of the user's", "train my_model.py --out run --overwrite", 1, ("__pycache__", "no run has written"), text("run/__pycache__/mine.txt", "mine")),
    Case("a run that is a link is replaced", "train my_model.py --out l --overwrite", 0, ("l",), all_of(copied("run", "other"), link("l", "other")), changes=("other/*",)),
    # Characters of data on a terminal
    Case("columns with escape characters", "train vae --data t.csv", 1, (f"a{ESCAPED}", "row 2"), text("t.csv", f"a{ESCAPE},b,c\nx,2,3\n")),
    Case("a cell with escape characters", "train vae --data t.csv", 1, (ESCAPED, "row 3, column 3"), text("t.csv", f"a,b,c\n1,2,3\n1,2,{ESCAPE}\n")),
    Case("a cell with a line of its own", "train vae --data t.csv", 1, ("column 3", "\\nerror: forged"), text("t.csv", 'a,b,c\n1,2,3\n1,2,"x\nerror: forged"\n')),
    Case("data named with markup", "evaluate marked", 0, ("a[bold]b", "exact"), lambda folder: _renamed_data(folder, "a[bold]b.csv")),
    Case("data named with escape characters", "evaluate marked", 0, (f"a{ESCAPED}", "exact"), lambda folder: _renamed_data(folder, f"a{ESCAPE}.csv")),
    Case("data named with emoji codes", "evaluate marked", 0, (":smile:", "exact"), lambda folder: _renamed_data(folder, ":smile:.csv")),
    Case("a run named with escape characters", f"evaluate 'r{ESCAPE}'", 0, ("exact",), copied("run", f"r{ESCAPE}")),
    Case("runs named with escape characters are compared", f"compare run 'r{ESCAPE}'", 0, (ESCAPED,), copied("run", f"r{ESCAPE}")),
    Case("runs named with markup are compared", "compare run 'r[bold red]x'", 0, ("r[bold red]x",), copied("run", "r[bold red]x")),
    Case("a record whose recipe has escape characters", "evaluate digits", 1, (ESCAPED,), record("digits", recipe=ESCAPE)),
    Case("a record whose format has escape characters", "evaluate digits", 1, ("\\x1b",), record("digits", format=ESCAPE)),
    Case("a record whose data have escape characters", "evaluate digits", 2, (ESCAPED,), record("digits", data__source=ESCAPE)),
    Case("a record whose settings have escape characters", "evaluate digits", 1, ("\\x1b",), record("digits", settings={ESCAPE: 3})),
    Case("a picture named with escape characters", "train vae --data pictures", 1, (ESCAPED, "can not be read"), a_picture_named(f"z{ESCAPE}.png")),
    Case("a picture named with a line of its own", "train vae --data pictures", 1, ("\\nerror: forged", "can not be read"), a_picture_named("z\nerror: forged.png")),
    Case("an .npz with keys of escape characters", "train vae --data t.npz", 1, (ESCAPED,), lambda folder: np.savez(folder / "t.npz", **{ESCAPE: np.zeros(3)})),
    Case("a setting with escape characters", f"train vae --set '{ESCAPE}=3'", 1, (ESCAPED, "no setting")),
    Case("a setting of a value with escape characters", f"train vae --set 'latent={ESCAPE}'", 1, (ESCAPED, "latent: expected a whole number")),
    Case("a recipe named with escape characters", f"train '{ESCAPE}'", 2, (ESCAPED,)),
    Case("an estimator named with escape characters", f"evaluate run --estimators '{ESCAPE}'", 1, (ESCAPED,)),
    Case("a summary with escape characters and markup", "recipes r.py", 0, (ESCAPED, "[bold]"), text("r.py", f"from ppmodels.app import Recipe\nrecipe = Recipe(program=print, summary={ESCAPE + '[bold]'!r})\n")),
    Case("a default with escape characters", "recipes r.py", 0, ("\\x1b",), text("r.py", f"from ppmodels.app import Recipe\ndef program(data, name={ESCAPE!r}): ...\nrecipe = Recipe(program=program)\n")),
    Case("right-to-left and invisible characters in a name", "evaluate 'a\u202eb\u200bc'", 2, ("a\\u202eb\\u200bc",)),
)  # fmt: skip


def _renamed_data(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / "table.csv").read_bytes())
    copied("run", "marked")(folder)
    record("marked", data__source=str(folder / name), data__name=Path(name).stem)(folder)


test_security = rows_of("security", __name__, CASES)
