"""Divergences between q (data and guide) and p (model), estimated by a critic T.

A critic's loss is minimal where T is a known function of the ratio of the two densities; for an f-divergence it is minus the
variational bound of Nowozin et al. (2016, arXiv 1606.00709), which the program then lowers. Values are means over a batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

Loss = Callable[[Tensor, Tensor], Tensor]
"""A function of the critic's values at samples of q and at samples of p, `(batch,)` each; gives a scalar."""

_LARGEST_EXPONENT = 20.0
"""Beyond this, at a ratio of 5e8, exponentials are continued linearly: a large gradient, and never an infinite one."""


class Divergence(NamedTuple):
    """The losses of critic and program, and how to read log q/p from the critic's values. A mean over the batch each."""

    critic: Loss
    program: Loss
    log_ratio: Callable[[Tensor], Tensor] | None
    """log q/p from the best critic's T, in nats; None where T is a margin or a potential."""

    @property
    def q_alone(self) -> bool:
        """Whether the program's loss depends on samples of q alone, and not on what the model draws."""
        q, p = (torch.zeros(1, requires_grad=True) for _ in range(2))
        with torch.enable_grad():
            return torch.autograd.grad(self.program(q, p), p, allow_unused=True)[0] is None


def _of(bound: Loss, log_ratio: Callable[[Tensor], Tensor]) -> Divergence:
    """The divergence that is the largest value of `bound` over critics."""
    return Divergence(lambda q, p: -bound(q, p), bound, log_ratio)


def _identity(values: Tensor) -> Tensor:
    return values


def _exp(values: Tensor) -> Tensor:
    # Linear and not constant, so that the gradient does not vanish where the critic is most wrong.
    return values.clamp(max=_LARGEST_EXPONENT).exp() * (1 + (values - _LARGEST_EXPONENT).relu())


def _logistic(q: Tensor, p: Tensor) -> Tensor:
    return softplus(-q).mean() + softplus(p).mean()


jensen_shannon = _of(lambda q, p: -_logistic(q, p), _identity)
"""The minimax objective of Goodfellow et al. (2014, arXiv 1406.2661): 2 JS(q, p) - 2 log 2."""

non_saturating = Divergence(_logistic, lambda q, p: softplus(q).mean() + softplus(-p).mean(), _identity)
"""The non-saturating loss of the same paper: the same critic, and a gradient also where the critic is sure."""

plug_in_kl = Divergence(_logistic, lambda q, p: q.mean(), _identity)
"""KL(q ‖ p) by the logistic critic's ratio (Mescheder et al., 2017, arXiv 1701.04722). Samples of p get no gradient."""

kl = _of(lambda q, p: q.mean() - _exp(p).mean() + 1, _identity)
"""KL(q ‖ p) by the bound of Nguyen, Wainwright & Jordan (2010, arXiv 0809.0853)."""

reverse_kl = _of(lambda q, p: -p.mean() - _exp(-q).mean() + 1, _identity)
"""KL(p ‖ q) by the bound of Nguyen, Wainwright & Jordan (2010, arXiv 0809.0853)."""

pearson = _of(lambda q, p: (2 * q).mean() - p.square().mean() - 1, lambda t: t.clamp(min=1e-6).log())
"""χ²(q ‖ p); T is the ratio q/p itself (Kanamori et al., 2009, by least squares)."""

hellinger = _of(lambda q, p: 2 - _exp(-q / 2).mean() - _exp(p / 2).mean(), _identity)
"""The squared Hellinger distance ∫(√q - √p)², without the factor 1/2 (Nowozin et al., 2016, arXiv 1606.00709)."""

least_squares = Divergence(
    lambda q, p: (q - 1).square().mean() + p.square().mean(),
    lambda q, p: q.square().mean() + (p - 1).square().mean(),
    lambda t: torch.logit(t, eps=1e-6),
)
"""The least-squares GAN, with labels 1 and 0 (Mao et al., 2017, arXiv 1611.04076); T is q / (q + p)."""

hinge = Divergence(lambda q, p: (1 - q).relu().mean() + (1 + p).relu().mean(), lambda q, p: q.mean() - p.mean(), None)
"""The hinge loss (Lim & Ye, 2017, arXiv 1705.02894); T is a margin."""

wasserstein = Divergence(lambda q, p: p.mean() - q.mean(), lambda q, p: q.mean() - p.mean(), None)
"""The Wasserstein distance, by a critic that a penalty keeps 1-Lipschitz (Arjovsky et al., 2017, arXiv 1701.07875)."""

relativistic = Divergence(lambda q, p: softplus(p - q).mean(), lambda q, p: softplus(q - p).mean(), None)
"""The relativistic pairing loss: each sample of q against one of p (Jolicoeur-Martineau, 2018, arXiv 1807.00734).

With R1 and R2 it is R3GAN (Huang et al., 2024, arXiv 2501.05441).
"""
