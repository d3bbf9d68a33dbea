"""Checkpoints on the disk: whole or not there, refused by name, and the newest good one taken."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from inference import SVI, Checkpoint, ProgramError, Rollback, Step, Validation, adam, fit
from inference.training import checkpoint_files, checkpointing
from inference.training.checkpoint_files import FORMAT, MANIFEST, RECORD, TENSORS
from tests.resumable import CASES, DATA, FEATURES, STEPS, VAE, Case, Killed, batch_of, killed_at, made, run

CASE = CASES["momentum"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run that was killed at step 5, with checkpoints at 2 and 4; and the hash of the run left alone."""
    folder = tmp_path_factory.mktemp("saved")
    with pytest.raises(Killed):
        run(CASE, folder, checkpoint=Checkpoint(folder, every=2), callbacks=[killed_at(5)])
    return folder, run(CASE, folder / "alone")


@pytest.fixture
def folder(saved: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved[0], tmp_path / "run"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "step" in path.name)


def resumed(folder: Path, **settings: Any) -> str:
    return run(CASE, folder, checkpoint=Checkpoint(folder, every=2), **settings)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path: Path) -> None:
    contents = bytearray(path.read_bytes())
    contents[random.Random(0).randrange(len(contents))] ^= 1
    path.write_bytes(contents)


def linked(path: Path) -> None:
    path.rename(path.parent.with_suffix(".elsewhere"))
    path.symlink_to(path.parent.with_suffix(".elsewhere"))


def older(path: Path) -> None:
    (path.parent / MANIFEST).write_text(json.dumps({"format": 0}))


def no_object(path: Path) -> None:
    (path.parent / MANIFEST).write_text("[" * 100_000)


def rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """What a hand that knows the format makes of the record, under a manifest that fits."""

    def rewrite(path: Path) -> None:
        folder = path.parent
        record = json.loads((folder / RECORD).read_text())
        change(record)
        contents = json.dumps(record).encode()
        (folder / RECORD).write_bytes(contents)
        manifest = json.loads((folder / MANIFEST).read_text())
        manifest["sha256"][RECORD] = checkpoint_files._digest(contents)
        (folder / MANIFEST).write_text(json.dumps(manifest))

    return rewrite


DAMAGE = {
    "truncated tensors": (TENSORS, truncated, "is damaged: its .* bytes are not"),
    "flipped tensors": (TENSORS, flipped, "is damaged: its .* bytes are not"),
    "flipped record": (RECORD, flipped, "is damaged"),
    "truncated manifest": (MANIFEST, truncated, "damaged"),
    "no manifest": (MANIFEST, Path.unlink, f"incomplete: {MANIFEST} is missing"),
    "no tensors": (TENSORS, Path.unlink, f"incomplete: {TENSORS} is missing"),
    "a link": (TENSORS, linked, "is a link"),
    "older": (MANIFEST, older, f"format 0, and this version reads {FORMAT}"),
    "brackets": (MANIFEST, no_object, "damaged"),
    "no parts": (RECORD, rewritten(lambda record: record.pop("parts")), "damaged"),
    "no run": (RECORD, rewritten(lambda record: record["parts"].pop("run")), "does not say how far"),
    "a start that is none": (RECORD, rewritten(lambda record: record["parts"]["run"].update(start="0")), "how far"),
    "no steps": (RECORD, rewritten(lambda record: record["parts"]["run"].pop("steps")), "how far"),
    "no optimizers": (RECORD, rewritten(lambda record: record["parts"]["step"].pop("optimizers")), "damaged"),
    "nonsense forms": (
        RECORD,
        rewritten(lambda record: record.update(forms={"step/weights/program.loc.bias": {"order": [7]}})),
        "damaged",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_taken(
    kind: str, folder: Path, saved: tuple[Path, str]
) -> None:
    name, damage, says = DAMAGE[kind]
    newest = folder / "step-000000004"
    damage(newest / name)
    with pytest.warns(UserWarning, match=rf"{re.escape(str(newest))}.*{says}.*step-000000002"):
        assert resumed(folder) == saved[1]


@pytest.mark.parametrize("kind", DAMAGE)
def test_where_all_are_damaged_nothing_is_started_anew(kind: str, folder: Path) -> None:
    name, damage, says = DAMAGE[kind]
    for path in folder.glob("step-*"):
        damage(path / name)
    before = names(folder)
    with pytest.raises(ProgramError, match=rf"step-000000004.*{says}.*step-000000002.*name another folder"):
        resumed(folder)
    assert names(folder) == before


def _other(**changes: Any) -> Callable[[], Step]:
    settings = {"lr": 0.001, "momentum": 0.9, "nesterov": True}
    optimizer = settings | changes.pop("optimizer", {})
    network = changes.pop("network", VAE)
    return lambda: Step(SVI(made(network)), lambda p: torch.optim.SGD(p, **optimizer), **changes)


class Wider(VAE):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(FEATURES, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 5))


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (
            Case(_other(network=Wider)),
            r"program: VAE there, Wider here.*program.encoder.0.weight: float32 \(5, 6\) there",
        ),
        (Case(_other(seed=1)), "seed: 0 there, 1 here"),
        (Case(_other(clip=1.0)), "clip: None there, 1.0 here"),
        (Case(_other(average=0.5)), "average: None there, 0.5 here"),
        (Case(_other(optimizer={"lr": 0.1})), r"lr: 0.001 there, 0.1 here"),
        (Case(lambda: Step(SVI(made(VAE)))), "class: SGD there, Adam here"),
        (Case(_other(), Validation(DATA)), "validation: None there"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_what_differs(case: Case, says: str, folder: Path) -> None:
    with pytest.raises(ProgramError, match=rf"is of another run: .*{says}"):
        run(case, folder, checkpoint=Checkpoint(folder))


def test_no_flipped_bit_is_gone_on_from(
    folder: Path, saved: tuple[Path, str], recwarn: pytest.WarningsRecorder
) -> None:
    newest = folder / "step-000000004"
    draw = random.Random(1)
    for name in (MANIFEST, RECORD, TENSORS) * 4:
        whole = (newest / name).read_bytes()
        contents = bytearray(whole)
        contents[draw.randrange(len(contents))] ^= 1 << draw.randrange(8)
        (newest / name).write_bytes(contents)
        copy = Path(shutil.copytree(folder, folder.with_name("copy")))
        with pytest.warns(UserWarning, match="step-000000004"):
            assert resumed(copy) == saved[1]
        shutil.rmtree(copy)
        (newest / name).write_bytes(whole)


def test_the_last_ones_stay_and_leftovers_of_killed_writes_go(folder: Path, saved: tuple[Path, str]) -> None:
    assert names(folder) == ["step-000000002", "step-000000004"]
    shutil.copytree(folder / "step-000000004", folder / ".step-000000006.0123abcd")
    (folder / ".step-000000006.mine").mkdir()
    (folder / "steps.txt").write_text("my own")
    assert resumed(folder) == saved[1]
    assert names(folder) == [".step-000000006.mine", "step-000000004", "step-000000006", "steps.txt"]


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_stay_as_were_asked_for(keep: int, tmp_path: Path) -> None:
    run(CASE, tmp_path, checkpoint=Checkpoint(tmp_path, every=1, keep=keep))
    assert len(names(tmp_path)) == keep


def test_a_run_that_has_ended_is_left_as_it_ended(folder: Path, saved: tuple[Path, str]) -> None:
    checkpoint = Checkpoint(folder, every=2)
    assert resumed(folder) == saved[1]
    latest = checkpoint.latest()
    assert latest == (folder / f"step-{STEPS:09d}", STEPS, "finished")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("step*/*")}
    calls: list[int] = []
    assert resumed(folder, callbacks=[lambda step, values: calls.append(step.count)]) == saved[1]
    assert not calls
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("step*/*")}


