"""The pixels as one long sequence, in which the last of a row comes just before the first of the next."""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ppmodels.nn.causal.convolution import Mask, MaskedConv
from ppmodels.nn.causal.layer import Causal, Incremental, SamplingInputs
from ppmodels.nn.parameters import full_precision, without_autocast


def pixel_before(x: Tensor) -> Tensor:
    """Maps `(n, inputs, height, width)` moved on by one pixel along the raster; the first pixel has 0 before it."""
    return pad(x.flatten(2)[:, :, :-1], (1, 0)).unflatten(2, x.shape[2:])


class WrappedConv(Causal):
    """A masked convolution, plus a 1×1 one of the pixel before along the raster: at a row's start, the last one above.

    Two LSTMs from the upper corners would not bring that pixel there: what comes from the right starts with features that
    hide their own pixel.
    """

    def __init__(self, conv: MaskedConv) -> None:
        super().__init__()
        outputs, inputs, _, _ = conv.weight.shape
        self.conv, self.before = conv, nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """All pixels' outputs."""
        found: Tensor = self.conv(x, context) + self.before(pixel_before(x))
        return found

    def incremental(self, sampling: SamplingInputs) -> "IncrementalWrapped":
        """At the first pixel."""
        return IncrementalWrapped(self, sampling)


class IncrementalWrapped(Incremental):
    """The convolution, incrementally, and the pixel before."""

    def __init__(self, layer: WrappedConv, sampling: SamplingInputs) -> None:
        self.conv, self.weight = layer.conv.incremental(sampling), layer.before.weight[:, :, 0, 0].T
        self.latest = self.weight.new_zeros(sampling.n, len(self.weight))

    def row(self) -> None:
        """The convolution's row begins; the pixel before stays."""
        self.conv.row()

    def pixel(self, column: int, x: Tensor) -> Tensor:
        """Both parts."""
        return torch.addmm(self.conv.pixel(column, x), self.latest, self.weight)

    def known(self, column: int, x: Tensor) -> None:
        """Passes them to the convolution, and keeps them for the next pixel."""
        self.conv.known(column, x)
        self.latest = x


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
        before = pixel_before(x)
        if context is not None:
            before = torch.cat((before, context.expand(-1, -1, *x.shape[2:])), 1)
        found, _ = _run(self.lstm, before.flatten(2).permute(2, 0, 1), None)
        return found.permute(1, 2, 0).unflatten(2, x.shape[2:]) + self.own(x, context)

    def incremental(self, sampling: SamplingInputs) -> "IncrementalRasterLSTM":
        """At the first pixel."""
        return IncrementalRasterLSTM(self, sampling)


class IncrementalRasterLSTM(Incremental):
    """An LSTM, incrementally: carries its state, and the pixel before."""

    def __init__(self, layer: RasterLSTM, sampling: SamplingInputs) -> None:
        self.lstm, self.own, self.context = layer.lstm, layer.own.incremental(sampling), sampling.context
        self.latest = layer.own.weight.new_zeros(sampling.n, layer.own.weight.shape[1])
        self.state: tuple[Tensor, Tensor] | None = None
        self.at, self.done = -1, -1

    def row(self) -> None:
        """Moves on to the next row; the LSTM's state stays."""
        self.own.row()
        self.at, self.done = -1, self.done + 1

    def pixel(self, column: int, x: Tensor) -> Tensor:
        """The LSTM takes the pixel before as its input, once for each column."""
        if column != self.at:
            inputs = self.latest
            if self.context is not None:
                inputs = torch.cat((inputs, self._context(column)), 1)
            output, self.state = _run(self.lstm, inputs.unsqueeze(0), self.state)
            self.output, self.at = output.squeeze(0), column
        return self.output + self.own.pixel(column, x)

    def known(self, column: int, x: Tensor) -> None:
        """Keeps them as the LSTM's next input."""
        self.latest = x

    def _context(self, column: int) -> Tensor:
        assert self.context is not None
        _, _, height, width = self.context.shape
        return self.context[:, :, self.done if height > 1 else 0, column if width > 1 else 0]


def _run(lstm: nn.LSTM, inputs: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The LSTM's outputs and state; on a CPU in full precision, as some processors have no other LSTM (torch 2.13)."""
    found: tuple[Tensor, tuple[Tensor, Tensor]]
    if inputs.device.type == "cpu":
        with without_autocast(inputs):
            found = lstm(full_precision(inputs), state)
    else:
        found = lstm(inputs, state)
    return found
