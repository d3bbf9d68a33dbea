"""An LSTM that scans a line of positions: the recurrence of the Row LSTM and of the Diagonal BiLSTM.

A step updates a range of neighbouring positions at once. Each cell sees the outputs of the step before at its own position
plus each of the offsets, and the cell state of its own position; beyond the range of that step they are 0. Cells are
packed in the order of the steps, so that a step is a slice.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function


class ScanOrder(NamedTuple):
    """Which of a line's `positions` each step of a scan updates, as (first, last + 1), and the offsets that a cell sees."""

    positions: int
    steps: tuple[tuple[int, int], ...]
    offsets: tuple[int, ...]


class Cell(NamedTuple):
    """What an LSTM cell computes: its three gates together, its candidate, its new state, and the tanh of that."""

    gates: Tensor
    candidate: Tensor
    state: Tensor
    squashed: Tensor

    @property
    def output(self) -> Tensor:
        """`(..., h)`: the cell's output."""
        return self.gates[..., 2 * self.state.shape[-1] :] * self.squashed


def cell(inputs: Tensor, before: Tensor) -> Cell:
    """The LSTM cell (Hochreiter & Schmidhuber, 1997, with a forget gate).

    `inputs` `(..., 4 h)` are those of the input, forget and output gate and of the candidate; `before` `(..., h)` is the
    state.
    """
    h = before.shape[-1]
    gates, candidate = inputs[..., : 3 * h].sigmoid(), inputs[..., 3 * h :].tanh()
    state = torch.addcmul(gates[..., h : 2 * h] * before, gates[..., :h], candidate)
    return Cell(gates, candidate, state, state.tanh())


def lstm_scan(inputs: Tensor, weight: Tensor, order: ScanOrder, n: int) -> Tensor:
    """The outputs `(lines, cells * n, h)` of LSTMs that scan `lines` lines at once, each with weights of its own.

    `inputs` `(lines, cells * n, 4 h)` is the input-to-state part of the cells, packed by step, then position, then example;
    `weight` `(lines, offsets * h, 4 h)` the state-to-state part. Differentiable once.
    """
    found: Tensor = _Scan.apply(inputs, weight, order, n)
    return found


class _Scan(Function):
    """The backward pass is written by hand: the weights' gradient is one product, and steps leave no graph behind."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, order: ScanOrder, n: int) -> Tensor:
        lines, _, h = inputs.shape[0], inputs.shape[1], inputs.shape[2] // 4
        margin = max(map(abs, order.offsets))
        outputs = inputs.new_zeros(lines, (order.positions + 2 * margin) * n, h)
        states = inputs.new_zeros(lines, order.positions * n, h)
        kept: list[Tensor] = []
        made: list[Tensor] = []
        done = 0
        for first, last in order.steps:
            size = (last - first) * n
            window = torch.cat(_windows(outputs, first + margin, last + margin, order.offsets, n), -1)
            before = states[:, first * n : last * n].clone()
            each = cell(torch.baddbmm(inputs[:, done : done + size], window, weight), before)
            output = each.output
            outputs[:, (first + margin) * n : (last + margin) * n] = output
            states[:, first * n : last * n] = each.state
            made.append(output)
            kept += [window, before, *each]
            done += size
        ctx.save_for_backward(weight, *kept)
        ctx.order, ctx.n = order, n
        return torch.cat(made, 1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        if torch.is_grad_enabled():  # only where a gradient of the gradient is asked for
            raise NotImplementedError(
                "the Row LSTM and the Diagonal BiLSTM are differentiable once: take no create_graph"
            )
        weight, *kept = ctx.saved_tensors
        order, n = ctx.order, ctx.n
        lines, h = grad.shape[0], grad.shape[2]
        margin = max(map(abs, order.offsets))
        of_outputs = grad.new_zeros(lines, (order.positions + 2 * margin) * n, h)
        of_states = grad.new_zeros(lines, order.positions * n, h)
        transposed = weight.transpose(1, 2)
        of_inputs, of_weight = grad.new_empty(lines, grad.shape[1], 4 * h), torch.zeros_like(weight)
        done = grad.shape[1]
        for step in reversed(range(len(order.steps))):
            first, last = order.steps[step]
            size, here = (last - first) * n, slice(first * n, last * n)
            seen, before, *parts = kept[6 * step : 6 * step + 6]
            output = grad[:, done - size : done] + of_outputs[:, (first + margin) * n : (last + margin) * n]
            gradient = of_inputs[:, done - size : done]
            of_states[:, here] = _cell_backward(output, of_states[:, here], before, Cell(*parts), gradient)
            of_window = torch.bmm(gradient, transposed).chunk(len(order.offsets), -1)
            of_weight.baddbmm_(seen.transpose(1, 2), gradient)
            of_outputs.zero_()
            windows = _windows(of_outputs, first + margin, last + margin, order.offsets, n)
            for window, part in zip(windows, of_window, strict=True):
                window += part
            done -= size
        return of_inputs, of_weight, None, None


def _windows(line: Tensor, first: int, last: int, offsets: tuple[int, ...], n: int) -> list[Tensor]:
    return [line[:, (first + offset) * n : (last + offset) * n] for offset in offsets]


def _cell_backward(of_output: Tensor, of_state: Tensor, before: Tensor, each: Cell, of_inputs: Tensor) -> Tensor:
    """Writes the gradient of a cell's inputs, from those of its output and state; gives that of the state before it."""
    h = before.shape[-1]
    take, keep, show = each.gates.chunk(3, -1)
    of_state = of_state + torch.ops.aten.tanh_backward(of_output * show, each.squashed)
    of_gates = of_inputs[..., : 3 * h]
    of_gates[..., :h] = of_state * each.candidate
    of_gates[..., h : 2 * h] = of_state * before
    of_gates[..., 2 * h :] = of_output * each.squashed
    of_gates.copy_(torch.ops.aten.sigmoid_backward(of_gates, each.gates))
    of_inputs[..., 3 * h :] = torch.ops.aten.tanh_backward(of_state * take, each.candidate)
    return of_state * keep
