"""`ppmodels evaluate` and `compare`: log p(x)."""

from pathlib import Path
from typing import Annotated

import typer

from ppmodels.app.cli.options import (
    Data,
    Device,
    DeviceName,
    Estimators,
    Folder,
    RunFolder,
    Seed,
    SplitName,
    Threads,
    Trust,
    named,
)
from ppmodels.app.cli.printing import clean, printed


def evaluate(
    run: RunFolder,
    split: Annotated[SplitName, typer.Option(help="Which part of the data.")] = SplitName.TEST,
    particles: Annotated[
        int | None, typer.Option(min=1, help="Draws per example of the importance-weighted bounds.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only so many examples, chosen at random.")] = None,
    estimators: Estimators = None,
    data: Data = None,
    folder: Folder = None,
    seed: Seed = 0,
    device: Device = DeviceName.AUTO,
    threads: Threads = None,
    trust: Trust = False,
) -> None:
    """Score RUN: log p(x) by estimators, each with its standard error and its kind."""
    with clean():
        from ppmodels.app import evaluation, report
        from ppmodels.app.run import Run

        opened = Run.open(run)
        evaluation.evaluate(
            *(opened, split.value, particles, limit, data, folder, device.value, seed, threads),
            estimators=named(estimators),
            show=lambda result: report.evaluation(result, report.console()),
            trust=trust,
        )
        printed()


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders that `train` wrote, of the same data.")],
    split: Annotated[SplitName, typer.Option(help="Which part of the data.")] = SplitName.TEST,
    particles: Annotated[
        int | None, typer.Option(min=1, help="Draws per example of importance-weighted bounds.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only so many examples, chosen at random.")] = None,
    estimators: Estimators = None,
    data: Data = None,
    folder: Folder = None,
    seed: Seed = 0,
    device: Device = DeviceName.AUTO,
    threads: Threads = None,
    trust: Trust = False,
) -> None:
    """Rank RUNs of the same data by log p(x), exact or bounded, with paired differences and their errors."""
    with clean():
        from ppmodels.app import comparison, report
        from ppmodels.app.run import Run

        opened = [Run.open(run) for run in runs]
        ranking = comparison.compare(
            *(opened, split.value, particles, limit, data, folder, device.value, seed, threads),
            estimators=named(estimators),
            trust=trust,
        )
        report.comparison(ranking, report.console())
        printed()
