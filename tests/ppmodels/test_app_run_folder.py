"""The folder of a run: what is refused, what is replaced, and what is left where something fails."""

import dataclasses
import json
import os
import re
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from inference import NonFinite
from inference.training import files
from inference.training.files import contents_of, write_whole
from ppmodels.app import RECIPES, Run, evaluate, sample, train
from ppmodels.app import exchange as exchanging
from ppmodels.app.cli import app
from ppmodels.app.experiment import path_of, restored
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.run import LOCK, sha256
from ppmodels.app.run_folder import claimed, refuse
from ppmodels.data import Dataset, load

TINY = RECIPES["vae"].with_settings({"steps": 3, "hidden": (8,), "latent": 2, "validate_every": 2})
TINY = dataclasses.replace(TINY, data="ring-8")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return trained(tmp_path / "run")[0]


def trained(folder: Path, recipe: object = TINY, **options: object) -> tuple[Run, list[str]]:
    return train(NamedRecipe("vae", recipe), folder, progress=False, **options)  # type: ignore[arg-type]


def state(folder: Path) -> dict[str, bytes | None]:
    return {str(each): each.read_bytes() if each.is_file() else None for each in folder.rglob("*")}


def users_note(folder: Path) -> str:
    (folder / "notes.txt").write_text("mine")
    return "notes.txt"


def users_copy(folder: Path) -> str:
    (folder / ".run.json.bad").write_text("mine")
    return ".run.json.bad"


def folder_of_a_files_name(folder: Path) -> str:
    (folder / "training.png").mkdir()
    return "training.png"


def link(folder: Path) -> str:
    (folder / "weights.safetensors").rename(folder.parent / "elsewhere")
    (folder / "weights.safetensors").symlink_to(folder.parent / "elsewhere")
    return "weights.safetensors"


def record_of_something_else(folder: Path) -> str:
    (folder / "run.json").write_text('{"jobs": 3}')
    return "loss.png, metrics.jsonl, run.json"


def no_record(folder: Path) -> str:
    (folder / "run.json").unlink()
    return "loss.png, metrics.jsonl, samples.csv"


def recipe_of_ones_own(folder: Path) -> str:
    """Beside the record of a run whose recipe is built in."""
    (folder / "recipe.py").write_text("mine")
    return "recipe.py"


@pytest.mark.parametrize(
    "put",
    [users_note, users_copy, folder_of_a_files_name, link, record_of_something_else, no_record, recipe_of_ones_own],
)
def test_what_no_run_has_written_is_refused_by_name(put: Callable[[Path], str], run: Run, tmp_path: Path) -> None:
    named = put(run.folder)
    before = state(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=rf"holds {named}.*, which no run has written; choose another folder"):
            trained(run.folder, overwrite=overwrite)
    assert state(tmp_path) == before


