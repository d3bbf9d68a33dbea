"""`ppmodels recipes`, `train` and `trust`: from a recipe to a run."""

import dataclasses
import signal
from pathlib import Path
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
    Seed,
    Threads,
    read_as,
)
from ppmodels.app.cli.printing import clean, printed, say, show


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One recipe, or your own FILE.py.")] = None,
) -> None:
    """List the recipes by family, or show one recipe's settings: types, defaults, and presets by kind of data."""
    with clean():
        from ppmodels.app import report
        from ppmodels.app.lookup import find
        from ppmodels.app.recipes import RECIPES

        if name is None:
            report.recipes(RECIPES, report.console())
        else:
            report.recipe(find(name), report.console())
        printed()


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or your own FILE.py.")],
    data: Data = None,
    folder: Folder = None,
    binarisation: Annotated[Binarisation | None, typer.Option(help="How grey levels become two.")] = None,
    header: Header = None,
    columns: Columns = None,
    categories: Categories = None,
    levels: Levels = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="A setting, as `ppmodels recipes RECIPE` lists them; repeatable."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Examples a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    seed: Seed = 0,
    device: Device = DeviceName.AUTO,
    threads: Threads = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="The run's folder; runs/RECIPE-DATA by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")] = False,
) -> None:
    """Train RECIPE on data and write a run folder: weights, record, metrics, pictures. Ctrl-C stops and saves."""
    with clean():
        from ppmodels.app import training
        from ppmodels.app.lookup import find
        from ppmodels.app.settings import parsed

        found = find(recipe)
        values = parsed(found.recipe.all_settings, settings or [])
        for option, name, value in (
            ("--steps", "steps", steps),
            ("--batch-size", "batch_size", batch_size),
            ("--lr", "learning_rate", lr),
        ):
            if value is not None and name in values:
                raise ValueError(
                    f"{name} is given twice: {option} {value} and --set {name}={values[name]}; give it once"
                )
            if value is not None:
                values[name] = value
        chosen = found.recipe.with_settings(values)
        if data is not None:
            chosen = dataclasses.replace(chosen, data=data)
        chosen = dataclasses.replace(chosen, reading=read_as(chosen.reading, header, columns, categories, levels))
        if binarisation is not None:
            chosen = dataclasses.replace(chosen, binarisation=binarisation.value)
        run, notes = training.train(found._replace(recipe=chosen), out, folder, seed, device.value, threads, overwrite)
        say(notes)
        show(run.in_words())
        if run.record["stopped"] == "interrupted":
            raise typer.Exit(128 + signal.SIGINT)


def trust(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders whose recipe.py you have read.")],
) -> None:
    """Trust the recipe files of RUNs from now on: their text, wherever it lies. Nothing is executed."""
    with clean():
        from ppmodels.app.run import Run, sha256
        from ppmodels.app.trust import enter, trusted_file

        opened = [Run.open(run) for run in runs]
        for run, text in [(run, run.recipe_text()) for run in opened]:
            if text is None:
                show(f"{run.folder} needs no trust: its recipe, {run.record['recipe']}, is built in")
            else:
                enter(text, str(run.recipe_file.absolute()))
                show(f"{run.recipe_file} is trusted: sha256 {sha256(text)} in {trusted_file()}")
