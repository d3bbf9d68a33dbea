"""A run through the app's functions: what is written, what is read back, and what is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyro
import pytest
import safetensors.torch
import torch
from torch.distributions import Distribution

import inference
from inference import SVI, Evaluation, elbo, importance
from inference.training.average import snapshot
from inference.training.files import write_whole
from ppmodels.app import RECIPES, Run, compare, complete, evaluate, find, reconstruct, sample, train
from ppmodels.app.experiment import device_named, limited, prepared, restored
from ppmodels.app.lookup import NamedRecipe, UnknownRecipe
from ppmodels.app.presets import Kind, Preset
from ppmodels.data import Split, load
from tests.ppmodels.app_helpers import picture_size

SHORT = dataclasses.replace(RECIPES["vae"], steps=30, validate_every=10, estimators={"iwae": importance(4)})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    state = torch.get_rng_state()
    made, notes = train(NamedRecipe("vae", SHORT), tmp_path_factory.mktemp("app") / "run", progress=False)
    assert notes == []
    assert torch.equal(state, torch.get_rng_state())
    return made


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Run:
    """The run in a folder that a test may damage."""
    shutil.copytree(run.folder, tmp_path / "copy")
    return Run.open(tmp_path / "copy")


def scored(run: Run, **changes: object) -> Evaluation:
    return evaluate(run, particles=2, progress=False, **changes)


def test_a_run_holds_what_it_promises(run: Run) -> None:
    pictures = {"loss.png", "samples.png", "reconstructions.png", "traversal.png", "interpolation.png"}
    files = {path.name for path in run.folder.iterdir()}
    assert files - {"evaluation.json"} == pictures | {"weights.safetensors", "run.json", "metrics.jsonl"}
    for name in pictures:
        width, height = picture_size(run.folder / name)
        assert width > 200
        assert height > (60 if name == "traversal.png" else 200)  # a row for each active dimension: few after 30 steps
    record = json.loads((run.folder / "run.json").read_text())
    assert record["steps"] == record["training"]["steps"] == 30
    assert record["stopped"] == "finished"
    assert record["best_validation"]["step"] in (10, 20, 30)
    assert record["data"] == {
        "source": "digits",
        "folder": None,
        "name": "digits",
        "binarisation": "none",
        "standardisation": None,
        "shape": [1, 8, 8],
        "columns": [],
        "levels": 17,
        "classes": 10,
        "fingerprint": load("digits").train.fingerprint,
        "valid_fingerprint": load("digits").valid.fingerprint,
    }
    assert record["settings"] == {
        "latent": 10,
        "hidden": [200, 200],
        "activation": "relu",
        "centred": False,
        "likelihood": None,
        "particles": 1,
    }
    assert record["training"] == {
        "steps": 30,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "clip": None,
        "average": 0.99,
        "validate_every": 10,
        "patience": None,
        "progression": None,
    }
    assert record["fitted_by"]["schedule"] == "cosine"
    assert (record["seed"], record["device"], record["threads"]) == (0, "cpu", 1)
    assert set(record["versions"]) == {"torch", "pyro", "ppmodels"}
    assert run.history()[-1]["step"] == 30


def test_the_weights_are_those_that_were_best(run: Run) -> None:
    best = run.record["best_validation"]
    validations = {row["step"]: row["validation"] for row in run.history() if "validation" in row}
    assert best["score"] == max(validations.values()) == validations[best["step"]]


def test_a_run_scores_the_same_after_it_was_moved(run: Run, copy: Run) -> None:
    before, after = scored(run), scored(copy)
    assert torch.equal(before.log_prob["iwae"], after.log_prob["iwae"])
    assert before.measured_on == after.measured_on
    written = json.loads((copy.folder / "evaluation.json").read_text())
    assert written["estimates"]["iwae"]["nats"] == before.mean("iwae")
    assert written["measured_on"]["examples"] == 180


def test_the_same_seed_trains_the_same_weights(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")
    torch.manual_seed(1)  # the app's noise is its own
    again, _ = train(NamedRecipe("vae", SHORT), tmp_path / "again", progress=False)
    other, _ = train(NamedRecipe("vae", SHORT), tmp_path / "other", seed=1, progress=False)
    assert again.record["weights_sha256"] == run.record["weights_sha256"] != other.record["weights_sha256"]


def test_the_callers_noise_is_left_as_it_was(run: Run) -> None:
    state = torch.get_rng_state()
    sample(run, 4)
    scored(run, limit=4)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("pyros", "torchs"), [(True, True), (True, False), (False, True)])
def test_the_callers_validation_is_left_as_it_was(copy: Run, tmp_path: Path, pyros: bool, torchs: bool) -> None:
    fails = dataclasses.replace(SHORT, steps=2, progression=1, schedule=lambda fraction: 1 / (1 - 2 * fraction))
    before = Distribution._validate_args
    try:
        with pyro.validation_enabled(pyros):
            Distribution.set_default_validate_args(torchs)
            scored(copy, limit=3)
            with pytest.raises(ZeroDivisionError):
                train(NamedRecipe("vae", fails), tmp_path / "run", progress=False)
            assert (pyro.distributions.is_validation_enabled(), Distribution._validate_args) == (pyros, torchs)
    finally:
        Distribution.set_default_validate_args(before)


def test_other_splits_have_files_of_their_own_and_a_limit_says_so(copy: Run) -> None:
    result = scored(copy, split="valid", limit=7)
    assert not (copy.folder / "evaluation.json").exists() or "split" in (copy.folder / "evaluation.json").read_text()
    written = json.loads((copy.folder / "evaluation-valid.json").read_text())
    assert (written["measured_on"]["examples"], written["measured_on"]["of_examples"]) == (7, 180)
    assert len(result.log_prob["iwae"]) == 7


def test_the_saved_weights_have_the_score_that_chose_them(run: Run) -> None:
    experiment = restored(run)
    again = inference.evaluate(experiment.program, experiment.in_order("valid", 500), {"score": importance(1, elbo)})
    assert again.mean("score") == run.record["best_validation"]["score"]


def test_a_limited_split_is_a_mixed_choice() -> None:
    data = load("digits")
    assert data.test.labels is not None
    order = data.test.labels.argsort()  # as binarized MNIST comes
    by_class = dataclasses.replace(data, test=Split(data.test.values[order], data.test.labels[order]))
    part = limited(by_class, "test", 50)
    assert (len(part.train), len(part.test)) == (len(data.train), 50)
    assert part.test.labels is not None
    assert len(part.test.labels.unique()) >= 8
    assert limited(data, "test", 500) is data


def test_samples_and_reconstructions_are_drawn_anew(copy: Run) -> None:
    before = (copy.folder / "samples.png").read_bytes()
    assert list(sample(copy, 16, draws=True).files) == ["samples.png"]
    assert (copy.folder / "samples.png").read_bytes() != before
    small = picture_size(copy.folder / "samples.png")
    sample(copy, 100)
    assert picture_size(copy.folder / "samples.png")[1] > small[1]
    assert set(reconstruct(copy).files) == {"reconstructions.png", "traversal.png", "interpolation.png"}


def test_equal_seeds_draw_equal_pictures(copy: Run) -> None:
    first, second, third = (sample(copy, 9, seed).files["samples.png"] for seed in (3, 3, 4))
    assert first == second != third


def test_damaged_weights_are_named(copy: Run) -> None:
    path = copy.folder / "weights.safetensors"
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=r"weights.safetensors is damaged.*train again"):
        restored(copy)


def test_weights_of_another_program_are_named(copy: Run) -> None:
    experiment = prepared(
        RECIPES["vae"].with_settings({"likelihood": "logistic-mixture"}), None, 0, torch.device("cpu")
    )
    with pytest.raises(
        ValueError, match=r"decoder\.network\.4\.bias is float32 \(1088,\) and the program's float32 \(960,\)"
    ):
        copy.load_weights(experiment.program)
    experiment = prepared(RECIPES["conv-vae"], None, 0, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"it lacks decoder\.convolutions\.1\.bias.*it has decoder\.network"):
        copy.load_weights(experiment.program)


def test_changed_data_are_noticed(copy: Run) -> None:
    changed = Run(copy.folder, {**copy.record, "data": {**copy.record["data"], "fingerprint": "000000000000"}})
    with pytest.raises(ValueError, match="their training examples have changed"):
        restored(changed)
    restored(changed, data="digits")  # named anew: what is measured says what it was measured on


def test_a_damaged_record_and_a_missing_run_are_named(copy: Run, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no run folder .*cop1. Did you mean .*copy\?"):
        Run.open(tmp_path / "cop1")
    (copy.folder / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run.json: expected the record of a run, but it is damaged"):
        Run.open(copy.folder)


OLD = {
    "format": 1,
    "recipe": "vae-mnist",
    "data": "mnist",
    "folder": "/my data",
    "binarisation": "dynamic",
    "steps_asked": 100,
    "batch_size": 200,
    "learning_rate": 0.002,
    "seed": 3,
}


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        (
            {},
            "ppmodels train vae --data mnist --folder '/my data' --binarisation dynamic --steps 100 --batch-size 200 "
            "--lr 0.002 --seed 3",
        ),
        (
            {"recipe": "vae-logistic-digits", "data": "digits", "folder": None, "binarisation": "none"},
            "ppmodels train vae --data digits --steps 100 --batch-size 200 --lr 0.002 --seed 3 "
            "--set likelihood=logistic-mixture --set clip=200",
        ),
        (
            {"recipe": "recipe.py", "data": "a.csv", "folder": None, "binarisation": "none"},
            "ppmodels train FOLDER/recipe.py --data a.csv --steps 100 --batch-size 200 --lr 0.002 --seed 3",
        ),
        ({"recipe": None}, "ppmodels train RECIPE --data"),
    ],
)
def test_a_run_of_format_1_names_the_command_that_trains_it_again(
    changes: dict[str, object], command: str, tmp_path: Path
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(OLD | changes))
    with pytest.raises(
        ValueError, match=r"written in format 1, and this version reads 2\. A recipe is a model now"
    ) as refused:
        Run.open(tmp_path)
    assert command.replace("FOLDER", str(tmp_path)) in str(refused.value)


@pytest.mark.parametrize("name", ["recipe", "data", "settings", "training", "seed", "weights_sha256", "data.shape"])
@pytest.mark.parametrize("value", [None, 1.5])
def test_a_record_that_lacks_something_is_named(name: str, value: object, copy: Run) -> None:
    record = json.loads((copy.folder / "run.json").read_text())
    outer, _, inner = name.partition(".")
    (record[outer] if inner else record).update({inner or outer: value})
    (copy.folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=rf"damaged \({inner or outer} is"):
        Run.open(copy.folder)
    del (record[outer] if inner else record)[inner or outer]
    (copy.folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=rf"damaged \({inner or outer} is nothing"):
        Run.open(copy.folder)


def test_a_record_runs_no_file_but_its_own(copy: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("raise SystemExit")
    with pytest.raises(ValueError, match=r"there is no recipe '.*other.py' in this version"):
        restored(Run(copy.folder, {**copy.record, "recipe": str(other)}))


def test_a_run_is_opened_by_its_own_settings(copy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by what the recipe's presets and defaults are when it is opened."""
    before = scored(copy, limit=3)
    always = Kind("all", lambda data: True)
    changed = RECIPES["vae"].with_settings({"activation": "tanh", "steps": 5})
    changed = dataclasses.replace(changed, presets=[Preset(always, {"hidden": (7,), "latent": 3, "batch_size": 9})])
    monkeypatch.setitem(RECIPES, "vae", changed)
    opened = Run.open(copy.folder)
    assert restored(opened).recipe.batch_size == 64
    assert scored(opened, limit=3).log_prob["elbo"].equal(before.log_prob["elbo"])
    monkeypatch.setitem(RECIPES, "vae", RECIPES["conv-vae"])
    with pytest.raises(ValueError, match=r"run.json: the recipe is not the one that was trained: '\w+' is no setting"):
        restored(opened)


