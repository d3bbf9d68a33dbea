"""The commands that ask how good a run's guide is, and that take its draws elsewhere: diagnose, calibrate, export."""

import dataclasses
import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import inference
from inference import Batch, Calibration, Diagnosis, Program, fit, refined, to_arviz
from inference.evaluation.likelihood import likelihood_of
from inference.evaluation.refined import Refined
from inference.programs.noise import own_noise
from inference.programs.program import evaluating
from ppmodels.app import plots
from ppmodels.app.computing import computing
from ppmodels.app.experiment import Experiment, restored
from ppmodels.app.files import temporary_name
from ppmodels.app.fitting import step_of
from ppmodels.app.pictures import attempted
from ppmodels.app.run import Run
from ppmodels.app.scoring import unvalidated


def diagnose(
    run: Run,
    split: str = "test",
    draws: int = 1000,
    limit: int | None = None,
    refine: int = 300,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    trust: bool = False,
) -> Diagnosis:
    """Says of a run's guide whether its weights can be trusted, and writes diagnosis.json and diagnosis.png.

    Args:
        run: the run.
        split: train, valid or test.
        draws: from the guide, for each example.
        limit: a fixed random choice of so many examples.
        refine: optimisation steps by which the amortisation gap is measured; 0 measures none.
        data, folder, device, seed, threads, progress, trust: as those of `evaluate`.
    """
    experiment = restored(run, data, folder, device, trust)
    steps: Refined | None = refined(refine) if refine else None
    with computing(experiment, threads, progress), unvalidated():
        found = inference.diagnose(experiment.program, experiment.scored(split, limit=limit), draws, steps, seed)
    _write(run, "diagnosis", found.summary() | {"split": split, "seed": seed}, lambda: plots.diagnosis(found))
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
    with torch.no_grad(), evaluating(experiment.program), own_noise(0):
        amortised = likelihood_of(experiment.program, batch).per_example
    refit = None if amortised else _refit(experiment, seed)
    count = simulations or (1000 if amortised else 40)
    with computing(experiment, threads, progress), unvalidated():
        found = inference.calibration(experiment.program, batch, count, draws, refit, seed=seed)
    _write(run, "calibration", found.summary() | {"simulations": count, "seed": seed}, lambda: plots.calibration(found))
    return found


def export(
    run: Run,
    path: Path,
    split: str | None = None,
    draws: int = 1000,
    limit: int | None = None,
    data: str | None = None,
    folder: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
    trust: bool = False,
) -> None:
    """Writes draws of a run's posterior, prior and predictives as ArviZ's netCDF file.

    Args:
        run: the run.
        path: the file; one that is there is refused, unless it may be overwritten.
        split: of which examples; by default the training ones where these share latents, else the test split.
        draws: of each.
        limit: a fixed random choice of so many examples; 100 by default where each has latents of its own alone.
        overwrite: whether a file of that name may be replaced.
        data, folder, device, seed, threads, progress, trust: as those of `evaluate`.
    """
    if os.path.lexists(path) and not overwrite:
        raise ValueError(f"{path} is there already; choose another name, or --overwrite.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.absolute().parent} for {path.name}; make it first.")
    experiment = restored(run, data, folder, device, trust)
    one_by_one = _stands_alone(experiment)
    chosen = split or ("test" if one_by_one else "train")
    count = len(experiment.data.split(chosen)) if limit is None and not one_by_one else limit or 100
    (batch,) = experiment.in_order(chosen, count, count)
    with computing(experiment, threads, progress), unvalidated():
        found = to_arviz(experiment.program, batch, draws, seed=seed)
    temporary = path.with_name(temporary_name(path.name))
    try:
        found.to_netcdf(str(temporary))
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _stands_alone(experiment: Experiment) -> bool:
    """Whether every example has a number of its own."""
    batch = experiment.examples(100, "train")
    with torch.no_grad(), evaluating(experiment.program), own_noise(0):
        return likelihood_of(experiment.program, batch).per_example


def _refit(experiment: Experiment, seed: int) -> Callable[[Batch], Program]:
    """Fits the recipe's program anew to simulated data, all of them as one batch."""

    def fitted(batch: Batch) -> Program:
        recipe = experiment.recipe
        program: Any = recipe.make_program(experiment.data).to(experiment.device)
        objective = recipe.make_objective(program).to(experiment.device)
        fit(step_of(dataclasses.replace(experiment, objective=objective), seed), batch, recipe.steps, progress=False)
        return program

    return fitted


def _write(run: Run, name: str, numbers: dict[str, Any], figure: Callable[[], Any]) -> None:
    """Writes numbers and their picture into the run's folder; what can not be written is told by a warning."""
    picture = attempted(f"{name}.png", 0, lambda: {f"{name}.png": plots.png(figure())})
    for note in picture.notes:
        warnings.warn(note, stacklevel=3)
    try:
        run.write_json(f"{name}.json", numbers)
        picture.write(run.folder)
    except OSError as error:
        warnings.warn(f"{error.filename} could not be written: {error.strerror}", stacklevel=3)
