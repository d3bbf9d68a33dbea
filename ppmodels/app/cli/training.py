"""`ppmodels recipes`, `train` and `trust`: from a recipe to a run."""

import dataclasses
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    OnNaN,
    Resume,
    Seed,
    Threads,
    Trust,
    read_as,
)
from ppmodels.app.cli.printing import clean, printed, say, show

if TYPE_CHECKING:
    from ppmodels.app.run import Run


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
    resume: Annotated[
        Resume,
        typer.Option(help="auto, for launchers that repeat a command: a run in --out goes on where it was cut short."),
    ] = Resume.NEVER,
    checkpoint_every: Annotated[
        str, typer.Option(metavar="TIME|STEPS", help='How often the run is saved: "30 s", "1 h", 500, or never.')
    ] = "5 min",
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Also of a run that has finished, to give it more steps later.")
    ] = False,
    on_nan: Annotated[
        OnNaN,
        typer.Option(
            help="What is done about a step that is not finite; rollback goes back to the last checkpoint and on with half "
            "the learning rate, at most three times."
        ),
    ] = OnNaN.STOP,
) -> None:
    """Train RECIPE on data and write a run folder: weights, record, metrics, pictures. Ctrl-C stops and saves."""
    with clean():
        from ppmodels.app.lookup import find
        from ppmodels.app.resuming import train_or_resume
        from ppmodels.app.saving import Saving
        from ppmodels.app.settings import parsed
        from ppmodels.app.training import train as trained

        every = None if checkpoint_every == "never" else checkpoint_every
        saving = Saving(int(every) if every and every.isdecimal() else every, keep_checkpoints, on_nan.value)
        if resume is Resume.AUTO and (out is None or overwrite):
            raise ValueError("--resume auto needs --out, the folder of the one run, and goes without --overwrite")

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
        found = found._replace(recipe=chosen)
        if resume is Resume.AUTO and out is not None:
            _ended(*train_or_resume(found, out, folder, seed, device.value, threads, saving=saving))
        else:
            _ended(*trained(found, out, folder, seed, device.value, threads, overwrite, saving=saving))


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that was killed or interrupted.")],
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Of the whole run, those taken among them; by default as many as at first."),
    ] = None,
    on_nan: Annotated[OnNaN | None, typer.Option(help="By default as at first.")] = None,
    data: Data = None,
    folder: Folder = None,
    device: Annotated[DeviceName | None, typer.Option(help="By default as at first.")] = None,
    threads: Threads = None,
    trust: Trust = False,
) -> None:
    """Go on with RUN, which was killed or interrupted, from its last checkpoint, to the bit as if it had been left alone."""
    with clean():
        from ppmodels.app.resuming import resume as resumed

        on, where = (None if each is None else each.value for each in (on_nan, device))
        _ended(*resumed(run, steps, data, folder, where, threads, on_nan=on, trust=trust))


def _ended(run: "Run", notes: list[str]) -> None:
    """Prints what training came to; after Ctrl-C the exit code is that of the signal."""
    say(notes)
    show(run.in_words())
    if run.record["stopped"] == "interrupted":
        say([f"go on with it: ppmodels resume {run.folder}"] * run.can_resume)
        raise typer.Exit(128 + signal.SIGINT)


def trust(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders whose recipe.py you have read.")],
) -> None:
    """Trust the recipe files of RUNs from now on: their text, wherever it lies. Nothing is executed."""
    with clean():
        from ppmodels.app.run import Run, sha256
        from ppmodels.app.trust import enter, trusted_file

        opened = [Run.begun(run) or Run.open(run) for run in runs]
        for run, text in [(run, run.recipe_text()) for run in opened]:
            if text is None:
                show(f"{run.folder} needs no trust: its recipe, {run.record['recipe']}, is built in")
            else:
                enter(text, str(run.recipe_file.absolute()))
                show(f"{run.recipe_file} is trusted: sha256 {sha256(text)} in {trusted_file()}")
