"""Runs of a study are measured: every field is a number or says why there is none."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inference import annealed, sandwich
from inference.evaluation import annealing
from ppmodels.app import RECIPES, Run, evaluate, observation_noise, train
from ppmodels.app.experiment import prepared, restored
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.study import features, likelihood, posterior_checks, probe
from ppmodels.app.study.drawing import Drawn, context, on_levels
from ppmodels.app.study.measure import failed, measure, measure_real
from ppmodels.app.study.measurement import (
    LogLikelihood,
    Measurement,
    Missing,
    Number,
    Posterior,
    Samples,
    Sampling,
    Sharpness,
)
from ppmodels.app.study.protocol import Protocol, StudyData, StudyModel
from ppmodels.app.study.samples import compared
from ppmodels.app.study.settled import settled
from ppmodels.data import Dataset

DIGITS = ("vae", "gan", "gated-pixelcnn")


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Annealing and refining by few steps, as their numbers are tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observation_noise, "_STEPS", 1)
        patch.setattr(observation_noise, "_EXAMPLES", 2)
        patch.setattr(observation_noise, "_BOUND", annealed(4, 2, "prior", 2))
        patch.setattr(annealing, "_PILOT_TRANSITIONS", 10)
        patch.setattr(likelihood, "ANNEALED", sandwich(8, 2, "prior", 2, simulations=3))
        patch.setattr(posterior_checks, "REFINED", dataclasses.replace(posterior_checks.REFINED, steps=10, draws=50))
        patch.setattr(posterior_checks, "DRAWS", 100)
        patch.setattr(posterior_checks, "SIMULATIONS", 50)
        patch.setattr(features, "STEPS", 200)
        yield


def study(out: Path, names: tuple[str, ...], data: str, **settings: Any) -> Protocol:
    """A study of runs that are really trained, for a few steps."""
    models = [StudyModel(name, name, RECIPES[name].family, [], 12, 16) for name in names]
    shape: list[int] = []
    test = 0
    for model in models:
        recipe = RECIPES[model.recipe].with_settings({"steps": 12, "batch_size": 16, "progression": None, **settings})
        recipe = dataclasses.replace(recipe, data=data, presets=(), traced=None)
        if recipe.validate_every:
            recipe = dataclasses.replace(recipe, validate_every=6)
        run, _ = train(NamedRecipe(model.recipe, recipe), out / "runs" / f"{model.name}-3", seed=3, progress=False)
        found = restored(run).data
        shape, test = list(found.shape), len(found.test)
    about = StudyData(data, "", shape, None, "none", None, 0, 0, test)
    return Protocol(about, models, [3], None, list(range(min(test, 30))), "ppmodels study", "cpu", {})


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def digits(out: Path, short: None) -> Protocol:
    return study(out, DIGITS, "digits")


@pytest.fixture(scope="module")
def measured(digits: Protocol, out: Path) -> dict[str, Measurement]:
    return {model.name: measure(digits, out, model, 3) for model in digits.models}


def numbers_of(part: object) -> Iterator[Number]:
    if isinstance(part, Number):
        yield part
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            yield from numbers_of(getattr(part, field.name))


def test_a_measurement_comes_back_from_its_file(digits: Protocol, measured: dict[str, Measurement], out: Path) -> None:
    for name, found in measured.items():
        assert Measurement.of_json((out / "measured" / f"{name}-3.json").read_text()) == found
        assert found.run == f"runs/{name}-3"
        assert (out / found.run / "run.json").exists()
        for each in numbers_of(found):
            assert each.low <= each.value <= each.high
    assert not [path.name for path in (out / "measured").iterdir() if path.name.startswith(".")]


def test_nats_are_of_the_studys_examples_one_by_one(measured: dict[str, Measurement]) -> None:
    vae, gan, pixels = (measured[name].log_likelihood for name in DIGITS)
    for each, kind in ((vae, "lower bound"), (gan, "lower bound"), (pixels, "exact")):
        assert isinstance(each, LogLikelihood)
        assert each.kind.startswith(kind)
        assert len(each.per_example) == 30
        assert each.nats == pytest.approx(np.mean(each.per_example))
        assert each.bits_per_dim == pytest.approx(-each.nats / (64 * np.log(2)))
        assert (each.gap is None) == (kind == "exact")
    assert isinstance(vae, LogLikelihood)
    assert vae.estimator == "iwae, particles = 256"
    assert isinstance(gan, LogLikelihood)
    assert gan.note.startswith("of the generator with normal observation noise of ")


def test_examples_are_those_rows_of_the_test_split_in_order(digits: Protocol, out: Path) -> None:
    run = Run.open(out / "runs" / "gated-pixelcnn-3")
    rows = [5, 170, 2]
    found = likelihood.log_likelihood(run, restored(run), rows)
    whole = evaluate(run, progress=False).log_prob["exact"]
    assert found.per_example == pytest.approx(whole[rows].tolist(), abs=1e-4)


def test_fewer_examples_of_a_generator_are_the_first(
    digits: Protocol, out: Path, measured: dict[str, Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "FEW", 7)
    run = Run.open(out / "runs" / "gan-3")
    found = likelihood.log_likelihood(run, restored(run), digits.examples)
    assert len(found.per_example) == 7
    assert found.note.endswith("the first 7 of 30 examples")
    before = measured["gan"].log_likelihood
    assert isinstance(before, LogLikelihood)
    assert found.per_example == pytest.approx(before.per_example[:7], abs=25), "the same examples by other noise"


def test_samples_are_beside_as_many_held_out_examples(measured: dict[str, Measurement]) -> None:
    for found in measured.values():
        assert isinstance(found.samples, Samples)
        assert found.samples.samples == 180
        assert found.samples.reference == "180 of the test split"
        assert "classifier, trained on 1,257 of the training split: right on " in found.samples.features
        assert found.collapsed, "twelve steps cover nothing"
        assert isinstance(found.samples.kid, Number)
        assert found.samples.kid.low > 0
        assert isinstance(found.samples.sharpness, Sharpness)
    assert len({found.samples.features for found in measured.values() if isinstance(found.samples, Samples)}) == 1
    means = {
        name: found.samples.sharpness_of_means for name, found in measured.items() if isinstance(found.samples, Samples)
    }
    assert isinstance(means["vae"], Sharpness)
    assert means["vae"].gradient.high < -0.5, "means of an untrained VAE are one grey image"
    assert isinstance(means["gan"], Sharpness)
    assert isinstance(means["gated-pixelcnn"], Missing)
    assert any("rounded to the nearest of 17 levels" in note for note in measured["gan"].notes)
    assert not any("rounded" in note for note in measured["vae"].notes)


def test_samples_collapse_where_they_cover_less_than_half(digits: Protocol, out: Path) -> None:
    data = settled(restored(Run.open(out / "runs" / "vae-3")).data)
    known = features.Features(lambda values: values.flatten(1), "the pixels")
    labels = data.train.labels
    assert labels is not None
    none = Missing("not asked for")

    def of_classes(count: int) -> bool:
        rows = data.train.values[labels < count][:180].float()
        return compared(Drawn(rows, none, []), data, known).collapsed

    assert [of_classes(count) for count in (10, 7, 2)] == [False, False, True]


def test_real_data_in_the_place_of_samples_are_like_data(
    digits: Protocol, out: Path, measured: dict[str, Measurement]
) -> None:
    found = measure_real(digits, out)
    text = json.loads((out / "measured" / "real.json").read_text())
    assert text["coverage"] == dataclasses.asdict(found.coverage)
    assert found.samples == 180
    assert isinstance(found.coverage, Number)
    assert found.coverage.low > 0.9
    assert isinstance(found.memorisation, Number)
    assert found.memorisation.low < 0.5 < found.memorisation.high, "the rows are not among those that are searched"
    assert not isinstance(found.classifier, Missing)
    assert found.classifier.p_value > 1e-3
    with np.load(out / "measured" / "data.npz", allow_pickle=False) as arrays:
        assert arrays["samples"].shape == (64, 1, 8, 8)
        assert arrays["samples"].max() == 16


def test_a_draw_costs_what_waits_for_what(measured: dict[str, Measurement]) -> None:
    steps = {name: found.sampling for name, found in measured.items()}
    assert all(isinstance(each, Sampling) for each in steps.values())
    found = {name: each.sequential_steps for name, each in steps.items() if isinstance(each, Sampling)}
    assert found == {"vae": 1, "gan": 1, "gated-pixelcnn": 64}


def test_codes_and_posterior_are_those_of_an_encoder(measured: dict[str, Measurement]) -> None:
    codes, posterior = measured["vae"].codes, measured["vae"].posterior
    assert not isinstance(codes, Missing)
    assert codes.numbers == 10
    assert codes.chance == pytest.approx(0.1, abs=0.05)
    assert codes.of_pixels.low > 0.9 > codes.accuracy.high > 0.2
    assert isinstance(posterior, Posterior)
    assert isinstance(posterior.k_hat, float)
    assert isinstance(posterior.amortisation_gap, Number)
    assert isinstance(posterior.calibration, Number)
    assert "simulations" in posterior.words
    for name, why in (("gan", "no encoder"), ("gated-pixelcnn", "no latents")):
        for part in (measured[name].codes, measured[name].posterior):
            assert isinstance(part, Missing)
            assert why in part.missing


def test_arrays_are_plain_and_of_the_datas_units(measured: dict[str, Measurement], out: Path) -> None:
    both = {"samples", "nearest"}
    expected = {
        "vae": both | {"originals", "reconstructions", "interpolation"},
        "gan": both | {"interpolation"},
        "gated-pixelcnn": both | {"originals", "completions"},
    }
    for name, names in expected.items():
        with np.load(out / "measured" / f"{name}-3.npz", allow_pickle=False) as arrays:
            assert set(arrays) == names
            assert arrays["samples"].shape == (64, 1, 8, 8)
            assert arrays["nearest"].shape == (16, 1, 8, 8)
            assert all(each.dtype == np.float32 and each.min() >= 0 and each.max() <= 16 for each in arrays.values())
            if "completions" in names:
                assert (arrays["completions"][:, :, :4] == arrays["originals"][:, :, :4]).all()
                assert (arrays["completions"][:, :, 4:] != arrays["originals"][:, :, 4:]).any()


def test_curves_are_as_they_were_recorded(measured: dict[str, Measurement]) -> None:
    assert measured["gan"].training.loss.keys() == {"critic", "program"}
    vae = measured["vae"].training
    assert (vae.steps, vae.loss.keys()) == (12, {"loss"})
    assert vae.validation is not None
    assert vae.validation.step == [6, 12]
    assert vae.parameters > 1000


def test_everything_but_time_repeats(
    digits: Protocol, out: Path, measured: dict[str, Measurement], tmp_path: Path
) -> None:
    shutil.copytree(out / "runs" / "vae-3", tmp_path / "runs" / "vae-3")
    again = measure(digits, tmp_path, digits.models[0], 3)
    before = measured["vae"]
    assert dataclasses.replace(again, seconds=before.seconds, sampling=before.sampling) == before
    assert (tmp_path / "measured" / "vae-3.npz").read_bytes() == (out / "measured" / "vae-3.npz").read_bytes()


def test_a_run_that_failed_says_so_everywhere(digits: Protocol, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "vae-3"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(
        '{"step": 1.0, "loss": 9.5, "seconds": 2.0}\n{"step": 20.0, "loss": NaN}\n{"st'
    )
    found = failed(digits, digits.models[0], 3, "the loss is not finite", tmp_path)
    assert Measurement.of_json((tmp_path / "measured" / "vae-3.json").read_text()) == found
    assert (found.status, found.reason) == ("failed", "the loss is not finite")
    assert (found.training.steps, found.training.loss["loss"].value) == (20, [9.5])
    for part in (found.log_likelihood, found.samples, found.sampling, found.codes, found.posterior):
        assert part == Missing("the run failed: the loss is not finite")
    nothing = failed(digits, digits.models[1], 3, "no room on the disk", tmp_path)
    assert nothing.training.steps == 0


def test_a_table_is_measured_by_its_columns(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(600, 3)) * [1, 50, 3] + [0, 900, 0]
    np.savetxt(tmp_path / "t.csv", values, delimiter=",", header="a,b,c", comments="")
    protocol = study(tmp_path, ("vae", "gan"), str(tmp_path / "t.csv"))
    for model in protocol.models:
        found = measure(protocol, tmp_path, model, 3)
        assert isinstance(found.log_likelihood, LogLikelihood)
        assert found.log_likelihood.bits_per_dim is None
        assert isinstance(found.samples, Samples)
        assert "no network" in found.samples.features
        assert isinstance(found.samples.kid, Number)
        assert found.samples.sharpness == Missing("these are no images")
        assert isinstance(found.codes, Missing)
        # What a program has is said before what the data have: that there are no classes tells nothing of latents.
        assert ("no encoder" if model.name == "gan" else "no classes") in found.codes.missing
        with np.load(tmp_path / "measured" / f"{model.name}-3.npz", allow_pickle=False) as arrays:
            assert arrays["samples"].shape == (60, 3)
            assert 800 < arrays["nearest"][:, 1].mean() < 1000, "the data's own units"
    real = measure_real(protocol, tmp_path)
    assert isinstance(real.memorisation, Number)
    assert not (tmp_path / "measured" / "features.json").exists()


def test_colour_pictures_of_any_size_and_few_of_them(tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (150, 3, 11, 6), dtype=np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    protocol = study(tmp_path, ("vae",), str(tmp_path / "pictures.npy"))
    found = measure(protocol, tmp_path, protocol.models[0], 3)
    assert isinstance(found.samples, Samples)
    assert "autoencoder, trained on 105 of the training split" in found.samples.features
    assert isinstance(found.samples.kid, Missing)
    assert "too few" in found.samples.kid.missing
    assert isinstance(found.samples.classifier, Missing)
    assert "give at least 50" in found.samples.classifier.missing
    assert found.samples.detectable is None
    assert isinstance(found.samples.sharpness, Sharpness)
    assert isinstance(found.codes, Missing)
    with np.load(tmp_path / "measured" / "vae-3.npz", allow_pickle=False) as arrays:
        assert arrays["samples"].shape == (15, 3, 11, 6)
    assert isinstance(measure_real(protocol, tmp_path).coverage, Number)


def test_binary_draws_have_no_sharpness(tmp_path: Path) -> None:
    pictures = np.random.default_rng(2).integers(0, 2, (400, 1, 6, 6), dtype=np.uint8)
    np.save(tmp_path / "binary.npy", pictures)
    protocol = study(tmp_path, ("vae",), str(tmp_path / "binary.npy"))
    found = measure(protocol, tmp_path, protocol.models[0], 3).samples
    assert isinstance(found, Samples)
    assert isinstance(found.sharpness, Missing)
    assert "binary" in found.sharpness.missing
    assert isinstance(found.sharpness_of_means, Sharpness)


def test_the_network_of_kid_is_trained_once_for_its_data(
    digits: Protocol, out: Path, measured: dict[str, Measurement]
) -> None:
    data: Dataset = settled(restored(Run.open(out / "runs" / "vae-3")).data)
    before = (out / "measured" / "features.safetensors").stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "_trained", lambda *given: pytest.fail("it was trained again"))
        kept = features.features_of(data, out / "measured")
    assert (out / "measured" / "features.safetensors").stat().st_mtime_ns == before
    rows = kept.of(data.train.values)
    assert rows.shape == (1437, 64)
    assert float(rows.mean(0).abs().max()) < 0.2, "standardised by the rows that were learnt from"
    folder = out / "other"
    folder.mkdir()
    (folder / "features.json").write_text('{"trained_on": "0", "words": "of other data"}')
    fewer = dataclasses.replace(data, train=data.train.take(torch.arange(200)))
    assert "trained on 100 of" in features.features_of(fewer, folder).words


def test_a_share_has_wilsons_interval() -> None:
    assert dataclasses.astuple(probe.wilson(9, 10)) == pytest.approx((0.9, 0.5958, 0.9821), abs=1e-3)
    assert dataclasses.astuple(probe.wilson(0, 10)) == pytest.approx((0.0, 0.0, 0.2775), abs=1e-3)


def test_labels_are_drawn_as_often_as_they_are(out: Path) -> None:
    recipe = dataclasses.replace(RECIPES["conditional-vae"], presets=())
    experiment = prepared(recipe, None, 0, torch.device("cpu"))
    x, y = context(experiment, 2000).rows
    labels = experiment.data.train.labels
    assert labels is not None
    assert x.shape == (2000, 1, 8, 8)
    assert y[:1437].bincount().equal(labels.bincount()), "all of them, and then some of them again"


def test_draws_between_levels_go_to_the_nearest(digits: Protocol, out: Path) -> None:
    experiment = restored(Run.open(out / "runs" / "vae-3"))
    found, notes = on_levels(experiment, torch.tensor([-0.7, 0.6, 17.2, 3.0]).reshape(1, 1, 2, 2))
    assert found.flatten().tolist() == [0, 1, 16, 3]
    assert notes == ["draws were rounded to the nearest of 17 levels, which were 0.575 off in the mean"]
    assert on_levels(experiment, found) == (found, [])
