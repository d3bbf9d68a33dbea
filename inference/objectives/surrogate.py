"""A bound on a program's draws as a loss: its mean per example, with the gradient of draws of any kind."""

from torch import Tensor

from inference.programs.bounds import BoundFunction, credited, elbo, surrogate
from inference.programs.terms import Terms


def bound_per_example(bound: BoundFunction, drawn: Terms) -> Tensor:
    """The bound's mean over examples, in nats, as a scalar with an unbiased gradient.

    A draw without reparameterisation is credited with the part of the bound that depends on it: a local draw with its own
    example's part, a shared draw with the whole. Beside shared sites only the ELBO is a sum over examples; for other bounds
    every draw is credited with the whole.
    """
    shared = drawn.shared
    if shared is None or bound != elbo or not shared.come_first or not drawn.score.requires_grad:
        return surrogate(bound, drawn.log_weights_for(bound), drawn.log_scores).mean() / drawn.examples
    of_shared = surrogate(elbo, drawn.log_weights_for(elbo), shared.score.unsqueeze(1)).sum()
    own = (drawn.likelihood + drawn.prior - drawn.posterior) * (shared.size / drawn.likelihood.shape[1])
    return (of_shared + credited(elbo, own, drawn.score).sum()) / shared.size
