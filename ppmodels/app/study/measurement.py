"""What is measured of one run of a study: plain numbers with their errors, or the reason why there is none."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from inference.training.files import contents_of

Kind = TypeVar("Kind")
FINISHED, FAILED = "finished", "failed"
NO_LATENTS = "the program has no latents"
"""Why a program has no codes by what it is, and not by what could not be measured."""


@dataclass(frozen=True)
class Missing:
    """In place of a number that can not be had."""

    missing: str
    """The reason, a phrase such as "the data have no classes to read"."""


@dataclass(frozen=True)
class Number:
    """A number with a 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A loss or a score over training, as it was recorded."""

    step: list[int]
    value: list[float]


@dataclass(frozen=True)
class Training:
    """How a run was trained."""

    steps: int
    """Taken; fewer than planned where the run failed."""
    seconds: float
    parameters: int
    loss: dict[str, Curve]
    """By player."""
    validation: Curve | None


@dataclass(frozen=True)
class LogLikelihood:
    """log p(x) of the study's fixed test examples, in nats."""

    kind: str
    """That of the evaluation: exact, a lower bound in expectation, …"""
    estimator: str
    """In words, with its settings: "iwae, K = 1000"."""
    nats: float
    standard_error: float
    bits_per_dim: float | None
    per_example: list[float]
    """In the order of the study's fixed examples."""
    gap: Number | None
    """Of a bound, how far log p(x) may lie above it, where that has been measured."""
    note: str
    """What the number is of, where that needs saying, as a generator's fitted observation noise; else empty."""


@dataclass(frozen=True)
class Sharpness:
    """Log ratios of energies to those of held-out data: 0 is the data, below 0 is blurred."""

    gradient: Number
    high_frequency: Number


@dataclass(frozen=True)
class TwoSample:
    """A two-sample test."""

    statistic: Number
    p_value: float


@dataclass(frozen=True)
class Samples:
    """How near samples are to held-out data."""

    samples: int
    reference: str
    """The held-out rows: "180 of the test split"."""
    features: str
    """What the network of KID is, and what it was trained on."""
    kid: Number | Missing
    mmd: TwoSample | Missing
    classifier: TwoSample | Missing
    """Accuracy of a cross-fitted classifier, 1/2 where nothing is found."""
    detectable: float | None
    """The classifier's accuracy that would be found four times out of five."""
    precision: Number | Missing
    recall: Number | Missing
    density: Number | Missing
    coverage: Number | Missing
    memorisation: Number | Missing
    """P(a sample is nearer to the training data than a held-out example): 1/2 where nothing is copied."""
    sharpness: Sharpness | Missing
    """Of draws of x."""
    sharpness_of_means: Sharpness | Missing
    """Of the means of x given the latents."""


@dataclass(frozen=True)
class Sampling:
    """What a sample costs."""

    seconds_alone: float
    """An image at batch 1, median."""
    seconds_of_100: float
    """An image at batch 100, median."""
    sequential_steps: int
    """Passes of the network that wait for one another, for an image."""


@dataclass(frozen=True)
class Codes:
    """What the latents know of the classes, read by a linear probe."""

    accuracy: Number
    of_pixels: Number
    """The same probe on x itself."""
    numbers: int
    """In a code."""
    chance: float | None = None
    """The share of the commonest class."""


@dataclass(frozen=True)
class Posterior:
    """How far the guide's posterior can be trusted."""

    k_hat: float | Missing
    """Share of the examples whose Pareto k̂ is above 0.7."""
    amortisation_gap: Number | Missing
    calibration: Number | Missing
    """The smallest p-value of the rank statistics' uniformity, with the count as it was corrected; see `words`."""
    words: str


@dataclass(frozen=True)
class Measurement:
    """Everything that is measured of one run."""

    model: str
    """As the study names it: "vae", or "vae latent=2"."""
    family: str
    seed: int
    run: str
    """The run's folder, relative to the study's."""
    status: str
    reason: str
    """Of a failed run; else empty."""
    seconds: float
    """That the measuring took."""
    training: Training
    log_likelihood: LogLikelihood | Missing
    samples: Samples | Missing
    sampling: Sampling | Missing
    codes: Codes | Missing
    posterior: Posterior | Missing
    collapsed: bool = False
    """Whether samples cover less than half of what as many data would."""
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        return as_text(self)

    @classmethod
    def of_json(cls, text: str) -> Self:
        found = read(cls, json.loads(text))
        assert isinstance(found, cls)
        return found


def as_text(part: "Measurement | Samples") -> str:
    """A measurement, or a part that has a file of its own, as JSON, which knows no number that is not finite."""
    return json.dumps(asdict(part), indent=1, allow_nan=False)


def read(kind: Any, value: Any) -> Any:
    """A value of JSON as that type: a dataclass, one of a union, or plain."""
    if get_origin(kind) is UnionType or isinstance(kind, UnionType):
        kinds = [each for each in get_args(kind) if is_dataclass(each)]
        if not isinstance(value, Mapping):
            return value
        fitting = [each for each in kinds if {one.name for one in fields(each)} >= value.keys()]
        return read(fitting[0], value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        assert isinstance(kind, type)
        return kind(**{name: read(hints[name], each) for name, each in value.items()})
    if get_origin(kind) is list:
        return [read(get_args(kind)[0], each) for each in value]
    if get_origin(kind) is dict and isinstance(value, Mapping):
        return {name: read(get_args(kind)[1], each) for name, each in value.items()}
    return value


def read_json(kind: type[Kind], path: Path) -> Kind:
    """What a file of a study holds. Raises FileNotFoundError, or ValueError where it is damaged."""
    try:
        found = read(kind, json.loads(contents_of(path)))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}). Remove it, and repeat the command that made it.") from error
    if not isinstance(found, kind):
        raise ValueError(
            f"{path} is damaged (it holds no {kind.__name__}). Remove it, and repeat the command that made it."
        )
    return found
