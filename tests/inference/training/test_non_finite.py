"""A step that is not finite: what led to it is saved, and a run can go back and on more slowly."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import SVI, Checkpoint, NonFinite, ProgramError, Rollback, Step, fit
from inference.training import checkpoint_files
from tests.resumable import Killed, killed_at

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


class Normed(nn.Module):
    """A location, and a BatchNorm that sees each batch; its density is not finite once the location is beyond a limit."""

    def __init__(self, limit: float = 1e9) -> None:
        super().__init__()
        self.loc, self.limit = nn.Parameter(torch.zeros(3)), limit
        self.norm = nn.BatchNorm1d(3, affine=False)

    def model(self, x: Tensor) -> Tensor:
        loc = self.loc + 0.0 * self.norm(x)
        loc = torch.where(self.loc.abs() > self.limit, torch.nan, loc)
        with pyro.plate("data", len(x)), pyro.validation_enabled(False):
            return pyro.sample("x", dist.Normal(loc, 1.0, validate_args=False).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pass


class Poisoned:
    """Batches of four rows, one of which is infinite at the sixth step."""

    def __call__(self, step: int) -> Tensor:
        x = X[self.indices(step)]
        return x.masked_fill(torch.arange(4).unsqueeze(1) == 1, torch.inf) if step == 5 else x

    def indices(self, step: int) -> Tensor:
        return (4 * step + torch.arange(4)) % len(X)


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.5)


def test_weights_and_buffers_are_those_from_before_the_step() -> None:
    with pyro.validation_enabled(False):
        step = Step(SVI(Normed()), sgd)
        for count in range(5):
            step(Poisoned()(count))
        before = {name: value.clone() for name, value in step.objective.state_dict().items()}
        with pytest.raises(ProgramError):
            step(Poisoned()(5))
    for name, value in step.objective.state_dict().items():
        assert value.equal(before[name]), name


def test_what_led_to_it_is_saved(tmp_path: Path) -> None:
    step = Step(SVI(Normed(limit=0.9)), sgd)
    with pytest.raises(NonFinite) as caught:
        fit(step, lambda step: X + 1.0, 40, progress=False, checkpoint=Checkpoint(tmp_path, every=3))
    assert caught.value.indices is None
    (folder,) = tmp_path.glob("non-finite-*")
    found = checkpoint_files.read(folder).parts
    assert found["batch"].tensors["batch[0]"].equal(X + 1.0)
    assert str(caught.value) == f"{found['batch'].record['message']} Its batch and the state before it are in {folder}."
    count = found["step"].record["count"]
    assert folder.name == f"non-finite-{count:09d}"
    alone = Step(SVI(Normed(limit=1e9)), sgd)
    fit(alone, lambda step: X + 1.0, count, progress=False)
    assert found["step"].tensors["weights/program.loc"].equal(alone.objective.program.loc)
    assert found["step"].tensors["weights/program.norm.running_mean"].equal(alone.objective.program.norm.running_mean)


class Overflowing(torch.optim.Adam):
    """Moves weights out of the finite numbers at its fifth step, when it has changed its own state."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        super().step()
        first = self.param_groups[0]["params"][0]
        if self.state[first]["step"] == 5:
            first.data.fill_(torch.inf)


@pytest.mark.parametrize("repeated", [True, False])
def test_optimizers_that_had_moved_are_saved_as_they_were_before(repeated: bool, tmp_path: Path) -> None:
    def finite() -> Step:
        return Step(SVI(Normed()), lambda p: torch.optim.Adam(p, 0.1), average=0.9)

    def batches() -> Iterator[Tensor]:
        yield from (X + step for step in range(9))

    given = (lambda step: X + step) if repeated else batches
    step = Step(SVI(Normed()), lambda p: Overflowing(p, 0.1), average=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a generator's batches can not be repeated, which is said
        with pytest.raises(NonFinite, match="an optimizer moved weights out"):
            fit(step, given, 9, progress=False, checkpoint=Checkpoint(tmp_path / "run", every=3))
    found = checkpoint_files.read(tmp_path / "run" / "non-finite-000000004").parts
    assert found["batch"].record["optimizers_are_of_the_step_before"] is repeated
    fit(finite(), lambda step: X + step, 4, progress=False, checkpoint=Checkpoint(tmp_path / "alone", every=4))
    alone = checkpoint_files.read(tmp_path / "alone" / "step-000000004").parts["step"]
    assert found["step"].tensors.keys() == alone.tensors.keys()
    differ = [name for name, value in alone.tensors.items() if not value.equal(found["step"].tensors[name])]
    assert (not differ) is repeated, differ


def test_the_places_of_the_examples_are_known_where_the_batches_tell_them(tmp_path: Path) -> None:
    with pyro.validation_enabled(False):
        batches = Poisoned()
        batches.description = {"name": "known"}  # type: ignore[attr-defined]  # so that values are not looked at
        with pytest.raises(NonFinite) as caught:
            fit(Step(SVI(Unsupported()), sgd), batches, 10, progress=False, checkpoint=Checkpoint(tmp_path))
    assert caught.value.indices == batches.indices(5).tolist()
    assert (
        checkpoint_files.read(tmp_path / "non-finite-000000005").parts["batch"].record["indices"]
        == caught.value.indices
    )


class Unsupported(Normed):
    """One whose loss is not finite where x is not."""

    def model(self, x: Tensor) -> Tensor:
        loc = self.loc + 0.0 * torch.nan_to_num(x, posinf=0.0) + torch.where(x.isinf(), torch.nan, 0.0)
        with pyro.plate("data", len(x)):
            return pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=torch.nan_to_num(x, posinf=0.0))


