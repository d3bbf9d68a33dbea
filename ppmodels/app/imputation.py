"""What a run makes of missing cells: their means given what is observed of the row."""

from typing import Any

import torch
from torch import Tensor

from inference import decode
from inference.evaluation.weighted import weighted
from inference.programs.entries import Examples
from inference.programs.program import evaluating
from ppmodels.app.drawn import in_own_units
from ppmodels.app.experiment import Experiment
from ppmodels.app.pictures import Files, Pictures, attempted, csv_of

_DRAWS, _AT_ONCE, _BATCH = 200, 50, 100


def imputations(experiment: Experiment, seed: int = 0) -> Pictures:
    """imputed.csv: the rows of the test split, in their order and units, each missing cell filled with a mean of x.

    It is that of p(x | z) over draws of the guide, weighted to be draws of p(z | what is observed) (Mattei & Frellsen,
    2019, arXiv 1812.02633).
    """

    def make() -> Files:
        rows = torch.cat([filled(experiment.program, batch) for batch in experiment.in_order("test", _BATCH)])
        return {"imputed.csv": csv_of(experiment, in_own_units(experiment, rows))}

    return attempted("imputed cells", seed, make)


def filled(program: Any, batch: Examples) -> Tensor:
    """The examples of a batch `(x, y, observed)`, their missing values replaced by means."""
    x, _, observed = batch
    with torch.no_grad(), evaluating(program):
        drawn = weighted(program, batch, _DRAWS, _AT_ONCE)
        (means,) = decode(program, batch, drawn.latents).values()
    weights = torch.softmax(drawn.log_weights, 0).to(means)
    mean = torch.einsum("kn,kn...->n...", weights, means)
    return torch.where(observed, x, mean)
