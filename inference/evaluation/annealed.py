"""Annealed importance sampling: a lower bound on log p(x) whose gap closes with the number of temperatures."""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.evaluation.annealing import TARGET_ACCEPTANCE, Schedule, forward, frozen, pilot_transitions
from inference.evaluation.annealing_path import AnnealingPath, Start
from inference.evaluation.chunks import as_memory_allows
from inference.evaluation.estimators import Estimate, PowerMean
from inference.evaluation.stages import one_of, shares, stage
from inference.programs.bounds import LOWER_BOUND
from inference.programs.entries import rows_of
from inference.programs.numbers import refuse_below
from inference.programs.program import Batch, Program, as_batch

FEW_ACCEPTED = 0.5
"""The mean acceptance below which a warning is given."""


@dataclass(frozen=True)
class Annealed:
    """A lower bound on log p(x), in expectation, by chains that move from a start to the posterior."""

    temperatures: int
    chains: int = 16
    start: Start = "guide"
    leapfrog: int = 10
    rows: int = 2000
    """How many chains × examples are moved at once."""

    def __post_init__(self) -> None:
        one = "as with one there is no transition, and the bound is that of importance(particles)"
        refuse_below("temperatures", self.temperatures, 2, one)
        for name in ("chains", "leapfrog", "rows"):
            refuse_below(name, getattr(self, name), 1)
        if self.start not in ("guide", "prior"):
            raise ValueError(f"start: expected 'guide' or 'prior', got {self.start!r}.")

    @property
    def kind(self) -> str:
        return LOWER_BOUND

    @property
    def settings(self) -> dict[str, str | int | float]:
        return {
            "temperatures": self.temperatures,
            "chains": self.chains,
            "start": self.start,
            "leapfrog": self.leapfrog,
        }

    @property
    def work(self) -> float:
        return 3.0 * self.leapfrog * self.chains * (self.temperatures + pilot_transitions(self.temperatures))

    def __call__(self, program: Program, batch: Batch) -> Estimate:
        def estimated(rows: int) -> Estimate:
            path = AnnealingPath(program, batch, self.start)
            chunks = self.chunks(batch, rows)
            pilot, scored = shares([pilot_transitions(self.temperatures), self.temperatures * len(chunks)])
            with stage(*pilot):
                schedule = self.schedule(path, chunks)
            with stage(*scored):
                return lower_bound(path, schedule, chunks)

        return as_memory_allows(estimated, self.rows)

    def chunks(self, batch: Batch, rows: int) -> list[int]:
        """How many chains are moved at once, one after the other: as equal as can be, so that few graphs are traced."""
        number = -(-self.chains // max(1, rows // rows_of(as_batch(batch))))
        return [self.chains // number + (place < self.chains % number) for place in range(number)]

    def schedule(self, path: AnnealingPath, chunks: list[int]) -> Schedule:
        """The schedule of a batch, by a pilot round of one chunk of chains."""
        return frozen(path, self.temperatures, self.leapfrog, chunks[0])


def annealed(temperatures: int, chains: int = 16, start: Start = "guide", leapfrog: int = 10) -> Annealed:
    """The estimator that bounds log p(x) from below by annealed importance sampling (Neal 2001, arXiv physics/9803008).

    Every chain goes from a draw of the start to the posterior by one Hamiltonian transition (Neal 2011, arXiv 1206.1901) at
    each temperature. Step sizes, by example and temperature, are found in a pilot round and frozen. `details` has the mean
    acceptance of each example.

    Args:
        temperatures: how many steps the path takes, on the sigmoid schedule of Grosse et al. (2015, arXiv 1511.02543).
        chains: of each example; the bound is the log of their mean weight.
        start: `"guide"`, completed by the prior of the latents that the guide does not draw; or `"prior"`.
        leapfrog: steps of a transition.

    Raises:
        ValueError: fewer than two temperatures, or fewer than one of another number.
    """
    return Annealed(temperatures, chains, start, leapfrog)


def lower_bound(path: AnnealingPath, schedule: Schedule, chunks: list[int]) -> Estimate:
    """The log of the mean weight of chains moved forward, chunk by chunk."""
    moments, acceptance = PowerMean(1.0), torch.zeros(())
    for number, chains in enumerate(chunks):
        with one_of(number, len(chunks), "chunk"):
            weighed = forward(path, schedule, chains)
        moments.add(weighed.log_weights)
        acceptance = acceptance + weighed.acceptance.sum(0) / sum(chunks)
    warn_of_few_accepted(acceptance)
    return moments.estimate()._replace(details={"acceptance": acceptance})


def warn_of_few_accepted(acceptance: Tensor) -> None:
    """Warns where transitions were mostly rejected, so that chains stay where they began."""
    if (mean := float(acceptance.mean())) < FEW_ACCEPTED:
        warnings.warn(
            f"{mean:.0%} of the chains' transitions were accepted, where {TARGET_ACCEPTANCE:.0%} are aimed at: the "
            "bound holds, and is looser than it could be. Take more temperatures, or more leapfrog steps.",
            stacklevel=2,
        )
