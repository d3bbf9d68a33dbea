"""The folder of a study: what may be written into, what is removed, and by whom."""

import dataclasses
from pathlib import Path

import pytest

from ppmodels.app.study import folder
from ppmodels.app.study.planning import Asked, planned, settled
from ppmodels.app.study.protocol import Protocol


@pytest.fixture(scope="module")
def plan() -> Protocol:
    return settled(planned(Asked(models=["vae"], seeds=1)), {"vae": 3}, Path("out"))


def test_a_folder_of_another_s_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "runs").mkdir()  # a name of ours, and no plan beside it
    with (
        pytest.raises(ValueError, match=r"holds notes.txt, runs, which no study has written"),
        folder.claimed(tmp_path),
    ):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "runs"]
    with pytest.raises(ValueError, match="is no folder"), folder.claimed(tmp_path / "notes.txt"):
        pass


def test_a_study_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), folder.claimed(tmp_path / "new"):
        raise KeyError
    assert not (tmp_path / "new").exists()


def test_data_in_the_folder_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="the folder of the study"),
        folder.claimed(tmp_path, tmp_path / "measured" / "a.npy"),
    ):
        pass


def test_another_who_writes_there_is_refused(tmp_path: Path) -> None:
    with folder.claimed(tmp_path / "out"):
        with (
            pytest.raises(ValueError, match="is training there; choose another --out"),
            folder.claimed(tmp_path / "out"),
        ):
            pass
        assert (tmp_path / "out").is_dir()
    with folder.claimed(tmp_path / "out"):
        pass


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 1}', '{"data": 3}'])
def test_a_damaged_plan_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(ValueError, match="expected the plan of a study, but it is damaged"):
        folder.plan_in(tmp_path)


@pytest.mark.parametrize("text", ["", '{"model": "vae"', '{"model": "vae"}'])
def test_a_damaged_measurement_is_named_with_what_to_do(plan: Protocol, text: str, tmp_path: Path) -> None:
    folder.write_plan(tmp_path, plan)
    folder.measured(tmp_path, plan, plan.models[0], 0).write_text(text)
    with pytest.raises(ValueError, match=r"vae-0\.json is damaged .* Remove it, and repeat the command"):
        folder.measurements(tmp_path, plan)


def test_a_plan_of_another_format_is_refused(plan: Protocol, tmp_path: Path) -> None:
    folder.write_plan(tmp_path, dataclasses.replace(plan, format=99))
    with pytest.raises(ValueError, match="written in format 99, and this version reads 1"):
        folder.plan_in(tmp_path)


def test_a_study_is_removed_and_nothing_else(plan: Protocol, tmp_path: Path) -> None:
    folder.write_plan(tmp_path, plan)
    written = folder.measured(tmp_path, plan, plan.models[0], 0)
    for path in (written, written.with_suffix(".npz"), tmp_path / "measured" / "real.json", tmp_path / "report.html"):
        path.write_text("ours")
    mine = tmp_path / "measured" / "mine.json"
    mine.write_text("mine")
    with pytest.raises(ValueError, match=r"mine.json is not of this study"):
        folder.clear(tmp_path, plan)
    assert written.exists()
    mine.unlink()
    run = tmp_path / plan.run_of(plan.models[0], 0)
    run.mkdir()
    (run / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds mine.txt, which no run has written"):
        folder.clear(tmp_path, plan)
    assert written.exists()
    (run / "mine.txt").unlink()
    folder.clear(tmp_path, plan)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["logs", "measured", "runs"]
