"""A whole study in processes: what it leaves, how it goes on, and what becomes of models that fail."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ppmodels.app import Run
from ppmodels.app.study import folder
from ppmodels.app.study.measurement import FAILED, FINISHED, LogLikelihood, Measurement, Missing
from ppmodels.app.study.planning import Asked
from ppmodels.app.study.protocol import Protocol
from ppmodels.app.study.running import jobs_left, study
from tests.ppmodels.app_helpers import COLUMNS, OWN, write_recipe, write_table

ROOT = Path(__file__).parents[3]
_MEAN = "dist.Normal(self.mean, 1.0)"
SLOW = "import time\n" + COLUMNS.replace(
    "        with pyro", "        time.sleep(0.05 * self.training)\n        with pyro", 1
)
BROKEN = COLUMNS.replace(
    "        with pyro", "        self.runs = getattr(self, 'runs', 0) + self.training\n        with pyro", 1
).replace(_MEAN, "dist.Normal(self.mean, 1.0 if self.runs < 30 else float('nan'))")


def started(project: Path, *arguments: object) -> subprocess.Popen[str]:
    """The command at work in the project's folder; without a run's own pictures, as no backend is called nonsense."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "nonsense"}
    command = [sys.executable, "-m", "ppmodels", "study", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=project, env=environment, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=200)
    assert "Traceback" not in stderr, stderr
    return process.returncode, stdout, stderr


def measured_in(out: Path) -> tuple[Protocol, dict[str, Measurement]]:
    plan = folder.plan_in(out)
    assert plan is not None
    return plan, {f"{each.model}-{each.seed}": each for each in folder.measurements(out, plan)}


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_a_study_that_is_interrupted_goes_on_and_a_model_that_fails_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path)
    for name, source in (("slow", SLOW), ("broken", BROKEN)):
        (tmp_path / f"{name}.py").write_text(source.replace("DATA", "table.csv"))
    arguments = ("broken.py", "slow.py", "--seeds", 1, "--steps", 120, "--out", "out", "--processes", 2)
    out, process = tmp_path / "out", started(tmp_path, *arguments)
    metrics, broken = out / "runs" / "slow-0" / "metrics.jsonl", out / "measured" / "broken-0.json"
    deadline = time.monotonic() + 150
    while not (broken.exists() and metrics.exists() and metrics.stat().st_size > 0):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(ValueError, match=rf"process {process.pid} on .* is training there"), folder.claimed(out):
        pass
    process.send_signal(signal.SIGINT)
    code, _, stderr = ended(process)
    assert code == 128 + signal.SIGINT
    assert "go on with it by the same command" in stderr
    interrupted = Run.open(out / "runs" / "slow-0")
    assert interrupted.record["stopped"] == "terminated"
    assert 0 < interrupted.record["steps"] < 120
    before = broken.stat().st_mtime_ns

    code, stdout, stderr = ended(started(tmp_path, *arguments))
    assert code == 0, stderr
    assert "out holds this study; it goes on" in stderr
    plan, found = measured_in(out)
    assert broken.stat().st_mtime_ns == before  # what is measured is not done anew
    run = Run.open(out / "runs" / "slow-0")
    assert (run.record["stopped"], run.record["steps"]) == ("finished", 120)
    assert f"goes on from step {interrupted.record['steps']} of 120" in (out / "logs" / "slow-0.txt").read_text()
    assert jobs_left(plan, out) == []

    assert found["slow-0"].status == FINISHED
    failed = found["broken-0"]
    assert failed.status == FAILED
    assert "finite" in failed.reason
    assert isinstance(failed.log_likelihood, Missing)
    assert failed.training.parameters > 0
    assert (out / "report.json").exists()
    assert f"repeat it: {plan.command}" in stdout

    monkeypatch.chdir(tmp_path)
    other = Asked(models=["broken.py", "slow.py"], data="table.csv", seeds=1, steps=["121"], device="cpu")
    with pytest.raises(ValueError, match=r"out holds another study: models\[0\] steps: 120 there, 121 here"):
        study(other, out, show=lambda report: None)


@pytest.mark.slow
def test_a_study_by_minutes_is_repeated_by_its_command(tmp_path: Path) -> None:
    """Two models of the digits with two seeds, and the numbers are the same to the bit."""
    write_recipe(tmp_path, "digits", OWN.replace("steps=4", "steps=24"))
    arguments = ("my_model.py", "my_model.py:latent=2", "--seeds", 2, "--limit", 20, "--out", "out")
    code, _, stderr = ended(started(tmp_path, *arguments, "--minutes", 0.01))
    assert code == 1
    assert "--minutes 0.01 leaves too few steps: my_model 0, my_model latent=2 0" in stderr
    assert not (tmp_path / "out").exists()

    code, _, stderr = ended(started(tmp_path, *arguments, "--minutes", 5))
    assert code == 0, stderr
    assert stderr.count("measured, -") == 4
    plan, found = measured_in(tmp_path / "out")
    assert [each.steps for each in plan.models] == [24, 24]  # time enough for all that the recipe has
    runs = [Run.open(tmp_path / "out" / each.run).record for each in found.values()]
    assert [(each["steps"], each["threads"]) for each in runs] == 4 * [(24, 1)]

    again = shlex.split(plan.command)[2:]
    again[again.index("--out") + 1] = "again"
    code, _, stderr = ended(started(tmp_path, *again))
    assert code == 0, stderr
    repeated, same = measured_in(tmp_path / "again")
    assert repeated.models == plan.models
    numbers = {name: each.log_likelihood for name, each in found.items()}
    assert {name: each.log_likelihood for name, each in same.items()} == numbers
    assert all(isinstance(each, LogLikelihood) for each in numbers.values())
