"""The plain multilayer perceptron."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn


class MLP(nn.Sequential):
    """Linear layers of the given sizes with an activation between them and none after the last.

    `(batch, sizes[0])` to `(batch, sizes[-1])`. Raises ValueError for fewer than two sizes.
    """

    def __init__(self, sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        if len(sizes) < 2:
            raise ValueError(f"sizes: expected at least those of the input and the output, got {tuple(sizes)}; add one")
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), activation()]
        super().__init__(*layers[:-1])