def test_a_table_of_the_users_is_not_taken_for_a_runs(tmp_path: Path) -> None:
    for name in ("samples.csv", "recipe.py", "run.json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("mine")
        with pytest.raises(ValueError, match=f"holds {name}, which no run has written"):
            refuse("tiny", tmp_path / name, overwrite=True)


def test_a_recipe_that_was_edited_in_its_run_is_its_owners(run: Run) -> None:
    path, text = run.folder / "recipe.py", b"as it was trained"
    path.write_bytes(text)
    run.write_json("run.json", {**run.record, "recipe_sha256": sha256(text)})
    refuse("tiny", run.folder, overwrite=True)
    path.write_bytes(text + b", and edited")
    with pytest.raises(ValueError, match=r"holds recipe.py, which no run has written"):
        refuse("tiny", run.folder, overwrite=True)


def test_a_lock_that_is_another_file_by_a_second_name_is_not_written_into(tmp_path: Path) -> None:
    """In a folder that someone sent."""
    (tmp_path / "thesis").write_text("mine")
    (tmp_path / "run").mkdir()
    os.link(tmp_path / "thesis", tmp_path / "run" / LOCK)
    with (
        pytest.raises(ValueError, match=r"holds \.ppmodels\.lock, which no run has written"),
        claimed("tiny", tmp_path / "run", overwrite=True),
    ):
        pass
    assert (tmp_path / "thesis").read_text() == "mine"


def test_data_in_the_run_that_would_be_replaced_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`samples.csv` is a table like others, and can be trained on."""
    sample(run, progress=False)
    before = state(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("run")
    for data, folder in (("run/samples.csv", None), ("samples.csv", "link"), (str(run.folder), None)):
        with pytest.raises(ValueError, match=r"the data .* lie in run, the folder of the run; choose another --out"):
            train(NamedRecipe("vae", dataclasses.replace(TINY, data=data)), "run", folder, overwrite=True)
    Path("link").unlink()
    assert state(tmp_path) == before
    run.folder.rename("ring-8")  # which is the name of the data, too
    refuse("tiny", "ring-8", overwrite=True, data=path_of("ring-8", None))


def test_temporary_files_of_a_killed_write_are_a_runs(run: Run) -> None:
    write_whole(run.folder / ".weights.safetensors.1a2b3c4d", b"")
    write_whole(run.folder / ".run.json.4711", b"")  # as earlier versions named them
    (run.folder / "__pycache__").mkdir()
    (run.folder / "__pycache__" / "recipe.cpython-311.pyc").touch()  # which they left, too
    again, notes = trained(run.folder, overwrite=True)
    assert notes == []
    assert not [path for path in again.folder.iterdir() if path.name.startswith((".", "_"))]
    (run.folder / "__pycache__").mkdir()
    (run.folder / "__pycache__" / "mine.pyc").touch()
    with pytest.raises(ValueError, match="holds __pycache__, which no run has written"):
        trained(run.folder, overwrite=True)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_name_that_is_taken_is_skipped(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    taken = Path("runs", "tiny")
    {"file": taken.touch, "folder": taken.mkdir, "link": lambda: taken.symlink_to("nowhere")}[kind]()
    with claimed("tiny", None, overwrite=False) as place:
        assert place.folder == Path("runs", "tiny-2")
    assert os.listdir("runs") == ["tiny"]  # nothing was written to the other


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("", "--out is empty; name a folder"),
        ("/", "--out / holds .*, which no run has written"),
        ("file", "--out file is a file; name a folder"),
        ("file/below", "file/below: .*file is no folder; choose another --out"),
        ("dangling", "--out dangling is a link that leads nowhere"),
        ("loop", "--out loop is a link that leads nowhere"),
        ("~nosuchuser/x", r"--out ~nosuchuser/x: there is no user 'nosuchuser'; write \./~nosuchuser/x"),
        ("n" * 300, "File name too long"),
        (None, "runs/vae-ring-8: .*runs is no folder; choose another --out"),
    ],
)
def test_an_out_that_can_not_be_is_one_line(
    out: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("file", "runs"):
        Path(name).touch()
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    before = os.listdir()
    arguments = ["train", "vae", "--steps", "1", "--data", "ring-8", *([] if out is None else ["--out", out])]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith("error: ")
    assert re.search(message, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1
    assert os.listdir() == before


def test_names_that_can_not_be_are_one_line_everywhere() -> None:
    for name in ("~nosuchuser/x", "n" * 300):
        for arguments in (["evaluate", name], ["train", f"{name}.py"], ["train", "vae", "--data", f"{name}.csv"]):
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 2, result.exception
            assert result.stderr.startswith("error: ")
            assert result.stderr.count("\n") == 1


def test_a_run_that_is_reached_by_a_link_is_replaced_where_it_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    run.folder.rename(tmp_path / "deep" / "run")
    (tmp_path / "latest").symlink_to(tmp_path / "deep" / "run")
    again, _ = trained(tmp_path / "latest", seed=1, overwrite=True)
    assert (tmp_path / "latest").is_symlink()
    assert Run.open(tmp_path / "deep" / "run").record == again.record
    assert again.record["seed"] == 1
    assert os.listdir(tmp_path / "deep") == ["run"]


def test_links_in_a_run_are_not_followed(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    (run.folder / "samples.csv").unlink()
    (run.folder / "samples.csv").symlink_to(secret)
    sample(run, 3, progress=False)
    (run.folder / "evaluation.json").symlink_to(secret)
    evaluate(run, limit=3, progress=False)
    assert secret.read_text() == "mine"
    assert not (run.folder / "samples.csv").is_symlink()
    for name, read in (
        ("weights.safetensors", lambda: restored(run)),
        ("metrics.jsonl", run.history),
        ("run.json", lambda: Run.open(run.folder)),
    ):
        (run.folder / name).rename(tmp_path / name)
        (run.folder / name).symlink_to(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} is a link, and links in a run are not followed"):
            read()
        (run.folder / name).unlink()
        (run.folder / name).mkdir()
        with pytest.raises(ValueError, match=f"{name}: expected a file, got a folder"):
            read()
        os.rmdir(run.folder / name)
        (tmp_path / name).rename(run.folder / name)


def test_what_its_owner_adds_while_it_is_replaced_is_kept(run: Run, tmp_path: Path) -> None:
    with claimed("run", run.folder, overwrite=True) as place:
        (place.folder / "run.json").write_bytes((run.folder / "run.json").read_bytes())
        users_note(run.folder)
        assert place.settle() == tmp_path / "run-2"
    assert [note for note in place.notes if "the new run is in" in note]
    assert (run.folder / "notes.txt").read_text() == "mine"
    Run.open(run.folder)
    restored(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-2"]
    assert not (tmp_path / "run-2" / LOCK).exists()


def test_where_folders_can_not_be_exchanged_at_once_both_are_whole(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanging, "_at_once", lambda first, second: False)
    again, _ = trained(run.folder, seed=1, overwrite=True)
    restored(Run.open(run.folder))
    assert again.record["seed"] == 1
    assert os.listdir(tmp_path) == ["run"]
    # Cut short between the two steps, the old run is found.
    rename = Path.rename

    def fails(path: Path, other: Path) -> Path:
        if other == run.folder:
            raise KeyboardInterrupt
        return rename(path, other)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(KeyboardInterrupt):
        exchanging.exchange(tmp_path / "new", run.folder)
    monkeypatch.undo()
    (aside,) = tmp_path.iterdir()
    with pytest.raises(FileNotFoundError, match=rf"It was being replaced; the run before that is {aside}: give it"):
        Run.open(run.folder)


def test_an_exchange_that_fails_leaves_both_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").touch()
    for at_once in (exchanging._at_once, lambda first, second: False):
        monkeypatch.setattr(exchanging, "_at_once", at_once)
        with pytest.raises(FileNotFoundError):
            exchanging.exchange(tmp_path / "new", tmp_path / "old")
        assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["old", "old/file"]


def test_only_what_a_killed_training_left_beside_a_run_is_swept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".run.1a2b3c4d").symlink_to(tmp_path / "elsewhere")
    for name, files_in in ((".run.00000000", [LOCK, "notes.txt"]), (".run.11111111", []), (".run.old", [LOCK])):
        (tmp_path / name).mkdir()
        for each in files_in:
            (tmp_path / name / each).touch()
    (tmp_path / "elsewhere" / LOCK).touch()
    before = state(tmp_path)
    (tmp_path / ".run.22222222").mkdir()
    (tmp_path / ".run.22222222" / LOCK).touch()
    trained(run.folder, overwrite=True)
    after = state(tmp_path)
    ours = str(run.folder)
    assert {name for name in after if not name.startswith(ours)} == {
        name for name in before if not name.startswith(ours)
    }


def test_a_second_claim_is_refused_while_the_first_lasts(run: Run) -> None:
    again = claimed("run", run.folder, overwrite=True)
    with (
        claimed("run", run.folder, overwrite=True),
        pytest.raises(ValueError, match=rf"process {os.getpid()} on .* is training there"),
        again,
    ):
        pass
    assert not (run.folder / LOCK).exists()
    trained(run.folder, overwrite=True)


def test_the_current_folder_is_not_replaced(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.folder)
    before = state(run.folder)
    with pytest.raises(ValueError, match=r"--out \. is where you are, and would be gone"):
        trained(Path("."), overwrite=True)
    assert state(run.folder) == before


def failing(after: int) -> object:
    """A recipe whose learning rate ends training by an error after so many steps."""
    steps = {"steps": 100, "validate_every": 2}
    schedule = lambda fraction: float("nan") if fraction * 100 >= after else 1.0  # noqa: E731
    return dataclasses.replace(TINY.with_settings(steps), schedule=schedule)


def test_a_training_that_fails_leaves_the_old_run(run: Run, tmp_path: Path) -> None:
    before = state(tmp_path)
    for after in (0, 50):
        with pytest.raises((ValueError, NonFinite)):
            trained(run.folder, failing(after), overwrite=True)
        assert state(tmp_path) == before


def test_a_training_that_fails_leaves_its_metrics_and_no_folder_without_them(tmp_path: Path) -> None:
    with pytest.raises((ValueError, NonFinite)):
        trained(tmp_path / "first", failing(0))
    assert not (tmp_path / "first").exists()
    with pytest.raises((ValueError, NonFinite)):
        trained(tmp_path / "later", failing(50))
    assert (tmp_path / "later" / "metrics.jsonl").stat().st_size > 0
    with pytest.raises(FileNotFoundError, match="whose training has not finished"):
        Run.open(tmp_path / "later")
    users_note(tmp_path / "later")
    with pytest.raises(ValueError, match=r"holds notes\.txt"):
        trained(tmp_path / "later")
    (tmp_path / "later" / "notes.txt").unlink()
    (tmp_path / "later" / ".weights.safetensors.1a2b3c4d").touch()  # of a write that was killed
    again, notes = trained(tmp_path / "later")
    assert not [path for path in again.folder.iterdir() if path.name.startswith(".")]
    assert [note for note in notes if "did not finish; it is replaced" in note]
    assert len(again.history()) == 3  # the rows of this training alone


def test_files_are_written_under_a_name_that_nobody_has_and_as_the_umask_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert files.temporary_name("file") != files.temporary_name("file")
    (tmp_path / "secret").write_text("mine")
    (tmp_path / ".file.0").symlink_to(tmp_path / "secret")
    monkeypatch.setattr(files, "temporary_name", lambda name: f".{name}.0")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "file", b"2")
    assert (tmp_path / "secret").read_text() == "mine"


def test_a_state_that_is_no_tensor_is_a_note(tmp_path: Path) -> None:
    class Counts(nn.Module):
        """A part whose state is a Python object, as an optimizer's or a tokenizer's may be."""

        def get_extra_state(self) -> object:
            return {"calls": 3}

        def set_extra_state(self, state: object) -> None:
            raise AssertionError("there is none to set")

    def program(data: Dataset, hidden: tuple[int, ...] = (8,), latent: int = 2) -> nn.Module:
        made: nn.Module = RECIPES["vae"].program(data, hidden=hidden, latent=latent)
        made.add_module("counts", Counts())
        return made

    with pytest.warns(
        UserWarning, match=r"a run that is resumed will not be the same to the bit: .*counts\._extra_state"
    ):
        run, notes = trained(tmp_path / "run", dataclasses.replace(TINY, program=program, presets=(), average=0.9))
    assert [note for note in notes if note.startswith("counts._extra_state: not saved")]
    run.load_weights(program(load("ring-8")))


def test_pictures_that_fail_in_any_way_are_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr("ppmodels.app.plots.png", fails)
    monkeypatch.setattr("ppmodels.app.sample_progression.draw_samples", fails)
    run, notes = trained(tmp_path / "run", dataclasses.replace(TINY, progression=2))
    restored(run)
    assert notes == [
        "no loss.png: AssertionError",
        "no samples: AssertionError",
        "no sample progression after step 1: AssertionError",
    ]


def test_a_disk_that_is_full_of_pictures_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(folder: Path, files: dict[str, bytes]) -> None:
        raise OSError(28, "No space left on device", str(folder / "loss.png"))

    monkeypatch.setattr("ppmodels.app.pictures.write_together", fails)
    run, notes = trained(tmp_path / "run")
    restored(run)
    assert notes == [f"pictures are missing: {tmp_path / 'run' / 'loss.png'}: No space left on device"]


def test_a_disk_without_room_for_the_weights_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=100))
    monkeypatch.setattr("ppmodels.app.training.fit", lambda *arguments, **options: pytest.fail("it was trained"))
    with pytest.raises(OSError, match=r"the weights need [\d,]+ bytes, and the disk has 100 left"):
        trained(tmp_path / "run")
    assert os.listdir(tmp_path) == []


def test_a_disk_without_room_for_a_lock_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, contents: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with claimed("tiny", tmp_path / "run", overwrite=False) as place:
        assert place.folder.is_dir()
    assert os.listdir(tmp_path) == []


def test_a_disk_that_can_only_be_read_is_told_by_the_files_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, *about: object, **more: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", denied)
    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(OSError, match="Read-only") as raised:
        write_whole(tmp_path / "evaluation.json", b"")
    assert raised.value.filename == str(tmp_path / "evaluation.json")


def test_ctrl_c_at_the_pictures_keeps_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(figure: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr("ppmodels.app.plots.png", pressed)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run")
    restored(Run.open(tmp_path / "run"))
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_before_the_first_step_leaves_no_folder(
    number: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), getattr(signal, number))
        os.kill(os.getpid(), getattr(signal, number))  # the first ends training after a step

    monkeypatch.setattr("ppmodels.app.training.fit", fit)
    arguments = ["train", "vae", "--data", "ring-8", "--set", "hidden=8", "--out", str(tmp_path / "run")]
    before = signal.getsignal(signal.SIGTERM)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code
    assert result.stderr.endswith(f"ended by {number}\n")
    assert os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_while_a_run_is_saved_waits(
    number: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Run.write

    def signalled(folder: Path, weights: object, record: object) -> Run:
        os.kill(os.getpid(), getattr(signal, number))
        return write(folder, weights, record)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(Run, "write", signalled)
    arguments = [
        "train",
        "vae",
        "--data",
        "ring-8",
        "--steps",
        "2",
        "--set",
        "hidden=8",
        "--out",
        str(tmp_path / "run"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code
    assert "trained 2 steps in 0 s" in result.stderr
    restored(Run.open(tmp_path / "run"))
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize("name", ["run.json", "weights.safetensors"])
def test_a_file_that_may_not_be_read_is_one_line(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = files._unfollowed

    def denied(path: str, flags: int) -> int:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", path)
        return opened(path, flags)

    monkeypatch.setattr(files, "_unfollowed", denied)
    result = CliRunner().invoke(app, ["evaluate", str(run.folder)])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {run.folder / name}: Permission denied; ")
    assert result.stderr.count("\n") == 1


def test_a_name_of_a_folder_can_not_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(NamedRecipe("vae", TINY), tmp_path / "a\x1b[2J\nb")
    shown = capsys.readouterr().err
    assert r"a\x1b[2J\nb/metrics.jsonl" in shown
    assert "\x1b" not in shown


def test_a_run_says_which_weights_it_has(tmp_path: Path) -> None:
    grows = TINY.with_settings({"steps": 6, "validate_every": 2})
    run, _ = trained(tmp_path / "best", dataclasses.replace(grows, schedule=lambda done: 1000.0 if done > 0.5 else 1.0))
    assert run.record["weights_of_step"] == 4
    assert "trained 6 steps in 0 s, the weights of step 4, the best by validation (-2.8" in run.in_words()
    last, _ = trained(tmp_path / "last", TINY.with_settings({"validate_every": None}))
    assert last.record["weights_of_step"] == 3
    assert "trained 3 steps in 0 s, the weights of the last step written to " in last.in_words()


def test_a_number_is_given_where_it_can_not_be_written(run: Run) -> None:
    (run.folder / "evaluation.json").mkdir()
    shown: list[object] = []
    with pytest.warns(UserWarning, match=r"evaluation.json could not be written: Is a directory"):
        result = evaluate(run, limit=3, progress=False, show=shown.append)
    assert shown == [result]
    assert torch.isfinite(result.log_prob["elbo"]).all()
    assert json.loads((run.folder / "run.json").read_text()) == run.record


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_what_comes_in_the_place_of_a_file_that_was_looked_at_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, path = tmp_path / "real", tmp_path / "run.json"
    real.write_text("another's")
    looked_at = real.lstat()
    monkeypatch.setattr(Path, "lstat", lambda self: looked_at)
    path.symlink_to(real)
    with pytest.raises(OSError, match=r"run\.json"):
        contents_of(path)
    path.unlink()
    os.mkfifo(path)
    assert contents_of(path) == b""  # it does not wait for a writer
