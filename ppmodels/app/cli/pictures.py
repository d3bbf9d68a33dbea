"""`ppmodels sample`, `reconstruct` and `complete`: pictures."""

from typing import Annotated

import typer

from ppmodels.app.cli.options import Data, Device, DeviceName, Folder, RunFolder, Seed, Threads, Trust
from ppmodels.app.cli.printing import clean, wrote


def sample(
    run: RunFolder,
    count: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="How many; by default 100 images or 1000 rows.")
    ] = None,
    draws: Annotated[bool, typer.Option("--draws", help="Draw x, in place of the means of p(x | z).")] = False,
    data: Data = None,
    folder: Folder = None,
    seed: Seed = 0,
    device: Device = DeviceName.AUTO,
    threads: Threads = None,
    trust: Trust = False,
) -> None:
    """Draw from RUN's prior: samples.png, samples.csv of a table, and samples.npy of more than 1,000 images."""
    with clean():
        from ppmodels.app import illustration
        from ppmodels.app.run import Run

        opened = Run.open(run)
        wrote(run, illustration.sample(opened, count, seed, draws, data, folder, device.value, threads, trust=trust))


def reconstruct(
    run: RunFolder,
    data: Data = None,
    folder: Folder = None,
    seed: Seed = 0,
    device: Device = DeviceName.AUTO,
    threads: Threads = None,
    trust: Trust = False,
) -> None:
    """Show test images beside their reconstructions, and RUN's latent space; fill in what test rows of a table lack."""
    with clean():
        from ppmodels.app import illustration
        from ppmodels.app.run import Run

        opened = Run.open(run)
        wrote(run, illustration.reconstruct(opened, data, folder, device.value, seed, threads, trust=trust))


def complete(
    run: RunFolder,
    given: Annotated[float, typer.Option(min=0.0, max=0.99, help="The fraction of the rows that is given.")] = 0.5,
    data: Data = None,
    folder: Folder = None,
    seed: Seed = 0,
    device: Device = DeviceName.AUTO,
    threads: Threads = None,
    trust: Trust = False,
) -> None:
    """Complete test images of which the upper part is given, by RUN, an autoregressive model."""
    with clean():
        from ppmodels.app import illustration
        from ppmodels.app.run import Run

        opened = Run.open(run)
        wrote(run, illustration.complete(opened, given, data, folder, device.value, seed, threads, trust=trust))
