"""Tables in real units: what a program is given has no units, and every number is of the data as they were."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import (
    SVI,
    Adversarial,
    Evaluation,
    Fitted,
    ImportanceWeighted,
    Objective,
    Step,
    Validation,
    adam,
    evaluate,
    exact,
    fit,
    importance,
)
from ppmodels import VAE
from ppmodels.data import Dataset, InOrder, Shuffled, Split, Standardisation, load
from ppmodels.models import AVB, GAN
from ppmodels.nn import Critic, JointCritic, MLPFeatures

NAMES = ("year", "income", "share")


def real_units(rows: int = 400) -> Any:
    """A year and its hundredths, an income, a share: independent normals."""
    noise = np.random.default_rng(0).normal(size=(rows, 3))
    return noise * [0.01, 2e4, 0.003] + [2000.0, 5e4, 0.5]


def write(path: Path, table: Any, names: tuple[str, ...] = NAMES) -> Path:
    lines = [",".join(names), *(",".join(map(repr, row)) for row in table.tolist())]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def table(tmp_path: Path) -> Dataset:
    return load(write(tmp_path / "people.csv", real_units()))


class Normal(nn.Module):
    """Independent normal columns; with a `shared` mean where asked."""

    def __init__(self, columns: int = 3, shared: bool = False) -> None:
        super().__init__()
        self.loc, self.log_scale = nn.Parameter(torch.zeros(columns)), nn.Parameter(torch.zeros(columns))
        self.shared = shared

    def model(self, x: Tensor) -> None:
        if self.shared:
            pyro.sample("shared", dist.Normal(torch.zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(self.loc, self.log_scale.exp()).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        if self.shared:
            pyro.sample("shared", dist.Normal(torch.zeros(()), 1.0))


# ---- what is done to the columns ----


def test_columns_have_mean_0_and_sd_1_by_the_training_split(table: Dataset) -> None:
    values = table.train.values
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(3), atol=1e-6, rtol=0)
    # The other splits are moved alike, so that their own moments are near and not exact.
    assert 1e-3 < float(table.test.values.mean(0).abs().max()) < 0.6
    assert table.columns == NAMES


def test_the_units_come_back_with_their_digits(table: Dataset) -> None:
    seen = torch.cat([table.original(table.split(name).values) for name in ("train", "valid", "test")])
    assert seen.dtype == torch.float64
    expected = real_units()
    order = expected[:, 0].argsort()
    found = seen[seen[:, 0].argsort()].numpy()
    # To 1e-6 of the spread: float32 alone would leave 80 different years.
    np.testing.assert_allclose(found, expected[order], rtol=0, atol=1e-6 * expected.std(0).max())
    np.testing.assert_allclose(found[:, 0], expected[order, 0], rtol=0, atol=1e-6 * 0.01)
    assert len(np.unique(table.train.values[:, 0].numpy())) == 320


def test_seconds_beside_a_timestamp_survive(tmp_path: Path) -> None:
    seconds = 1.7e9 + np.arange(50.0)[:, None]
    np.save(tmp_path / "times.npy", seconds)
    data = load(tmp_path / "times.npy")
    seen = torch.cat([data.original(data.split(name).values) for name in ("train", "valid", "test")])
    np.testing.assert_allclose(np.sort(seen.numpy(), 0), seconds, rtol=0, atol=1e-4)


def test_a_column_without_spread_is_shifted_alone_and_said(tmp_path: Path) -> None:
    """A value such as 1e6 would be too large for a network, and a spread of exactly 1 is one."""
    sign = np.where(np.arange(30) % 2, 1.0, -1.0)
    table = np.c_[real_units(30)[:, 0], np.full(30, 1e6), np.where(sign > 0, 0.3, 0.1 + 0.2)]
    data = load(write(tmp_path / "t.csv", table, ("year", "kind", "rounded")))
    assert (data.train.values[:, 1] == 0).all()
    assert float(data.train.values[:, 2].abs().max()) < 1e-15
    assert (data.original(data.test.values)[:, 1:] - torch.tensor([1e6, 0.3], dtype=torch.float64)).abs().max() < 1e-15
    assert data.constant == [1, 2]
    assert data.standardisation is not None
    assert data.standardisation.scale[1:] == (1.0, 1.0)
    assert Standardisation.of(torch.from_numpy(5 + sign[:, None])).without_spread == []
    assert data.log_jacobian == pytest.approx(-math.log(data.standardisation.scale[0]))
    assert [note.split(":")[0] for note in data.notes] == [
        "column 2 (kind) has no spread",
        "column 3 (rounded) has no spread",
    ]
    assert data.description("train")["standardised"] == (
        "by the mean and standard deviation of the training split; nats are of the original units; "
        "without spread: column 2 (kind), column 3 (rounded)"
    )


def test_a_column_that_repeats_one_value_is_said_to_have_no_bounded_density(tmp_path: Path) -> None:
    """A category read one-hot, and a column that is often 0; not whole years, nor twins in a small table."""
    years = np.arange(200) % 50
    often = np.where(np.arange(200) % 10 == 0, 0.0, np.linspace(1, 2, 200))
    data = load(write(tmp_path / "t.csv", np.c_[years, np.arange(200) % 2, often], ("year", "kind", "rain")))
    told = [note.split(" rows:")[0] for note in data.notes]
    assert [note.rpartition(" in ")[0] for note in told] == [
        "column 2 (kind) has one value",
        "column 3 (rain) has one value",
    ]
    gaps = np.where(np.arange(400) % 3 == 0, "", real_units(400)[:, 0].astype(str))
    (tmp_path / "gaps.csv").write_text("a,b\n" + "".join(f"{gap},{i / 7}\n" for i, gap in enumerate(gaps)))
    assert [note for note in load(tmp_path / "gaps.csv").notes if "one value" in note] == []
    assert load(write(tmp_path / "few.csv", np.r_[real_units(20), real_units(20)[:5]], ("a", "b", "c"))).notes == []


def test_spread_in_the_test_split_alone_changes_nothing(tmp_path: Path) -> None:
    train = np.c_[real_units(20)[:, 0], np.zeros(20)]
    np.savez(tmp_path / "t.npz", train=train, valid=train[:5], test=train + np.array([0, 3.0]))
    data = load(tmp_path / "t.npz")
    assert (data.test.values[:, 1] == 3).all()
    assert "column 2 has no spread" in data.notes[0]


@pytest.mark.parametrize("factor", [1e-300, 1e-30, 1.0, 1e30])
def test_the_moments_are_right_at_any_size(factor: float) -> None:
    table = torch.from_numpy(factor * (3 + real_units(50)[:, 2:]))
    found = Standardisation.of(table)
    assert found.scale[0] / factor == pytest.approx(float((table / factor).std(0, correction=0)), rel=1e-9)
    assert found.log_jacobian == pytest.approx(-math.log(found.scale[0]))


def test_a_value_too_far_from_training_is_refused_by_name(tmp_path: Path) -> None:
    train = np.c_[np.arange(20.0), 1e-30 * np.arange(20.0)]
    np.savez(tmp_path / "far.npz", train=train, valid=train, test=train + np.array([0, 1e30]))
    with pytest.raises(ValueError, match=r"far.npz: column 2: expected values that can be given .* standardise=False"):
        load(tmp_path / "far.npz")


def test_another_table_is_given_the_standardisation_of_the_first(table: Dataset, tmp_path: Path) -> None:
    assert table.standardisation is not None
    path = write(tmp_path / "later.csv", real_units() + np.array([0.05, 0.0, 0.0]))
    later = load(path, standardise=table.standardisation)
    assert later.standardisation == table.standardisation
    torch.testing.assert_close(later.train.values[:, 1], table.train.values[:, 1])
    moved = (later.train.values - table.train.values)[:, 0]
    torch.testing.assert_close(moved, torch.full_like(moved, 0.05 / table.standardisation.scale[0]), rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match=r"two.csv: expected 3 columns, .* got examples of shape \(2,\)"):
        load(write(tmp_path / "two.csv", real_units()[:, :2], NAMES[:2]), standardise=table.standardisation)


def test_a_standardisation_comes_back_from_json(table: Dataset) -> None:
    assert table.standardisation is not None
    assert Standardisation.recorded(json.loads(json.dumps(asdict(table.standardisation)))) == table.standardisation
    assert Standardisation.recorded(None) is None


def test_samples_have_as_many_digits_as_their_spread_needs(table: Dataset) -> None:
    assert table.standardisation is not None
    assert table.standardisation.digits == [13, 8, 10]  # 2000 is 2e5 of its spreads, 5e4 2.5, 0.5 170


def test_labels_go_with_the_rows_of_a_table(tmp_path: Path) -> None:
    table = np.c_[np.arange(40.0), np.arange(40.0) ** 2]
    np.savez(tmp_path / "t.npz", x=table, y=np.arange(40))
    data = load(tmp_path / "t.npz")
    for split in (data.train, data.valid, data.test):
        assert split.labels is not None
        assert data.original(split.values)[:, 0].round().long().tolist() == split.labels.tolist()


def test_toys_of_known_modes_and_tables_that_ask_for_it_stay_in_their_units(tmp_path: Path) -> None:
    ring = load("ring-8")
    assert ring.standardisation is None
    torch.testing.assert_close(ring.train.values.norm(dim=1).mean(), torch.tensor(1.0), rtol=1e-2, atol=0)
    path = write(tmp_path / "people.csv", real_units())
    raw = load(path, standardise=False)
    assert (raw.standardisation, raw.log_jacobian, raw.notes) == (None, 0.0, [])
    assert raw.description("test")["standardised"] == "no"
    assert float(raw.train.values[:, 1].mean()) == pytest.approx(5e4, rel=0.1)
    assert torch.equal(raw.original(raw.test.values), raw.test.values)
    assert "standardised" not in load("digits").description("test")


def test_a_fingerprint_is_of_the_original_values(table: Dataset, tmp_path: Path) -> None:
    for name in ("train", "test"):
        raw = load(tmp_path / "people.csv", standardise=False).split(name)
        assert raw.fingerprint == table.split(name).fingerprint
        index = torch.tensor([3, 1])
        assert raw.take(index).fingerprint == table.split(name).take(index).fingerprint != raw.fingerprint
        assert table.split(name).take(index).fingerprint != table.split(name).take(index.flip(0)).fingerprint
        assert table.split(name).to("cpu").fingerprint == table.split(name).fingerprint
    # A single value moved by less than float32 resolves.
    values = real_units()
    values[0, 0] += 1e-9
    moved = load(write(tmp_path / "moved.csv", values))
    assert {moved.split(name).fingerprint == table.split(name).fingerprint for name in ("train", "valid", "test")} == {
        True,
        False,
    }
    labelled = Split(torch.arange(6.0)[:, None], torch.arange(6))
    taken = labelled.take(torch.tensor([4, 2]))
    assert taken.labels is not None
    assert (taken.labels.tolist(), taken.values.tolist(), taken.source) == ([4, 2], [[4.0], [2.0]], None)


# ---- numbers ----


def trained(data: Dataset, objective: Objective, steps: int = 30) -> tuple[Fitted, Evaluation]:
    step = Step(objective, adam(1e-2))
    fitted = fit(
        step,
        Shuffled(data, batch_size=64),
        steps,
        validation=Validation(InOrder(data, "valid", 50), every=10),
        record_every=1,
        progress=False,
    )
    return fitted, evaluate(objective.program, InOrder(data, "test", 15), {"elbo": importance(4)})


@pytest.mark.parametrize("objective", [SVI, ImportanceWeighted])
def test_other_units_give_the_same_model_and_numbers_that_differ_by_the_log_factors(
    tmp_path: Path, objective: type[SVI | ImportanceWeighted]
) -> None:
    factors = np.array([1e3, 2.0, 1e-4])
    first = load(write(tmp_path / "a.csv", real_units()))
    other = load(write(tmp_path / "b.csv", real_units() * factors + [1e6, -3.0, 0.0]))
    torch.testing.assert_close(other.train.values, first.train.values, atol=1e-5, rtol=0)
    moved = -float(np.log(factors).sum())
    results, programs = [], []
    for data in (first, other):
        torch.manual_seed(0)
        programs.append(VAE(data.shape, data.levels, 2))
        results.append(trained(data, objective(programs[-1])))
    for mine, theirs in zip(*(program.parameters() for program in programs), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)
    (fitted, scored), (fitted_other, scored_other) = results
    for before, after in zip(fitted.history, fitted_other.history, strict=True):
        assert after["loss"] - before["loss"] == pytest.approx(-moved, abs=1e-3)
        assert after["loss/gradient"] == pytest.approx(before["loss/gradient"], rel=1e-3)
        if "validation" in before:
            assert after["validation"] - before["validation"] == pytest.approx(moved, abs=1e-3)
    assert fitted.best is not None
    assert fitted_other.best is not None
    assert fitted_other.best["score"] - fitted.best["score"] == pytest.approx(moved, abs=1e-3)
    assert scored_other.mean("elbo") - scored.mean("elbo") == pytest.approx(moved, abs=1e-3)
    # Loss and validation are in one unit: nats of the data.
    last = fitted.history[-1]
    assert abs(last["loss"] + last["validation"]) < 1


def test_a_normal_in_real_units_scores_what_a_normal_has(table: Dataset) -> None:
    program = Normal()
    step = Step(SVI(program), adam(5e-2))
    fitted = fit(step, Shuffled(table, batch_size=320), 200, record_every=200, progress=False)
    # In closed form, of the training split by its own moments.
    values = table.original(table.train.values)
    expected = -float((values.std(0, correction=0).log() + 0.5 * math.log(2 * math.pi * math.e)).sum())
    result = evaluate(program, InOrder(table, "train", 100), {"exact": exact()})
    assert result.mean("exact") == pytest.approx(expected, abs=1e-3)
    assert -fitted.history[-1]["loss"] == pytest.approx(expected, abs=1e-3)
    # Example by example against the density of the data as they were.
    fitted_normal = torch.distributions.Normal(
        table.original(program.loc[None].detach())[0],
        program.log_scale.detach().exp() * torch.tensor(table.standardisation.scale),  # type: ignore[union-attr]
    )
    torch.testing.assert_close(result.log_prob["exact"], fitted_normal.log_prob(values).sum(1), atol=1e-4, rtol=0)
    assert result.measured_on["standardised"] == table.description("train")["standardised"]


def test_a_callback_sees_the_loss_that_is_recorded(table: Dataset) -> None:
    seen: list[float] = []
    fitted = fit(
        Step(SVI(Normal())),
        Shuffled(table, batch_size=32),
        3,
        callbacks=[lambda step, values: seen.append(float(values["loss"]))],
        record_every=1,
        progress=False,
    )
    assert seen == [row["loss"] for row in fitted.history]
    assert seen[0] < 30  # and not the thousands of a year under a normal


def test_a_single_number_of_a_whole_dataset_counts_every_example(table: Dataset) -> None:
    alone, together = (
        evaluate(Normal(shared=shared), InOrder(table, "test", 15), {"iwae": importance(2)}) for shared in (False, True)
    )
    assert not together.per_example
    assert together.mean("iwae") == pytest.approx(float(alone.log_prob["iwae"].sum()), abs=1e-3)


def test_numbers_compare_however_a_program_was_given_the_data(table: Dataset, tmp_path: Path) -> None:
    raw = load(tmp_path / "people.csv", standardise=False)
    scores = [evaluate(Normal(), InOrder(data, "test", 20), {"exact": exact()}) for data in (table, raw)]
    difference, _ = scores[0].difference(scores[1], "exact")
    assert difference > 1e6  # the plain normal at 0 of the raw data


class Partial(nn.Module):
    """Observes something else than every value of x under a density."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.slope, self.what = nn.Parameter(torch.zeros(2)), what

    def model(self, x: Tensor) -> None:
        mean = self.slope.sum().exp() * torch.ones(3)
        with pyro.plate("data", len(x)):
            if self.what == "regression":
                pyro.sample("y", dist.Normal(x[:, :2] @ self.slope, 1.0), obs=x[:, 2])
            elif self.what == "counts":
                pyro.sample("x", dist.Poisson(mean).to_event(1), obs=x.abs().clamp(max=9).round())
            elif self.what == "masked":
                keep = torch.ones(3, dtype=torch.bool)
                pyro.sample("x", dist.Normal(mean, 1.0).mask(keep).to_event(1), obs=x)
            else:
                with pyro.poutine.mask(mask=torch.ones(len(x), dtype=torch.bool)):
                    pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pass


