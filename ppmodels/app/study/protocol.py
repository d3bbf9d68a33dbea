"""What a study does, fixed before anything is trained: which models, on which data, with how many steps and which seeds."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ppmodels.app.study.measurement import read
from ppmodels.data import Dataset

FORMAT = 1
RUNS = "runs"
LIMIT = 500
"""Scored examples, by default at most."""


@dataclass(frozen=True)
class StudyData:
    """The data of a study, as a run's record tells them."""

    name: str
    digest: str
    shape: list[int]
    levels: int | None
    binarisation: str
    classes: int | None
    """Of the labels, where there are any."""
    train: int
    valid: int
    test: int
    source: str = ""
    """As --data takes it."""
    reading: dict[str, Any] = field(default_factory=dict)
    """What a file leaves open, by the fields of `ppmodels.data.Reading`."""

    @classmethod
    def of(cls, data: Dataset, source: str = "", reading: dict[str, Any] | None = None) -> Self:
        """What a study says of these data."""
        return cls(
            name=data.name,
            digest=data.train.fingerprint,
            shape=list(data.shape),
            levels=data.levels,
            binarisation=data.binarisation,
            classes=data.classes or None,
            train=len(data.train),
            valid=len(data.valid),
            test=len(data.test),
            source=source,
            reading=reading or {},
        )


@dataclass(frozen=True)
class StudyModel:
    """One model of a study."""

    name: str
    """"vae", or with settings "vae latent=2": its column in every table."""
    recipe: str
    """As `train` takes it: a recipe's name, or the user's own FILE.py."""
    family: str
    settings: list[str]
    """NAME=VALUE, as --set takes them."""
    steps: int
    batch_size: int
    recipe_sha256: str | None = None
    """Of a FILE.py."""


@dataclass(frozen=True)
class Protocol:
    """What a study does; study.json."""

    data: StudyData
    models: list[StudyModel]
    seeds: list[int]
    minutes: float | None
    """That were asked for, from which the steps were fixed; none where --steps was given, or the recipes' own are taken."""
    examples: list[int]
    """Rows of the test split that everything is scored on, in order."""
    command: str
    """That repeats the study exactly, with its steps."""
    device: str
    versions: dict[str, str]
    folder: str | None = None
    """Where the data lie, where it was said."""
    format: int = FORMAT
    notes: list[str] = field(default_factory=list)
    """What was decided on the way, as a batch that is larger than the data."""

    def name_of(self, model: StudyModel, seed: int) -> str:
        """What the files of a run are called, without their endings."""
        return f"{model.name.replace(' ', '-').replace('/', '-')}-{seed}"

    def run_of(self, model: StudyModel, seed: int) -> str:
        """The run's folder, relative to the study's."""
        return f"{RUNS}/{self.name_of(model, seed)}"

    def model(self, name: str) -> StudyModel:
        """The model of that name."""
        return next(each for each in self.models if each.name == name)

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def of_json(cls, text: str) -> Self:
        found = read(cls, json.loads(text))
        assert isinstance(found, cls)
        return found
