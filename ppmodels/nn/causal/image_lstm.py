"""LSTMs over the two dimensions of an image (van den Oord et al., 2016, arXiv 1601.06759)."""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ppmodels.nn.causal.convolution import Mask, MaskedConv
from ppmodels.nn.causal.layer import Causal, Incremental, SamplingInputs
from ppmodels.nn.causal.lstm_scan import ScanOrder, cell, lstm_scan
from ppmodels.nn.parameters import full_precision, without_autocast


class RowLSTMLayer(Causal):
    """The Row LSTM: a row at a time, each cell given three outputs of the row above and the inputs at and left of it.

    Its context is a triangle above the pixel. The input-to-state part of all rows is one convolution.
    """

    def __init__(self, inputs: int, hidden: int, channels: int = 1, context: int = 0) -> None:
        super().__init__()
        self.input_to_state = MaskedConv(inputs, 4 * hidden, 3, Mask.B, channels, 4, context, rows=0)
        self.state_to_state = state_to_state(1, 3, hidden)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The outputs `(n, hidden, height, width)`."""
        n, _, height, width = x.shape
        inputs = full_precision(self.input_to_state.packed(x, context))
        order = ScanOrder(width, ((0, width),) * height, (-1, 0, 1))
        with without_autocast(x):
            found = lstm_scan(inputs.view(1, height * width * n, -1), self.state_to_state, order, n)
        return found.view(height, width, n, -1).permute(2, 3, 0, 1)

    def incremental(self, sampling: SamplingInputs) -> "IncrementalRowLSTM":
        """At the first pixel."""
        return IncrementalRowLSTM(self, sampling)


class IncrementalRowLSTM(Incremental):
    """A Row LSTM, incrementally: carries one row of outputs and states; the state-to-state part of a row is one product."""

    def __init__(self, layer: RowLSTMLayer, sampling: SamplingInputs) -> None:
        self.conv, self.weight = layer.input_to_state.incremental(sampling), layer.state_to_state[0]
        self.outputs = list(self.weight.new_zeros(sampling.width, sampling.n, self.weight.shape[1] // 4).unbind(0))
        self.states = list(self.outputs)

    def row(self) -> None:
        """What the row above contributes."""
        self.conv.row()
        self.before = self.states
        line = pad(torch.stack(self.outputs), (0, 0, 0, 0, 1, 1))
        self.above = (torch.cat((line[:-2], line[1:-1], line[2:]), -1) @ self.weight).unbind(0)
        self.outputs, self.states = list(self.outputs), list(self.states)

    def pixel(self, column: int, x: Tensor) -> Tensor:
        """One cell."""
        each = cell(self.conv.pixel(column, x) + self.above[column], self.before[column])
        self.outputs[column], self.states[column] = each.output, each.state
        return self.outputs[column]


class DiagonalBiLSTMLayer(Causal):
    """The Diagonal BiLSTM: two LSTMs that go down the image's diagonals, one from each upper corner.

    A cell is given the outputs above it and beside it: on the left, or in the other direction on the right. What comes from
    the right is moved down by a row, so that no later pixel is seen; together they see the inputs at every pixel before.
    Both directions are one batch, and a step computes the cells of one diagonal.
    """

    order: Tensor
    places: Tensor

    def __init__(self, inputs: int, hidden: int, size: tuple[int, int], channels: int = 1, context: int = 0) -> None:
        super().__init__()
        self.input_to_state = MaskedConv(inputs, 8 * hidden, 1, Mask.B, channels, 8, context)
        self.state_to_state = state_to_state(2, 2, hidden)
        self.scan_order, order = diagonals(*size)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("places", order.argsort(), persistent=False)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        """The outputs `(n, hidden, height, width)`."""
        n, _, height, width = x.shape
        cells = height * width
        inputs = full_precision(self.input_to_state.packed(x, context)).unflatten(3, (2, -1)).permute(3, 0, 1, 2, 4)
        packed = inputs.reshape(2 * cells, -1).index_select(0, self.order).view(2, cells * n, -1)
        with without_autocast(x):
            found = lstm_scan(packed, self.state_to_state, self.scan_order, n)
        left, right = found.view(2 * cells, -1).index_select(0, self.places).view(2, height, width, n, -1)
        return (left + pad(right[:-1], (0, 0) * 3 + (1, 0))).permute(2, 3, 0, 1)

    def incremental(self, sampling: SamplingInputs) -> "IncrementalDiagonalBiLSTM":
        """At the first pixel."""
        return IncrementalDiagonalBiLSTM(self, sampling)


class IncrementalDiagonalBiLSTM(Incremental):
    """A Diagonal BiLSTM, incrementally: carries a row of both directions, that from the right run when a row is done."""

    def __init__(self, layer: DiagonalBiLSTMLayer, sampling: SamplingInputs) -> None:
        self.conv = layer.input_to_state.incremental(sampling)
        self.hidden = layer.state_to_state.shape[2] // 4
        (self.up, self.beside), (self.up_right, self.beside_right) = layer.state_to_state.unflatten(1, (2, -1))
        self.nothing = layer.state_to_state.new_zeros(sampling.n, self.hidden)
        self.outputs = [self.nothing] * sampling.width
        self.outputs_right = list(self.outputs)
        self.states = list(self.outputs)
        self.inputs_right = [self.nothing.repeat(1, 4)] * sampling.width

    def row(self) -> None:
        """Runs the finished row from the right, then computes what it contributes to the next."""
        self.conv.row()
        above = torch.stack(self.outputs_right) @ self.up_right + torch.stack(self.inputs_right)
        output, state = self.nothing, self.nothing
        for column in reversed(range(len(self.outputs))):
            each = cell(torch.addmm(above[column], output, self.beside_right), state)
            output, state = each.output, each.state
            self.outputs_right[column] = output
        self.above = (torch.stack(self.outputs) @ self.up).unbind(0)

    def pixel(self, column: int, x: Tensor) -> Tensor:
        """One cell, and what came from the right in the row above."""
        inputs, self.inputs_right[column] = self.conv.pixel(column, x).chunk(2, -1)
        output, state = (self.outputs[column - 1], self.states[column - 1]) if column else (self.nothing, self.nothing)
        each = cell(torch.addmm(inputs + self.above[column], output, self.beside), state)
        self.outputs[column], self.states[column] = each.output, each.state
        return self.outputs[column] + self.outputs_right[column]


def diagonals(height: int, width: int) -> tuple[ScanOrder, Tensor]:
    """A scan along the diagonals, of a line with a position for each row; and the cells in the order of the scan.

    The cells `(2 * height * width,)` are those of both directions: (row, column) by diagonal row + column, then the same
    with columns from the right, as indices into `(2, height, width)`.
    """
    steps = [(max(0, each - width + 1), min(each, height - 1) + 1) for each in range(height + width - 1)]
    cells = [(row, each - row) for each, (first, last) in enumerate(steps) for row in range(first, last)]
    left = [row * width + column for row, column in cells]
    right = [height * width + row * width + width - 1 - column for row, column in cells]
    return ScanOrder(height, tuple(steps), (-1, 0)), torch.tensor(left + right)


def state_to_state(lines: int, neighbours: int, hidden: int) -> nn.Parameter:
    """Weights `(lines, neighbours * hidden, 4 * hidden)`, drawn as torch draws those of a convolution."""
    bound = 1 / sqrt(neighbours * hidden)
    return nn.Parameter(torch.empty(lines, neighbours * hidden, 4 * hidden).uniform_(-bound, bound))