def _own_images(folder: Path, shape: tuple[int, ...], levels: int, name: str = "mine", count: int = 40) -> str:
    images = np.random.default_rng(0).integers(0, levels, (count, *shape)).astype(np.uint8)
    images[0] = levels - 1
    np.save(folder / f"{name}.npy", images)
    return str(folder / f"{name}.npy")


def test_data_of_another_kind_are_refused_by_every_command(run: Run, copy: Run, tmp_path: Path) -> None:
    levels = r"levels: the run was trained on digits of 17 levels, and mine has 256 levels"
    grey = _own_images(tmp_path, (8, 8), 256)
    for work in (evaluate, reconstruct, complete):
        with pytest.raises(ValueError, match=levels):
            work(copy, data=grey, progress=False)
    with pytest.raises(ValueError, match=r"shape: .* of shape \(1, 8, 8\), and mine has shape \(1, 9, 8\)"):
        scored(copy, data=_own_images(tmp_path, (9, 8), 256))
    with pytest.raises(ValueError, match=r"shape: .*\(1, 8, 8\), and ring-8 has shape \(2,\)"):
        scored(copy, data="ring-8")
    # The data themselves can have changed.
    other = Run(copy.folder, {**copy.record, "data": {**copy.record["data"], "levels": 2}})
    with pytest.raises(ValueError, match="trained on digits of 2 levels, and digits has 17 levels"):
        compare([run, other], progress=False)


