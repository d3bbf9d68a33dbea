"""A recipe: a program, the data it is for, and how it is fitted and scored. A value, so a change is a new value."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from inference import SVI, Estimator, Objective, Traced, adam, elbo, importance
from inference.training.step import Factory
from ppmodels.data import Dataset, Standardisation


def bounds(particles: int = 256) -> dict[str, Estimator]:
    """The ELBO, and the importance-weighted bound of `particles` draws."""
    return {"elbo": importance(16, elbo), "iwae": importance(particles)}


def cosine(fraction: float) -> float:
    """From 1 down to 0.05 along half a cosine (after Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * fraction))


@dataclass(frozen=True)
class Recipe:
    """What `ppmodels train` needs to know; only `program` must be given.

    A file that defines `recipe = Recipe(program=…)` is trained by `ppmodels train FILE.py`.
    `dataclasses.replace(recipe, steps=100)` is the recipe with another number of steps.
    """

    program: Callable[[Dataset], nn.Module]
    """Makes the program, a module with `model` and `guide`, from the data: their `shape`, `levels` and `classes`."""
    summary: str = ""
    data: str = "digits"
    """A name that `ppmodels.data.load` knows, or a path."""
    binarisation: str = "none"
    """none, dynamic, static or threshold; see `Dataset.binarized`."""
    standardise: bool | Standardisation = True
    """Whether the columns of a table of your own are standardised, or by what; see `ppmodels.data.load`."""
    objective: Callable[[Any], Objective] = SVI
    """What fits the program, such as `functools.partial(ImportanceWeighted, particles=5)`."""
    optimizer: Callable[[float], Factory | Mapping[str, Factory]] = adam
    """Makes the optimizers, one for all players or by player, from the learning rate."""
    steps: int = 4000
    batch_size: int = 128
    learning_rate: float = 1e-3
    clip: float | None = None
    """The largest norm of a gradient."""
    average: float | None = None
    """The decay of a moving average of the weights, which is then what is scored and saved."""
    schedule: Callable[[float], float] | None = None
    """A factor on the learning rate, as a function of the fraction of steps taken, in [0, 1)."""
    traced: Callable[[], Traced] | None = None
    """`inference.Traced`: the program is run once and its arithmetic replayed, which is quicker; or `Compiled`."""
    labelled: bool = False
    """Whether the program is called with `(x, y)`, y the labels, or with `(x,)`."""
    validate_every: int | None = 500
    """Steps between two scores on the valid split, whose best weights are saved; None saves the last weights."""
    patience: int | None = None
    """Scores without improvement after which training ends."""
    estimators: Mapping[str, Estimator] = field(default_factory=bounds)
    """What `ppmodels evaluate` computes; empty where the program has no density, and the last weights are then saved."""
    progression: int | None = None
    """How many times samples are drawn while the program is trained, by the same noise, into training.png."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("steps", "batch_size", "validate_every", "patience", "progression"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate: expected a positive number, got {self.learning_rate}")
        if self.validate_every is not None and not self.estimators:
            raise ValueError(
                "validate_every: without estimators nothing can be scored on the valid split; set it to None"
            )
        if self.patience is not None and self.validate_every is None:
            raise ValueError("patience: early stopping needs scores on the valid split; set validate_every too")
