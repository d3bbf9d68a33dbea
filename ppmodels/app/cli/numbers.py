"""`ppmodels evaluate` and `compare`: log p(x)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from ppmodels.app.cli.printing import clean, printed, show

if TYPE_CHECKING:
    from ppmodels.app.run import Run


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
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Measure all that a study measures, of test examples, and write its report there."
        ),
    ] = None,
) -> None:
    """Rank RUNs of the same data by log p(x), exact or bounded, with paired differences and their errors.

    With --out, compare them as a study does: all claims, on one scale, in a report.
    """
    with clean():
        from ppmodels.app import comparison, report
        from ppmodels.app.run import Run

        opened = [Run.open(run) for run in runs]
        if out is not None:
            given = {
                "--split": split is not SplitName.TEST,
                "--particles": particles is not None,
                "--estimators": estimators is not None,
                "--data": data is not None,
                "--folder": folder is not None,
                "--seed": seed != 0,
                "--trust": trust,
            }
            _report(opened, out, limit, device, threads, [name for name, there in given.items() if there])
            return
        ranking = comparison.compare(
            *(opened, split.value, particles, limit, data, folder, device.value, seed, threads),
            estimators=named(estimators),
            trust=trust,
        )
        report.comparison(ranking, report.console())
        printed()


def _report(
    runs: "list[Run]", out: Path, limit: int | None, device: DeviceName, threads: int | None, others: list[str]
) -> None:
    """The report of a study of these runs, which measures them by rules of its own. Raises ValueError for other options."""
    from ppmodels.app import report
    from ppmodels.app.study.existing import report_of_runs
    from ppmodels.app.study.terminal import table, verdicts

    if others:
        raise ValueError(
            f"{', '.join(others)}: a report measures all runs as a study does; leave it out, or leave out --out."
        )
    found = report_of_runs(runs, out, limit, device.value, threads or 1, told=lambda line: show(line, err=True))
    console = report.console()
    for each in (table(found), verdicts(found)):
        console.print(each)
    show(f"wrote {out / 'report.html'}")
    printed()
