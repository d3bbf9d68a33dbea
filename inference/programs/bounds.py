"""Bounds on the evidence: what log-weights say about log p(x)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inference.programs.numbers import refuse_outside

BoundFunction = Callable[[Tensor], Tensor]
"""`(particles, batch)` log-weights to `(batch,)` nats."""


LOWER_BOUND = "lower bound in expectation"
"""The kind of a number whose expectation is at most log p(x)."""


@dataclass(frozen=True)
class Bound:
    """The Rényi bound of order alpha: the log of a power mean of the weights (Li & Turner 2016, arXiv 1602.02311).

    log (1/K Σ_k w_k^(1-alpha)) / (1-alpha), of which alpha = 1 is the ELBO (the mean log-weight) and alpha = 0 the
    importance-weighted bound. Called on `(particles, batch)` log-weights it gives `(batch,)` nats. For alpha ≥ 0 its
    expectation lies below log p(x); for alpha < 0 it is no bound.
    """

    alpha: float

    def __call__(self, log_weights: Tensor) -> Tensor:
        if self.alpha == 1.0:
            return log_weights.mean(0)
        power = 1.0 - self.alpha
        return (torch.logsumexp(power * log_weights, 0) - math.log(log_weights.shape[0])) / power

    @property
    def name(self) -> str:
        return {1.0: "elbo", 0.0: "iwae"}.get(self.alpha, f"renyi({self.alpha:g})")

    @property
    def kind(self) -> str:
        """What an estimate by this bound is of log p(x)."""
        return LOWER_BOUND if self.alpha >= 0 else "estimate, no bound"


elbo = Bound(1.0)
"""The evidence lower bound: E_q[log p(x, z) - log q(z | x)] (Kingma & Welling 2014, arXiv 1312.6114)."""

iwae = Bound(0.0)
"""The importance-weighted bound: log of the mean weight (Burda et al. 2016, arXiv 1509.00519)."""


def renyi(alpha: float) -> Bound:
    """The Rényi bound of order alpha; 1 is the ELBO and 0 the importance-weighted bound.

    Raises:
        ValueError: alpha is not finite.
    """
    refuse_outside("alpha", alpha, -math.inf, math.inf, "1 for the ELBO and 0 for IWAE")
    return Bound(float(alpha))


def surrogate(bound: BoundFunction, log_weights: Tensor, log_scores: Tensor) -> Tensor:
    """A tensor whose value is the bound and whose gradient is unbiased, for draws of any kind: `(batch,)` nats.

    Reparameterised draws carry their gradient in the log-weights. Each of the others is credited with the bound less
    the same bound on the K-1 other particles, which does not depend on it and so is a baseline without bias (Mnih &
    Rezende 2016, arXiv 1602.06725, in the form of Kool et al. 2019); a single particle is credited with the whole bound.
    """
    value = bound(log_weights)
    return value + credited(bound, log_weights, log_scores) if log_scores.requires_grad else value


def credited(bound: BoundFunction, log_weights: Tensor, log_scores: Tensor) -> Tensor:
    """Zeros whose gradient is that of the scores, each times its credit for the bound on these weights: `(batch,)`."""
    detached = log_weights.detach()
    credit = bound(detached) - (_leave_one_out(bound, detached) if len(detached) > 1 else 0.0)
    weighted = (log_scores * credit).sum(0)
    return weighted - weighted.detach()


def _leave_one_out(bound: BoundFunction, log_weights: Tensor) -> Tensor:
    """The bound without each particle in turn: `(particles, batch)`."""
    particles = len(log_weights)
    every = torch.arange(particles, device=log_weights.device)
    others = (every.unsqueeze(1) + 1 + every[: particles - 1]).remainder(particles).T  # column k: all but k
    return bound(log_weights[others])
