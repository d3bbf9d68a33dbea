"""A normalising flow as the whole model: tables of real numbers, without latents."""

from collections.abc import Sequence

import pyro
from torch import Tensor, nn

from ppmodels.nn.conditioning import check_examples, one_hot
from ppmodels.nn.flows import FlowDistribution, import_zuko, spline_flow
from ppmodels.nn.parameters import without_autocast


class Flow(nn.Module):
    """p(x), or p(x | y), as an autoregressive neural spline flow (Durkan et al., 2019, arXiv 1906.04032).

    A normal, through `transforms` monotone splines of `bins` pieces, whose knots a network of `hidden` units gives from the
    features before, then a location and scale of each feature. x is `(batch, features)`, real numbers: the splines bend
    what is within 5 of the scaled 0, so that features are best standardised. With `classes`, labels y, int64 `(batch,)`.

    `forward(y)` returns the distribution; `model` observes x under it, and `guide` has nothing to draw, so that the ELBO is
    log p(x). A density takes one pass a transform, a draw one a feature and transform. Raises ImportError without zuko.
    """

    def __init__(
        self,
        features: int,
        transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
        bins: int = 8,
        classes: int = 0,
    ) -> None:
        zuko = import_zuko(type(self).__name__)
        super().__init__()
        for name, value, least in (("features", features, 1), ("transforms", transforms, 1), ("bins", bins, 2)):
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        self.features, self.classes = features, classes
        self.flow = spline_flow(zuko, features, classes, transforms, hidden, bins=bins)

    def forward(self, y: Tensor | None = None) -> FlowDistribution:
        """The distribution over x; given labels one-hot, `(batch, classes)`, one for each."""
        like = next(self.parameters())
        with without_autocast(like):
            return FlowDistribution(self.flow(y))

    def model(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Observes x, and returns it (or a draw of it, where the observation is lifted)."""
        check_examples(x, (self.features,), type(self).__name__)
        label = one_hot(x, y, self.classes, type(self).__name__)
        with pyro.plate("data", len(x)):
            drawn: Tensor = pyro.sample("x", self(label), obs=x)
        return drawn

    def guide(self, x: Tensor, y: Tensor | None = None) -> None:
        """Nothing: there are no latent variables."""
