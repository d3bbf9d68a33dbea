"""The passes of a network that wait for one another, where they can be counted by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ppmodels.app.study.passes import sequential_passes


class Layers(nn.Module):
    """Two layers, in several orders."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.cell = nn.LSTMCell(3, 3)
        self.register_buffer("mask", torch.eye(3))

    def decoded(self) -> Tensor:
        return self.second(self.first(torch.randn(2, 3)).relu())

    def in_turn(self) -> Tensor:
        x = torch.zeros(2, 3)
        for _ in range(5):
            x = self.first(x).tanh()
        return x

    def side_by_side(self) -> Tensor:
        x = torch.randn(2, 3)
        return sum((self.first(x + shift) for shift in range(4)), torch.zeros(2, 3))

    def unrolled(self) -> Tensor:
        state = torch.zeros(2, 3), torch.zeros(2, 3)
        for _ in range(7):
            state = self.cell(torch.randn(2, 3), state)
        return state[0]

    def masked(self) -> Tensor:
        """One value after the other, by weights that are masked once, and written into the canvas."""
        weight = (self.first.weight * self.mask)[:, :2]
        canvas = self.first.weight.new_zeros(2, 6)
        for place in range(6):
            hidden = canvas[:, :2] @ weight.T
            canvas[:, place] = torch.bernoulli(hidden.sum(1).sigmoid())
        return canvas

    def drawn_around_a_parameter(self) -> Tensor:
        """A draw is data, whatever its parameters are made of."""
        return self.second(torch.normal(self.first.bias.exp(), self.first.bias.exp()))

    def without(self) -> Tensor:
        return torch.randn(3).exp()


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (Layers.decoded, 1),
        (Layers.in_turn, 5),
        (Layers.side_by_side, 1),
        (Layers.unrolled, 7),
        (Layers.masked, 6),
        (Layers.drawn_around_a_parameter, 1),
        (Layers.without, 0),
    ],
)
def test_passes_that_wait_are_counted(compute: Callable[[Layers], Tensor], expected: int) -> None:
    torch.manual_seed(0)
    module = Layers()
    with torch.no_grad():
        assert sequential_passes(module, lambda: compute(module)) == expected
