"""What a model is given and does not observe: covariates, exposures, known errors."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from inference.programs.execution import Run
from inference.programs.pair import arguments
from inference.programs.program import Program
from inference.programs.sites import random_sites


def constants_of(program: Program, run: Run) -> dict[str, Tensor]:
    """The tensors of a run's batch that the model does not observe, by the names of its arguments."""
    entries = arguments(program, run.batch)
    if len(entries) < len(run.batch):  # a model of *batch
        entries = {str(place): entry for place, entry in enumerate(run.batch)}
    observed = [site["value"] for site in random_sites(run.model).values() if site["is_observed"]]
    return {
        f"batch_{name}" if name in run.model.nodes or name.isdigit() else name: tensor
        for name, tensor in _flat(entries)
        if not _is_observed(tensor, observed)
    }


def _is_observed(tensor: Tensor, observed: Sequence[Tensor]) -> bool:
    """Whether these values are the tensor's: in pieces of it, as in a series; or as a whole, maybe in another dtype."""
    pieces = [value for value in observed if value.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()]
    same = [value for value in observed if value.numel() == tensor.numel()]
    return sum(value.numel() for value in pieces) >= tensor.numel() or any(
        value.flatten().equal(tensor.flatten().to(value)) for value in same
    )


def _flat(entries: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a batch's entries, those of dicts by both names."""
    for name, entry in entries.items():
        if isinstance(entry, Tensor):
            yield name, entry
        elif isinstance(entry, Mapping):
            yield from _flat({f"{name}_{key}": value for key, value in entry.items()})