def test_a_run_can_be_asked_for_more_but_not_for_less(folder: Path, saved: tuple[Path, str]) -> None:
    assert run(CASE, folder, 5, Checkpoint(folder)) == run(CASE, folder / "five", 5)
    assert resumed(folder) == saved[1]
    with pytest.raises(ProgramError, match=f"steps=3: .* has taken {STEPS} already"):
        run(CASE, folder, 3, Checkpoint(folder))


def test_early_stopping_is_remembered(tmp_path: Path) -> None:
    case = Case(lambda: Step(SVI(made(VAE)), adam(0.0)), Validation(DATA, every=1, patience=2))
    checkpoint = Checkpoint(tmp_path / "run")
    before = run(case, tmp_path / "run", 50, checkpoint)
    latest = checkpoint.latest()
    assert latest is not None
    assert (latest.steps < 50, latest.stopped) == (True, "early stopping")
    assert run(case, tmp_path / "run", 50, checkpoint) == before


def test_a_step_that_has_come_further_is_not_taken_back(folder: Path) -> None:
    step = CASE.step()
    fit(step, CASE.batches, 7, progress=False)
    with pytest.raises(ProgramError, match="a count of 7, and the newest checkpoint of 4"):
        fit(step, CASE.batches, 20, progress=False, checkpoint=Checkpoint(folder))


def test_one_run_at_a_time_saves_to_a_folder(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path)
    with checkpointing.claimed(checkpoint), pytest.raises(ProgramError, match=f"{tmp_path}: another run saves"):
        run(CASE, tmp_path, checkpoint=checkpoint)


def test_a_full_disk_is_said_before_the_first_step_and_later_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(checkpoint: checkpoint_files.Contents) -> None:
        raise OSError(28, "No space left on device", str(checkpoint.folder))

    alone = run(CASE, tmp_path / "alone")
    write = checkpoint_files.write
    monkeypatch.setattr(checkpoint_files, "write", full)
    with pytest.raises(OSError, match="step-000000000"):
        run(CASE, tmp_path, checkpoint=Checkpoint(tmp_path))
    first = iter([write])
    monkeypatch.setattr(checkpoint_files, "write", lambda contents: next(first, full)(contents))
    with pytest.warns(UserWarning, match="step-00000000.: no checkpoint is written, and training goes on: No space"):
        assert run(CASE, tmp_path, checkpoint=Checkpoint(tmp_path, every=2)) == alone


