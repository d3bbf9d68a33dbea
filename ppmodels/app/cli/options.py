"""The options that commands have in common."""

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ppmodels.data import Reading


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


class OnNaN(StrEnum):
    """What is done about a step that is not finite."""

    STOP = "stop"
    ROLLBACK = "rollback"


class Resume(StrEnum):
    """Whether a run that is there goes on."""

    NEVER = "never"
    AUTO = "auto"


RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `train` wrote.")]
Data = Annotated[
    str | None, typer.Option(metavar="NAME|PATH", help="A known name, a .csv, .tsv, .npy, .npz, or a folder.")
]
Folder = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where the data lie; for known names $PPMODELS_DATA by default.")
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header", help="Whether the first row of a CSV names its columns, where it is of numbers."
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,…", help="The columns of a CSV to read, or -NAME,… those to leave out; by name, or place from 1."
    ),
]
Categories = Annotated[
    str | None, typer.Option(metavar="NAME,…", help="The columns of a CSV to read one-hot, as texts.")
]
Levels = Annotated[
    int | None,
    typer.Option(
        min=2, max=256, help="Values are whole numbers below it, of images or of a table; of images found if not given."
    ),
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


def read_as(
    reading: "Reading", header: bool | None, columns: str | None, categories: str | None, levels: int | None
) -> "Reading":
    """How data are read, by the options of `train` where these are given, else as the recipe says."""
    given: dict[str, Any] = {"header": header, "levels": levels}
    if columns is not None:
        given["columns"] = _texts(columns)
    if categories is not None:
        given["categories"] = dict.fromkeys(_texts(categories), ())
    return dataclasses.replace(reading, **{name: value for name, value in given.items() if value is not None})


def _texts(option: str) -> tuple[str, ...]:
    return tuple(text.strip() for text in option.split(",") if text.strip())


def named(estimators: str | None) -> dict[str, Any] | None:
    """What `--estimators` names; None where it is not given."""
    from ppmodels.app.estimators import estimators_named

    return None if estimators is None else estimators_named(estimators)
