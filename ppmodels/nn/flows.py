"""Normalising flows on zuko (an optional extra): as a distribution of Pyro, and as the approximate posterior."""

from collections.abc import Sequence
from importlib import import_module
from math import prod
from types import ModuleType
from typing import Any, Self

import torch
from pyro.contrib.zuko import ZukoToPyro
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from ppmodels.distributions.levels import Shape
from ppmodels.nn.encoders import Encoder, Standardise
from ppmodels.nn.mlp import MLP
from ppmodels.nn.parameters import full_precision, without_autocast


class FlowDistribution(ZukoToPyro):
    """A zuko flow over vectors as a Pyro distribution with `rsample`, `sample`, `support` and `expand`.

    A draw's log-density is kept from the pass that drew it, unless that was made without gradients: it would have none.
    """

    dist: Any  # zuko is untyped
    support = constraints.real_vector

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Reparameterised draws of shape `sample_shape + batch_shape + event_shape`."""
        with without_autocast(self.dist.base.mean):
            z, log_q = self.dist.rsample_and_log_prob(torch.Size(sample_shape))
        if torch.is_grad_enabled():
            self.cache[z] = log_q
        return z

    def __call__(self, shape: Shape = ()) -> Tensor:
        """The same as `rsample`."""
        return self.rsample(shape)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of z, in nats, of shape `batch_shape` or that of z's batch dimensions."""
        with without_autocast(z):
            return super().log_prob(z)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Self:
        """The same flow over more batch dimensions."""
        return type(self)(self.dist.expand(torch.Size(batch_shape)))


class FlowEncoder(Encoder):
    """q(z | x) as a neural spline coupling flow after a normal's location and scale (Durkan et al., 2019, arXiv 1906.04032).

    Draws and densities both take two passes a transform. Scales lie within 1e-3 and 1e3. Raises ImportError without zuko.
    """

    def __init__(
        self,
        shape: Sequence[int],
        levels: int | None,
        latent: int,
        hidden: Sequence[int] = (200, 200),
        transforms: int = 3,
        context: int = 0,
        standardise: Standardise | None = None,
    ) -> None:
        zuko = import_zuko(type(self).__name__)
        super().__init__(shape, levels, latent, context, standardise)
        self.network = nn.Sequential(MLP((prod(shape) + context, *hidden)), nn.ReLU())
        self.flow = spline_flow(zuko, latent, hidden[-1], transforms, (64,), passes=2)

    def infer(self, x: Tensor, context: Tensor) -> FlowDistribution:
        """The flow, conditioned on the network's output for x."""
        found = full_precision(self.network(torch.cat((x.flatten(1), context), 1)))
        with without_autocast(found):
            return FlowDistribution(self.flow(found))


def spline_flow(
    zuko: ModuleType,
    features: int,
    context: int,
    transforms: int,
    hidden: Sequence[int],
    passes: int | None = None,
    bins: int = 8,
) -> nn.Module:
    """A lazy flow of zuko's: a location and scale of each feature, then rational-quadratic splines on [-5, 5] and a normal.

    A transform is drawn from in `passes` passes: 2 are couplings; None, one a feature, is autoregressive. A density is one.
    """
    options = {} if passes is None else {"passes": passes}  # of one feature zuko knows no passes
    spline = zuko.flows.NSF(features, context, bins, transforms=transforms, hidden_features=tuple(hidden), **options)
    affine = zuko.flows.ElementWiseTransform(features, context, hidden_features=())
    flow: nn.Module = zuko.lazy.Flow([affine, *spline.transform.transforms], spline.base)
    return flow


def import_zuko(model: str) -> ModuleType:
    """zuko, imported without its switching off the validation of distributions; ImportError names `model` and the extra."""
    validated = Distribution._validate_args
    try:
        return import_module("zuko")
    except ImportError as error:
        raise ImportError(f'{model} needs zuko, which is optional: pip install "ppmodels[flows]"') from error
    finally:
        Distribution.set_default_validate_args(validated)
