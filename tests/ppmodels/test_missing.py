"""Tables with missing cells: what is read, what a program is told, and that log p is that of the observed cells."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from inference import SVI, Pair, ProgramError, Step, adam, elbo, evaluate, exact, fit, importance, sample, to_arviz
from ppmodels.app import RECIPES
from ppmodels.app.cli import app
from ppmodels.app.experiment import limited, prepared
from ppmodels.app.imputation import filled
from ppmodels.app.run import Run
from ppmodels.data import Dataset, InOrder, Reading, Shuffled, Split, Standardisation, load
from ppmodels.models import VAE, GatedPixelCNN
from ppmodels.nn import ConvDecoder, make_head
from tests.problems import LinearGaussian

N, FEATURES = 40, 3


def half_observed(rows: int = N, features: int = FEATURES, seed: int = 5) -> Tensor:
    """Half of all cells at random; of the first row none, of the second all."""
    observed = torch.rand(rows, features, generator=torch.Generator().manual_seed(seed)) < 0.5
    observed[0], observed[1] = False, True
    return observed


# ---- mathematics ----


class PosteriorGivenSome(nn.Module):
    """The posterior of a linear Gaussian model given the observed values, moved by `error` standard deviations."""

    def __init__(self, problem: LinearGaussian, error: float) -> None:
        super().__init__()
        self.problem, self.error = problem, error

    def forward(self, x: Tensor, context: Tensor) -> Any:
        weight = self.problem.weight * context.unsqueeze(2)  # (batch, features, latent), 0 where nothing is seen
        precision = torch.eye(weight.shape[2], dtype=x.dtype) + weight.mT @ weight / self.problem.noise**2
        tril = torch.linalg.cholesky(torch.linalg.inv(precision))
        to_mean = tril @ tril.mT @ weight.mT / self.problem.noise**2
        mean = (to_mean @ (x - self.problem.bias).unsqueeze(2)).squeeze(2) + self.error * tril.sum(2)
        return dist.MultivariateNormal(mean, scale_tril=tril)


class LinearDecoder(nn.Module):
    def __init__(self, problem: LinearGaussian) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, z: Tensor) -> Any:
        return dist.Normal(z @ self.problem.weight.T + self.problem.bias, self.problem.noise).to_event(1)


def linear_vae(error: float = 0.0) -> VAE:
    problem = LinearGaussian(latent=2, features=FEATURES)
    return VAE((FEATURES,), None, 2, PosteriorGivenSome(problem, error), LinearDecoder(problem), masks=True)


def evidence_of_observed(x: Tensor, observed: Tensor) -> Tensor:
    """log p of each row's observed values, from the marginal of the joint normal."""
    problem = LinearGaussian(latent=2, features=FEATURES)
    weight, bias = problem.weight.detach(), problem.bias.detach()
    covariance = weight @ weight.T + problem.noise**2 * torch.eye(FEATURES, dtype=x.dtype)
    found = []
    for row, seen in zip(x, observed, strict=True):
        part = dist.MultivariateNormal(bias[seen], covariance[seen][:, seen]) if seen.any() else None
        found.append(torch.zeros((), dtype=x.dtype) if part is None else part.log_prob(row[seen]))
    return torch.stack(found)


@pytest.fixture
def batch() -> tuple[Tensor, None, Tensor]:
    return LinearGaussian.data(N), None, half_observed()


def test_the_weights_of_the_exact_posterior_are_the_evidence_of_the_observed_values(batch: Any) -> None:
    found = evaluate(linear_vae(), batch, {"elbo": importance(1, elbo)})
    torch.testing.assert_close(found.log_prob["elbo"], evidence_of_observed(batch[0], batch[2]), rtol=0, atol=1e-10)
    assert found.log_prob["elbo"][0].abs() < 1e-12  # nothing is observed, so log p = 0
    assert found.dimensions is None


