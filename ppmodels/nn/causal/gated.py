"""Gated layers in a vertical and a horizontal stack, without a blind spot (van den Oord et al., 2016, arXiv 1606.05328)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ppmodels.nn.causal.convolution import Mask, MaskedConv
from ppmodels.nn.causal.layer import Causal, Incremental, SamplingInputs


def gate(x: Tensor) -> Tensor:
    """tanh of the first half of the features times the sigmoid of the second."""
    first, second = x.chunk(2, 1)
    return first.tanh() * second.sigmoid()


class VerticalConv(nn.Module):
    """A convolution over rows above and all their columns; over the pixel's own row as well where `inclusive`.

    Its inputs are of the vertical stack, which at a row knows the rows above it only.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, inclusive: bool, context: int = 0) -> None:
        super().__init__()
        self.rows, self.reach = kernel // 2, kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, (self.rows + inclusive, kernel))
        self.context = nn.Conv2d(context, outputs, 1, bias=False) if context else None

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """All rows' outputs."""
        y = conv2d(x, self.conv.weight, self.conv.bias, padding=(self.rows, self.reach))[:, :, : x.shape[2]]
        return y if self.context is None else y + self.context(context)

    def row(self, rows: Tensor, context: Tensor | None) -> Tensor:
        """One row's outputs `(n, outputs, 1, width)`, from as many rows of inputs as it sees."""
        y = conv2d(rows, self.conv.weight, self.conv.bias, padding=(0, self.reach))
        return y if self.context is None else y + self.context(context)


class GatedLayer(nn.Module):
    """One layer of both stacks: the horizontal one sees the vertical one, never the other way."""

    def __init__(self, inputs: int, features: int, kernel: int, mask: Mask, channels: int, context: int) -> None:
        super().__init__()
        self.vertical = VerticalConv(inputs, 2 * features, kernel, mask is Mask.B, context)
        self.link = nn.Conv2d(2 * features, 2 * features, 1)
        self.horizontal = MaskedConv(inputs, 2 * features, kernel, mask, channels, 2, context, rows=0)
        self.out = MaskedConv(features, features, 1, Mask.B, channels)
        self.residual = mask is Mask.B

    def forward(self, v: Tensor, h: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The two stacks after this layer."""
        seen = self.vertical(v, context)
        y = self.out(gate(self.horizontal(h, context) + self.link(seen)), None)
        return gate(seen), h + y if self.residual else y


class GatedLayers(Causal):
    """A first layer of kernel `first` that hides the pixel itself, then `layers` of kernel `kernel` with residuals."""

    def __init__(
        self, inputs: int, features: int, layers: int, first: int, kernel: int, channels: int = 1, context: int = 0
    ) -> None:
        super().__init__()
        begin = GatedLayer(inputs, features, first, Mask.A, channels, context)
        others = [GatedLayer(features, features, kernel, Mask.B, channels, context) for _ in range(layers)]
        self.layers: Sequence[GatedLayer] = nn.ModuleList([begin, *others])  # type: ignore[assignment]

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The horizontal stack's features."""
        v, h = x, x
        for layer in self.layers:
            v, h = layer(v, h, context)
        return h

    def incremental(self, sampling: SamplingInputs) -> "IncrementalGated":
        """At the first pixel."""
        return IncrementalGated(self, sampling)


class IncrementalGated(Incremental):
    """Both stacks, incrementally: the vertical one row by row, with a cache of as many rows as a kernel sees."""

    def __init__(self, layers: GatedLayers, sampling: SamplingInputs) -> None:
        self.layers = layers.layers
        self.context, self.done = sampling.context, 0
        self.horizontal = [layer.horizontal.incremental(sampling) for layer in self.layers]
        self.out = [layer.out.incremental(sampling) for layer in self.layers]
        self.rows = [
            layer.horizontal.weight.new_zeros(
                sampling.n, layer.horizontal.weight.shape[1], layer.vertical.rows, sampling.width
            )
            for layer in self.layers
        ]

    def row(self) -> None:
        """The vertical stack at this row, and what it contributes to the horizontal one."""
        context = self.context
        if context is not None and context.shape[2] > 1:
            context = context[:, :, self.done : self.done + 1]
        v = self.horizontal[0].finished  # the first layer sees rows strictly above: this is the last of them
        for index, layer in enumerate(self.layers):
            rows = torch.cat((self.rows[index], v), 2)
            self.rows[index] = rows[:, :, 1:]
            seen = layer.vertical.row(rows if layer.residual else self.rows[index], context)
            self.horizontal[index].row(layer.link(seen).squeeze(2))
            self.out[index].row()
            v = gate(seen)
        self.done += 1

    def pixel(self, column: int, x: Tensor) -> Tensor:
        """The horizontal stack at this column."""
        h = x
        for layer, horizontal, out in zip(self.layers, self.horizontal, self.out, strict=True):
            y = out.pixel(column, gate(horizontal.pixel(column, h)))
            h = h + y if layer.residual else y
        return h

    def known(self, column: int, x: Tensor) -> None:
        """Passes them to the first layer."""
        self.horizontal[0].known(column, x)
