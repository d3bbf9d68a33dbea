"""The weights of a step: copied before it, restored where it fails, and checked to be finite after it."""

import math

import torch
from torch import Tensor, nn


class Weights:
    """Parameters, and a copy of them."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self._parameters: list[Tensor] = [*parameters]
        self._kept = [parameter.detach().clone() for parameter in parameters]

    def are_of(self, parameters: list[nn.Parameter]) -> bool:
        """Whether these are the same parameters, and not only equal ones."""
        return list(map(id, parameters)) == list(map(id, self._parameters))

    @torch.no_grad()
    def keep(self) -> None:
        """Copies the parameters as they are now."""
        torch._foreach_copy_(self._kept, self._parameters)

    @torch.no_grad()
    def put_back(self) -> None:
        """Restores the parameters from the copy."""
        torch._foreach_copy_(self._parameters, self._kept)

    @torch.no_grad()
    def are_finite(self) -> bool:
        """Whether all parameters are finite, by their sum: half the time of a norm."""
        sums = [each.sum(dtype=torch.promote_types(each.dtype, torch.float32)) for each in self._parameters]
        return math.isfinite(torch.stack(sums).sum().abs())


def norm_of(tensors: list[Tensor]) -> Tensor:
    """The norm of all entries, as a 0-d tensor; torch's own function takes twice as long on small networks."""
    return torch.stack(torch._foreach_norm(tensors)).norm() if tensors else torch.zeros(())