def test_the_bounds_of_another_guide_lie_below_that_evidence_and_come_up_to_it(batch: Any) -> None:
    """Its weights have a log-variance of 2·0.5²; the largest of 40 errors is over 6 standard errors with p < 1e-7."""
    truth = evidence_of_observed(batch[0], batch[2])
    found = evaluate(linear_vae(0.5), batch, {"elbo": importance(2000, elbo), "iwae": importance(20_000)})
    gap = (truth - found.log_prob["elbo"]).mean()
    assert abs(float(gap) - 0.25) < 0.01  # KL of two normals half a standard deviation apart in both latents
    assert bool(((found.log_prob["iwae"] - truth).abs() < 6 * found.error["iwae"] + 1e-6).all())
    assert float((found.log_prob["iwae"] - truth).abs().max()) < 0.05


def gradients(vae: nn.Module, batch: Any) -> list[Tensor]:
    step = Step(SVI(vae), adam(1e-3), seed=1)
    loss = step(batch)["loss"]
    return [loss, *(parameter.detach() for parameter in vae.parameters())]


@pytest.mark.parametrize("levels", [None, 2, 5])
@pytest.mark.parametrize("masks", [False, True])
def test_what_stands_in_missing_cells_changes_nothing_to_the_bit(levels: int | None, masks: bool) -> None:
    def trained(other: bool) -> list[Tensor]:
        torch.manual_seed(0)
        vae = VAE((FEATURES,), levels, 2, masks=masks)
        x = torch.randn(N, FEATURES) if levels is None else torch.randint(levels, (N, FEATURES)).float()
        observed = half_observed()
        x = torch.where(observed, x, torch.randint(levels or 1000, x.shape).float() if other else 0)
        numbers = evaluate(vae, (x, None, observed), {"iwae": importance(4)}).log_prob["iwae"]
        return [numbers, *gradients(vae, (x, None, observed))]

    assert all(map(torch.equal, trained(False), trained(True)))


def test_a_table_that_is_all_observed_has_the_bits_that_it_has_without_a_mask() -> None:
    def numbers(*mask: Any) -> list[Tensor]:
        torch.manual_seed(0)
        vae, x = VAE((FEATURES,), None, 2), torch.randn(N, FEATURES)
        found = evaluate(vae, (x, *mask), {"iwae": importance(4)}).log_prob["iwae"]
        return [found, *gradients(vae, (x, *mask))]

    assert all(map(torch.equal, numbers(), numbers(None, torch.ones(N, FEATURES, dtype=torch.bool))))


def test_an_encoder_that_is_told_the_mask_tells_a_missing_value_from_a_zero() -> None:
    x, observed = torch.zeros(2, FEATURES), torch.tensor([[True] * FEATURES, [False] * FEATURES])
    for masks in (False, True):
        torch.manual_seed(0)
        found = VAE((FEATURES,), None, 2, masks=masks)
        drawn = pyro.poutine.trace(found.guide).get_trace(x, None, observed).nodes["z"]["fn"].mean
        assert torch.equal(drawn[0], drawn[1]) != masks


def test_labels_and_a_mask_go_together() -> None:
    vae = VAE((FEATURES,), None, 2, classes=4, masks=True)
    x, y, observed = torch.randn(N, FEATURES), torch.arange(N) % 4, half_observed()
    found = evaluate(vae, (x, y, observed), {"iwae": importance(2)}).log_prob["iwae"]
    other = evaluate(vae, (x, (y + 1) % 4, observed), {"iwae": importance(2)}).log_prob["iwae"]
    assert found.isfinite().all()
    assert (found[1:] != other[1:]).any()


def test_a_sample_has_all_values_whatever_is_observed(batch: Any) -> None:
    drawn = sample(linear_vae(), batch)["x"]
    assert drawn.shape == (1, N, FEATURES)
    assert bool((drawn[0][~batch[2]] != batch[0][~batch[2]]).all())


