"""An LSTM over the pixels as one long sequence."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ppmodels.nn.causal.convolution import Mask, MaskedConv
from ppmodels.nn.causal.layer import Causal, Start, Walk


class RasterLSTM(Causal):
    """An LSTM along the rows, one after the other, each pixel given those before; no notion of above.

    A pixel's own earlier colour channels are added to the LSTM's outputs; context maps are inputs too.
    """

    def __init__(self, inputs: int, hidden: int, layers: int = 1, channels: int = 1, context: int = 0) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs + context, hidden, layers)
        self.own = MaskedConv(inputs, hidden, 1, Mask.A, channels, 1, context)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The outputs `(n, hidden, height, width)`."""
        before = pad(x.flatten(2)[:, :, :-1], (1, 0)).unflatten(2, x.shape[2:])
        if context is not None:
            before = torch.cat((before, context.expand(-1, -1, *x.shape[2:])), 1)
        found, _ = self.lstm(before.flatten(2).permute(2, 0, 1))
        return found.permute(1, 2, 0).unflatten(2, x.shape[2:]) + self.own(x, context)

    def walk(self, start: Start) -> "RasterLSTMWalk":
        """At the first pixel."""
        return RasterLSTMWalk(self, start)


class RasterLSTMWalk(Walk):
    """An LSTM on a walk: carries its state, and the pixel before."""

    def __init__(self, layer: RasterLSTM, start: Start) -> None:
        self.lstm, self.own, self.context = layer.lstm, layer.own.walk(start), start.context
        self.latest = layer.own.weight.new_zeros(start.n, layer.own.weight.shape[1])
        self.state: tuple[Tensor, Tensor] | None = None
        self.at, self.done = -1, -1

    def row(self) -> None:
        """Nothing but the place changes."""
        self.own.row()
        self.at, self.done = -1, self.done + 1

    def pixel(self, column: int, x: Tensor) -> Tensor:
        """The LSTM goes on by the pixel before, once for each column."""
        if column != self.at:
            inputs = self.latest
            if self.context is not None:
                inputs = torch.cat((inputs, self._context(column)), 1)
            output, self.state = self.lstm(inputs.unsqueeze(0), self.state)
            self.output, self.at = output.squeeze(0), column
        return self.output + self.own.pixel(column, x)

    def known(self, column: int, x: Tensor) -> None:
        """What the LSTM goes on by next."""
        self.latest = x

    def _context(self, column: int) -> Tensor:
        assert self.context is not None
        constant = self.context.shape[2] == 1
        return self.context[:, :, 0, 0] if constant else self.context[:, :, self.done, column]
