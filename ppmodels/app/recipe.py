"""A recipe: a program, and how it is fitted and scored. A value, so a change is a new value."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn

from inference import SVI, Estimator, Objective, Traced, adam, elbo, importance
from inference.programs.numbers import is_number
from inference.training.factories import Factory
from ppmodels.app.presets import Preset
from ppmodels.app.settings import Setting, accepted, settings_of, unknown
from ppmodels.data import Dataset, Reading, Standardisation

TRAINING = (
    "steps",
    "batch_size",
    "learning_rate",
    "clip",
    "average",
    "validate_every",
    "patience",
    "progression",
)
"""The fields of a recipe that are settings."""
_FIXED = {
    "program",
    "family",
    "summary",
    "data",
    "binarisation",
    "standardise",
    "reading",
    "objective",
    "labelled",
    "presets",
    "settings",
}
"""The fields that are the same for all data."""


def bounds(particles: int = 256) -> dict[str, Estimator]:
    """The ELBO, and the importance-weighted bound of `particles` draws."""
    return {"elbo": importance(16, elbo), "iwae": importance(particles)}


def cosine(fraction: float) -> float:
    """From 1 down to 0.05 along half a cosine (after Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * fraction))


@dataclass(frozen=True)
class Recipe:
    """A model and how it is fitted and scored; only `program` must be given.

    A file that defines `recipe = Recipe(program=…)` is trained by `ppmodels train FILE.py`. The keyword parameters of
    `program` (after the data) and of `objective` (after the program) that are numbers, texts or sequences of whole
    numbers are the recipe's settings, beside its own fields of training: `--set latent=8`, or
    `recipe.with_settings({"latent": 8, "steps": 100})`, which also stands where a preset has another value.

    Raises ValueError, naming the field, what was expected and what came.
    """

    program: Callable[..., nn.Module]
    """Makes the program, a module with `model` and `guide`, from the data: their `shape`, `levels` and `classes`."""
    family: str = ""
    summary: str = ""
    data: str = "digits"
    """A name that `ppmodels.data.load` knows, or a path."""
    binarisation: str = "none"
    """none, dynamic, static or threshold; see `Dataset.binarized`."""
    standardise: bool | Standardisation = True
    """Whether the columns of a table of your own are standardised, or by what; see `ppmodels.data.load`."""
    reading: Reading = field(default_factory=Reading)
    """Which columns of a table of your own are read, how many levels its images have; see `ppmodels.data.Reading`."""
    objective: Callable[..., Objective] = SVI
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
    """`inference.Traced`: the step is traced once and replayed, which is faster; or `Compiled`."""
    labelled: bool = False
    """Whether the program is called with `(x, y)`, y the labels, or with `(x,)`."""
    validate_every: int | None = 500
    """Steps between two scores on the valid split, whose best weights are saved; None keeps the last weights."""
    patience: int | None = None
    """Scores without improvement after which training ends."""
    estimators: Mapping[str, Estimator] = field(default_factory=bounds)
    """What `ppmodels evaluate` computes; empty where the program has no density, and the last weights are then saved."""
    progression: int | None = None
    """How many times samples are drawn during training, by the same noise, into training.png."""
    presets: Sequence[Preset] = ()
    """Values for kinds of data; where several hold, the last one counts."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Values of the program's and the objective's settings, in place of their defaults."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name, (holds, expected) in _EXPECTED.items():
            value = getattr(self, name)
            if not holds(value):
                raise ValueError(f"{name}: expected {expected}, got {_shown(value)}")
        _refuse_results("optimizer", self.optimizer, self.learning_rate, _are_factories, _FACTORIES)
        if self.schedule is not None:
            _refuse_results("schedule", self.schedule, 0.0, _is_factor, "a function that gives a factor of at least 0")
        if self.validate_every is not None and not self.estimators:
            raise ValueError(
                "validate_every: without estimators nothing can be scored on the valid split; set it to None"
            )
        if self.patience is not None and self.validate_every is None:
            raise ValueError("patience: early stopping needs scores on the valid split; set validate_every too")
        shadowed = [name for name in self._made_by if name in TRAINING]
        if shadowed:
            raise ValueError(
                f"{shadowed[0]}: the program or its objective has a parameter of that name, which is a field of the "
                "recipe; call it something else"
            )
        self._check_settings(self.settings)
        for preset in self.presets:
            try:
                self._check_settings({name: value for name, value in preset.values.items() if name not in _PRESET})
            except ValueError as error:
                raise ValueError(
                    f"the preset for {preset.kind.name}: {error} A program of other settings has presets of its own, or ()."
                ) from None

    @property
    def all_settings(self) -> dict[str, Setting]:
        """The program's, the objective's and training's settings by name, with this recipe's values as their defaults."""
        training = settings_of(Recipe)
        mine = {name: replace(training[name], default=getattr(self, name)) for name in TRAINING}
        made = {
            name: replace(setting, default=self.settings.get(name, setting.default))
            for name, setting in self._made_by.items()
        }
        return made | mine

    def with_settings(self, values: Mapping[str, object]) -> "Recipe":
        """The recipe with those values, whatever the data: no preset changes them any more.

        Raises ValueError for a name that is no setting and for a value of another type.
        """
        known = self.all_settings
        for name in values:
            if name not in known:
                raise unknown(name, known)
        checked = {name: known[name].checked(value) for name, value in values.items()}
        presets = [
            preset._replace(values={name: value for name, value in preset.values.items() if name not in checked})
            for preset in self.presets
        ]
        return self._changed(checked, presets)

    def for_data(self, data: Dataset) -> "Recipe":
        """The recipe with the presets of these data's kinds, and with no others."""
        values: dict[str, object] = {}
        for preset in self.presets:
            if preset.kind.holds(data):
                values |= preset.values
        return self._changed(values, ())

    def make_program(self, data: Dataset) -> nn.Module:
        """The program for these data, by this recipe's settings."""
        return self.program(data, **accepted(self.program, self.settings))

    def make_objective(self, program: nn.Module) -> Objective:
        """What fits that program, by this recipe's settings."""
        return self.objective(program, **accepted(self.objective, self.settings))

    @property
    def _made_by(self) -> dict[str, Setting]:
        return settings_of(self.program) | settings_of(self.objective)

    def _check_settings(self, values: Mapping[str, object]) -> None:
        known = self._made_by
        for name, value in values.items():
            if name not in known:
                raise unknown(name, known)
            known[name].checked(value)

    def _changed(self, values: Mapping[str, object], presets: Sequence[Preset]) -> "Recipe":
        of_fields: dict[str, Any] = {name: value for name, value in values.items() if name in _PRESET}
        others = {name: value for name, value in values.items() if name not in _PRESET}
        return replace(self, **of_fields, settings={**self.settings, **others}, presets=presets)


