"""One pass over data that are given as one batch, or as many."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from inference.programs.entries import Examples
from inference.programs.program import Batch, ProgramError, as_batch, is_entry

Data = Batch | Iterable[Batch] | Callable[[], Iterable[Batch]]
"""What a program is trained or scored on: one batch; an iterable of batches; or a generator function, called for each pass.

A tuple is one batch, and a list several. A batch that an iterable gives may be a list, as those of a DataLoader are.
"""


def one_batch(batches: object) -> bool:
    """Whether these are one batch, and not several."""
    return is_entry(batches) or (isinstance(batches, tuple) and any(map(is_entry, batches)))


def batches_of(batches: Data) -> Iterator[Examples]:
    """The batches of one pass.

    Raises:
        ProgramError: what was given is no batch and can not be iterated.
    """
    given: Any = batches
    return map(as_batch, [given] if one_batch(given) else _iterator(given))


def count_of(batches: Data) -> int | None:
    """How many batches there are; None where only a pass would tell."""
    given: Any = batches
    try:
        return 1 if one_batch(given) else len(given)
    except TypeError:  # a generator function, among others
        return None


def no_batches(batches: object) -> ProgramError:
    """What is said of an iterable that gives no batch."""
    kind = type(batches).__name__
    if isinstance(batches, Iterator):
        return ProgramError(
            f"there are no batches: this {kind} is used up, as it gives every batch once. {WHAT_REPEATS}"
        )
    return ProgramError(f"there are no batches: this {kind} is empty. Give at least one example.")


WHAT_REPEATS = "Give a list, a loader, or the generator function itself (uncalled), which start anew."


def _iterator(batches: object) -> Iterator[Batch]:
    started: Any = batches() if inspect.isgeneratorfunction(batches) else batches
    items = isinstance(batches, Dataset) and not isinstance(batches, IterableDataset)
    try:
        if not items:
            return iter(started)
    except TypeError:
        pass
    advice = " Its items are single examples: DataLoader(dataset, batch_size=…)." if items else ""
    raise ProgramError(
        f"batches: expected one batch, a list or another iterable of batches, or a generator function, got a "
        f"{type(batches).__name__}.{advice}"
    )
