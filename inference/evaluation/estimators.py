"""Estimators of log p(x) per example, each of a stated kind: exact, or a lower bound in expectation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from inference.evaluation.stages import reached
from inference.programs.bounds import Bound, iwae
from inference.programs.entries import Examples, leaves, rows_of
from inference.programs.numbers import refuse_below
from inference.programs.program import Batch, Program, as_batch
from inference.programs.terms import log_marginal, terms


class Estimate(NamedTuple):
    """An estimate of log p(x) and the standard error of its own noise: `(batch,)` nats each.

    `(1,)` of the whole dataset where the program shares sites between examples, or has no plate that counts them. The error
    of an importance-weighted bound is of first order in the spread of the weights: where a few weights dominate it is too
    small; compare more particles.
    """

    log_prob: Tensor
    error: Tensor
    details: Mapping[str, Tensor] = MappingProxyType({})
    """What else was found out, by name: one value for each example, or for each of what was simulated."""
    kind: str = ""
    """What the number is, where that depends on the program; empty where it is the estimator's kind."""


ERROR_OF_SUM = "error of the sum"
"""The name in `Estimate.details` of the standard error of a batch's sum, `(1,)`, where its examples share the draws."""

EXACT = "exact"
"""The kind of a number that is log p(x) itself."""


class Estimator(Protocol):
    """Gives log p(x) of a batch, and the kind of that number.

    One with `held_out = True` gives a number for each example of any batch, although the program shares latents between the
    examples that it was fitted to. One with a number `work`, how many densities it asks for per example, is counted by that
    where progress is told.
    """

    @property
    def kind(self) -> str:
        """What the estimate is of log p(x): exact, a lower bound in expectation, …"""

    @property
    def settings(self) -> dict[str, str | int | float]:
        """What the estimate depends on."""

    def __call__(self, program: Program, batch: Batch) -> Estimate: ...


@dataclass(frozen=True)
class Exact:
    """log p(x) itself: of a program without latents, or with discrete ones that can be summed out."""

    @property
    def kind(self) -> str:
        return EXACT

    @property
    def settings(self) -> dict[str, str | int | float]:
        return {}

    def __call__(self, program: Program, batch: Batch) -> Estimate:
        log_prob = log_marginal(program, batch)
        return Estimate(log_prob, torch.zeros_like(log_prob))


@dataclass(frozen=True)
class Importance:
    """A bound on log p(x) by weighted draws from the guide, made in chunks: memory does not grow with K."""

    particles: int
    bound: Bound = iwae
    rows: int | None = None
    """How many particles × examples are run at once, by default as many as are fastest: 2,000, or 50,000 on a GPU."""

    def __post_init__(self) -> None:
        refuse_below("particles", self.particles, 1)
        if self.rows is not None:
            refuse_below("rows", self.rows, 1)
        if not isinstance(self.bound, Bound):
            raise ValueError(f"the bound of an estimator is elbo, iwae or renyi(alpha); got {self.bound!r}.")

    @property
    def kind(self) -> str:
        return self.bound.kind

    @property
    def settings(self) -> dict[str, str | int | float]:
        return {"bound": self.bound.name, "particles": self.particles}

    @property
    def work(self) -> float:
        return self.particles

    def __call__(self, program: Program, batch: Batch) -> Estimate:
        examples = as_batch(batch)
        chunk = max(1, (self.rows or _rows_on(examples)) // rows_of(examples))
        moments = Mean() if self.bound.alpha == 1.0 else PowerMean(1.0 - self.bound.alpha)
        for start in range(0, self.particles, chunk):
            drawn = terms(program, batch, min(chunk, self.particles - start))
            moments.add(drawn.log_weights_for(self.bound).double())
            reached(min(start + chunk, self.particles) / self.particles)
        return moments.estimate()


def _rows_on(batch: Examples) -> int:
    return 50_000 if any(tensor.is_cuda for tensor in leaves(batch)) else 2000


def exact() -> Exact:
    """The estimator of log p(x) itself: of programs without latents, or with discrete ones that are summed out.

    The evaluation raises a ProgramError where a latent site has no finite support.
    """
    return Exact()


def importance(particles: int, bound: Bound = iwae) -> Importance:
    """The estimator that bounds log p(x) by `particles` draws from the guide (Burda et al. 2016, arXiv 1509.00519).

    Raises:
        ValueError: fewer than one particle.
    """
    return Importance(particles, bound)


class Mean:
    """A running mean of log-weights and the squared deviations from it (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, log_weights: Tensor) -> None:
        new = len(log_weights)
        total = self.count + new
        mean = log_weights.mean(0)
        shift = mean - self.mean
        self.squares = self.squares + (log_weights - mean).square().sum(0) + shift.square() * (self.count * new / total)
        self.mean = self.mean * (self.count / total) + mean * (new / total)  # a sum, as -inf less -inf is no number
        self.count = total

    def estimate(self) -> Estimate:
        variance = self.squares / (self.count - 1) if self.count > 1 else torch.full_like(self.mean, math.nan)
        error = (variance / self.count).sqrt()
        return Estimate(self.mean, torch.where(self.mean.isinf(), torch.inf, error))


class PowerMean:
    """Running sums of w^power and of its square, kept as logarithms."""

    def __init__(self, power: float) -> None:
        self.power, self.count = power, 0
        self.first = self.second = torch.zeros(())

    def add(self, log_weights: Tensor) -> None:
        first = torch.logsumexp(self.power * log_weights, 0)
        second = torch.logsumexp(2 * self.power * log_weights, 0)
        self.first = torch.logaddexp(self.first, first) if self.count else first
        self.second = torch.logaddexp(self.second, second) if self.count else second
        self.count += len(log_weights)

    def estimate(self) -> Estimate:
        log_mean = self.first - math.log(self.count)
        if self.count == 1:
            return Estimate(log_mean / self.power, torch.full_like(log_mean, math.nan))
        # The relative variance of the mean weight, carried through the logarithm to first order.
        relative = torch.expm1(self.second - math.log(self.count) - 2 * log_mean).clamp_min(0.0) / (self.count - 1)
        error = relative.sqrt() / abs(self.power)
        return Estimate(log_mean / self.power, torch.where(log_mean.isinf(), torch.inf, error))
