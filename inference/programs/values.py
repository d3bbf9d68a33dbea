"""Whether values fit the distributions that score them: the whole event shape, no broadcasting, inside the support."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions import ExpandedDistribution, MaskedDistribution
from pyro.distributions.hmm import HiddenMarkovModel
from pyro.distributions.torch import Independent
from torch import Tensor
from torch.distributions import constraints

from inference.programs.program import ProgramError
from inference.programs.sites import Frame, Site, is_implicit, layers, plates


class OutsideSupport(ProgramError):
    """A value that its distribution gives no density, and where it stands."""


@contextmanager
def among(start: int) -> Iterator[None]:
    """A block on a batch that begins with example `start` of the data: what is said of a value there says so too."""
    try:
        yield
    except OutsideSupport as error:
        if not start:
            raise
        raise OutsideSupport(f"{error} This batch begins with example {start} (from 0) of the data.") from error


_WRAPPERS = (Independent, MaskedDistribution, ExpandedDistribution)


def refuse_broadcast(name: str, site: Site) -> None:
    """Raises a ProgramError where one value would silently stand for many: in the event, or along a plate."""
    fn, value = site["fn"], site["value"]
    if not isinstance(value, Tensor) or not hasattr(fn, "event_shape"):
        return
    event = tuple(fn.event_shape)
    came = tuple(value.shape[max(0, value.dim() - len(event)) :])
    # A hidden Markov model that is the same at all times has no length of its own: an event of one step.
    any_length = isinstance(fn, HiddenMarkovModel) and event[:1] == (1,) and len(came) == len(event)
    if came[any_length:] != event[any_length:]:
        raise ProgramError(
            f"site {name!r} ({type(fn).__name__}) is a distribution over events of shape {event}, and its value of shape "
            f"{tuple(value.shape)} has {came} there: it would be broadcast inside the event. Give both the same shape."
        )
    for frame in plates(site).values():
        _refuse_broadcast_along(frame, name, tuple(value.shape), frame.dim - len(event))


def _refuse_broadcast_along(frame: Frame, name: str, shape: tuple[int, ...], axis: int) -> None:
    rows = shape[axis] if len(shape) >= -axis else None
    if rows != frame.size and frame.size != -1:  # -1 is Pyro's plate of any size
        came = "no axis for it" if rows is None else f"{rows} there"
        raise ProgramError(
            f"site {name!r} has a value of shape {shape}; plate {frame.name!r} has {frame.size} examples along axis "
            f"{axis}, and it has {came}: it would be broadcast over the batch. Pass one row per example, or expand it "
            "explicitly."
        )


def in_support(distribution: Any, value: Tensor) -> Tensor | None:
    """Whether each value lies in its distribution's support, of the shape of its log density; None of real numbers."""
    if isinstance(distribution, MaskedDistribution):
        inside = in_support(distribution.base_dist, value)
        return None if inside is None else inside | _hidden(distribution._mask, inside)
    if isinstance(distribution, Independent):
        inside = in_support(distribution.base_dist, value)
        axes = distribution.reinterpreted_batch_ndims
        return inside if inside is None or not axes else inside.flatten(-axes).all(-1)
    support = _support_of(distribution)
    if support is None or is_implicit(distribution) or _is_real(support):
        return None
    try:
        found: Tensor = support.check(value)
    except (NotImplementedError, ValueError, RuntimeError):  # shapes that the density itself will name
        return None
    loose = distribution.event_dim - support.event_dim
    return found.flatten(-loose).all(-1) if loose > 0 else found


def check_support(name: str, site: Site, part: Tensor | None = None) -> None:
    """Raises a ProgramError where a site has values outside its distribution's support, naming the first.

    `part` holds the values without their copies, where the site holds copies of the same values.
    """
    fn, mask = site["fn"], site["mask"]
    if not isinstance(site["value"], Tensor) or mask is False:
        return
    value = site["value"].detach()
    if part is not None:
        inside = in_support(fn, part)
        if inside is None or bool(inside.all()):
            return
    inside = in_support(fn, value)
    if inside is None:
        return
    if isinstance(mask, Tensor):
        inside = inside | ~mask
    if bool(inside.all()):
        return
    first = tuple(int(axis) for axis in (~inside).nonzero()[0])
    support = _support_of(fn)
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    # The values themselves, where they are judged one by one; an event such as a point of a simplex is shown whole.
    outside = value[~support.check(value)] if support is not None and support.event_dim == 0 else value
    advice = "Transform or convert the values, or choose a distribution with their support."
    if "Bernoulli" in type(layers(fn)[-1]).__name__:
        advice = "Binarise grey pixels (dynamic or static), or use a discretised likelihood over their levels."
    raise OutsideSupport(
        f"site {name!r} ({type(fn).__name__}) has values outside its support {support}: {outside.numel()} of "
        f"{value.numel()}, first in example {first}, such as {float(outside.flatten()[0]):.4g} (values range from "
        f"{float(value.min()):.4g} to {float(value.max()):.4g}). {advice}"
    )


def rounding_is_harmless(distribution: Any) -> bool:
    """Whether rounding can not push a draw out of the support, as it can off a simplex or a positive definite matrix."""
    inner = distribution
    while isinstance(inner, _WRAPPERS):
        inner = inner.base_dist
    declared = getattr(type(inner), "support", None)  # quick where the support does not depend on parameters
    is_common = isinstance(declared, constraints.Constraint) and not constraints.is_dependent(declared)
    support: Any = declared if is_common else _support_of(inner)
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support is not None and not _is_real(support) and support.event_dim == 0


def _support_of(distribution: Any) -> Any:
    try:
        support = distribution.support
    except (NotImplementedError, AttributeError):
        return None
    return None if support is None or constraints.is_dependent(support) else support


def _is_real(support: Any) -> bool:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return isinstance(support, type(constraints.real))


def _hidden(mask: bool | Tensor, like: Tensor) -> Tensor:
    return ~mask if isinstance(mask, Tensor) else torch.full_like(like, not mask)
