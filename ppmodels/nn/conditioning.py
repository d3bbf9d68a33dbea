"""Conditioning on labels, as one-hot vectors, and on a part of x; the check of the examples that a model is called with."""

import torch
from pyro.distributions import Independent
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.distributions.util import is_validation_enabled
from torch import Tensor


def check_examples(x: Tensor, shape: tuple[int, ...], model: str) -> None:
    """Raises a ValueError unless x is `(batch, *shape)` in floats; `model` is its name, for the message."""
    if tuple(x.shape[1:]) != shape:
        expected = ", ".join(map(str, shape))
        raise ValueError(
            f"x: expected shape (batch, {expected}), got {tuple(x.shape)}; reshape it, or build the {model} with its shape"
        )
    if not x.is_floating_point():
        raise ValueError(f"x: expected levels as floats, got {x.dtype}; call x.float()")


def one_hot(x: Tensor, y: Tensor | None, classes: int, model: str) -> Tensor | None:
    """Labels y `(batch,)`, one for each example of x, as `(batch, classes)` of its dtype; None where there are no classes.

    Raises a ValueError where labels are missing, unasked for, or not 0..classes - 1.
    """
    if not classes:
        if y is not None:
            raise ValueError(f"y: expected none, as this {model} has no classes, got labels; build it with classes=…")
        return None
    if y is None:
        raise ValueError(
            f"y: expected labels 0..{classes - 1}, as this {model} has classes={classes}, got none; call it with (x, y)"
        )
    _check_labels(y, len(x), classes, model)
    return (y.unsqueeze(1) == torch.arange(classes, device=y.device)).to(x.dtype)


def seen(likelihood: TorchDistributionMixin, observed: Tensor | None) -> TorchDistributionMixin:
    """A likelihood of x of which only the observed values count; as it is where `observed` is None.

    Raises a ValueError where values of x depend on each other given z, or `observed` has another shape than x.
    """
    if observed is None:
        return likelihood
    values = likelihood.base_dist if isinstance(likelihood, Independent) else None
    if values is None or values.event_shape or likelihood.reinterpreted_batch_ndims < len(likelihood.event_shape):
        raise ValueError(
            f"observed: expected none, as the values of x depend on each other under {type(likelihood).__name__}, which has "
            "no density of some of them; choose a likelihood that is independent for each value, such as categorical or "
            "normal"
        )
    if observed.dtype != torch.bool or observed.shape[1:] != likelihood.event_shape:
        raise ValueError(
            f"observed: expected bool of the shape of x, (batch, {', '.join(map(str, likelihood.event_shape))}), "
            f"got {observed.dtype} of shape {tuple(observed.shape)}"
        )
    masked: TorchDistributionMixin = values.mask(observed).to_event(likelihood.reinterpreted_batch_ndims)
    return masked


def _check_labels(y: Tensor, batch: int, classes: int, model: str) -> None:
    if tuple(y.shape) != (batch,) or y.dtype != torch.int64:
        raise ValueError(
            f"y: expected int64 labels of shape ({batch},), got {y.dtype} of shape {tuple(y.shape)}; convert them"
        )
    # Reading values makes a device wait, so it is part of Pyro's validation and switched off with it.
    if is_validation_enabled() and bool(((y < 0) | (y >= classes)).any()):
        raise ValueError(
            f"y: expected labels 0..{classes - 1}, got {int(y.min())}..{int(y.max())}; "
            f"renumber them, or build the {model} with more classes"
        )
