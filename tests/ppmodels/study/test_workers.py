"""Processes of a study: so many at a time, and none is left behind."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ppmodels.app.study.workers import Job, Process, run

WAIT = """
import os, sys, time
from pathlib import Path

name, seconds = sys.argv[1:]
Path(f"{name}.pid").write_text(str(os.getpid()))
print(name, os.environ["OMP_NUM_THREADS"], flush=True)
time.sleep(float(seconds))
if name.startswith("bad"):
    sys.exit("it went wrong")
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "waiting.py").write_text(WAIT)
    monkeypatch.chdir(tmp_path)


def job(name: str, seconds: float) -> Job:
    return Job(name, ("waiting", name, str(seconds)), Path(f"{name}.txt"))


def pid_of(name: str) -> int | None:
    """The process of a job that has begun."""
    path = Path(f"{name}.pid")
    text = path.read_text() if path.exists() else ""
    return int(text) if text else None


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_so_many_run_at_a_time_in_their_order_and_those_that_fail_stop_no_other() -> None:
    most = 0

    def look(running: Sequence[Process]) -> None:
        nonlocal most
        most = max(most, len(running))

    ended = list[tuple[str, int | None, str]]()
    jobs = [job("a", 0.1), job("bad", 0.1), job("c", 0.1), job("d", 0.1)]
    assert run(jobs, 2, lambda each: ended.append((each.job.name, each.code, each.last_words())), look, lambda: False)
    assert most == 2
    assert {name: (code, said) for name, code, said in ended} == {
        "a": (0, "a 1"),
        "bad": (1, "it went wrong"),
        "c": (0, "c 1"),
        "d": (0, "d 1"),
    }
    order = [each[0] for each in ended]
    assert set(order[:2]) == {"a", "bad"}


def test_what_is_under_way_ends_when_it_is_to_stop() -> None:
    ended = list[str]()
    jobs = [job("a", 60), job("b", 60)]
    assert not run(
        jobs, 1, lambda each: ended.append(each.job.name), lambda running: None, lambda: pid_of("a") is not None
    )
    assert ended == []
    assert pid_of("b") is None
    assert not is_alive(pid_of("a") or 0)


def test_an_error_leaves_no_process_behind() -> None:
    def look(running: Sequence[Process]) -> None:
        if pid_of("a"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([job("a", 60)], 1, lambda each: None, look, lambda: False)
    assert not is_alive(pid_of("a") or 0)


def test_what_the_user_can_do_is_the_last_line() -> None:
    ended = list[tuple[int | None, str]]()
    jobs = [Job("a", ("ppmodels.app.study.worker", "nowhere"), Path("a.txt"))]
    assert run(jobs, 1, lambda each: ended.append((each.code, each.last_words())), lambda running: None, lambda: False)
    assert ended == [(2, "error: nowhere holds no study (study.json is missing).")]


def test_a_job_waits_until_it_is_ready_and_is_left_out_where_it_never_is() -> None:
    ended = list[str]()
    waiting = [
        dataclasses.replace(job("last", 0), ready=lambda: "first" in ended),
        job("first", 0.1),
        dataclasses.replace(job("never", 0), ready=lambda: False),
    ]
    assert run(waiting, 2, lambda each: ended.append(each.job.name), lambda running: None, lambda: False)
    assert ended == ["first", "last"]


STARTER = """
import sys, time
from pathlib import Path
from ppmodels.app.study.workers import Job, started

process = started(Job("a", ("orphan",), Path("a.txt")))
time.sleep(60)
"""
ORPHAN = """
import os, time
from pathlib import Path
from ppmodels.app.study.workers import at_work

with at_work():
    Path("a.pid").write_text(str(os.getpid()))
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_process_ends_with_the_one_that_has_started_it() -> None:
    Path("starter.py").write_text(STARTER)
    Path("orphan.py").write_text(ORPHAN)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    starter = subprocess.Popen([sys.executable, "starter.py"], env=environment)
    deadline = time.monotonic() + 60
    while (pid := pid_of("a")) is None:
        assert starter.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