@pytest.mark.parametrize("what", ["regression", "counts", "masked", "handler"])
def test_a_program_that_observes_only_some_columns_is_told_to_keep_the_units(
    table: Dataset, tmp_path: Path, what: str
) -> None:
    program, message = Partial(what), r"3 values an example are not what .* load\(…, standardise=False\)"
    with pytest.raises(ValueError, match=message):
        evaluate(program, InOrder(table, "test", 20), {"exact": exact()})
    with pytest.raises(ValueError, match=message):
        fit(Step(SVI(program)), Shuffled(table, batch_size=32), 1, progress=False)
    raw = load(tmp_path / "people.csv", standardise=False)
    assert math.isfinite(evaluate(program, InOrder(raw, "test", 20), {"exact": exact()}).mean("exact"))


def test_an_adversarial_loss_with_a_density_of_the_data_counts_their_units(table: Dataset, tmp_path: Path) -> None:
    losses = {}
    for name, data in {"moved": table, "plain": _as_hand_made(table)}.items():
        torch.manual_seed(0)
        avb = AVB(data.shape, None, 2)
        gan = GAN(data.shape, None, 2)
        objectives = {
            "avb": Adversarial(avb, JointCritic(MLPFeatures(data.shape, None), 2)),
            "gan": Adversarial(gan, Critic(MLPFeatures(data.shape, None))),
        }
        for kind, objective in objectives.items():
            history = fit(Step(objective), Shuffled(data, batch_size=32), 1, progress=False).history
            losses[name, kind] = history[0]
    assert losses["moved", "gan"] | {"seconds": 0} == losses["plain", "gan"] | {"seconds": 0}
    avb, plain = losses["moved", "avb"], losses["plain", "avb"]
    assert avb["critic"] == plain["critic"]
    assert avb["program"] == pytest.approx(plain["program"] - table.log_jacobian, abs=1e-4)


def _as_hand_made(data: Dataset) -> Dataset:
    return Dataset("made", Split(data.train.values), Split(data.valid.values), Split(data.test.values), None)
