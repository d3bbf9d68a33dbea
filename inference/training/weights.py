"""The weights and buffers of a step: copied before it, restored where it fails; weights are finite after it."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Weights:
    """Parameters and buffers, and a copy of them."""

    def __init__(self, parameters: list[nn.Parameter], buffers: Iterable[Tensor] = ()) -> None:
        self._parameters: list[Tensor] = [*parameters]
        self._kept = [parameter.detach().clone() for parameter in parameters]
        # Apart from the parameters: copies of several dtypes take longer. A constant that is expanded takes no writing.
        self._buffers = [buffer for buffer in buffers if 0 not in buffer.stride()]
        self._kept_buffers = [buffer.detach().clone() for buffer in self._buffers]

    def are_of(self, parameters: list[nn.Parameter]) -> bool:
        """Whether these are the same parameters, and not only equal ones."""
        return list(map(id, parameters)) == list(map(id, self._parameters))

    @torch.no_grad()
    def keep(self) -> None:
        """Copies all as it is now."""
        torch._foreach_copy_(self._kept, self._parameters)
        if self._buffers:
            torch._foreach_copy_(self._kept_buffers, self._buffers)

    @torch.no_grad()
    def put_back(self) -> None:
        """Restores all from the copy."""
        torch._foreach_copy_(self._parameters, self._kept)
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._kept_buffers)

    @torch.no_grad()
    def are_finite(self) -> bool:
        """Whether all parameters are finite, by their sum: half the time of a norm."""
        sums = [each.sum(dtype=torch.promote_types(each.dtype, torch.float32)) for each in self._parameters]
        return math.isfinite(torch.stack(sums).sum().abs())


def norm_of(tensors: list[Tensor]) -> Tensor:
    """The norm of all entries, as a 0-d tensor; torch's own function takes twice as long on small networks."""
    return torch.stack(torch._foreach_norm(tensors)).norm() if tensors else torch.zeros(())
