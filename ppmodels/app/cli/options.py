"""The options that commands have in common."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


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


def named(estimators: str | None) -> dict[str, Any] | None:
    """What `--estimators` names; None where it is not given."""
    from ppmodels.app.estimators import estimators_named

    return None if estimators is None else estimators_named(estimators)
