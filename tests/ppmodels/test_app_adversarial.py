"""Adversarial models through the app: what a run without a density leaves behind, and what it can not be asked for."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import inference
from inference import annealed
from inference.evaluation import annealing
from ppmodels import NoisyGenerator, load
from ppmodels.app import RECIPES, Run, compare, complete, evaluate, observation_noise, reconstruct, sample, train
from ppmodels.app.cli import app
from ppmodels.app.experiment import restored
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.presets import Kind, Preset
from ppmodels.data.simulated import GRID_SD, RING_SD, grid_modes, ring_modes
from tests.ppmodels.app_helpers import picture_size

ALWAYS = {"loss.png", "samples.png", "weights.safetensors", "run.json", "metrics.jsonl"}


def _short(name: str, data: str = "digits") -> NamedRecipe:
    recipe = RECIPES[name].with_settings({"steps": 9, "batch_size": 16, "progression": RECIPES[name].progression and 3})
    always = Preset(Kind("all", lambda data: True), {"traced": None})
    return NamedRecipe(name, dataclasses.replace(recipe, data=data, presets=[*recipe.presets, always]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adversarial")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    made, notes = train(_short("gan"), folder / "gan", progress=False)
    assert notes == []
    return made


def test_a_gan_leaves_samples_of_all_times_and_walks(run: Run) -> None:
    assert {path.name for path in run.folder.iterdir()} == ALWAYS | {"training.png", "interpolation.png"}
    width, height = picture_size(run.folder / "training.png")
    assert width > height > 100  # three rows of ten images
    text = (run.folder / "metrics.jsonl").read_text()
    assert all(
        name in text for name in ("critic/accuracy", "critic/calibration", "program/coverage", "program/gradient")
    )


def test_a_run_repeats_with_its_critic(run: Run, folder: Path) -> None:
    again, _ = train(_short("gan"), folder / "again", progress=False)
    assert again.record["weights_sha256"] == run.record["weights_sha256"]
    other, _ = train(_short("gan"), folder / "other", seed=1, progress=False)
    assert other.record["weights_sha256"] != run.record["weights_sha256"]


def test_commands_do_what_there_is_and_say_what_there_is_not(run: Run) -> None:
    before = (run.folder / "samples.png").read_bytes()
    assert {name for name, made in sample(run, 20).files.items() if made is not None} == {"samples.png"}
    assert (run.folder / "samples.png").read_bytes() != before
    made = reconstruct(run)
    assert made.files.keys() == {"interpolation.png"}
    assert made.notes == ["no reconstructions: the program has no latent variables"]
    assert "Autoregressive" in complete(run).notes[0]


@pytest.fixture
def short_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observation_noise, "_STEPS", 1)
    monkeypatch.setattr(observation_noise, "_EXAMPLES", 2)
    monkeypatch.setattr(annealing, "_PILOT_TRANSITIONS", 10)


@pytest.mark.filterwarnings("ignore:.*transitions were accepted")
def test_the_noise_of_a_generator_is_fitted_once_for_its_weights(
    run: Run, short_chains: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[object] = []
    monkeypatch.setattr(observation_noise, "fitted_scale", lambda *given: fits.append(given) or 2.5)
    copy = Run.open(shutil.copytree(run.folder, tmp_path / "copy"))
    kept = copy.folder / "observation_noise.json"
    kept.unlink(missing_ok=True)
    bounds = {"annealed": annealed(2, 2, leapfrog=2)}
    first = evaluate(copy, limit=2, progress=False, estimators=bounds)
    again = evaluate(copy, "train", limit=2, seed=5, progress=False, estimators=bounds)
    ranked = compare([copy, copy], limit=2, progress=False, estimators=bounds)
    assert len(fits) == 1, "by another seed, of another split, in a comparison: it is the noise of the same generator"
    for result in (first, again, ranked[0].result):
        assert float(result.details["annealed"]["observation noise"]) == 2.5

    told, experiment = json.loads(kept.read_text()), restored(copy)
    assert told["fitted_by"]["weights_sha256"] == copy.record["weights_sha256"]
    damaged = [{**told, "scale": -1.0}, {**told, "scale": "1"}, {**told, "fitted_by": {}}, []]
    for number, text in enumerate(["{", *map(json.dumps, damaged)], start=2):
        kept.write_text(text)
        observation_noise.noisy_generator(copy, experiment)
        assert json.loads(kept.read_text()) == told
        assert len(fits) == number
    other = Run(copy.folder, {**copy.record, "weights_sha256": "of other weights"})
    observation_noise.noisy_generator(other, experiment)
    assert json.loads(kept.read_text())["fitted_by"]["weights_sha256"] == "of other weights"


@pytest.mark.filterwarnings("ignore:.*transitions were accepted")
def test_unlike_bounds_are_refused_in_words_before_anything_is_scored(
    run: Run, folder: Path, short_chains: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPES["vae"], data="digits", steps=3, validate_every=None, traced=None)
    vae, _ = train(NamedRecipe("vae", recipe), folder / "vae", progress=False)
    names = [str(each.folder) for each in (run, vae)]
    monkeypatch.setattr(observation_noise, "fitted_scale", lambda *given: 2.5)
    together = CliRunner().invoke(app, ["compare", *names, "--limit", "2", "--estimators", "annealed:2"])
    assert together.exit_code == 0, together.output
    assert "gan: of the generator with normal observation noise of 2.5, fitted on the valid split" in " ".join(
        together.output.split()
    )

    monkeypatch.setattr("ppmodels.app.scoring.Scoring.result", lambda *_: pytest.fail("it was scored"))
    for each in (names, names[::-1]):
        apart = CliRunner().invoke(app, ["compare", *each, "--limit", "3"])
        assert apart.exit_code == 1
        assert "--estimators annealed:N, which scores generators too" in apart.stderr
        assert "{" not in apart.stderr
    other, _ = train(_short("vae", "grid-25"), folder / "tables", progress=False)
    stderr = CliRunner().invoke(app, ["compare", str(vae.folder), str(other.folder)]).stderr
    assert "are of different data, whose numbers do not compare: data digits against grid-25" in stderr


@pytest.mark.filterwarnings("ignore:.*transitions were accepted")  # the pilot round here is short
def test_a_generator_is_scored_with_observation_noise_fitted_on_the_valid_split(run: Run, short_chains: None) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(run.folder), "--limit", "4", "--estimators", "annealed:5"])
    assert result.exit_code == 0, result.output
    written = json.loads((run.folder / "evaluation.json").read_text())["estimates"]["annealed"]
    assert written["kind"] == "lower bound in expectation"
    assert written["settings"]["start"] == "prior"
    noise = written["details"]["observation noise"]["mean"]
    assert 0.02 * 16 < noise < 16
    assert f"normal observation noise of {noise:.3g}" in result.output
    assert written["bits_per_dim"] > 0
    noisy = NoisyGenerator(restored(run).program.generator, noise)
    score = inference.evaluate(noisy, restored(run).examples(4), {"annealed": annealed(5)}).mean("annealed")
    assert score == pytest.approx(written["nats"], abs=15)


def test_the_noise_is_where_a_known_bound_is_highest() -> None:
    assert observation_noise._highest(lambda x: -((x - 0.3) ** 2), -1, 2) == pytest.approx(0.3, abs=0.05)
    assert observation_noise._highest(lambda x: x, -1, 2) == pytest.approx(2, abs=0.1)
    # The lower end is no peak: what is highest there is looked for below it, three times.
    assert observation_noise._highest(lambda x: -((x + 1.01) ** 2), -1, 2) == pytest.approx(-1.01, abs=0.1)
    assert observation_noise._highest(lambda x: -((x + 4.0) ** 2), -1, 2) == pytest.approx(-4, abs=0.1)
    with pytest.warns(UserWarning, match="the observation noise is at the end"):
        assert observation_noise._highest(lambda x: -x, -1, 2) < -8


@pytest.mark.parametrize(
    ("name", "data", "files"),
    [
        ("conditional-gan", "digits", {"training.png", "interpolation.png"}),
        ("ali", "digits", {"training.png", "interpolation.png", "reconstructions.png", "traversal.png"}),
        ("avb", "digits", {"interpolation.png", "reconstructions.png", "traversal.png"}),
        ("wgan-gp", "grid-25", {"training.png", "samples.csv"}),
    ],
)
def test_others_leave_their_pictures(name: str, data: str, files: set[str], folder: Path) -> None:
    run, notes = train(_short(name, data), folder / name, progress=False)
    assert notes == []
    assert {path.name for path in run.folder.iterdir()} == ALWAYS | files


@pytest.mark.parametrize(
    ("name", "modes", "sd"), [("ring-8", ring_modes(), RING_SD), ("grid-25", grid_modes(), GRID_SD)]
)
def test_mixtures_have_their_modes(name: str, modes: torch.Tensor, sd: float) -> None:
    """Each mode's own deviation within 10 % (by chance, below 1e-7 with 800 or more points), all labels present."""
    data = load(name)
    assert data.classes == len(modes)
    assert data.train.labels is not None
    for mode, where in enumerate(modes):
        values = data.train.values[data.train.labels == mode]
        assert len(values) > 600
        assert torch.allclose(values.mean(0), where, atol=0.3 * sd)
        assert torch.allclose(values.std(0), torch.tensor(sd), rtol=0.15)
    assert data.train.fingerprint == load(name).train.fingerprint != load(name, seed=1).train.fingerprint


def test_stacks_are_digits_of_their_own_split() -> None:
    data, digits = load("stacked-digits"), load("digits")
    assert (data.shape, data.levels, data.classes, len(data.train)) == ((3, 8, 8), 17, 1000, 26_000)
    for name in ("train", "test"):
        stacks, single = data.split(name), digits.split(name)
        assert stacks.labels is not None
        assert single.labels is not None
        known = {
            bytes(image.numpy().tobytes()): int(label)
            for image, label in zip(single.values, single.labels, strict=True)
        }
        for stack, label in zip(stacks.values[:50], stacks.labels[:50], strict=True):
            first, second, third = (known[channel.contiguous().numpy().tobytes()] for channel in stack)
            assert int(label) == 100 * first + 10 * second + third