@pytest.mark.parametrize(
    ("decoder", "observed", "message"),
    [
        (
            GatedPixelCNN((1, 4, 4), 2, 4, 1, context=2),
            torch.ones(2, 1, 4, 4).bool(),
            "depend on each other .* Autoregr",
        ),
        (ConvDecoder(2, (1, 4, 4), make_head(256), (4,)), torch.ones(2, 1, 4, 4).bool(), "depend on each other"),
        (ConvDecoder(2, (1, 4, 4), make_head(2), (4,)), torch.ones(2, 4).bool(), "expected bool of the shape of x"),
        (ConvDecoder(2, (1, 4, 4), make_head(2), (4,)), torch.ones(2, 1, 4, 4), "got torch.float32"),
    ],
)
def test_a_mask_that_a_likelihood_can_not_take_is_refused(decoder: nn.Module, observed: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"observed: .*{message}"):
        VAE((1, 4, 4), 2, 2, decoder=decoder).model(torch.zeros(2, 1, 4, 4), None, observed)


# ---- data ----


def table(path: Path, missing: str = "", rows: int = 60, seed: int = 0) -> tuple[Path, np.ndarray]:
    """A table of which about a third of the cells is missing, and its values, with NaN there."""
    generator = np.random.default_rng(seed)
    values = np.round(generator.normal(size=(rows, FEATURES)) * [1, 10, 0.1] + [5, 0, -3], 4)
    values[generator.random(values.shape) < 0.3] = np.nan
    lines = [",".join(missing if math.isnan(cell) else str(cell) for cell in row) for row in values]
    path.write_text("\n".join(["a,b,c", *lines]) + "\n")
    return path, values


def rows_of(data: Dataset) -> np.ndarray:
    """All rows in their own units with NaN where a cell is missing, in any order that is the same for the same rows."""
    parts = []
    for split in (data.train, data.valid, data.test):
        observed = torch.ones_like(split.values, dtype=torch.bool) if split.observed is None else split.observed
        parts.append(torch.where(observed, data.original(split.values).double(), torch.nan))
    rows = torch.cat(parts).numpy()
    return rows[np.lexsort(np.nan_to_num(rows, nan=99.0).round(4).T)]


@pytest.mark.parametrize("missing", ["", "NA", " nan ", "NaN", "n/a", "null", "None", "?"])
def test_a_missing_cell_is_read_as_one(missing: str, tmp_path: Path) -> None:
    path, values = table(tmp_path / "t.csv", missing)
    data = load(path)
    np.testing.assert_allclose(rows_of(data), values[np.lexsort(np.nan_to_num(values, nan=99.0).round(4).T)], atol=1e-5)
    assert data.masked
    assert data.train.observed is not None
    assert bool((data.train.values[~data.train.observed] == 0).all())
    assert data.columns == ("a", "b", "c")
    assert data.notes == [f"{np.isnan(values).sum()} of 180 cells are missing, and numbers are of the observed ones"]


def test_an_array_may_have_nan_where_a_text_has_missing_cells(tmp_path: Path) -> None:
    path, values = table(tmp_path / "t.csv")
    np.save(tmp_path / "t.npy", values)
    np.savez(tmp_path / "t.npz", x=values)
    text = load(path)
    for name in ("t.npy", "t.npz"):
        found = load(tmp_path / name)
        assert torch.equal(found.train.values, text.train.values)
        assert found.train.fingerprint == text.train.fingerprint
    np.save(tmp_path / "images.npy", np.full((20, 4, 4), np.nan))
    with pytest.raises(ValueError, match="got NaN or infinity among levels"):
        load(tmp_path / "images.npy")


def test_levels_and_categories_may_be_missing(tmp_path: Path) -> None:
    lines = [f"{at % 4 if at % 5 else '?'},{('red', 'blue', '')[at % 3]}" for at in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["n,colour", *lines]) + "\n")
    one_hot = load(tmp_path / "t.csv", reading=Reading(categories={"colour": ()}), standardise=False)
    assert one_hot.columns == ("n", "colour=blue", "colour=red")
    seen = torch.cat([getattr(one_hot, name).observed for name in ("train", "valid", "test")])
    assert [int((~column).sum()) for column in seen.T] == [12, 20, 20]
    levels = load(tmp_path / "t.csv", reading=Reading(columns=("n",), levels=4))
    assert levels.train.values.dtype == torch.uint8
    assert levels.train.observed is not None
    assert levels.description("train")["observed"] == f"{int(levels.train.observed.sum())} of 48 cells"
    assert levels.constant == []


