"""What stands between an ELBO and log p(x): the family of the guide, and its amortisation."""

import math
from typing import Any, NamedTuple

from torch import Tensor

from inference.evaluation.estimators import EXACT
from inference.evaluation.evaluate import Evaluation
from inference.evaluation.refined import AMORTISATION_GAP
from inference.evaluation.sandwich import SIMULATED_GAP
from inference.programs.program import ProgramError


class Part(NamedTuple):
    """A mean over examples and its standard error, in nats."""

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.error:.2f}"


class InferenceGap(NamedTuple):
    """log p(x) - ELBO = approximation gap + amortisation gap, each the mean of paired differences over the examples."""

    total: Part
    approximation: Part
    """log p(x) - the best ELBO of the guide's family: what the family cannot do."""
    amortisation: Part
    """The best ELBO of the family - that of the encoder: what it costs that one network serves all examples."""
    log_prob: str
    """What stood for log p(x): the kind of its number."""
    width: Part | None
    """By how much it may be too low: 0 where exact, the gap on simulated data of a sandwich, None where not known."""

    def summary(self) -> dict[str, Any]:
        """The parts as plain values, for a JSON file; an error that is not known is None."""
        parts = {"total": self.total, "approximation": self.approximation, "amortisation": self.amortisation}
        told = {name: _plain(part) for name, part in parts.items()}
        return {**told, "log_prob": self.log_prob, "width": self.width and _plain(self.width)}

    def table(self) -> str:
        """The parts as lines of text."""
        if self.width is None:
            told = "by how much log p(x) is too low is not known: total and approximation gap are at least this"
        elif self.width.mean == 0:
            told = "log p(x) is exact"
        else:
            told = (
                f"log p(x) may be higher by {self.width}, the gap on simulated data: so may total and approximation gap"
            )
        lines = [("total", self.total), ("approximation", self.approximation), ("amortisation", self.amortisation)]
        return "\n".join([*(f"{name + ' gap':<18} {part} nats" for name, part in lines), told])


def inference_gap(evaluation: Evaluation, refined: str = "refined", log_prob: str = "sandwich") -> InferenceGap:
    """The gap between the guide's ELBO and log p(x), taken apart (Cremer et al. 2018, arXiv 1801.03558).

    Args:
        evaluation: has an estimate by `refined(…)`, and another number for log p(x): exact, of a sandwich, annealed.
        refined: the name that the first has there.
        log_prob: the name of the second.

    Raises:
        ProgramError: one of them is not there, or the first is not one of `refined`.
    """
    missing = [name for name in (refined, log_prob) if name not in evaluation.log_prob]
    if missing or AMORTISATION_GAP not in evaluation.details.get(refined, {}):
        raise ProgramError(
            "the inference gap is made of an estimate by refined(…) and another number for log p(x): "
            f"{missing or [refined]} is none among {sorted(evaluation.log_prob)}. Evaluate with "
            f"{{'refined': refined(), 'sandwich': sandwich(1000)}}."
        )
    amortisation = evaluation.details[refined][AMORTISATION_GAP]
    approximation = evaluation.log_prob[log_prob] - evaluation.log_prob[refined]
    gaps = evaluation.details.get(log_prob, {}).get(SIMULATED_GAP)
    exact = evaluation.kind[log_prob] == EXACT
    return InferenceGap(
        total=part_of(approximation + amortisation),
        approximation=part_of(approximation),
        amortisation=part_of(amortisation),
        log_prob=evaluation.kind[log_prob],
        width=Part(0.0, 0.0) if exact else None if gaps is None else part_of(gaps),
    )


def _plain(part: Part) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in part._asdict().items()}


def part_of(differences: Tensor) -> Part:
    """The mean of differences over examples, `(examples,)`, and its standard error, nan of one example alone."""
    deviation = float(differences.std()) if len(differences) > 1 else math.nan
    return Part(float(differences.mean()), deviation / math.sqrt(len(differences)))
