"""`diagnose` and `calibrate`: how good the guide of a run is."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

import inference
from inference import Batch, Calibration, Diagnosis, Program, Step, fit, refined
from inference.evaluation.refined import Refined
from inference.evaluation.stages import reached
from inference.training.progress import shown_stages
from ppmodels.app import plots
from ppmodels.app.computing import computing, split_for
from ppmodels.app.experiment import Experiment, restored
from ppmodels.app.fitting import step_of
from ppmodels.app.results import figure, write_results
from ppmodels.app.run import Run, as_json
from ppmodels.app.scoring import unvalidated


def diagnose(
    run: Run,
    split: str | None = None,
    draws: int = 1000,
    limit: int | None = None,
    refine: int = 300,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    show: Callable[[Diagnosis, Mapping[str, str | int]], object] | None = None,
    trust: bool = False,
) -> Diagnosis:
    """Says of a run's guide whether its weights can be trusted, and writes diagnosis.json and diagnosis.png.

    Args:
        run: the run.
        split: train, valid or test; by default that whose examples the guide serves: the training ones where it was fitted
            to these very rows, as where examples share latents, else the test split.
        draws: from the guide, for each example.
        limit: a fixed random choice of so many examples.
        refine: optimisation steps by which the amortisation gap is measured; 0 measures none.
        show: called with the result, and with what it was measured on, before it is written.
        data, folder, device, seed, threads, progress, trust: as those of `evaluate`.
    """
    experiment = restored(run, data, folder, device, trust)
    split = split_for(experiment, split, progress)
    batches = experiment.scored(split, limit=limit)
    steps: Refined | None = refined(refine) if refine else None
    with computing(experiment, threads, progress), unvalidated(), shown_stages(progress):
        found = inference.diagnose(experiment.program, batches, draws, steps, seed)
    if show is not None:
        show(found, batches.description)
    numbers = as_json(found.summary() | {"split": split, "seed": seed})
    write_results(run, {"diagnosis.json": numbers, **figure("diagnosis.png", lambda: plots.diagnosis(found))})
    return found


def calibrate(
    run: Run,
    simulations: int | None = None,
    draws: int = 99,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    trust: bool = False,
) -> Calibration:
    """Simulation-based calibration of a run's guide; writes calibration.json and calibration.png.

    Args:
        run: the run; its training examples give the covariates, such as labels.
        simulations: how many; 1000 by default, and 40 where each takes a fit of its own, as examples share latents.
        draws: of the guide, for each simulation.
        data, folder, device, seed, threads, progress, trust: as those of `evaluate`.
    """
    experiment = restored(run, data, folder, device, trust)
    (batch,) = experiment.in_order("train", len(experiment.data.train))
    amortised = not experiment.fits_rows
    refit = None if amortised else _refit(experiment, seed)
    count = simulations or (1000 if amortised else 40)
    with computing(experiment, threads, progress), unvalidated(), shown_stages(progress):
        found = inference.calibration(experiment.program, batch, count, draws, refit, seed=seed)
    numbers = as_json(found.summary() | {"simulations": count, "seed": seed})
    write_results(run, {"calibration.json": numbers, **figure("calibration.png", lambda: plots.calibration(found))})
    return found


def _refit(experiment: Experiment, seed: int) -> Callable[[Batch], Program]:
    """Fits the recipe's program anew to simulated data, all of them as one batch."""

    def told(step: Step, values: Mapping[str, Tensor]) -> None:
        reached(step.count / experiment.recipe.steps, f"step {step.count} of {experiment.recipe.steps}")

    def fitted(batch: Batch) -> Program:
        recipe = experiment.recipe
        program: Any = recipe.make_program(experiment.data).to(experiment.device)
        objective = recipe.make_objective(program).to(experiment.device)
        step = step_of(dataclasses.replace(experiment, objective=objective), seed)
        fit(step, batch, recipe.steps, progress=False, callbacks=[told])
        return program

    return fitted
