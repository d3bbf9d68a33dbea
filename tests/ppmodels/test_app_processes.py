"""The command line in processes of its own: what of the user's files, and of a run, is left after what can go wrong."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ppmodels.app import Run, evaluate, find, train
from ppmodels.app.experiment import restored
from tests.ppmodels.app_helpers import COLUMNS, write_recipe, write_table

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what this process trains; matplotlib takes longer than training here."""
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a recipe and its data, as a user has one."""
    write_recipe(tmp_path, write_table(tmp_path), COLUMNS)
    return tmp_path


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "MPLBACKEND": "nonsense"}


def started(project: Path, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The command line at work in the project's folder; without pictures, as no backend is called nonsense."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    command = [sys.executable, "-m", "ppmodels", *map(str, arguments)]
    return subprocess.Popen(command, cwd=project, env=environment(), text=True, **options)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=120)
    assert "Traceback" not in (stderr or ""), stderr
    return process.returncode, stdout, stderr


ENDLESS = ("train", "my_model.py", "--steps", 10**7)


@pytest.fixture
def endless(project: Path) -> Iterator[subprocess.Popen[str]]:
    """A training into `run` that has taken steps, and does not end by itself."""
    process = started(project, *ENDLESS, "--out", "run")
    until(lambda: has_steps(project / "run"), process)
    yield process
    process.kill()
    process.wait()


def until(true: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 100
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def has_steps(folder: Path) -> bool:
    metrics = folder / "metrics.jsonl"
    return metrics.exists() and metrics.stat().st_size > 0


def whole(folder: Path) -> Run:
    """The run in a folder, whose weights are those that its record says."""
    run = Run.open(folder)
    restored(run)
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    return run


def test_a_project_folder_is_never_written_into(project: Path) -> None:
    (project / "samples.csv").write_text("mine\n")
    before = {path.name: path.read_bytes() for path in project.iterdir()}
    code, _, stderr = ended(started(project, "train", "my_model.py", "--out", ".", "--overwrite"))
    assert code == 1
    assert "--out . holds my_model.py, samples.csv, table.csv, which no run has written" in stderr
    assert {path.name: path.read_bytes() for path in project.iterdir() if path.is_file()} == before


def test_runs_started_together_get_folders_of_their_own(project: Path) -> None:
    processes = [started(project, "train", "my_model.py", "--seed", seed) for seed in (1, 2)]
    assert [ended(process)[0] for process in processes] == [0, 0]
    runs = [whole(folder) for folder in sorted((project / "runs").iterdir())]
    assert [run.folder.name for run in runs] == ["my_model-table", "my_model-table-2"]
    assert {run.record["seed"] for run in runs} == {1, 2}


def test_a_second_training_into_a_folder_is_refused_and_sigterm_saves_the_first(
    project: Path, endless: subprocess.Popen[str]
) -> None:
    code, _, stderr = ended(started(project, "train", "my_model.py", "--out", "run", "--overwrite"))
    assert code == 1
    assert f"process {endless.pid} on " in stderr
    assert "is training there; choose another --out" in stderr
    endless.send_signal(signal.SIGTERM)
    code, _, stderr = ended(endless)
    assert code == 143, stderr
    run = whole(project / "run")
    assert (run.record["stopped"], run.record["weights_of_step"] % 2) == ("terminated", 0)  # validated every 2 steps
    assert f"terminated after {run.record['steps']} steps" in stderr
    assert f"the weights of step {run.record['weights_of_step']}, the best by validation (-" in stderr
    assert not list((project / "run").glob("*.png"))


@pytest.mark.skipif(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN, reason="SIGHUP is ignored, as under nohup")
def test_sighup_saves_too_and_a_reader_that_has_left_ends_nothing(project: Path) -> None:
    process = started(project, *ENDLESS, "--out", "run")
    assert process.stderr is not None
    assert "1 thread" in process.stderr.readline()
    process.stderr.close()
    until(lambda: has_steps(project / "run"), process)
    process.send_signal(signal.SIGHUP)
    process.wait(timeout=100)
    assert process.returncode == 129
    assert whole(project / "run").record["stopped"] == "hung up"
    assert process.stdout is not None
    process.stdout.close()


def test_ctrl_c_twice_ends_at_once_and_the_folder_says_that_it_is_unfinished(
    project: Path, endless: subprocess.Popen[str]
) -> None:
    os.kill(endless.pid, signal.SIGSTOP)  # so that both are there when it goes on
    endless.send_signal(signal.SIGINT)
    endless.send_signal(signal.SIGTERM)
    os.kill(endless.pid, signal.SIGCONT)
    code, _, stderr = ended(endless)
    assert code in (130, 143)
    assert stderr.endswith(("ended by SIGINT\n", "ended by SIGTERM\n"))
    with pytest.raises(FileNotFoundError, match="holds a run whose training has not finished"):
        Run.open(project / "run")
    _, notes = train(find(project / "my_model.py"), project / "run", progress=False)
    assert f"{project / 'run'} held a run whose training did not finish; it is replaced." in notes
    whole(project / "run")


def test_kill_under_overwrite_leaves_the_old_run(project: Path) -> None:
    out = project / "run"
    old, _ = train(find(project / "my_model.py"), out, progress=False)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    process = started(project, *ENDLESS, "--out", out, "--overwrite")
    until(lambda: any(has_steps(path) for path in project.glob(".run.*")), process)
    process.kill()
    process.communicate()
    assert {name: contents for name, contents in before.items() if (out / name).read_bytes() != contents} == {}
    assert Run.open(out).record == old.record
    # The next one sweeps what is left of it.
    new, notes = train(find(project / "my_model.py"), out, seed=1, overwrite=True, progress=False)
    assert notes == []
    assert whole(out).record["seed"] == 1
    assert not list(project.glob(".run*"))
    assert new.folder == out


KILLED_AT_THE_EXCHANGE = """
import os
from ppmodels.app import find, run_folder, train

