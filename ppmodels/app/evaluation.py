"""`evaluate`: a run's log p(x), by one estimator or several."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from inference import Estimator, Evaluation
from ppmodels.app.computing import computing
from ppmodels.app.experiment import restored
from ppmodels.app.run import Run, versions
from ppmodels.app.scores import write_scores
from ppmodels.app.scoring import estimators_of, scoring_of


def evaluate(
    run: Run,
    split: str = "test",
    particles: int | None = None,
    limit: int | None = None,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    estimators: Mapping[str, Estimator] | None = None,
    show: Callable[[Evaluation], object] | None = None,
    trust: bool = False,
) -> Evaluation:
    """Scores a run and writes evaluation.json, scores.csv of every example, and bounds.png (-SPLIT for other splits).

    They take the place of those of an earlier evaluation of that split, whose files go where there are no such ones now.
    Where they can not be written the numbers are given all the same, with a warning.

    Args:
        run: the run.
        split: train, valid or test.
        particles: draws per example of the importance-weighted bounds, in place of the recipe's.
        limit: score a fixed random choice of so many examples.
        data: a name or path, in place of the data that the run was trained on.
        folder: where the data lie, in place of the folder of the run.
        device: auto, cpu or cuda.
        seed: of the estimators' noise.
        threads: of torch; by default what suits the size of the model.
        progress: whether to show progress on stderr.
        estimators: by name, in place of the recipe's.
        show: called with the result before it is written.
        trust: whether to execute a recipe file that this user has neither trained nor trusts.
    """
    experiment = restored(run, data, folder, device, trust)
    began = time.perf_counter()
    chosen = estimators_of(experiment, split, estimators, particles)
    with computing(experiment, threads, progress):
        used = torch.get_num_threads()
        result = scoring_of(run, experiment, chosen, progress).result(experiment, split, limit, seed, progress)
    about = {
        "recipe": run.record["recipe"],
        "seed": seed,
        "threads": used,
        "seconds": round(time.perf_counter() - began, 2),
        "weights_sha256": run.record["weights_sha256"],
        "recipe_sha256": run.record.get("recipe_sha256"),
        "versions": versions(),
    }
    if show is not None:
        show(result)
    write_scores(run, result, about, split, experiment.rows(split, limit).tolist())
    return result
