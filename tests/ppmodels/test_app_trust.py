"""A run that someone sent: nothing of it is executed unasked, and what is executed is what was trained."""

import json
import os
import py_compile
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from typer.testing import CliRunner

from ppmodels.app import Run, compare, complete, evaluate, find, reconstruct, sample, train
from ppmodels.app.cli import app
from ppmodels.app.experiment import restored
from ppmodels.app.run import sha256
from ppmodels.app.trust import enter, trusted_file
from tests.ppmodels.app_helpers import OWN, write_recipe

ROOT = Path(__file__).parents[2]
COMMANDS = ("evaluate", "sample", "reconstruct", "complete", "compare")
CANARY = "\nimport pathlib\n\npathlib.Path({!r}).touch()\n"
"""Executed, it leaves a file; the text has one length whatever the file, if the names have."""


def call(*arguments: object) -> Any:  # typer does not name the class of results
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def in_a_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ppmodels", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def refusal(result: Any) -> str:
    code = result.returncode if isinstance(result, subprocess.CompletedProcess) else result.exit_code
    assert code == 1, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def edit_record(run: Path, **changes: object) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose recipe leaves `canary` beside the run when it is executed."""
    folder = tmp_path_factory.mktemp("own")
    source = OWN.replace("steps=4", "steps=2") + CANARY.format(str(folder / "canary"))
    train(find(write_recipe(folder, "digits", source)), folder / "run", progress=False)
    return folder / "run"


@pytest.fixture
def canary(trained: Path) -> Path:
    path = trained.parent / "canary"
    path.unlink(missing_ok=True)
    return path


@pytest.fixture
def own(trained: Path, tmp_path: Path) -> Path:
    """The run in a folder that a test may change; this user has trained it."""
    return shutil.copytree(trained, tmp_path / "own")


@pytest.fixture
def strangers(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run as another user gets it."""
    monkeypatch.setenv("PPMODELS_TRUSTED", str(tmp_path / "state" / "trusted"))
    return shutil.copytree(trained, tmp_path / "a run")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_strangers_recipe_is_not_executed(command: str, strangers: Path, canary: Path) -> None:
    before = sorted(strangers.iterdir())
    message = refusal(in_a_process(command, strangers))
    assert f"{strangers / 'recipe.py'} (sha256 " in message
    assert "would be executed, and this user has neither trained nor trusted it" in message
    assert "--trust" in message
    assert f"ppmodels trust '{strangers}'" in message
    assert not canary.exists()
    assert sorted(strangers.iterdir()) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_it_is_executed_where_the_user_says_so_this_once(command: str, strangers: Path, canary: Path) -> None:
    result = call(command, strangers, "--trust")
    assert result.exit_code == (1 if command == "complete" else 0), result.output  # the program has nothing to complete
    assert canary.exists()
    canary.unlink()
    assert "would be executed" in refusal(call(command, strangers))
    assert not canary.exists()


def test_the_functions_refuse_a_stranger_too(strangers: Path, canary: Path) -> None:
    run = Run.open(strangers)
    for command in (evaluate, sample, reconstruct, complete, restored, lambda run: compare([run])):
        with pytest.raises(ValueError, match=r"would be executed.*trust=True"):
            command(run)
    assert not canary.exists()
    assert restored(run, trust=True).program.latent == 3


def test_a_recipe_is_trusted_from_now_on(strangers: Path, canary: Path) -> None:
    result = call("trust", strangers)
    assert result.exit_code == 0, result.output
    assert not canary.exists()
    path = trusted_file()
    assert path.read_text().split()[0] == sha256((strangers / "recipe.py").read_bytes())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert call("trust", strangers).exit_code == 0
    assert len(path.read_text().splitlines()) == 1
    restored(Run.open(strangers))
    damaged = shutil.copytree(strangers, strangers.with_name("damaged"))
    (damaged / "recipe.py").write_text("raise SystemExit")
    path.unlink()
    assert "damaged or edited" in refusal(call("trust", strangers, damaged))
    assert not path.exists()


