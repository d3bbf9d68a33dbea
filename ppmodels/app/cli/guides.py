"""`ppmodels diagnose`, `calibrate` and `export`: what draws of a guide are worth, and where they go."""

from pathlib import Path
from typing import Annotated

import typer

from ppmodels.app.cli.options import Data, Device, DeviceName, Folder, RunFolder, Seed, SplitName, Threads, Trust
from ppmodels.app.cli.printing import clean, printed, show, show_table

GuideSplit = Annotated[
    SplitName | None,
    typer.Option(
        help="Which part of the data; by default test, and train where the guide was fitted to those very examples, "
        "as of a program whose examples share latents."
    ),
]


def diagnose(
    run: RunFolder,
    split: GuideSplit = None,
    draws: Annotated[int, typer.Option(min=25, help="Weighted draws from the guide, for each example.")] = 1000,
    limit: Annotated[int | None, typer.Option(min=1, help="Look at only so many examples, chosen at random.")] = None,
    refine: Annotated[
        int, typer.Option(min=0, help="Optimisation steps that measure the amortisation gap; 0 leaves it out.")
    ] = 300,
    data: Data = None,
    folder: Folder = None,
    seed: Seed = 0,
    device: Device = DeviceName.AUTO,
    threads: Threads = None,
    trust: Trust = False,
) -> None:
    """Is RUN's guide any good: Pareto k̂, effective sample size, KL by site, active units, amortisation gap."""
    with clean():
        from ppmodels.app import diagnostics, report
        from ppmodels.app.run import Run

        opened = Run.open(run)
        diagnostics.diagnose(
            *(opened, _value(split), draws, limit, refine, data, folder, device.value, seed, threads),
            show=lambda found, about: show_table(f"{report.measured_on(about)}\n{found.table()}"),
            trust=trust,
        )
        printed()


def calibrate(
    run: RunFolder,
    simulations: Annotated[
        int | None, typer.Option(min=20, help="By default 1000; 40 where each takes a fit of its own.")
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Draws of the guide, for each simulation.")] = 99,
    data: Data = None,
    folder: Folder = None,
    seed: Seed = 0,
    device: Device = DeviceName.AUTO,
    threads: Threads = None,
    trust: Trust = False,
) -> None:
    """Simulation-based calibration of RUN's guide, on data simulated from its model."""
    with clean():
        from ppmodels.app import diagnostics
        from ppmodels.app.run import Run

        opened = Run.open(run)
        found = diagnostics.calibrate(
            *(opened, simulations, draws, data, folder, device.value, seed, threads), trust=trust
        )
        show_table(found.table())
        printed()


def export(
    run: RunFolder,
    arviz: Annotated[Path, typer.Option(metavar="FILE.nc", help="A netCDF file of draws, as ArviZ reads it.")],
    split: GuideSplit = None,
    draws: Annotated[int, typer.Option(min=25, help="Draws of posterior, prior and predictives.")] = 1000,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many examples, chosen at random.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of that name.")] = False,
    data: Data = None,
    folder: Folder = None,
    seed: Seed = 0,
    device: Device = DeviceName.AUTO,
    threads: Threads = None,
    trust: Trust = False,
) -> None:
    """Write draws of RUN's posterior, prior and predictives for ArviZ."""
    with clean():
        from ppmodels.app import arviz_export
        from ppmodels.app.run import Run

        arviz_export.export(
            *(Run.open(run), arviz, _value(split), draws, limit),
            *(data, folder, device.value, seed, threads),
            overwrite=overwrite,
            trust=trust,
        )
        show(f"wrote {arviz}")
        printed()


def _value(split: SplitName | None) -> str | None:
    return None if split is None else split.value