def test_what_can_not_be_exact_is_said_at_the_start(folder: Path, tmp_path: Path) -> None:
    def batches():  # type: ignore[no-untyped-def]
        yield from (batch_of(step) for step in range(3))

    with pytest.warns(UserWarning, match=r"not be the same to the bit: the batches are a function, which starts anew"):
        fit(CASE.step(), batches, 2, progress=False, checkpoint=Checkpoint(tmp_path / "generator"))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.warns(UserWarning, match=f"not to the bit.*threads: {threads} there, {threads + 1} here"):
            resumed(folder)
    finally:
        torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inference.training.checkpointing.version", lambda name: f"{name} 99")
        with pytest.warns(UserWarning, match=r"not to the bit.*ppmodels: .* there, ppmodels 99 here"):
            resumed(folder)

    scheduled = [Step(SVI(made(VAE)), learning_rate=lambda step, by=by: by**step) for by in (0.5, 0.25)]
    fit(scheduled[0], batch_of, 3, progress=False, checkpoint=Checkpoint(tmp_path / "schedule"))
    with pytest.warns(
        UserWarning, match=r"not to the bit.*the factor on the learning rate at its last step: 0.25 there, 0.0625 here"
    ):
        fit(scheduled[1], batch_of, 4, progress=False, checkpoint=Checkpoint(tmp_path / "schedule"))

    class WithExtra(VAE):
        def get_extra_state(self) -> int:
            return 3

    with pytest.warns(UserWarning, match="program._extra_state: no tensor, and not saved"):
        fit(Step(SVI(made(WithExtra))), batch_of, 2, progress=False, checkpoint=Checkpoint(tmp_path / "extra"))


def test_a_tied_tensor_is_saved_once_and_a_transposed_one_keeps_its_order_in_memory(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / "step-000000004" / TENSORS)
    weights = [name for name in tensors if name.endswith(("decoder.weight", "again.weight")) and "weights/" in name]
    assert weights == ["step/weights/program.decoder.weight"]
    found = checkpoint_files.read(folder / "step-000000004").parts["step"].under("weights")["program.decoder.weight"]
    assert not found.is_contiguous()
    assert found.T.is_contiguous()


@pytest.mark.parametrize("every", ["5", "5 minutes", "-1 s", "0 s", "nan s", "", 0, 1.5, None])
def test_an_interval_that_is_none_is_refused(every: Any) -> None:
    with pytest.raises(ProgramError, match="every: expected"):
        Checkpoint("run", every=every)


def test_a_folder_of_a_checkpoints_name_that_is_none_is_its_owners(folder: Path, saved: tuple[Path, str]) -> None:
    (folder / "step-000000001").mkdir()
    (folder / "step-000000001" / "notes.txt").write_text("mine")
    assert resumed(folder) == saved[1]
    assert (folder / "step-000000001" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("settings", [{"folder": ""}, {"folder": 3}, {"folder": None}, {"keep": 0}, {"rollback": 3}])
def test_a_setting_of_another_kind_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ProgramError, match=f"{next(iter(settings))}: expected"):
        Checkpoint(**{"folder": "run", **settings})


def test_a_path_in_place_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"checkpoint: expected Checkpoint\(folder\)"):
        run(CASE, tmp_path, checkpoint=str(tmp_path))  # type: ignore[arg-type]


@pytest.mark.parametrize(("every", "seconds"), [("30 s", 30), ("5 min", 300), ("1.5h", 5400)])
def test_an_interval_is_a_time(every: str, seconds: float) -> None:
    assert Checkpoint("run", every=every).seconds == seconds


@pytest.mark.parametrize("settings", [{"times": 0}, {"factor": 1.0}, {"factor": 0.0}, {"factor": "half"}])
def test_a_rollback_that_is_none_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ProgramError, match=f"{next(iter(settings))}: expected"):
        Rollback(**settings)


def test_tensors_of_every_kind_come_back(tmp_path: Path) -> None:
    tensors: dict[str, Tensor] = {
        "complex": torch.randn(3, 2, dtype=torch.complex128).T,
        "half": torch.randn(4).to(torch.bfloat16),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(3),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.ones(1).expand(3),
        "every second": torch.randn(6, 6)[::2, ::2],
        "nan": torch.tensor([torch.nan, -0.0]),
    }
    saved = checkpoint_files.Saved(tensors, {"number": float("inf")})
    checkpoint_files.write(checkpoint_files.Contents(tmp_path / "step-000000001", {}, {}, {"part": saved}))
    found = checkpoint_files.read(tmp_path / "step-000000001").parts["part"]
    assert found.record == saved.record
    assert found.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found.tensors[name].dtype == value.dtype
        assert str(found.tensors[name].tolist()) == str(value.tolist())
    assert found.tensors["complex"].stride() == tensors["complex"].stride()
    assert found.tensors["channels last"].stride() == tensors["channels last"].stride()