def test_a_binary_run_is_scored_on_few_binary_pixels_and_not_on_grey_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")
    binary = dataclasses.replace(
        SHORT.with_settings({"steps": 1, "batch_size": 30}), data=_own_images(tmp_path, (8, 8), 2, "binary")
    )
    run, _ = train(NamedRecipe("vae", binary), tmp_path / "run", progress=False)
    few = _own_images(tmp_path, (8, 8), 2, "few", count=10)
    assert (
        len(scored(run, data=few).log_prob["iwae"]) == 1
    )  # the tenth; its training split is below a batch of the run's
    with pytest.raises(ValueError, match="of 2 levels, and digits has 17 levels"):
        evaluate(run, data="digits", progress=False)


def test_a_table_of_other_columns_and_other_classes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")
    short = RECIPES["vae"].with_settings({"steps": 1, "hidden": (8,)})
    run, _ = train(NamedRecipe("vae", dataclasses.replace(short, data="ring-8")), tmp_path / "table", progress=False)
    np.savetxt(tmp_path / "wide.csv", np.random.default_rng(0).normal(size=(80, 3)), delimiter=",")
    with pytest.raises(ValueError, match=r"ring-8 of shape \(2,\), and wide has shape \(3,\)"):
        evaluate(run, data=str(tmp_path / "wide.csv"), progress=False)
    scored(run, data="grid-25", limit=3)  # other classes are nothing to a program without labels
    labelled = RECIPES["conditional-vae"].with_settings({"steps": 1, "hidden": (8,)})
    conditional, _ = train(
        NamedRecipe("conditional-vae", dataclasses.replace(labelled, data="ring-8")),
        tmp_path / "labelled",
        progress=False,
    )
    with pytest.raises(ValueError, match="ring-8 of 8 classes, and grid-25 has 25 classes"):
        evaluate(conditional, data="grid-25", progress=False)


