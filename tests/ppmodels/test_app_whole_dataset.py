"""A recipe whose program has no plate over the examples: trained on all rows as one batch, and scored as one."""

import json
from pathlib import Path

import pytest
import torch

from inference import ProgramError
from ppmodels import load
from ppmodels.app import Run, diagnose, evaluate, train
from ppmodels.app.lookup import find

RECIPE = """
import pyro, pyro.distributions as dist
from pyro.infer.autoguide import AutoNormal
from inference import Pair, importance
from ppmodels.app import Recipe


def program(data):
    def model(x):
        slope = pyro.sample("slope", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("y", dist.Normal(slope * x[:, 0], 0.5).to_event(1), obs=x[:, 1])

    return Pair(model, AutoNormal)


recipe = Recipe(
    program, steps=150, learning_rate=0.05, batch_size=BATCH, validate_every=50, standardise=False,
    estimators={"iwae": importance(20)},
)
"""


def _written(folder: Path, batch: int) -> Path:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1300, generator=generator)
    rows = torch.stack([x, 0.7 * x + 0.5 * torch.randn(1300, generator=generator)], 1).tolist()
    (folder / "line.csv").write_text("x,y\n" + "\n".join(f"{a:.5f},{b:.5f}" for a, b in rows))
    recipe = RECIPE.replace("BATCH", str(batch)).replace("steps=150,", f"data={str(folder / 'line.csv')!r}, steps=150,")
    (folder / "line.py").write_text(recipe)
    return folder / "line.py"


def test_all_rows_are_one_batch_and_one_number(tmp_path: Path) -> None:
    run, _ = train(find(_written(tmp_path, 1040)), tmp_path / "run", progress=False)
    result = evaluate(Run.open(run.folder), progress=False)
    assert result.log_prob["iwae"].shape == (1,)  # of the 130 test rows, which are more than a batch of scoring
    assert not json.loads((run.folder / "evaluation.json").read_text())["per_example"]
    x, y = load(str(tmp_path / "line.csv"), standardise=False).test.values.double().unbind(1)
    covariance = torch.outer(x, x) + 0.25 * torch.eye(len(x))
    evidence = torch.distributions.MultivariateNormal(torch.zeros_like(x), covariance).log_prob(y)
    assert evidence - 10 < result.mean("iwae") < evidence + 3  # the guide is that of the training rows


def test_a_part_of_the_rows_as_a_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"no plate counts the examples.*give all the data as one batch"):
        train(find(_written(tmp_path, 100)), tmp_path / "run", progress=False)


ROWS = """
import pyro, pyro.distributions as dist
from pyro.infer.autoguide import AutoNormal
from inference import Pair, importance
from ppmodels.app import Recipe


def program(data):
    def model(x):
        w = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z[:, None] * w, 0.5).to_event(1), obs=x)

    return Pair(model, AutoNormal)


recipe = Recipe(
    program, steps=150, learning_rate=0.05, batch_size=1040, validate_every=50, standardise=False,
    estimators={"iwae": importance(20)},
)
"""


def test_a_guide_with_values_for_its_rows_is_scored_on_these_and_predicts_others(tmp_path: Path) -> None:
    """1,040 rows are more than a batch of scoring, and the 130 of the other splits have no values in the guide."""
    _written(tmp_path, 1040)
    where = f"data={str(tmp_path / 'line.csv')!r}, steps=150,"
    (tmp_path / "rows.py").write_text(ROWS.replace("steps=150,", where))
    run, _ = train(find(tmp_path / "rows.py"), tmp_path / "run", progress=False)
    held_out = evaluate(run, progress=False)
    assert held_out.kind["predictive"].startswith("predictive density")
    assert held_out.log_prob["predictive"].shape == (130,)
    assert evaluate(run, "train", progress=False).log_prob["iwae"].shape == (1,)
    assert diagnose(run, progress=False, refine=0).active_units["z"] == 1
