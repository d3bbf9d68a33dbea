"""`ppmodels evaluate` by named estimators: the list, the numbers, the table of examples, the figure."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from inference import Evaluation, annealed, elbo, importance, refined, sandwich
from inference.evaluation import annealing
from ppmodels.app import RECIPES, Run, compare, evaluate, report, train
from ppmodels.app.cli import app
from ppmodels.app.estimators import estimators_named
from ppmodels.app.experiment import restored
from ppmodels.app.lookup import NamedRecipe, find
from ppmodels.app.scores import write_scores
from tests.ppmodels.app_helpers import OWN, picture_size, write_recipe

pytestmark = pytest.mark.filterwarnings("ignore:.*transitions were accepted")  # the pilot rounds here are short


def _printed(result: Evaluation) -> str:
    console = report.console()
    with console.capture() as printed:
        report.evaluation(result, console)
    return " ".join(printed.get().split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = dataclasses.replace(RECIPES["vae"], data="digits", steps=20, validate_every=None, traced=None)
    made, notes = train(NamedRecipe("vae", recipe), tmp_path_factory.mktemp("scored") / "vae", progress=False)
    assert notes == []
    return made


def test_estimators_go_by_name_and_number() -> None:
    assert estimators_named("iwae:7, refined ,sandwich:9,annealed:3,elbo") == {
        "iwae": importance(7),
        "refined": refined(500),
        "sandwich": sandwich(9, simulations=5),
        "annealed": annealed(3),
        "elbo": importance(100, elbo),
    }
    assert list(estimators_named("iwae:10,elbo:3,iwae:100")) == ["iwae:10", "elbo", "iwae:100"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("anealed:3", "'anealed' is none; did you mean annealed?"),
        ("", "'' is none; expected a list of exact, elbo\\[:DRAWS\\]"),
        ("iwae:ten", "'iwae:ten': expected a number of draws after the colon, such as iwae:1000"),
        ("iwae:-1", "expected a number of draws"),
        ("iwae:0", "at least 1"),
        ("annealed:1", "temperatures: expected a whole number of at least 2"),
        ("exact:2", "exact takes no number"),
        ("elbo,elbo", "'elbo' stands there twice"),
    ],
)
def test_a_wrong_list_is_told(text: str, said: str, run: Run) -> None:
    with pytest.raises(ValueError, match=said):
        estimators_named(text)
    assert CliRunner().invoke(app, ["evaluate", str(run.folder), "--estimators", text]).exit_code == 1


def test_evaluate_writes_numbers_scores_and_a_figure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annealing, "_PILOT_TRANSITIONS", 30)
    arguments = ["--limit", "6", "--estimators", "elbo:5,iwae:20,annealed:4,sandwich:4,refined:5", "--split", "valid"]
    result = CliRunner().invoke(app, ["evaluate", str(run.folder), *arguments])
    assert result.exit_code == 0, result.output
    written = json.loads((run.folder / "evaluation-valid.json").read_text())["estimates"]
    assert list(written) == ["elbo", "iwae", "annealed", "sandwich", "refined"]
    with (run.folder / "scores-valid.csv").open() as file:
        rows = list(csv.DictReader(file))
    places = [int(row["example"]) for row in rows]
    data = restored(run).data.valid.values[places].float()
    assert places != list(range(6))
    assert torch.equal(data, next(iter(restored(run).in_order("valid", 6, 6)))[0])
    for name, row in written.items():
        assert sum(float(each[name]) for each in rows) / 6 == pytest.approx(row["nats"])
    assert 0 < float(rows[0]["annealed acceptance"]) <= 1
    assert picture_size(run.folder / "bounds-valid.png")[0] > 400
    printed = " ".join(result.output.split())
    assert "annealed, T = 4, K = 16" in printed
    gap = written["sandwich"]["details"]["simulated gap"]
    assert f"{gap['mean']:.2f} ± {gap['standard_error']:.2f} nats apart on 5 simulated examples" in printed
    parts = json.loads((run.folder / "evaluation-valid.json").read_text())["inference_gap"]
    assert parts["total"]["mean"] == pytest.approx(parts["approximation"]["mean"] + parts["amortisation"]["mean"])
    assert parts["width"]["mean"] == pytest.approx(gap["mean"])
    assert f"amortisation gap {parts['amortisation']['mean']:.2f} ±" in " ".join(printed.split())
    assert "evidence for this number, no bound" in printed


def test_runs_are_compared_by_a_named_estimator(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annealing, "_PILOT_TRANSITIONS", 30)
    ranked = compare([run, run], limit=5, progress=False, estimators={"annealed": annealed(3, 4)})
    assert [each.estimate for each in ranked] == ["annealed", "annealed"]
    assert ranked[0].ahead_of(ranked[1]) == (0.0, 0.0)


def test_an_estimator_that_refuses_the_guide_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    source = OWN.replace(
        'pyro.sample("code", self.encoder(x))',
        "mean = self.encoder(x).mean\n"
        '            pyro.sample("code", pyro.distributions.Uniform(mean - 4, mean + 4).to_event(1))',
    )
    run, _ = train(find(write_recipe(tmp_path, "digits", source)), tmp_path / "run", progress=False)
    shown: list[str] = []
    both = {"iwae": importance(5), "refined": refined(2)}
    found = evaluate(run, limit=3, progress=False, estimators=both, show=lambda result: shown.append(_printed(result)))
    assert list(found.log_prob) == ["iwae"]
    assert "refined is left out: the guide's site 'code' is a Uniform" in shown[0]
    written = json.loads((run.folder / "evaluation.json").read_text())
    assert "is a Uniform" in written["left_out"]["refined"]
    with pytest.raises(ValueError, match="Uniform"):
        evaluate(run, limit=3, progress=False, estimators={"refined": refined(2)})


def test_a_new_evaluation_takes_the_place_of_all_of_an_earlier_one(run: Run) -> None:
    both = {"iwae": importance(9), "elbo": importance(5, elbo)}
    evaluate(run, "train", limit=3, progress=False, estimators=both)
    about_train = ("evaluation-train.json", "scores-train.csv", "bounds-train.png")
    before = {name: (run.folder / name).read_bytes() for name in about_train}
    evaluate(run, "valid", limit=3, progress=False, estimators={"iwae": importance(9)})
    assert {name: (run.folder / name).read_bytes() for name in about_train} == before, "of another split"
    assert not (run.folder / "bounds-valid.png").exists()
    evaluate(run, "train", limit=3, progress=False, estimators={"iwae": importance(9)})
    assert not (run.folder / "bounds-train.png").exists(), "one number makes no figure, and the old one is of others"
    assert "elbo" not in (run.folder / "scores-train.csv").read_text()


def test_numbers_of_the_whole_dataset_take_scores_of_examples_away(run: Run) -> None:
    found = evaluate(run, "train", limit=3, progress=False, estimators={"iwae": importance(9)})
    one = {"iwae": found.log_prob["iwae"].sum().reshape(1)}
    write_scores(run, dataclasses.replace(found, log_prob=one, per_example=False), {}, "train", [0, 1, 2])
    assert not (run.folder / "scores-train.csv").exists()


@pytest.mark.parametrize("place", ["evaluation-train.json", "scores-train.csv", "bounds-train.png"])
def test_where_one_file_can_not_be_written_all_stay_as_they_were(run: Run, tmp_path: Path, place: str) -> None:
    copy = Run.open(shutil.copytree(run.folder, tmp_path / "copy"))
    both = {"iwae": importance(9), "elbo": importance(5, elbo)}
    evaluate(copy, "train", limit=3, progress=False, estimators=both)
    (copy.folder / place).unlink()
    (copy.folder / place).mkdir()
    before = {path.name: path.read_bytes() for path in copy.folder.iterdir() if path.is_file()}
    with pytest.warns(UserWarning, match=rf"{place} could not be written: Is a directory"):
        evaluate(copy, "train", limit=4, progress=False, estimators=both)
    assert {path.name: path.read_bytes() for path in copy.folder.iterdir() if path.is_file()} == before
