"""How a run is saved while it is trained."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from inference import Checkpoint, Rollback
from ppmodels.app.run import CHECKPOINTS


@dataclass(frozen=True)
class Saving:
    """How a run is saved while it is trained, and what is done about a step that is not finite."""

    every: str | int | None = "5 min"
    """A time, or a number of steps, between two checkpoints; None saves none."""
    keep: bool = False
    """Whether a run that has finished keeps its last checkpoints, so that it can be given more steps."""
    on_nan: str = "stop"
    """stop, or rollback: back to the last checkpoint and on with half the learning rate, at most three times."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.on_nan not in ("stop", "rollback"):
            raise ValueError(f"on_nan: expected stop or rollback, got {self.on_nan!r}")
        if self.every is None and (self.keep or self.on_nan == "rollback"):
            raise ValueError(
                "without checkpoints there is nothing to keep or to go back to; give an interval such as 5 min"
            )
        self.checkpoint(Path())

    @classmethod
    def recorded(cls, record: object) -> "Saving":
        """The one that `record` gives; the default where an earlier version has recorded none."""
        known = {each.name for each in fields(cls)}
        return cls(
            **{name: value for name, value in record.items() if name in known} if isinstance(record, Mapping) else {}
        )

    @property
    def record(self) -> dict[str, Any]:
        """Its fields, as plain values."""
        return asdict(self)

    def checkpoint(self, folder: Path) -> Checkpoint | None:
        """Where `fit` saves a run of that folder; None where none is saved."""
        rollback = Rollback() if self.on_nan == "rollback" else None
        return None if self.every is None else Checkpoint(folder / CHECKPOINTS, every=self.every, rollback=rollback)

    def in_words(self, path: Path) -> str:
        """What a run that is to stand at a path can be gone on from."""
        if self.every is None:
            return "no checkpoints: what is cut short is lost"
        every = self.every if isinstance(self.every, str) else f"{self.every} steps"
        return f"a checkpoint every {every}; if it is cut short: ppmodels resume {path}"