def test_an_own_training_is_trusted_by_itself(tmp_path: Path) -> None:
    """In real processes, in the file that the XDG specification names."""
    home = tmp_path / "home"
    fonts = matplotlib.get_configdir()  # a new home would find them anew, for seconds
    where = {"HOME": str(home), "PPMODELS_TRUSTED": "", "XDG_STATE_HOME": "", "MPLCONFIGDIR": fonts}
    recipe = write_recipe(tmp_path, "digits", OWN.replace("steps=4", "steps=1"))
    result = in_a_process("train", recipe, "--out", tmp_path / "run", **where)
    assert result.returncode == 0, result.stderr
    trusted = home / ".local" / "state" / "ppmodels" / "trusted"
    assert trusted.read_text() == f"{sha256(recipe.read_bytes())}  {recipe}\n"
    recipe.unlink()
    shutil.move(tmp_path / "run", tmp_path / "moved")
    result = in_a_process("evaluate", tmp_path / "moved", "--limit", 3, "--particles", 2, **where)
    assert result.returncode == 0, result.stderr


def test_what_is_trained_is_trusted_from_the_first_step(strangers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed is its user's to go on with."""

    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    folder = strangers.parent
    recipe = write_recipe(folder, "digits", OWN.replace("steps=4", "steps=1"))
    monkeypatch.setattr("ppmodels.app.training.fit", killed)
    assert call("train", recipe, "--out", folder / "run").exit_code == 130
    assert sha256(recipe.read_bytes()) in trusted_file().read_text()


def test_a_home_that_can_not_be_written_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PPMODELS_TRUSTED", "")
    monkeypatch.setenv("XDG_STATE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    result = call(
        "train", write_recipe(tmp_path, "digits", OWN.replace("steps=4", "steps=1")), "--out", tmp_path / "run"
    )
    assert result.exit_code == 0, result.output
    assert "note: " in result.stderr
    assert "could not be entered among the recipes that this user trusts ([Errno" in result.stderr
    assert (tmp_path / "run" / "weights.safetensors").exists()
    assert "neither trained nor trusted it ([Errno" in refusal(call("evaluate", tmp_path / "run"))
    restored(Run.open(tmp_path / "run"), trust=True)


def test_all_of_a_comparison_is_checked_before_any_is_executed(
    own: Path, trained: Path, tmp_path: Path, canary: Path
) -> None:
    other = shutil.copytree(trained, tmp_path / "other")
    text = (other / "recipe.py").read_bytes() + b"# another\n"
    (other / "recipe.py").write_bytes(text)
    edit_record(other, recipe_sha256=sha256(text))
    message = refusal(call("compare", own, other))
    assert f"ppmodels trust {other}\n" in message
    (other / "weights.safetensors").write_bytes(b"")
    assert "weights.safetensors is damaged" in refusal(call("compare", own, other, "--trust"))
    assert not canary.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_edited_recipe_is_refused_even_if_trusted(command: str, own: Path, canary: Path) -> None:
    with (own / "recipe.py").open("a") as file:
        file.write("# an edit\n")
    for trust in ([], ["--trust"]):
        assert "recipe.py is damaged or edited" in refusal(call(command, own, *trust))
    assert not canary.exists()


def test_a_recipe_of_the_same_size_and_time_is_told_apart(own: Path, canary: Path) -> None:
    path = own / "recipe.py"
    found, text = path.stat(), path.read_text()
    path.write_text(text.replace("hidden=(16,)", "hidden=(61,)"))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert path.stat().st_size == found.st_size
    assert "damaged or edited" in refusal(call("evaluate", own, "--trust"))
    assert not canary.exists()


def test_bytecode_is_neither_read_nor_written(own: Path, canary: Path) -> None:
    """What Python's own import would take for the compiled recipe.py: its time and size agree."""
    path, other = own / "recipe.py", canary.with_name("canarz")
    found, text = path.stat(), path.read_text()
    path.write_text(text.replace(str(canary), str(other)))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    cached = Path(
        py_compile.compile(str(path), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    )
    path.write_text(text)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    before = cached.read_bytes()
    result = in_a_process("sample", own)
    assert result.returncode == 0, result.stderr
    assert canary.exists()
    assert not other.exists()
    assert cached.read_bytes() == before
    shutil.rmtree(cached.parent)
    restored(Run.open(own))
    assert not cached.parent.exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"recipe": "../x.py"}, "recipe is '../x.py'"),
        ({"recipe": "ELSEWHERE"}, "recipe is "),
        ({"recipe": "../x.py", "file": None}, "there is no recipe '../x.py'"),
        ({"recipe": "recipe.py", "file": None}, "there is no recipe 'recipe.py'"),
        ({"recipe": "vae"}, "recipe is 'vae'"),
        ({"file": "../x.py"}, "file is '../x.py'"),
        ({"recipe_sha256": 3}, "recipe_sha256 is 3"),
    ],
)
def test_no_path_of_a_record_leads_to_code(changes: dict[str, Any], named: str, own: Path, canary: Path) -> None:
    elsewhere = own.parent / "x.py"
    elsewhere.write_bytes((own / "recipe.py").read_bytes())
    changes = {name: str(elsewhere) if value == "ELSEWHERE" else value for name, value in changes.items()}
    edit_record(own, **changes)
    for trust in ([], ["--trust"]):
        assert named in refusal(call("evaluate", own, *trust))
    assert not canary.exists()


