"""Bounds on log p(x) from both sides on simulated data; their gap as evidence on real data."""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from inference.evaluation.annealed import Annealed, warn_of_few_accepted
from inference.evaluation.annealing import forward, pilot_transitions, reverse
from inference.evaluation.annealing_path import AnnealingPath, Start
from inference.evaluation.chunks import as_memory_allows
from inference.evaluation.estimators import Estimate
from inference.evaluation.stages import shares, stage
from inference.programs.entries import mapped, rows_of
from inference.programs.execution import Latents
from inference.programs.numbers import refuse_below
from inference.programs.pair import Pair
from inference.programs.program import Batch, Program, as_batch
from inference.programs.simulate import simulated
from inference.programs.traces import runs

SIMULATED_GAP = "simulated gap"
"""The name in `Estimate.details` of the upper less the lower bound, of each simulated example."""


class Bounds(NamedTuple):
    """Two-sided bounds on log p(x) of simulated examples, both in expectation: `(examples,)` float64 nats.

    `(1,)` of the whole dataset, where the program shares sites between examples or has no plate that counts them.
    """

    batch: Batch
    """The simulated data."""
    lower: Tensor
    upper: Tensor
    acceptance: Tensor

    def gap(self) -> tuple[float, float]:
        """The mean of upper less lower bound over the examples, and its standard error; NaN where there is one example."""
        width = self.upper - self.lower
        return float(width.mean()), float(width.std() / math.sqrt(len(width)))


@dataclass(frozen=True)
class Sandwich:
    """The lower bound of annealed importance sampling, and as evidence the gap of two-sided bounds on simulated data."""

    annealed: Annealed
    simulations: int = 20

    def __post_init__(self) -> None:
        refuse_below("simulations", self.simulations, 1)

    @property
    def kind(self) -> str:
        return self.annealed.kind

    @property
    def settings(self) -> dict[str, str | int | float]:
        return self.annealed.settings

    @property
    def work(self) -> float:
        return 2.0 * self.annealed.work

    def __call__(self, program: Program, batch: Batch) -> Estimate:
        with stage(0.0, 0.5):
            estimate = self.annealed(program, batch)
        with stage(0.5, 1.0, "simulated"):
            found = self.bounds(program, self._part(program, batch))
        return estimate._replace(details={**estimate.details, SIMULATED_GAP: found.upper - found.lower})

    def bounds(self, program: Program, batch: Batch) -> Bounds:
        """Bounds from both sides on data simulated from the program, the batch giving shapes and covariates.

        Raises:
            ProgramError: what the program observes is no entry of its batch, so that it cannot be replaced by a simulation.
        """
        with torch.no_grad():
            data, latents = simulated(program, batch)
            return as_memory_allows(partial(self._bounds, program, data, latents), self.annealed.rows)

    def _bounds(self, program: Program, data: Batch, latents: Latents, rows: int) -> Bounds:
        path = AnnealingPath(program, data, self.annealed.start)
        chunks = self.annealed.chunks(data, rows)
        path_length = self.annealed.temperatures
        pilot, *there, home = shares([pilot_transitions(path_length), *[path_length] * (len(chunks) + 1)])
        with stage(*pilot):
            schedule = self.annealed.schedule(path, chunks)
        ahead = []
        for chains, part in zip(chunks, there, strict=True):
            with stage(*part, "forward"):
                ahead.append(forward(path, schedule, chains))
        with stage(*home, "back"):
            back = reverse(path, schedule, path.place(latents))
        weights = torch.cat([weighed.log_weights for weighed in ahead])
        acceptance = torch.cat([weighed.acceptance for weighed in ahead]).mean(0)
        warn_of_few_accepted(acceptance)
        mixed = torch.cat(
            [back.log_weights, weights[1:]]
        )  # the last chain gives way to the one back from the exact draw
        return Bounds(data, _log_mean(weights), _log_mean(mixed), acceptance)

    def _part(self, program: Program, batch: Batch) -> Batch:
        """The first examples; all of them where none stands alone, or each has values of its own in the guide."""
        examples = as_batch(batch)
        fitted_to_rows = isinstance(program, Pair) and program.rows is not None
        if fitted_to_rows or rows_of(examples) <= self.simulations or not runs(program, examples)[0].per_example:
            return examples
        return mapped(lambda tensor: tensor[: self.simulations], examples)


def sandwich(
    temperatures: int, chains: int = 16, start: Start = "guide", leapfrog: int = 10, simulations: int = 20
) -> Sandwich:
    """The estimator of `annealed`, and bounds from both sides on simulated data (Grosse et al. 2015, arXiv 1511.02543).

    On data simulated from the program the latents that made them are an exact draw of the posterior. A chain from there back
    to the start, by the same frozen schedule, bounds log p(x) from above (Wu et al. 2017, arXiv 1611.04273): the log of the
    mean of its weight and those of K - 1 forward chains (Brekelmans et al. 2022). On real data there is no such draw: the
    number is the lower bound, and the gap on data simulated for the first examples of each batch stands in
    `Estimate.details` as evidence of how loose it may be. It is no bound for real data.

    Args:
        temperatures, chains, start, leapfrog: as those of `annealed`.
        simulations: how many examples of a batch are simulated; all of a dataset where the program shares sites.

    Raises:
        ValueError: as `annealed`, or no simulations.
    """
    return Sandwich(Annealed(temperatures, chains, start, leapfrog), simulations)


def _log_mean(log_weights: Tensor) -> Tensor:
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
