"""A run that was killed and resumed ends with the bits of one that was left alone."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from inference import SVI, Checkpoint, Step, Validation, adam, fit
from inference.training.fitted import Fitted
from tests.resumable import CASES, DATA, STEPS, VAE, Case, Killed, digest, killed_at, made, run


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_is_killed_and_resumed_is_the_run_left_alone(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    alone = run(case, tmp_path / "alone")
    assert run(case, tmp_path / "saved", checkpoint=Checkpoint(tmp_path / "unread", every=1)) == alone
    for at in range(1, STEPS):
        folder = tmp_path / f"killed at {at}"
        checkpoint = Checkpoint(folder, every=2)
        with suppress(Killed):  # a run can stop before
            run(case, folder, checkpoint=checkpoint, callbacks=[killed_at(at)])
        assert run(case, folder, checkpoint=checkpoint) == alone, f"killed at {at}"


def test_a_finished_run_that_is_given_more_steps_is_one_of_as_many(tmp_path: Path) -> None:
    """The row and the score of a last step, where no interval asks for them, are of a run that ends with it."""
    case, kept = CASES["vae"], Checkpoint(tmp_path / "kept", every=100)

    def run_of(steps: int, name: str, checkpoint: Checkpoint | None = None) -> tuple[str, Fitted]:
        step, validation = case.step(), Validation(DATA[:16], every=2)
        settings: dict[str, Any] = {"validation": validation, "progress": False, "checkpoint": checkpoint}
        found = fit(step, case.batches, steps, metrics=tmp_path / name, record_every=4, **settings)
        return digest(step, found, tmp_path / name), found

    first, fitted = run_of(5, "first", kept)
    assert [row["step"] for row in fitted.history if "validation" in row] == [2, 4, 5]
    assert run_of(5, "first again", kept)[0] == first
    assert run_of(8, "more", kept)[0] == run_of(8, "alone")[0]


def test_what_a_callback_has_unfrozen_stays_so(tmp_path: Path) -> None:
    def frozen() -> Step:
        step = Step(SVI(made(VAE)), adam(0.01), average=0.9)
        step.objective.program.decoder.weight.requires_grad_(False)
        return step

    def unfreeze(step: Step, values: Any) -> None:
        if step.count == 2:
            step.objective.program.decoder.weight.requires_grad_(True)

    case, checkpoint = Case(frozen), Checkpoint(tmp_path / "killed", every=1)
    alone = run(case, tmp_path / "alone", callbacks=[unfreeze])
    with pytest.raises(Killed):
        run(case, tmp_path / "killed", checkpoint=checkpoint, callbacks=[unfreeze, killed_at(5)])
    assert run(case, tmp_path / "killed", checkpoint=checkpoint, callbacks=[unfreeze]) == alone


def test_a_run_that_a_callback_has_ended_goes_on_in_the_same_process(tmp_path: Path) -> None:
    """The program then has its best weights, and those of the last step are in the checkpoint."""
    case, checkpoint = CASES["vae"], Checkpoint(tmp_path)
    settings: dict[str, Any] = {
        "validation": Validation(DATA[:16], every=1),
        "progress": False,
        "checkpoint": checkpoint,
    }
    step = case.step()
    stopped = fit(step, case.batches, STEPS, callbacks=[lambda step, values: step.count == 3], **settings)
    assert (stopped.stopped, stopped.steps) == ("callback", 3)
    assert checkpoint.latest() == (tmp_path / "step-000000003", 3, "callback")
    again = fit(step, case.batches, STEPS, **settings)
    alone = case.step()
    whole = fit(alone, case.batches, STEPS, **settings | {"checkpoint": None})
    assert (again.stopped, again.steps, again.best) == ("finished", STEPS, whole.best)
    for mine, theirs in zip(step.objective.parameters(), alone.objective.parameters(), strict=True):
        assert mine.equal(theirs)


_KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from inference import Checkpoint, Validation
from tests.resumable import CASES, DATA, run

torch.set_num_threads(1)
moment = random.Random(4)


def reached(folder):
    return max([0, *(int(path.name[5:]) for path in folder.glob("step-*"))])


for name, kills in (("vae", int(sys.argv[2])), ("gan", int(sys.argv[3]))):
    folder, killed, steps = Path(sys.argv[1], name), 0, 15 * kills
    case = CASES[name]._replace(validation=Validation(DATA[:16], every=10) if name == "vae" else None)
    alone = run(case, folder / "alone", steps)
    while not (folder / "hash").exists():
        child = os.fork()
        if child == 0:
            (folder / "hash").write_text(run(case, folder / "killed", steps, Checkpoint(folder / "killed", every=5)))
            os._exit(0)
        if killed < kills:  # a moment after a later checkpoint has come, with enough steps left not to be too late
            there = reached(folder / "killed") + moment.choice([5, 10])
            while reached(folder / "killed") < there and not (folder / "hash").exists():
                time.sleep(0.001)
            time.sleep(moment.uniform(0.0, 0.01))
            os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert (folder / "hash").read_text() == alone, name
    print(killed, kills)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("kills", [(4, 2), pytest.param((20, 5), marks=pytest.mark.slow)])
def test_kill_9_at_random_moments(kills: tuple[int, int], tmp_path: Path) -> None:
    """Of a VAE with dropout, BatchNorm, an average, a schedule and a validation, and of a GAN with two players."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _KILLS, str(tmp_path), *map(str, kills)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        killed, asked = map(int, line.split())
        assert 0.8 * asked <= killed <= asked  # one may have come too late
