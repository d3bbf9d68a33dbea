"""A distribution as a function of its own parameters, in unconstrained coordinates."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributions import Independent, transform_to

from inference.programs.program import ProgramError

_OTHER_FORMS = {"probs": "logits", "covariance_matrix": "scale_tril", "precision_matrix": "scale_tril"}
"""Parameters that say the same as another one, which is kept where a distribution has computed both."""


class Free(NamedTuple):
    """Unconstrained parameters of a distribution, and the distribution that has given ones."""

    values: list[Tensor]
    distribution: Callable[[Sequence[Tensor]], Any]


def freed(name: str, distribution: Any) -> Free:
    """The parameters of a site's distribution, detached, one set for each element of its batch shape.

    Raises:
        ProgramError: the distribution says nothing of its parameters (a mixture, a flow), or of their constraints.
    """
    if isinstance(distribution, Independent):
        inner, dims = freed(name, distribution.base_dist), distribution.reinterpreted_batch_ndims
        return Free(inner.values, lambda values: type(distribution)(inner.distribution(values), dims))
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

    return Free([value.detach().clone() for value in values], rebuilt)


def _refused(name: str, kind: type) -> ProgramError:
    return ProgramError(
        f"the guide's site {name!r} is a {kind.__name__}, whose parameters cannot be set free for an example: expected a "
        "distribution that is made of constrained parameters alone, such as Normal, Gamma or MultivariateNormal."
    )
