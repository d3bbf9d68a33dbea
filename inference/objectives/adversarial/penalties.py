"""Gradient penalties: what is added to a critic's loss so that the critic stays smooth.

A penalty is a function of the critic and of its inputs, by name, at samples of q and at samples of p; its value is a mean
over the batch. Several are added up by `both`.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Values = Mapping[str, Tensor]
"""The inputs of a critic, by name."""
Critic = Callable[[Values], Tensor]
Penalty = Callable[[Critic, Values, Values], Tensor]
"""A function of the critic, its inputs at samples of q, and those at samples of p; gives a scalar."""

_EPSILON = 1e-12
"""Added to a squared norm, whose root has no gradient at 0."""


def gradient_penalty(weight: float = 10.0, norm: float = 1.0) -> Penalty:
    """The gradient penalty of WGAN-GP: weight · E(‖∇T‖ - norm)² at one point drawn between each sample of q and one of p.

    Gulrajani et al. (2017, arXiv 1704.00028).
    """

    def penalty(critic: Critic, q: Values, p: Values) -> Tensor:
        some = next(iter(_moving(q, p).values()))
        at = torch.rand(len(some), device=some.device, dtype=some.dtype)
        between = {
            name: torch.lerp(p[name], q[name], at.view(-1, *(1,) * (q[name].dim() - 1))) for name in _moving(q, p)
        }
        squared = _squared_norm(critic, {**q, **between}, between)
        return weight * ((squared + _EPSILON).sqrt() - norm).square().mean()

    return penalty


def r1(weight: float = 10.0) -> Penalty:
    """The R1 penalty: weight / 2 · E_q ‖∇T‖² (Mescheder et al., 2018, arXiv 1801.04406)."""
    return lambda critic, q, p: weight / 2 * _squared_norm(critic, q, _moving(q, p)).mean()


def r2(weight: float = 10.0) -> Penalty:
    """The R2 penalty: weight / 2 · E_p ‖∇T‖² (Mescheder et al., 2018, arXiv 1801.04406)."""
    return lambda critic, q, p: weight / 2 * _squared_norm(critic, p, _moving(p, q)).mean()


def both(*penalties: Penalty) -> Penalty:
    """The sum of several penalties, such as `both(r1(), r2())`."""
    return lambda critic, q, p: torch.stack([penalty(critic, q, p) for penalty in penalties]).sum()


def _moving(here: Values, there: Values) -> dict[str, Tensor]:
    """The inputs that differ between q and p, as real numbers: what is compared, and not what it is conditioned on."""
    return {name: value for name, value in here.items() if value is not there[name] and value.is_floating_point()}


def _squared_norm(critic: Critic, values: Values, moving: Values) -> Tensor:
    """The squared norm of each example's gradient, `(batch,)`."""
    leaves = {name: values[name].detach().requires_grad_() for name in moving}
    total = critic({**values, **leaves}).sum()
    gradients = torch.autograd.grad(total, list(leaves.values()), create_graph=True)
    squares = [gradient.reshape(len(gradient), -1).square().sum(1) for gradient in gradients]
    return torch.stack(squares).sum(0)
