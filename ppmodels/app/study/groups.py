"""The runs of a study by model, and the families that the paragraph speaks of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ppmodels.app.study.measurement import FINISHED, Measurement, Missing

VARIATIONAL, ADVERSARIAL, AUTOREGRESSIVE = "variational autoencoders", "adversarial models", "autoregressive models"
PARAGRAPH = (VARIATIONAL, ADVERSARIAL, AUTOREGRESSIVE)
"""The families that the paragraph is about; models of others are shown and decide nothing. A recipe of the user's own
counts where it names one of them as its family."""

Part = TypeVar("Part")


@dataclass(frozen=True)
class Group:
    """A model with its runs, by seed."""

    name: str
    family: str
    runs: tuple[Measurement, ...]

    @property
    def finished(self) -> list[Measurement]:
        """Those that did not fail."""
        return [run for run in self.runs if run.status == FINISHED]

    def had(self, part: str) -> list[Measurement]:
        """Those finished that have this part of a measurement."""
        return [run for run in self.finished if not isinstance(getattr(run, part), Missing)]

    def reason(self, part: str) -> str:
        """Why no run has it."""
        if not self.finished:
            return "no run finished" if self.runs else "no run yet"
        found = (getattr(run, part) for run in self.finished)
        return next((each.missing for each in found if isinstance(each, Missing)), "not measured")


def groups_of(measurements: Iterable[Measurement]) -> list[Group]:
    """The models in the order in which they come."""
    found: dict[str, list[Measurement]] = {}
    for each in measurements:
        found.setdefault(each.model, []).append(each)
    return [Group(name, runs[0].family, tuple(sorted(runs, key=lambda run: run.seed))) for name, runs in found.items()]


def of(family: str, groups: Sequence[Group]) -> list[Group]:
    """The models of one family."""
    return [each for each in groups if each.family == family]


def others(family: str, groups: Sequence[Group]) -> list[Group]:
    """The models of the other families that the paragraph is about."""
    return [each for each in groups if each.family in PARAGRAPH and each.family != family]


def present(values: Iterable[Part | Missing]) -> list[Part]:
    """Those that are there."""
    return [each for each in values if not isinstance(each, Missing)]