def test_a_run_is_overwritten_only_when_asked_and_then_whole(copy: Run) -> None:
    found = NamedRecipe("vae", dataclasses.replace(SHORT, steps=2, validate_every=None))
    with pytest.raises(ValueError, match="already holds a run"):
        train(found, copy.folder, progress=False)
    scored(copy)
    run, _ = train(found, copy.folder, overwrite=True, progress=False)
    assert run.folder == copy.folder
    assert run.record["steps"] == 2
    assert not (copy.folder / "evaluation.json").exists()  # it was of the weights before
    assert sorted(copy.folder.parent.iterdir()) == [copy.folder]


def test_a_refused_recipe_leaves_no_folder(tmp_path: Path) -> None:
    grey = dataclasses.replace(SHORT, presets=(), program=lambda data: RECIPES["vae"].program(data.binarized("static")))
    with pytest.raises(ValueError, match="outside its support"):
        train(NamedRecipe("grey", grey), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_without_validation_the_average_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppmodels.app.plots.png", lambda figure: b"")
    kept = []

    class Kept(SVI):
        def __init__(self, program: object) -> None:
            super().__init__(program)  # type: ignore[arg-type]  # the program is a VAE
            kept.append(self)

    recipe = dataclasses.replace(SHORT, objective=Kept, steps=3, validate_every=None, average=0.5)
    run, _ = train(NamedRecipe("average", recipe), tmp_path / "run", progress=False)
    saved = safetensors.torch.load_file(run.folder / "weights.safetensors")
    assert run.record["best_validation"] is None
    assert all(torch.equal(value, saved[name]) for name, value in snapshot(kept[-1].program).items())
    plain, _ = train(
        NamedRecipe("plain", dataclasses.replace(recipe, average=None)), tmp_path / "plain", progress=False
    )
    assert plain.record["weights_sha256"] != run.record["weights_sha256"]


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"first")
    with pytest.raises(TypeError):
        write_whole(path, "no bytes")  # type: ignore[arg-type]  # on purpose
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_recipe_is_found_by_name_and_typos_are_answered() -> None:
    assert find("vae").recipe is RECIPES["vae"]
    with pytest.raises(UnknownRecipe, match="Did you mean conv-vae"):
        find("conv_vae")
    with pytest.raises(UnknownRecipe, match="Train it by: ppmodels train r3gan --data ring-8"):
        find("r3gan-ring-8")
    with pytest.raises(UnknownRecipe, match=r"there is no file nowhere\.py"):
        find("nowhere.py")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_named() -> None:
    assert device_named("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="finds no CUDA device here"):
        device_named("cuda")