def test_a_run_goes_back_with_a_smaller_rate_and_says_so(tmp_path: Path) -> None:
    """At a rate of 1.9 the location leaves [-1.5, 1.5] on its way to 1; at half of it it does not."""

    def step() -> Step:
        return Step(SVI(Normed(limit=1.5)), lambda p: torch.optim.SGD(p, lr=1.9))

    checkpoint = Checkpoint(tmp_path, every=2, rollback=Rollback(times=3, factor=0.5))
    ones, metrics = torch.ones(4, 3), tmp_path / "metrics.jsonl"
    with pytest.raises(NonFinite):
        fit(step(), ones, 20, progress=False)
    slowed = step()
    with pytest.warns(
        UserWarning, match=r"not finite at step 1.* Back to step 0, with 0.5 of the learning rate \(1 of 3\)"
    ):
        fitted = fit(slowed, ones, 20, progress=False, checkpoint=checkpoint, metrics=metrics, record_every=1)
    assert (fitted.steps, fitted.stopped, slowed.count) == (20, "finished", 20)
    assert [row["step"] for row in fitted.history] == [*range(1, 21)]
    assert all(row["run/slowdown"] == 0.5 for row in fitted.history)
    assert [json.loads(line) for line in metrics.read_text().splitlines()] == fitted.history
    # From the start at half the rate it is the same run.
    half = Step(SVI(Normed(limit=1.5)), lambda p: torch.optim.SGD(p, lr=0.95))
    fit(half, ones, 20, progress=False)
    assert half.objective.program.loc.equal(slowed.objective.program.loc)
    # The smaller rate outlives the process.
    again = Checkpoint(tmp_path / "killed", every=2, rollback=checkpoint.rollback)
    with pytest.warns(UserWarning, match="Back to step 0"), pytest.raises(Killed):
        fit(step(), ones, 20, progress=False, checkpoint=again, callbacks=[killed_at(7)])
    resumed = step()
    fit(resumed, ones, 20, progress=False, checkpoint=again)
    assert resumed.slowdown == 0.5
    assert resumed.objective.program.loc.equal(slowed.objective.program.loc)


def said_back(said: pytest.WarningsRecorder) -> list[str]:
    return [str(each.message).partition("Back to step ")[2] for each in said]


def test_a_checkpoint_that_did_not_help_is_not_gone_back_to_again(tmp_path: Path) -> None:
    """The weights of step 1 are finite, and no loss at them is."""
    step = Step(SVI(Normed(limit=1.5)), lambda p: torch.optim.SGD(p, lr=1.9))
    with pytest.warns(UserWarning, match="Back to step") as said:
        fit(step, torch.ones(4, 3), 20, progress=False, checkpoint=Checkpoint(tmp_path, every=1, rollback=Rollback()))
    assert said_back(said) == [
        "1, with 0.5 of the learning rate (1 of 3).",
        "0, with 0.25 of the learning rate (2 of 3).",
    ]
    assert step.count == 20


def test_it_goes_back_only_so_often(tmp_path: Path) -> None:
    step = Step(SVI(Normed(limit=0.5)), lambda p: torch.optim.SGD(p, lr=8.0))
    checkpoint = Checkpoint(tmp_path, every=5, rollback=Rollback(times=2))
    with pytest.warns(UserWarning, match="Back to step") as said, pytest.raises(NonFinite):
        fit(step, torch.ones(4, 3), 50, progress=False, checkpoint=checkpoint)
    assert said_back(said) == [
        "0, with 0.5 of the learning rate (1 of 2).",
        "0, with 0.25 of the learning rate (2 of 2).",
    ]
