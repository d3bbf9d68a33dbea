"""The predictive density of held-out data, of programs whose examples share latents."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.evaluation.estimators import ERROR_OF_SUM, Estimate, PowerMean
from inference.evaluation.stages import one_of
from inference.programs.entries import rows_of
from inference.programs.held_out import HeldOut, held_out
from inference.programs.numbers import refuse_below
from inference.programs.program import Batch, Program
from inference.programs.terms import terms

PREDICTIVE = "predictive density"
"""The kind of log E_q[p(x | θ)]."""


@dataclass(frozen=True)
class Predictive:
    """log E_q[p(x | θ)] of each example, θ what all examples share; it is for data that the guide was not fitted to."""

    draws: int
    particles: int = 100
    rows: int = 2000
    """How many particles × examples are run at once."""
    held_out = True
    """Scores each example by itself, of data that need not be those that the program shares its latents between."""

    def __post_init__(self) -> None:
        refuse_below("draws", self.draws, 2, "of which an error can be told")
        for name in ("particles", "rows"):
            refuse_below(name, getattr(self, name), 1)

    @property
    def kind(self) -> str:
        return PREDICTIVE

    @property
    def settings(self) -> dict[str, str | int | float]:
        return {"draws": self.draws, "particles": self.particles}

    def __call__(self, program: Program, batch: Batch) -> Estimate:
        found = held_out(program, batch)
        log_densities = torch.stack([self._draw(found, number) for number in range(self.draws)])
        moments = PowerMean(1.0)
        moments.add(log_densities)
        estimate = moments.estimate()
        error_of_sum = _error_of_sum(log_densities, estimate.log_prob)
        return estimate._replace(kind=_kind(found), details={ERROR_OF_SUM: error_of_sum})

    def _draw(self, found: HeldOut, number: int) -> Tensor:
        with one_of(number, self.draws, "draw"):
            return self._given_shared(found)

    def _given_shared(self, found: HeldOut) -> Tensor:
        """log p(x | θ) at one draw of θ: `(batch,)`, by a mean over the local latents that are drawn."""
        program, particles = found.draw(), self.particles if found.local else 1
        chunk = max(1, self.rows // rows_of(found.batch))
        moments = PowerMean(1.0)
        for start in range(0, particles, chunk):
            drawn = terms(program, found.batch, min(chunk, particles - start))
            log_weights = drawn.log_weights  # refuses what has no density
            # Of draws from the prior the weight is p(x | z), also where p(z) is a sum that the draw did not take.
            moments.add((log_weights if found.amortised else drawn.likelihood).double())
        return moments.estimate().log_prob


def predictive(draws: int, particles: int = 100) -> Predictive:
    """The estimator of log E_q[p(x | θ)] per example, where θ are the latents that all examples share.

    Finite local latents that the guide leaves out are summed. Others are drawn and weighted (Burda et al. 2016, arXiv
    1509.00519): from the guide where it is a function of x, from the prior where it has values for the rows that it was
    fitted to; the kind of the number says which. The error is that of all draws; those of θ are the same for all examples of
    a batch, and `Evaluation.noise` counts that. In expectation the number lies below the density that it estimates, by about
    half the squared error.

    Args:
        draws: of θ from the guide, for each batch.
        particles: of the other local latents, for each draw of θ.

    Raises:
        ValueError: fewer than two draws, or no particle.
    """
    return Predictive(draws, particles)


def _error_of_sum(log_densities: Tensor, log_mean: Tensor) -> Tensor:
    """The standard error of the sum over examples, `(1,)`, to first order: a draw moves all of them at once."""
    relative = (log_densities - log_mean).exp().sum(1)
    error = relative.std() / math.sqrt(len(relative))
    return torch.where(log_mean.isinf().any(), torch.inf, error).reshape(1)


def _kind(found: HeldOut) -> str:
    source = "the guide" if found.amortised else "the prior"
    weighted = f", local latents weighted from {source}" if found.local else ""
    point = f", at a point estimate of {', '.join(found.points)}" if found.points else ""
    return f"{PREDICTIVE}{weighted}{point}"
