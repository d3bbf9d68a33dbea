"""A run that was killed and resumed ends with the bits of one that was left alone."""

from pathlib import Path

import pytest

from inference import Checkpoint
from tests.resumable import CASES, STEPS, Killed, killed_at, run


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_is_killed_and_resumed_is_the_run_left_alone(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    alone = run(case, tmp_path / "alone")
    assert run(case, tmp_path / "saved", checkpoint=Checkpoint(tmp_path / "unread", every=1)) == alone
    for at in range(1, STEPS):
        folder = tmp_path / f"killed at {at}"
        checkpoint = Checkpoint(folder, every=2)
        with pytest.raises(Killed):
            run(case, folder, checkpoint=checkpoint, callbacks=[killed_at(at)])
        assert run(case, folder, checkpoint=checkpoint) == alone, f"killed at {at}"
