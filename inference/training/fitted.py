"""The result of a run."""

from dataclasses import dataclass, field


@dataclass
class Fitted:
    """The result of `fit`."""

    steps: int
    """Steps taken by this run, with those up to the checkpoint that it went on from."""
    stopped: str
    """finished, early stopping, interrupted, callback, or out of batches."""
    seconds: float
    history: list[dict[str, float]]
    """The metrics that were recorded, by step; losses in nats per example (of the dataset, without a batch plate)."""
    best: dict[str, float] | None = None
    """The step and score (nats, as `Evaluation.mean`) of this run's best validation, whose weights the program now has."""
    rollbacks: list[dict[str, float]] = field(default_factory=list)
    """For each step that was not finite and from which the run went back: `step`, `back_to`, and the `slowdown` since."""
