"""A causal layer in its two forms, one pass and incremental, and how layers are put together.

In one pass a layer maps `(n, inputs, height, width)` to `(n, outputs, height, width)`. Incrementally it maps the inputs
`(n, inputs)` of one pixel after the other, in raster order, to that pixel's outputs, and caches what it needs of the
pixels before (Ramachandran et al., 2017, arXiv 1704.06001). Both give the same numbers.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class SamplingInputs(NamedTuple):
    """What incremental sampling starts from: the number of images, their width, and their context maps."""

    n: int
    width: int
    context: Tensor | None


class Incremental(ABC):
    """A layer in incremental sampling: run from pixel to pixel, with a cache of what it needs of the pixels before."""

    @abstractmethod
    def row(self) -> None:
        """The next row begins (also the first): the rows above are complete."""

    @abstractmethod
    def pixel(self, column: int, x: Tensor) -> Tensor:
        """The outputs `(n, outputs)` at this column, given its inputs `(n, inputs)`.

        May be called again for the same column, with inputs that know more of the pixel's channels: the last call counts.
        """

    def known(self, column: int, x: Tensor) -> None:
        """Takes the column's inputs with all channels known; asked of a network's first layer, which saw only some."""
        raise NotImplementedError(
            f"{type(self).__name__}: expected a network's first layer to hide the pixel itself, as Mask.A does, got one "
            "that does not; put a MaskedConv before it"
        )


class Causal(nn.Module, ABC):
    """A layer whose outputs at a pixel depend on its inputs there and at the pixels before, in raster order.

    `context` is `(n, context, height, width)`, or `(n, context, 1, 1)` where it is the same everywhere, or None.
    """

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """All pixels' outputs in one pass."""

    @abstractmethod
    def incremental(self, sampling: SamplingInputs) -> Incremental:
        """The layer at the first pixel, with its parameters as they are now."""


class Sequential(Causal):
    """Layers one after another."""

    def __init__(self, *layers: Causal) -> None:
        super().__init__()
        self.layers: Sequence[Causal] = nn.ModuleList(layers)  # type: ignore[assignment]

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Each layer's outputs are the next one's inputs."""
        for layer in self.layers:
            x = layer(x, context)
        return x

    def incremental(self, sampling: SamplingInputs) -> "IncrementalSequential":
        """Every layer at the first pixel."""
        return IncrementalSequential([layer.incremental(sampling) for layer in self.layers])


class IncrementalSequential(Incremental):
    """Incremental layers one after another."""

    def __init__(self, layers: list[Incremental]) -> None:
        self.layers = layers

    def row(self) -> None:
        """Begins the row in every layer."""
        for layer in self.layers:
            layer.row()

    def pixel(self, column: int, x: Tensor) -> Tensor:
        """The last layer's outputs."""
        for layer in self.layers:
            x = layer.pixel(column, x)
        return x

    def known(self, column: int, x: Tensor) -> None:
        """Passes the inputs to the first layer."""
        self.layers[0].known(column, x)


class Residual(Sequential):
    """Layers whose outputs are added to their inputs."""

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """x plus the layers' outputs."""
        return x + super().forward(x, context)

    def incremental(self, sampling: SamplingInputs) -> "IncrementalResidual":
        """Every layer at the first pixel."""
        return IncrementalResidual([layer.incremental(sampling) for layer in self.layers])


class IncrementalResidual(IncrementalSequential):
    """Incremental layers whose outputs are added to their inputs."""

    def pixel(self, column: int, x: Tensor) -> Tensor:
        """x plus the layers' outputs."""
        return x + super().pixel(column, x)


class ReLU(Causal):
    """Rectified linear units."""

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """max(x, 0)."""
        return x.relu()

    def incremental(self, sampling: SamplingInputs) -> "IncrementalReLU":
        """At the first pixel."""
        return IncrementalReLU()


class IncrementalReLU(Incremental):
    """Rectified linear units, which have nothing to cache."""

    def row(self) -> None:
        """Does nothing."""

    def pixel(self, column: int, x: Tensor) -> Tensor:
        """max(x, 0)."""
        return x.relu()