def test_columns_are_standardised_by_their_observed_cells_alone(tmp_path: Path) -> None:
    data = load(table(tmp_path / "t.csv")[0])
    assert data.train.observed is not None
    assert data.standardisation is not None
    original = data.original(data.train.values).numpy()
    original[~data.train.observed.numpy()] = np.nan
    np.testing.assert_allclose(data.standardisation.shift, np.nanmean(original, 0), atol=1e-5)
    np.testing.assert_allclose(data.standardisation.scale, np.nanstd(original, 0), rtol=1e-5)
    whole = torch.randn(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one_mask = Standardisation.of(whole, torch.ones_like(whole, dtype=torch.bool))
    np.testing.assert_allclose(one_mask.scale, Standardisation.of(whole).scale, rtol=1e-14)


def test_a_column_without_a_value_in_training_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n" + "1,\n2,NA\n" * 20)
    with pytest.raises(ValueError, match=r"t.csv: column 2 has no value in the training split"):
        load(tmp_path / "t.csv")


def test_a_constant_column_is_one_whatever_is_missing_of_it() -> None:
    observed = half_observed()
    table = torch.where(observed, torch.tensor([7.5, 1.0, 2.0], dtype=torch.float64), 0)
    assert Standardisation.of(table, observed).without_spread == [0, 1, 2]
    assert Standardisation.of(table, observed).shift == (7.5, 1.0, 2.0)
    split = Split(torch.where(observed, 3, 0).byte(), observed=observed)
    assert Dataset("t", split, split, split, 5).constant == [0, 1, 2]


def test_a_split_keeps_its_mask_and_is_known_by_it() -> None:
    observed = half_observed()
    values = torch.where(observed, torch.randn(N, FEATURES, generator=torch.Generator().manual_seed(0)), 0)
    split = Split(values, observed=observed)
    index = torch.tensor([3, 1, 0])
    for part, places in ((split.take(index), index), (split.to("cpu"), torch.arange(N))):
        assert part.observed is not None
        assert torch.equal(part.observed, observed[places])
    hidden = values * (torch.arange(N) != 1).unsqueeze(1)  # the same numbers, of which one row is 0 or missing
    whole, partly = observed.clone(), observed.clone()
    partly[1] = False
    assert Split(hidden, observed=whole).fingerprint != Split(hidden, observed=partly).fingerprint
    assert Split(hidden, observed=whole).fingerprint != Split(hidden).fingerprint
    data = limited(Dataset("t", split, split, split, None), "test", 10)
    assert data.test.observed is not None
    assert data.test.observed.shape == (10, FEATURES)
    with pytest.raises(ValueError, match="observed: expected bool of the shape"):
        Split(values, observed=observed[:3])
    with pytest.raises(ValueError, match="expected 0 in cells that are not observed"):
        Split(values + 1, observed=observed)


def test_batches_say_what_is_observed_in_their_own_order(tmp_path: Path) -> None:
    data = load(table(tmp_path / "t.csv")[0])
    assert data.train.observed is not None
    shuffled = Shuffled(data, batch_size=16, seed=3)
    for step in range(5):
        x, y, observed = shuffled(step)
        assert y is None
        assert torch.equal(observed, data.train.observed[shuffled.indices(step)])
        assert torch.equal(x, data.train.values[shuffled.indices(step)])
    assert torch.equal(torch.cat([observed for _, _, observed in InOrder(data, "train", 7)]), data.train.observed)
    assert torch.equal(shuffled(1)[2], Shuffled(data, batch_size=16, seed=3)(1)[2])
    whole = replace(data, test=replace(data.test, observed=None))  # a split that lacks nothing, of data that do
    assert all(bool(observed.all()) for _, _, observed in InOrder(whole, "test", 4))
    (tmp_path / "whole.csv").write_text("a,b\n" + "1,2\n3,5\n" * 20)
    assert len(Shuffled(load(tmp_path / "whole.csv"), batch_size=4)(0)) == 1


# ---- units ----


class Columns(nn.Module):
    """Every column is standard normal in the units of the program; the mask is taken, or is not."""

    def __init__(self, masks: bool = True) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(FEATURES))
        self.masks = masks

    def model(self, x: Tensor, y: Tensor | None = None, observed: Tensor | None = None) -> None:
        with pyro.plate("data", len(x)):
            column = dist.Normal(self.mean.expand_as(x), 1.0)
            pyro.sample(
                "x", (column.mask(observed) if self.masks and observed is not None else column).to_event(1), obs=x
            )

    def guide(self, x: Tensor, y: Tensor | None = None, observed: Tensor | None = None) -> None:
        pass


