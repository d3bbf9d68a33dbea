"""`ppmodels study`: models of the three families on the same data, measured by one command."""

from typing import Annotated

import typer

from ppmodels.app.cli.options import (
    Binarisation,
    Categories,
    Columns,
    Data,
    Device,
    DeviceName,
    Folder,
    Header,
    Levels,
    read_as,
)
from ppmodels.app.cli.printing import clean, printed, say, show


def study(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL…]",
            help="Recipes, or your own FILE.py, with settings after a colon: vae:latent=2,hidden=64,64. By default a VAE, a "
            "GAN, and an autoregressive model or, of a table, a flow.",
        ),
    ] = None,
    data: Data = None,
    folder: Folder = None,
    binarisation: Annotated[Binarisation | None, typer.Option(help="How grey levels become two.")] = None,
    header: Header = None,
    columns: Columns = None,
    categories: Categories = None,
    levels: Levels = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many: 3 are the seeds 0, 1 and 2.")] = 3,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="M",
            help="That all training may take: the steps that fit are fixed before it, equal times for all runs, and no more "
            "than a recipe has of itself.",
        ),
    ] = None,
    steps: Annotated[
        list[str] | None,
        typer.Option(metavar="N|MODEL=N", help="Training steps, of all models or of one; repeatable."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Score at most so many test examples, chosen at random.")] = 500,
    device: Device = DeviceName.AUTO,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time, of a thread each; by default one a core, and one on a GPU."),
    ] = None,
    out: Annotated[str, typer.Option(metavar="DIR", help="The study's folder.")] = "runs/study",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a study that is there.")] = False,
) -> None:
    """Train MODELs on the same data with several seeds, measure them on one scale, and write a report.

    A study that was interrupted goes on by the same command.
    """
    with clean():
        from ppmodels.app import report
        from ppmodels.app.run_folder import asked as folder_named
        from ppmodels.app.study.choices import choices_of
        from ppmodels.app.study.planning import Asked
        from ppmodels.app.study.running import study as studied
        from ppmodels.app.study.terminal import table, verdicts
        from ppmodels.data import Reading

        console = report.console()
        # What is not said of the data is as the first model's recipe has it, as with `train`.
        first = choices_of(models)[0].found.recipe if models else None
        asked = Asked(
            models=models or (),
            data=data or (first.data if first else "digits"),
            folder=None if folder is None else str(folder),
            binarisation=binarisation.value if binarisation else first.binarisation if first else "none",
            reading=read_as(first.reading if first else Reading(), header, columns, categories, levels),
            seeds=seeds,
            minutes=minutes,
            steps=steps or (),
            limit=limit,
            device=device.value,
        )
        found = studied(
            asked,
            folder_named(out),
            show=lambda first: console.print(table(first)),
            overwrite=overwrite,
            processes=processes,
        )
        console.print(table(found.report))
        console.print()
        console.print(verdicts(found.report))
        show(f"the report: {folder_named(out) / 'report.html'}")
        show(f"repeat it: {found.protocol.command}")
        printed()
        if found.undone:
            say([f"not done: {each}" for each in found.undone])
            raise typer.Exit(1)