exchange = run_folder.exchange

def killed(first, second):
    exchange(first, second)
    os.kill(os.getpid(), 9)

run_folder.exchange = killed
train(find("my_model.py"), "run", seed=1, overwrite=True, progress=False)
"""


def test_a_kill_right_after_the_exchange_leaves_the_new_run(project: Path) -> None:
    train(find(project / "my_model.py"), project / "run", progress=False)
    command = [sys.executable, "-c", KILLED_AT_THE_EXCHANGE]
    killed = subprocess.run(command, cwd=project, env=environment(), timeout=100, check=False)
    assert killed.returncode == -signal.SIGKILL
    new = Run.open(project / "run")
    restored(new)
    assert new.record["seed"] == 1
    train(find(project / "my_model.py"), project / "run", seed=2, overwrite=True, progress=False)
    assert whole(project / "run").record["seed"] == 2
    assert not list(project.glob(".run*"))


def test_a_run_is_kept_whatever_becomes_of_its_output(project: Path) -> None:
    script = 'exec "$0" -m ppmodels train my_model.py --out run >/dev/full 2>&-'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable], cwd=project, env=environment(), timeout=100, check=False
    )
    assert done.returncode == 0
    assert whole(project / "run").record["stopped"] == "finished"


def test_a_pipe_to_head_keeps_the_run_and_pictures_that_fail_are_notes(project: Path) -> None:
    process = started(project, "train", "my_model.py", "--out", "run")
    assert process.stdout is not None
    process.stdout.close()
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    assert "note: no loss.png: " in stderr
    assert "'nonsense' is not a valid value for backend" in stderr
    whole(project / "run")


def test_a_number_that_can_not_be_written_is_shown(project: Path) -> None:
    run, _ = train(find(project / "my_model.py"), project / "run", progress=False)
    shown = f"{evaluate(run, progress=False).mean('exact'):.2f} ? "  # ASCII has no ±
    (project / "run" / "evaluation.json").unlink()
    (project / "run" / "evaluation.json").mkdir()
    with open("/dev/full", "w") as full:
        processes = started(project, "evaluate", "run"), started(project, "evaluate", "run", stdout=full)
        (code, stdout, stderr), (failed, _, why) = map(ended, processes)
    assert code == 0
    assert shown in stdout
    assert "note: run/evaluation.json could not be written: Is a directory" in stderr
    assert failed == 1
    assert "error: standard output: No space left on device" in why


@pytest.mark.parametrize(
    ("every", "named"), [("never", "weights.safetensors"), ("5 min", "checkpoints/step-000000000")]
)
def test_a_limit_on_files_is_one_line_that_names_the_file(every: str, named: str, project: Path) -> None:
    """As a full disk is, which a test can not have."""
    write_recipe(project, project / "table.csv", COLUMNS.replace("zeros(data", "zeros(10**4, *data"))
    source = (project / "my_model.py").read_text().replace("dist.Normal(self.mean,", "dist.Normal(self.mean.mean(0),")
    (project / "my_model.py").write_text(source)
    script = 'ulimit -f 8; exec "$0" -m ppmodels train my_model.py --out run --checkpoint-every "$1"'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, every],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: run/{named}: File too large")
    assert "Traceback" not in done.stderr
    assert not list((project / "run").glob(".weights*"))


def test_ctrl_c_in_another_command_is_no_traceback(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (project / "my_model.py").open("a") as file:
        file.write("\nimport os, signal\nif 'PRESSED' in os.environ:\n    os.kill(os.getpid(), signal.SIGINT)\n")
    train(find(project / "my_model.py"), project / "run", progress=False)
    before = {path.name: path.stat().st_mtime_ns for path in (project / "run").iterdir() if path.is_file()}
    monkeypatch.setenv("PRESSED", "1")
    assert ended(started(project, "evaluate", "run")) == (130, "", "ended by SIGINT\n")
    assert {path.name: path.stat().st_mtime_ns for path in (project / "run").iterdir() if path.is_file()} == before