def test_numbers_are_of_the_units_of_the_observed_columns(tmp_path: Path) -> None:
    path, _ = table(tmp_path / "t.csv")
    data = load(path)
    assert data.standardisation is not None
    rows = data.original(data.test.values)
    normal = dist.Normal(torch.tensor(data.standardisation.shift), torch.tensor(data.standardisation.scale))
    assert data.test.observed is not None
    expected = torch.where(data.test.observed, normal.log_prob(rows), 0).sum(1)
    found = evaluate(Columns(), InOrder(data, "test", 4), {"exact": exact()})
    torch.testing.assert_close(found.log_prob["exact"], expected.double(), rtol=1e-5, atol=1e-5)
    step = Step(SVI(Columns()), adam(1e-9))
    fitted = fit(step, InOrder(data, "test", len(data.test)), 1, progress=False)
    assert fitted.history[0]["loss"] == pytest.approx(-float(expected.mean()), rel=1e-5)
    assert found.measured_on["observed"] == f"{int(data.test.observed.sum())} of 18 cells"


def test_a_program_that_does_not_mask_what_is_missing_has_no_number_in_these_units(tmp_path: Path) -> None:
    data = load(table(tmp_path / "t.csv")[0])
    with pytest.raises(ProgramError, match="what the program observes of them is not what the batch says is observed"):
        evaluate(Columns(masks=False), InOrder(data, "test", 4), {"exact": exact()})
    with pytest.raises(ProgramError, match="does not say which of them it observes: expected a last entry of bool"):
        evaluate(Pair(Columns().model), _Without(data), {"exact": exact()})


class _Without(list):
    """Batches that carry the Jacobian of each column, and no mask."""

    def __init__(self, data: Dataset) -> None:
        super().__init__((x,) for x, _, _ in InOrder(data, "test", 4))
        self.log_jacobian = data.log_jacobian


# ---- recipes ----


@pytest.mark.parametrize("name", ["vae", "iwae", "flow-vae"])
def test_recipes_that_take_masks_are_made_for_them(name: str, tmp_path: Path) -> None:
    path, _ = table(tmp_path / "t.csv")
    recipe = replace(RECIPES[name], data=str(path)).with_settings({"batch_size": 8})
    experiment = prepared(recipe, None, 0, torch.device("cpu"))
    assert experiment.program.masks
    assert evaluate(experiment.program, experiment.scored("test"), {"iwae": importance(2)}).dimensions is None


@pytest.mark.parametrize("name", ["gan", "avb", "aae"])
def test_other_recipes_refuse_missing_cells_by_column(name: str, tmp_path: Path) -> None:
    path, values = table(tmp_path / "t.csv")
    values[:, 0] = 1.0
    np.savetxt(path, values, delimiter=",", header="a,b,c", comments="")
    lost = np.isnan(values).sum(0)
    expected = (
        rf"missing cells, and \w+ takes whole examples: b lacks {lost[1]}, c lacks {lost[2]}; leave .*--columns=-b,-c"
    )
    with pytest.raises(ValueError, match=expected):
        prepared(replace(RECIPES[name], data=str(path)), None, 0, torch.device("cpu"))


# ---- the command line ----


