"""Masked convolutions (van den Oord et al., 2016, arXiv 1601.06759)."""

from collections.abc import Sequence
from enum import Enum

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad

from ppmodels.nn.causal.layer import Causal, Incremental, SamplingInputs


class Mask(Enum):
    """What a convolution sees of its own pixel: the channels before an output's own, or its own as well."""

    A = "A"
    B = "B"


def channel_of(features: int, channels: int, blocks: int = 1) -> Tensor:
    """The colour channel that each of `features` belongs to, int64: `blocks` blocks, each split evenly in order."""
    size = features // blocks
    if features % blocks or size < channels:
        raise ValueError(
            f"features: expected {blocks} equal blocks of at least {channels}, one feature for each colour channel, "
            f"got {features} features; give more"
        )
    return (torch.arange(size) * channels // size).repeat(blocks)


class MaskedConv(Causal):
    """A convolution of odd width `kernel` over the rows above, the pixels to the left and, by `mask`, the pixel itself.

    Features are split evenly among `channels` colour channels, outputs in `blocks` equal blocks each; with one channel
    a pixel is a unit, and Mask.A hides it whole. `rows` is how many rows above are seen, by default kernel // 2. That
    many maps of `context` are added, through weights of their own.
    """

    mask: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        mask: Mask,
        channels: int = 1,
        blocks: int = 1,
        context: int = 0,
        rows: int | None = None,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel: expected an odd width, got {kernel}; take {kernel + 1}")
        self.reach = kernel // 2
        self.rows = self.reach if rows is None else rows
        columns = kernel if self.rows else self.reach + 1  # in its own row a pixel sees nothing to the right
        drawn = nn.Conv2d(inputs, outputs, (self.rows + 1, columns))
        assert drawn.bias is not None
        self.weight, self.bias = drawn.weight, drawn.bias
        self.context = nn.Conv2d(context, outputs, 1, bias=False) if context else None
        self.register_buffer("mask", self._mask(mask, channels, blocks), persistent=False)

    def _mask(self, mask: Mask, channels: int, blocks: int) -> Tensor:
        seen = torch.ones_like(self.weight)
        outputs, inputs, _, _ = seen.shape
        seen[:, :, -1, self.reach + 1 :] = 0
        before, after = channel_of(inputs, channels), channel_of(outputs, channels, blocks).unsqueeze(1)
        seen[:, :, -1, self.reach] = (before < after if mask is Mask.A else before <= after).to(seen.dtype)
        return seen

    @property
    def masked(self) -> Tensor:
        """The weights, zero where the mask is."""
        return self.weight * self.mask

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """All pixels' outputs."""
        # Padding is the same on both sides, so there are too many rows, or columns, at the end.
        y = conv2d(x, self.masked, self.bias, padding=(self.rows, self.reach))[:, :, : x.shape[2], : x.shape[3]]
        return y if self.context is None else y + self.context(context)

    def packed(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The outputs as `(height, width, n, outputs)`, by one product; only of a convolution that sees no rows above."""
        x = pad(x.permute(2, 3, 0, 1), (0, 0, 0, 0, self.reach, 0))
        width = x.shape[1] - self.reach
        window = torch.cat([x[:, tap : tap + width] for tap in range(self.reach + 1)], -1)
        y = linear(window, self.masked[:, :, 0].transpose(1, 2).flatten(1), self.bias)
        return y if self.context is None else y + self.context(context).permute(2, 3, 0, 1)

    def incremental(self, sampling: SamplingInputs) -> "IncrementalConv":
        """At the first pixel."""
        return IncrementalConv(self, sampling)


class IncrementalConv(Incremental):
    """A masked convolution, incrementally: what the rows above contribute is computed for a whole row at once."""

    def __init__(self, conv: MaskedConv, sampling: SamplingInputs) -> None:
        self.conv, self.n, self.width, self.context = conv, sampling.n, sampling.width, sampling.context
        weight = conv.masked
        outputs, self.inputs, _, _ = weight.shape
        self.above = weight[:, :, :-1]
        self.here = weight[:, :, -1, : conv.reach + 1].permute(2, 1, 0).reshape(-1, outputs).contiguous()
        self.rows = weight.new_zeros(self.n, self.inputs, conv.rows, self.width)
        # Pixels side by side, the reach to the left of the first column included, so that a window is a slice: the
        # views of all columns are made once, as making one takes as long as a small product.
        self.current = weight.new_zeros(self.n, (conv.reach + self.width) * self.inputs)
        self.slots = self.current.split(self.inputs, 1)[conv.reach :]
        self.windows = self.current.unfold(1, self.here.shape[0], self.inputs).unbind(1)
        self.base: Sequence[Tensor] = ()
        self.done = 0

    @property
    def finished(self) -> Tensor:
        """The inputs of the row that was sampled last, `(n, inputs, 1, width)`; 0 before the first."""
        pixels = self.current.unflatten(1, (-1, self.inputs))[:, self.conv.reach :]
        return pixels.permute(0, 2, 1).unsqueeze(2)

    def row(self, more: Tensor | None = None) -> None:
        """Moves the finished row to those above; `more` `(n, outputs, width)` is added to the new row's outputs."""
        if self.conv.rows:
            self.rows = torch.cat((self.rows[:, :, 1:], self.finished), 2)
        base = self._base(self.done)
        base = base if more is None else base + more
        self.base = base.expand(self.n, -1, self.width).permute(2, 0, 1).contiguous().unbind(0)
        self.done += 1

    def pixel(self, column: int, x: Tensor) -> Tensor:
        """The contribution of the rows above, and that of the pixels to the left."""
        if not (self.conv.reach or self.conv.rows):
            return torch.addmm(self.base[column], x, self.here)
        self.slots[column].copy_(x)
        return torch.addmm(self.base[column], self.windows[column], self.here)

    def known(self, column: int, x: Tensor) -> None:
        """Keeps the inputs for the pixels after."""
        self.slots[column].copy_(x)

    def _base(self, row: int) -> Tensor:
        """What does not depend on this row's pixels, `(n or 1, outputs, width or 1)`."""
        base = self.conv.bias.view(1, -1, 1)
        if self.conv.rows:
            base = base + conv2d(self.rows, self.above, padding=(0, self.conv.reach)).squeeze(2)
        if self.conv.context is not None:
            assert self.context is not None
            maps = self.context if self.context.shape[2] == 1 else self.context[:, :, row : row + 1]
            base = base + self.conv.context(maps).squeeze(2)
        return base
