"""Whether a program may be trained on batches that differ."""

import math
from collections.abc import Hashable

import torch
from torch import Tensor

from inference.objectives.objective import Objective
from inference.programs.dataset import Scope
from inference.programs.entries import Examples, layout, leaves, rows_of
from inference.programs.program import ProgramError

_WAYS_OUT = (
    "Train on all the data as one batch; or give plates the dataset's size and the batch's indices in it, "
    "pyro.plate('data', size, subsample=indices)"
)


class Batches:
    """The batches of a run so far, and how the program relates them to its dataset."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self._scopes: dict[Hashable, Scope] = {}
        self._lengths: set[int] = set()
        self._first: _FirstBatch | None = None
        self._various = False

    def meet(self, batch: Examples) -> None:
        """Checks the batch of a step against those before.

        Raises:
            ProgramError: an earlier step had other examples, and the program takes a batch for the whole dataset, or its
                guide has values for positions in the batch.
        """
        new = self.look_at(batch)
        if self._various:
            if new:
                self._refuse_several()
        elif self._first is None:
            tied = self._without_plate or any(scope.shared or scope.by_place for scope in self._scopes.values())
            in_order = self._without_plate or bool(self._by_place)
            self._first, self._various = (_FirstBatch(batch, in_order), False) if tied else (None, True)
        elif not self._first.is_again(batch):
            self._refuse_several()
            self._first, self._various = None, True  # from here on a step costs nothing more

    def look_at(self, batch: Examples) -> bool:
        """Runs the program on a batch of a new shape, which may create parameters; returns whether it was new."""
        shape = layout(batch, lambda tensor: tensor.shape)
        if shape in self._scopes:
            return False
        if self._by_place:  # it may not even run
            self._refuse_several()
        self._scopes[shape] = self.objective.scope(batch)
        self._lengths.add(rows_of(batch))
        return True

    @property
    def _by_place(self) -> list[str]:
        return sorted({name for scope in self._scopes.values() for name in scope.by_place})

    @property
    def _without_plate(self) -> bool:
        return any(scope.plate is None for scope in self._scopes.values())

    def _refuse_several(self) -> None:
        if self._without_plate:
            raise ProgramError(
                "no plate counts the examples, so that each batch would count as the whole dataset, and this batch is not "
                "the first one again. Draw the sites of each example inside `with pyro.plate('data', len(x)):`; or give all "
                "the data as one batch, in the same order at every step."
            )
        if self._by_place:
            raise ProgramError(
                f"the program has values for positions in a batch ({self._by_place}), and this batch has other examples "
                f"there. {_WAYS_OUT} (an AutoGuide by its create_plates); or amortise the guide: a network of x."
            )
        sizes = {scope.size for scope in self._scopes.values()}
        shared = sorted({name for scope in self._scopes.values() for name in scope.shared})
        if shared and (len(sizes) > 1 or sizes == self._lengths):
            raise ProgramError(
                f"the sites {shared} are shared by all examples, and the plate takes every batch for the whole dataset (of "
                f"{sorted(sizes)} examples): batches that differ would each count as all the data. {_WAYS_OUT} or "
                "subsample_size=len(x)."
            )


class _FirstBatch:
    """The first batch of a run.

    Args:
        batch: the examples.
        in_order: whether the same examples in another order are another batch.
    """

    def __init__(self, batch: Examples, in_order: bool) -> None:
        self.in_order = in_order
        self._values = tuple(tensor.detach().clone() for tensor in leaves(batch))
        self._known = _states(batch)

    def is_again(self, batch: Examples) -> bool:
        """Whether a batch has the same examples; known at once for the same tensors, if nothing was written to them."""
        tensors = leaves(batch)
        if len(tensors) == len(self._known) and all(
            tensor is known and tensor._version == version
            for tensor, (known, version) in zip(tensors, self._known, strict=True)
        ):
            return True
        same = [tensor.shape for tensor in tensors] == [tensor.shape for tensor in self._values] and (
            all(map(torch.equal, tensors, self._values))
            or (not self.in_order and torch.allclose(_sorted(tensors), _sorted(self._values), rtol=1e-9, atol=0.0))
        )
        if same:
            self._known = _states(batch)
        return same


def _states(batch: Examples) -> list[tuple[Tensor, int]]:
    return [(tensor, tensor._version) for tensor in leaves(batch)]


def _sorted(tensors: tuple[Tensor, ...]) -> Tensor:
    """A number for each example, in ascending order: the same for the same examples in another order."""
    columns = torch.cat([tensor.detach().reshape(len(tensor), -1).double() for tensor in tensors], 1)
    places = torch.arange(1, columns.shape[1] + 1, dtype=torch.float64, device=columns.device)
    return (columns @ (places * math.sqrt(2)).frac()).sort().values
