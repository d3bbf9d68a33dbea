"""Autoregressive models: sampling against a full forward per pixel, layers against plain loops, a training step compiled."""

import time
from collections.abc import Callable

import pyro
import torch
from torch import Tensor, nn

from benchmarks.timing import interleaved, milliseconds, ratio, synchronise
from inference import SVI, Compiled, Step, adam
from ppmodels import CharRNN, DiagonalBiLSTM, GatedPixelCNN, PixelCNN, RowLSTM
from ppmodels.nn.causal import AutoregressiveModel, DiagonalBiLSTMLayer, RowLSTMLayer

SIDE, BATCH = 28, 16


@torch.no_grad()
def naive_steps(model: AutoregressiveModel, x: Tensor, steps: int) -> None:
    """Some steps of sampling without a cache: a full forward pass, and the draw of one pixel."""
    _, height, width = model.shape
    for index in range(steps):
        row, column = divmod(index * height * width // steps, width)
        parameters = model.network(model.standardise(x), None)
        x[:, :, row, column] = model.draw(parameters[:, :, row, column])


def sampling(make: Callable[[], AutoregressiveModel], n: int, rounds: int = 4) -> str:
    """The time of a batch of samples, as the ratio of a full forward per pixel to it, and in forward passes."""
    model = make()
    pixels = model.shape[1] * model.shape[2]
    x = model.blank(n)
    few = 2
    naive, ours = [], []
    with pyro.validation_enabled(False), torch.no_grad():
        naive_steps(model, x, 1)
        for _ in range(rounds):
            synchronise()
            began = time.perf_counter()
            naive_steps(model, x, few)
            synchronise()
            naive.append((time.perf_counter() - began) / few)
            began = time.perf_counter()
            model().sample((n,))
            synchronise()
            ours.append(time.perf_counter() - began)
    whole = [pixels * each for each in naive]
    return (
        f"{ratio(whole, ours)} faster than a forward per pixel; {ratio(ours, naive)} forward passes; "
        f"{min(ours):.2f} s at its fastest"
    )


class PlainRowLSTM(nn.Module):
    """The Row LSTM row by row: both convolutions of a row at its turn."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input_to_state = nn.Conv1d(inputs, 4 * hidden, 2)
        self.state_to_state = nn.Conv1d(hidden, 4 * hidden, 3, padding=1, bias=False)
        self.hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), self.hidden, x.shape[3])
        rows = []
        for row in x.unbind(2):
            gates = self.input_to_state(nn.functional.pad(row, (1, 0))) + self.state_to_state(h)
            i, f, o, g = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            rows.append(h)
        return torch.stack(rows, 2)


class PlainDiagonal(nn.Module):
    """The Diagonal BiLSTM as in the paper: each map skewed row by row, then column by column at full height."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.input_to_state = nn.ModuleList(nn.Conv2d(inputs, 4 * hidden, 1) for _ in range(2))
        self.state_to_state = nn.ModuleList(nn.Conv1d(hidden, 4 * hidden, 2, bias=False) for _ in range(2))
        self.hidden = hidden

    def forward(self, x: Tensor) -> Tensor:
        left, right = self._direction(x, 0), self._direction(x.flip(3), 1).flip(3)
        return left + nn.functional.pad(right[:, :, :-1], (0, 0, 1, 0))

    def _direction(self, x: Tensor, index: int) -> Tensor:
        n, _, height, width = x.shape
        inputs = self.input_to_state[index](x)
        skewed = x.new_zeros(n, 4 * self.hidden, height, width + height - 1)
        for row in range(height):
            skewed[:, :, row, row : row + width] = inputs[:, :, row]
        h = c = x.new_zeros(n, self.hidden, height)
        columns = []
        for gates in skewed.unbind(3):
            gates = gates + self.state_to_state[index](nn.functional.pad(h, (1, 0)))
            i, f, o, g = gates.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            columns.append(h)
        found = torch.stack(columns, 3)
        return torch.stack([found[:, :, row, row : row + width] for row in range(height)], 2)


@torch.no_grad()
def given_the_same_weights(plain: PlainRowLSTM | PlainDiagonal, ours: RowLSTMLayer | DiagonalBiLSTMLayer) -> None:
    """Copies our weights into the plain loop."""
    weight, bias = ours.input_to_state.weight[:, :, 0], ours.input_to_state.bias
    lines = ours.state_to_state.unflatten(1, (-1, plain.hidden)).permute(0, 3, 2, 1)  # (line, 4 h, h, neighbour)
    if isinstance(plain, PlainRowLSTM):
        plain.input_to_state.weight.copy_(weight)
        plain.input_to_state.bias.copy_(bias)
        plain.state_to_state.weight.copy_(lines[0])
        return
    for index, (part, shift) in enumerate(zip(weight.chunk(2), bias.chunk(2), strict=True)):
        plain.input_to_state[index].weight.copy_(part.unsqueeze(-1))
        plain.input_to_state[index].bias.copy_(shift)
        plain.state_to_state[index].weight.copy_(lines[index])


def layers(device: str) -> None:
    """Forward and backward of the recurrent layers against the plain loops, once they are seen to give the same."""
    for hidden in (16, 32, 64):
        x = torch.randn(BATCH, 2 * hidden, SIDE, SIDE, device=device, requires_grad=True)
        things: dict[str, tuple[RowLSTMLayer | DiagonalBiLSTMLayer, PlainRowLSTM | PlainDiagonal, str]] = {
            "Row LSTM": (RowLSTMLayer(2 * hidden, hidden), PlainRowLSTM(2 * hidden, hidden), "0.9"),
            "Diagonal BiLSTM": (
                DiagonalBiLSTMLayer(2 * hidden, hidden, (SIDE, SIDE)),
                PlainDiagonal(2 * hidden, hidden),
                "0.35",
            ),
        }
        for name, (ours, plain, aim) in things.items():
            mine, theirs = ours.to(device), plain.to(device)
            given_the_same_weights(theirs, mine)
            torch.testing.assert_close(mine(x, None), theirs(x), atol=1e-4, rtol=1e-4)

            def run_ours(layer: nn.Module = mine, x: Tensor = x) -> None:
                layer(x, None).square().mean().backward()

            def run_plain(layer: nn.Module = theirs, x: Tensor = x) -> None:
                layer(x).square().mean().backward()

            times = interleaved({"ours": run_ours, "plain": run_plain}, rounds=12, calls=1)
            print(
                f"  {name}, h = {hidden}: ours / plain loop {ratio(times['ours'], times['plain'])}   aim {aim}   "
                f"(plain {milliseconds(times['plain'])})"
            )


def training(device: str) -> None:
    """A training step of a gated PixelCNN, eager against channels-last and compiled, and in half precision."""
    x = torch.randint(0, 2, (BATCH, 1, SIDE, SIDE), device=device).float()

    def step(fast: bool, half: bool) -> Callable[[], object]:
        model = GatedPixelCNN((1, SIDE, SIDE)).to(device)
        if fast:
            model = model.to(memory_format=torch.channels_last)
        options = {"differentiate": Compiled()} if fast else {}
        made = Step(SVI(model), adam(1e-3), autocast=torch.bfloat16 if half else None, **options)
        made.prepare(x)
        return lambda: made(x)

    with pyro.validation_enabled(False):
        times = interleaved(
            {
                "eager": step(False, False),
                "channels-last, compiled": step(True, False),
                "channels-last, compiled, bf16": step(True, True),
            },
            rounds=12,
            calls=1,
        )
    print(f"  gated PixelCNN, a training step at batch {BATCH}: eager {milliseconds(times['eager'])}")
    for name, aim in (("channels-last, compiled", "0.75"), ("channels-last, compiled, bf16", "0.5")):
        print(f"    {name} / eager: {ratio(times[name], times['eager'])}   aim {aim}")


def report(device: str) -> None:
    """Prints the ratios."""
    print(
        f"sampling, {SIDE}×{SIDE}, binary; the naive time is that of full forwards at a few of the pixels, times the pixels"
    )

    def gated(side: int) -> Callable[[], AutoregressiveModel]:
        return lambda: GatedPixelCNN((1, side, side), features=32, layers=5).to(device)

    print(f"  gated PixelCNN, batch 16: {sampling(gated(SIDE), 16)}   aim 150")
    print(f"  gated PixelCNN, batch 64: {sampling(gated(SIDE), 64)}   aim 300, 2 forward passes")
    for kind, aim in ((PixelCNN, "none"), (CharRNN, "50"), (RowLSTM, "50"), (DiagonalBiLSTM, "50")):
        print(f"  {kind.__name__}, batch 16: {sampling(lambda kind=kind: kind().to(device), 16)}   aim {aim}")
    for side in (8, 14, 28, 56):
        print(f"  gated PixelCNN, batch 16, {side}×{side}: {sampling(gated(side), 16, 2)}")
    print(f"layers, forward and backward, {SIDE}×{SIDE}, batch {BATCH}")
    layers(device)
    training(device)