def call(*arguments: object, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == code, result.output
    return " ".join(result.stdout.split()), " ".join(result.stderr.split())


def test_a_table_with_missing_cells_from_training_to_imputation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: the note comes before the first step, the numbers say of what they are, and rows are filled in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path, values = table(tmp_path / "t.csv", rows=90)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    small = ("--set", "hidden=8", "--set", "latent=2", "--batch-size", 16, "--keep-checkpoints")
    _, said = call("train", "vae", "--data", "t.csv.gz", "--steps", 4, *small)
    lost = f"note: {np.isnan(values).sum()} of 270 cells are missing"
    assert said.index(lost) < said.index("metrics while it trains")
    assert said.count(lost) == 1
    run = Run.open("runs/vae-t")
    assert run.record["data"]["masked"]
    shown, _ = call("evaluate", run.folder)
    observed = json.loads((run.folder / "evaluation.json").read_text())["measured_on"]["observed"]
    assert f"{observed} observed" in shown
    assert "log p(x) is that of each example's observed cells" in shown
    call("compare", run.folder, run.folder)
    undrawn(monkeypatch)
    with pytest.warns(UserWarning, match="the factor on the learning rate"):
        call("resume", run.folder, "--steps", 8)
    assert [(row["step"], "validation" in row) for row in run.history()] == [(1, False), (8, True)]
    call("reconstruct", run.folder)
    assert_filled_in(run.folder / "imputed.csv", load("t.csv.gz"))
    drawn = np.loadtxt(run.folder / "samples.csv", delimiter=",", skiprows=1)
    assert np.isfinite(drawn).all()


def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training then draws no pictures, which take longer than a few steps."""
    monkeypatch.setattr("ppmodels.app.training._illustrated", lambda *_: [])


def assert_filled_in(path: Path, data: Dataset) -> None:
    """Every observed cell of the test split is as it was, and the others are numbers of their column."""
    assert data.test.observed is not None
    seen, filled = data.test.observed.numpy(), np.loadtxt(path, delimiter=",", skiprows=1)
    np.testing.assert_allclose(filled[seen], data.original(data.test.values).numpy()[seen], rtol=1e-5)
    means, spread = np.array(data.standardisation.shift), np.array(data.standardisation.scale)
    assert (np.abs(filled - means) < 10 * spread)[~seen].all()


def test_a_run_is_scored_on_data_that_lack_more_or_less_than_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder is what it was trained as; what is observed decides what is scored."""
    undrawn(monkeypatch)
    lacking, _ = table(tmp_path / "lacking.csv")
    whole = tmp_path / "whole.csv"
    np.savetxt(whole, np.random.default_rng(1).normal(size=(60, FEATURES)), delimiter=",", header="a,b,c", comments="")
    for trained_on, other in ((lacking, whole), (whole, lacking)):
        folder = tmp_path / trained_on.stem
        call(
            "train", "vae", "--data", trained_on, "--steps", 2, "--set", "hidden=8", "--batch-size", 8, "--out", folder
        )
        shown, _ = call("evaluate", folder, "--data", other)
        assert ("cells observed" in shown) == (other == lacking)


def test_a_value_that_is_not_observed_is_exported_as_nan(batch: Any) -> None:
    pytest.importorskip("arviz")
    found = to_arviz(linear_vae(), batch, 25)["observed_data"]["x"].values
    assert np.array_equal(np.isnan(found), ~batch[2].numpy())


def test_cells_that_are_imputed_are_the_posterior_means(batch: Any) -> None:
    """Of a linear Gaussian model: E[x | observed] is linear in what is observed; 200 draws err by up to 0.5 (6 sd)."""
    problem = LinearGaussian(latent=2, features=FEATURES)
    weight, bias = problem.weight.detach(), problem.bias.detach()
    x, _, observed = batch
    found = filled(linear_vae(), batch)
    for row, seen, mean in zip(x, observed, found, strict=True):
        part = weight * seen.unsqueeze(1)
        precision = torch.eye(2, dtype=x.dtype) + part.T @ part / problem.noise**2
        z = torch.linalg.solve(precision, part.T @ (row - bias)) / problem.noise**2
        torch.testing.assert_close(mean[seen], row[seen], rtol=0, atol=0)
        assert float((mean - (weight @ z + bias))[~seen].abs().max() if (~seen).any() else 0) < 0.8
