"""A distribution as a function of its own parameters, in unconstrained coordinates."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from pyro.distributions import MaskedDistribution
from torch import Tensor
from torch.distributions import Independent, transform_to

from inference.programs.program import ProgramError

_OTHER_FORMS = {"probs": "logits", "covariance_matrix": "scale_tril", "precision_matrix": "scale_tril"}
"""Parameters that say the same as another one, which is kept where a distribution has computed both."""


class Free(NamedTuple):
    """Unconstrained parameters of a distribution, and the distribution that has given ones."""

    values: list[Tensor]
    distribution: Callable[[Sequence[Tensor]], Any]

    def has_values_of(self, other: "Free") -> bool:
        """Whether the parameters are those of another one, but for rounding."""
        return all(
            mine.shape == theirs.shape and torch.allclose(mine, theirs, 1e-4, 1e-5, equal_nan=True)
            for mine, theirs in zip(self.values, other.values, strict=True)
        )


def freed(name: str, distribution: Any) -> Free:
    """The parameters of a site's distribution, detached, one set for each element of its batch shape.

    Raises:
        ProgramError: the distribution says nothing of its parameters (a mixture, a flow), or of their constraints; or it
            is made of more than them.
    """
    if isinstance(distribution, Independent):
        inner, dims = freed(name, distribution.base_dist), distribution.reinterpreted_batch_ndims
        return Free(inner.values, lambda values: type(distribution)(inner.distribution(values), dims))
    if isinstance(distribution, MaskedDistribution):
        unmasked, mask = freed(name, distribution.base_dist), distribution._mask
        return Free(unmasked.values, lambda values: MaskedDistribution(unmasked.distribution(values), mask))
    kind = type(distribution)
    stored = [each for each in distribution.arg_constraints if distribution.__dict__.get(each) is not None]
    names = [each for each in stored or distribution.arg_constraints if _OTHER_FORMS.get(each) not in stored]
    try:
        transforms = [transform_to(distribution.arg_constraints[each]) for each in names]
        values = [way.inv(getattr(distribution, each)) for each, way in zip(names, transforms, strict=True)]
    except (NotImplementedError, AttributeError) as error:
        raise _refused(name, kind) from error
    # Parameters that bound each other, as those of Uniform, would cross if they moved apart.
    bounded = any(
        isinstance(bound, Tensor) for each in names for bound in vars(distribution.arg_constraints[each]).values()
    )
    if bounded or not names:
        raise _refused(name, kind)

    def rebuilt(given: Sequence[Tensor]) -> Any:
        return kind(**{each: way(value) for each, way, value in zip(names, transforms, given, strict=True)})

    free = Free([value.detach().clone() for value in values], rebuilt)
    if not _is_made_of(free, distribution):
        raise _refused(name, kind)
    return free


def _is_made_of(free: Free, distribution: Any) -> bool:
    """Whether a distribution's parameters are all that it takes to make it: some have a dimension or a temperature."""
    value = distribution.sample()
    try:
        made = free.distribution(free.values)
    except TypeError:
        return False
    return torch.allclose(made.log_prob(value), distribution.log_prob(value), 1e-3, 1e-3, equal_nan=True)


def _refused(name: str, kind: type) -> ProgramError:
    return ProgramError(
        f"the guide's site {name!r} is a {kind.__name__}, whose parameters cannot be set free for an example: expected a "
        "distribution that is made of constrained parameters alone, such as Normal, Gamma or MultivariateNormal."
    )
