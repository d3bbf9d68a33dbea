"""The command line. Heavy imports wait until a command needs them: --help must be quick."""

import dataclasses
import errno
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ppmodels.app.signals import Terminated, raised
from ppmodels.app.streams import failure, forgive
from ppmodels.app.terminal import printable

app = typer.Typer(
    help="Deep generative models as probabilistic programs: train a recipe, evaluate it, sample it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class DeviceName(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class SplitName(StrEnum):
    """The parts of a dataset."""

    TEST = "test"
    VALID = "valid"
    TRAIN = "train"


class Binarisation(StrEnum):
    """How grey levels become two."""

    NONE = "none"
    DYNAMIC = "dynamic"
    STATIC = "static"
    THRESHOLD = "threshold"


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `train` wrote.")]
Data = Annotated[str | None, typer.Option(metavar="NAME|PATH", help="A known name, a .csv, .npy, .npz, or a folder.")]
Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the data lie; for known names $PPMODELS_DATA by default.")
]
Device = Annotated[DeviceName, typer.Option(help="auto takes the GPU where there is one.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]
Estimators = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[:N],…", help="Such as elbo,iwae:5000,annealed:1000,sandwich,refined; by default the recipe's."
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Execute, this once, a recipe file that this user neither trained nor trusts.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Of torch; by default one, for large models all.")]


@app.command()
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
        _printed()


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe's name, or your own FILE.py.")],
    data: Data = None,
    folder: Folder = None,
    binarisation: Annotated[Binarisation | None, typer.Option(help="How grey levels become two.")] = None,
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
        from ppmodels.app import commands
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
        if binarisation is not None:
            chosen = dataclasses.replace(chosen, binarisation=binarisation.value)
        run, notes = commands.train(found._replace(recipe=chosen), out, folder, seed, device.value, threads, overwrite)
        _say(notes)
        _print(run.in_words())
        if run.record["stopped"] == "interrupted":
            raise typer.Exit(128 + signal.SIGINT)


@app.command()
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
        from ppmodels.app import commands, report
        from ppmodels.app.run import Run

        opened = Run.open(run)
        commands.evaluate(
            *(opened, split.value, particles, limit, data, folder, device.value, seed, threads),
            estimators=_named(estimators),
            show=lambda result: report.evaluation(result.summary(), report.console()),
            trust=trust,
        )
        _printed()


@app.command()
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
        from ppmodels.app import commands, report
        from ppmodels.app.run import Run

        opened = [Run.open(run) for run in runs]
        ranking = commands.compare(
            *(opened, split.value, particles, limit, data, folder, device.value, seed, threads),
            estimators=_named(estimators),
            trust=trust,
        )
        report.comparison(ranking, report.console())
        _printed()


@app.command()
def diagnose(
    run: RunFolder,
    split: Annotated[SplitName, typer.Option(help="Which part of the data.")] = SplitName.TEST,
    draws: Annotated[int, typer.Option(min=21, help="Weighted draws from the guide, for each example.")] = 1000,
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
        from ppmodels.app import diagnostics
        from ppmodels.app.run import Run

        opened = Run.open(run)
        found = diagnostics.diagnose(
            *(opened, split.value, draws, limit, refine, data, folder, device.value, seed, threads), trust=trust
        )
        typer.echo("\n".join(map(printable, found.table().splitlines())))
        _printed()


@app.command()
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
        typer.echo("\n".join(map(printable, found.table().splitlines())))
        _printed()


@app.command()
def export(
    run: RunFolder,
    arviz: Annotated[Path, typer.Option(metavar="FILE.nc", help="A netCDF file of draws, as ArviZ reads it.")],
    split: Annotated[SplitName | None, typer.Option(help="Of which part of the data.")] = None,
    draws: Annotated[int, typer.Option(min=21, help="Draws of posterior, prior and predictives.")] = 1000,
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
        from ppmodels.app import diagnostics
        from ppmodels.app.run import Run

        diagnostics.export(
            *(Run.open(run), arviz, None if split is None else split.value, draws, limit),
            *(data, folder, device.value, seed, threads),
            overwrite=overwrite,
            trust=trust,
        )
        typer.echo(printable(f"wrote {arviz}"))
        _printed()


def _named(estimators: str | None) -> dict[str, Any] | None:
    from ppmodels.app.estimators import estimators_named

    return None if estimators is None else estimators_named(estimators)


@app.command()
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
    """Draw from RUN's prior: samples.png, and samples.csv of a table."""
    with clean():
        from ppmodels.app import commands
        from ppmodels.app.run import Run

        opened = Run.open(run)
        _pictures(run, commands.sample(opened, count, seed, draws, data, folder, device.value, threads, trust=trust))


@app.command()
def reconstruct(
    run: RunFolder,
    data: Data = None,
    folder: Folder = None,
    seed: Seed = 0,
    device: Device = DeviceName.AUTO,
    threads: Threads = None,
    trust: Trust = False,
) -> None:
    """Show test images beside their reconstructions, and traversals of RUN's latent space."""
    with clean():
        from ppmodels.app import commands
        from ppmodels.app.run import Run

        opened = Run.open(run)
        _pictures(run, commands.reconstruct(opened, data, folder, device.value, seed, threads, trust=trust))


@app.command()
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
        from ppmodels.app import commands
        from ppmodels.app.run import Run

        opened = Run.open(run)
        _pictures(run, commands.complete(opened, given, data, folder, device.value, seed, threads, trust=trust))


@app.command()
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
                _print(f"{run.folder} needs no trust: its recipe, {run.record['recipe']}, is built in")
            else:
                enter(text, str(run.recipe_file.absolute()))
                _print(f"{run.recipe_file} is trusted: sha256 {sha256(text)} in {trusted_file()}")


@contextmanager
def clean() -> Iterator[None]:
    """A block whose errors of the user are printed in one line: exit code 2 for what can not be found, else 1.

    These are errors that `inference` and `ppmodels` themselves raise, and those of the system; any other keeps its
    traceback. Signals end it with 128 and their number.
    """
    try:
        with raised():
            yield
    except (KeyboardInterrupt, Terminated) as ended:
        number = ended.number if isinstance(ended, Terminated) else signal.SIGINT
        _print(f"ended by {signal.Signals(number).name}", err=True)
        raise typer.Exit(128 + number) from None
    except (ValueError, OSError, ImportError) as error:
        line = _of_the_system(error) or (str(error) if _is_ours(error) else None)
        if line is None:
            raise
        nowhere = isinstance(error, OSError) and error.errno in (errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
        missing = nowhere or isinstance(error, FileNotFoundError) or type(error).__name__ == "UnknownRecipe"
        _print(f"error: {line}", err=True)
        raise typer.Exit(2 if missing else 1) from None


def _of_the_system(error: Exception) -> str | None:
    """What the system says of a file, or of there being no place for one."""
    if not isinstance(error, OSError) or error.strerror is None:
        return None
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _printed() -> None:
    """Raises OSError where what was asked for could not be printed; a reader that has left did not want the rest."""
    error = failure(sys.stdout)
    if error is not None and not isinstance(error, BrokenPipeError):
        raise OSError(error.errno, error.strerror, "standard output")


def _is_ours(error: Exception) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).split(".")[0] in ("inference", "ppmodels")


def _pictures(run: Path, pictures: Any) -> None:
    _say(pictures.notes)
    if not pictures.files:
        raise typer.Exit(1)
    _print("wrote " + ", ".join(str(run / name) for name in pictures.files))


def _say(notes: list[str]) -> None:
    for note in notes:
        _print(f"note: {note}", err=True)


def _print(line: str, err: bool = False) -> None:
    typer.echo(printable(line), err=err)


def main() -> None:
    """The command line."""
    forgive()
    warnings.showwarning = lambda message, *about, **more: _say([str(message)])
    app(prog_name="ppmodels")
