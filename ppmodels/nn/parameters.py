"""From a network's outputs to the parameters of a distribution."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from pyro.distributions import Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.nn.functional import softplus

SMALLEST_SCALE = 1e-4


def full_precision(parameters: Tensor) -> Tensor:
    """`parameters` in at least float32, so that log-probabilities keep their digits under autocast."""
    half = parameters.dtype in (torch.bfloat16, torch.float16)
    return parameters.float() if half else parameters


def without_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """A block in which nothing is cast to half precision on the device of `like`."""
    device = like.device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


def positive(parameters: Tensor) -> Tensor:
    """A scale from any real number: its softplus plus 1e-4, so never 0, and finite for every finite number."""
    return softplus(parameters) + SMALLEST_SCALE


def scale_parameters(scale: Tensor) -> Tensor:
    """The real numbers whose `positive` is that scale, above 1e-4."""
    above = scale - SMALLEST_SCALE
    return above + (-torch.expm1(-above)).log()


def normal_vector(parameters: Tensor) -> TorchDistributionMixin:
    """Independent normals `(batch, n)` from parameters `(batch, 2 n)`: n locations, then n numbers for the scales."""
    loc, scale = full_precision(parameters).chunk(2, -1)
    return Normal(loc, positive(scale)).to_event(1)