_BINARISATIONS = ("none", "dynamic", "static", "threshold")
_PRESET = {each.name for each in fields(Recipe)} - _FIXED
"""The fields that a preset can change."""


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_positive(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf  # type: ignore[operator]  # a number


def _is_decay(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 1  # type: ignore[operator]  # a number


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_factor(value: object) -> bool:
    return is_number(value) and 0 <= value < math.inf


def _makes_optimizers(value: object) -> bool:
    return callable(value) and not (isinstance(value, type) and issubclass(value, torch.optim.Optimizer))


def _are_factories(value: object) -> bool:
    return all(map(callable, value.values())) if isinstance(value, Mapping) else callable(value)


def _makes_traced(value: object) -> bool:
    return callable(value) and not isinstance(value, Traced)


def _refuse_results(
    name: str, function: Callable[[float], object], given: float, holds: Callable[[object], bool], expected: str
) -> None:
    """Calls a field's function once, so that one that gives something else is refused where the recipe is made."""
    try:
        came = function(given)
    except Exception as error:
        raise ValueError(f"{name}: expected {expected}, got one that fails at {given:g}: {error}") from error
    if not holds(came):
        raise ValueError(f"{name}: expected {expected}, got one that gives {_shown(came)}")


def _are_estimators(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and callable(each) and hasattr(each, "kind") and hasattr(each, "settings")
        for name, each in value.items()
    )


def _are_presets(value: object) -> bool:
    return isinstance(value, Sequence) and all(isinstance(each, Preset) for each in value)


def _or_none(holds: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or holds(value)


_COUNT = "a whole number, at least 1"
_FACTORIES = "a function of the learning rate that gives one of the parameters, such as inference.adam"
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "program": (callable, "a function of the data, or a class, that makes the program"),
    **dict.fromkeys(("family", "summary", "data"), (_is_text, "a text")),
    "binarisation": (_BINARISATIONS.__contains__, " or ".join(_BINARISATIONS)),
    "standardise": (lambda value: isinstance(value, bool | Standardisation), "True, False or a Standardisation"),
    "reading": (lambda value: isinstance(value, Reading), "a ppmodels.data.Reading"),
    "objective": (callable, "a function of the program, such as inference.SVI"),
    "optimizer": (_makes_optimizers, _FACTORIES),
    **dict.fromkeys(("steps", "batch_size"), (_is_count, _COUNT)),
    **dict.fromkeys(("validate_every", "patience", "progression"), (_or_none(_is_count), f"{_COUNT}, or None")),
    "learning_rate": (_is_positive, "a positive and finite number"),
    "clip": (_or_none(_is_positive), "a positive and finite number, or None"),
    "average": (_or_none(_is_decay), "a number of at least 0 and below 1, or None"),
    "schedule": (_or_none(callable), "a function of the fraction of steps taken, or None"),
    "traced": (_or_none(_makes_traced), "inference.Traced or inference.Compiled, or None"),
    "labelled": (lambda value: isinstance(value, bool), "True or False"),
    "estimators": (_are_estimators, "estimators by name, such as {'iwae': inference.importance(256)}"),
    "presets": (_are_presets, "a sequence of Preset"),
    "settings": (lambda value: isinstance(value, Mapping), "values by name"),
}
"""For each field, the test of its value and what it expects, in words."""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"a {type(value).__name__}"
