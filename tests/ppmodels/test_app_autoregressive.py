"""Autoregressive models through the app: exact numbers, completions, and comparison with a bound."""

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inference import elbo, exact, importance
from ppmodels.app import RECIPES, Run, compare, complete, evaluate, reconstruct, train
from ppmodels.app.cli import app
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.scoring import best_of
from tests.ppmodels.app_helpers import picture_size

EXACT = dataclasses.replace(RECIPES["gated-pixelcnn"], steps=12, validate_every=6, traced=None)
BOUNDED = dataclasses.replace(RECIPES["vae"], steps=12, validate_every=6, estimators={"iwae": importance(4)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pixels")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    made, notes = train(NamedRecipe("gated-pixelcnn", EXACT), folder / "pixels", progress=False)
    assert notes == []
    return made


@pytest.fixture(scope="module")
def bounded(folder: Path) -> Run:
    return train(NamedRecipe("vae", BOUNDED), folder / "vae", progress=False)[0]


def test_a_run_without_latents_shows_completions_in_place_of_reconstructions(run: Run) -> None:
    files = {path.name for path in run.folder.iterdir()} - {"evaluation.json"}
    assert files == {"loss.png", "samples.png", "completions.png", "weights.safetensors", "run.json", "metrics.jsonl"}
    width, height = picture_size(run.folder / "completions.png")
    assert height > width > 300  # ten images, each with six endings


def test_the_validation_score_is_exact(run: Run) -> None:
    found = evaluate(run, split="valid", progress=False)
    assert found.kind == {"exact": "exact"}
    assert found.mean("exact") == pytest.approx(run.record["best_validation"]["score"], abs=1e-4)


def test_another_part_can_be_given(run: Run) -> None:
    before = (run.folder / "completions.png").read_bytes()
    assert list(complete(run, 0.25).files) == ["completions.png"]
    assert (run.folder / "completions.png").read_bytes() != before
    with pytest.raises(ValueError, match=r"given: expected a fraction.*got 1"):
        complete(run, 1.0)


def test_what_is_no_autoregressive_model_says_so(run: Run, bounded: Run) -> None:
    assert complete(bounded).notes == [
        "no completions: the program has latent variables, and endings would need draws of them given a part of x"
    ]
    assert "no reconstructions: the program has no latent variables" in reconstruct(run).notes


def test_runs_are_ranked_by_the_best_number_of_each(run: Run, bounded: Run) -> None:
    ranking = compare([bounded, run], particles=8, progress=False)
    means = [each.result.mean(each.estimate) for each in ranking]
    assert means == sorted(means, reverse=True)
    assert {each.estimate for each in ranking} == {"exact", "iwae"}
    ahead, error = ranking[0].ahead_of(ranking[1])
    assert ahead == pytest.approx(means[0] - means[1])
    assert 0 < error < ahead


def test_an_exact_number_goes_before_a_bound() -> None:
    assert best_of({"exact": exact(), "iwae": importance(4)}) == "exact"
    assert best_of({"elbo": importance(4, elbo), "iwae": importance(4)}) == "iwae"


def test_the_command_line_compares(run: Run, bounded: Run) -> None:
    result = CliRunner().invoke(app, ["compare", str(run.folder), str(bounded.folder), "--particles", "4"])
    assert result.exit_code == 0, result.output
    assert "behind" in result.stdout
    assert "lower bound" in result.stdout
    missing = CliRunner().invoke(app, ["compare", str(run.folder), "nowhere"])
    assert missing.exit_code == 2


def test_the_command_line_completes(run: Run) -> None:
    result = CliRunner().invoke(app, ["complete", str(run.folder), "--given", "0.75"])
    assert result.exit_code == 0, result.output
    assert "completions.png" in result.stdout