def test_a_recipe_that_is_a_link_is_refused(own: Path, canary: Path) -> None:
    (own / "recipe.py").rename(own.parent / "x.py")
    (own / "recipe.py").symlink_to("../x.py")
    assert "recipe.py is a link" in refusal(call("evaluate", own, "--trust"))
    assert not canary.exists()


def test_weights_are_checked_before_anything_is_executed(strangers: Path, canary: Path) -> None:
    path = strangers / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    for trust in ([], ["--trust"]):
        assert "weights.safetensors is damaged" in refusal(call("evaluate", strangers, *trust))
    assert not canary.exists()


def test_a_file_of_trusted_texts_that_others_can_write_is_not_used(strangers: Path) -> None:
    enter((strangers / "recipe.py").read_bytes(), "it")
    restored(Run.open(strangers))
    trusted_file().chmod(0o660)
    with pytest.raises(ValueError, match=r"\(.*trusted can be written by others; own it, and chmod 600 it\)"):
        restored(Run.open(strangers))
    assert "could not be entered" in refusal(call("trust", strangers))
    trusted_file().chmod(0o644)
    restored(Run.open(strangers))
    if os.geteuid() == 0:  # only root can give a file away
        os.chown(trusted_file(), 12345, -1)
        with pytest.raises(ValueError, match="can be written by others"):
            restored(Run.open(strangers))


def test_the_file_of_trusted_texts_never_lies_in_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("PPMODELS_TRUSTED", "")
    monkeypatch.setenv("HOME", "/home/me")
    assert trusted_file() == Path("/home/me/.local/state/ppmodels/trusted")
    for name in ("HOME", "PPMODELS_TRUSTED"):
        monkeypatch.setenv(name, "relative")
        with pytest.raises(OSError, match="is no absolute path"):
            trusted_file()


def test_trainings_that_end_together_are_all_entered(strangers: Path) -> None:
    texts = [f"recipe {number}".encode() for number in range(40)]
    threads = [threading.Thread(target=enter, args=(text, "name")) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = filter(None, trusted_file().read_text().splitlines())  # a line may be begun twice
    assert {line.split()[0] for line in lines} == set(map(sha256, texts))


def test_a_last_line_without_its_end_does_not_swallow_the_next(strangers: Path) -> None:
    text = (strangers / "recipe.py").read_bytes()
    enter(b"another", "first")
    trusted_file().write_text(trusted_file().read_text().rstrip("\n"))  # as some editors leave it
    enter(text, "second")
    assert [line.split()[0] for line in trusted_file().read_text().splitlines()] == [sha256(b"another"), sha256(text)]
    restored(Run.open(strangers))


def test_a_name_adds_no_line_of_its_own(strangers: Path) -> None:
    digest = sha256((strangers / "recipe.py").read_bytes())
    enter(b"another", f"a\n{digest}  b")
    assert "would be executed" in refusal(call("evaluate", strangers))


def test_a_run_from_before_digests_were_recorded_is_a_strangers(own: Path, canary: Path) -> None:
    record = json.loads((own / "run.json").read_text())
    del record["recipe_sha256"]
    (own / "run.json").write_text(json.dumps(record))
    restored(Run.open(own))  # its text is one that this user has trained
    canary.unlink()
    with (own / "recipe.py").open("a") as file:
        file.write("# an edit\n")
    assert "would be executed" in refusal(call("evaluate", own))
    assert not canary.exists()
    restored(Run.open(own), trust=True)


def test_data_that_are_not_there_are_named_anew(own: Path) -> None:
    record = json.loads((own / "run.json").read_text())
    edit_record(own, data=record["data"] | {"source": "/home/someone/x.npy"})
    result = call("sample", own)
    assert result.exit_code == 2
    assert "/home/someone/x.npy" in result.stderr
    assert "Name where they are: --data, or --folder." in result.stderr
    for command in ("sample", "compare"):
        assert call(command, own, "--data", "digits").exit_code == 0
