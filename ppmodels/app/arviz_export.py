"""`export`: draws of a run's posterior, prior and predictives as a file for ArviZ."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from inference import to_arviz
from inference.programs.noise import own_noise
from inference.programs.program import Batch, evaluating
from inference.programs.traces import runs
from inference.training.files import write_whole
from inference.training.progress import shown_stages
from ppmodels.app.computing import computing, split_for
from ppmodels.app.experiment import Experiment, path_of, restored
from ppmodels.app.run import LOCK, RECORD, Run
from ppmodels.app.run_folder import WRITTEN
from ppmodels.app.scoring import unvalidated


def export(
    run: Run,
    path: str | Path,
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
    """Writes draws of a run's posterior, prior and predictives as ArviZ's netCDF file; examples go by their rows.

    Args:
        run: the run.
        path: the file. One that is there is refused, unless it may be overwritten; a file of a run, or its data, always.
        split: of which examples; by default that whose examples the guide serves, as in `diagnose`.
        draws: of each.
        limit: a fixed random choice of so many examples; 100 by default where each has latents of its own alone.
        overwrite: whether a file of that name may be replaced.
        data, folder, device, seed, threads, progress, trust: as those of `evaluate`.
    """
    path = Path(path)
    _refuse(path, overwrite, run, data, folder)
    experiment = restored(run, data, folder, device, trust)
    split = split_for(experiment, split, progress)
    if limit is None and not experiment.fits_rows:
        limit = 100
    rows = experiment.rows(split, limit)
    (batch,) = experiment.in_order(split, len(rows), limit)
    coords = {name: rows.numpy() for name in _plate_names(experiment, batch)}
    with computing(experiment, threads, progress), unvalidated(), shown_stages(progress):
        _write(path, to_arviz(experiment.program, batch, draws, coords=coords, seed=seed))


def _plate_names(experiment: Experiment, batch: Batch) -> list[str]:
    """The name of the plate that counts the examples; of none where there is no such plate."""
    with torch.no_grad(), evaluating(experiment.program), own_noise(0):
        plate = runs(experiment.program, batch)[0].plate
    return [] if plate is None else [plate.name]


def _refuse(path: Path, overwrite: bool, run: Run, data: str | None, folder: str | Path | None) -> None:
    """Raises where a file may not or can not be written there, before anything is computed."""
    parent = path.absolute().parent
    source = run.record["data"]
    where = path_of(source["source"], source["folder"]) if data is None else path_of(data, folder)
    if path.is_dir():
        raise ValueError(f"--arviz {path} is a folder; name a file in it, such as {path / 'draws.nc'}.")
    if not parent.is_dir():
        raise FileNotFoundError(f"there is no folder {parent} for {path.name}; make it first.")
    if (parent / RECORD).exists() and path.name in (*WRITTEN, LOCK):
        raise ValueError(f"--arviz {path} is the name of a file of the run there; choose another, such as draws.nc.")
    there = os.path.lexists(path)
    if there and where is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(where)):
        raise ValueError(f"--arviz {path} holds the data of the run; choose another name.")
    if there and not overwrite:
        raise ValueError(f"{path} is there already; choose another name, or --overwrite.")
    if not os.access(parent, os.W_OK):
        raise PermissionError(f"nothing can be written to {parent}; choose another folder for {path.name}.")


def _write(path: Path, found: Any) -> None:
    """Writes the file so that it is never seen half written. Raises OSError with its name."""
    # HDF5 would print many lines about a disk that is full.
    with TemporaryDirectory() as folder:
        draft = Path(folder, "draws.nc")
        found.to_netcdf(str(draft))
        write_whole(path, draft.read_bytes())
