"""The batch of each step of a run."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from inference.evaluation.passes import WHAT_REPEATS, Data, batches_of, one_batch
from inference.programs.entries import Examples
from inference.programs.program import Batch, as_batch

Feed = Callable[[int], Examples | None]
"""The batch of a step; None where there are no more."""


def feed_of(batches: Callable[[int], Batch] | Data) -> Feed:
    """Gives the batch of each step: a function's; the same one at every step; or those of an iterable, again and again."""
    given: Any = batches  # of the kind that is asked for
    if is_function_of_the_step(given):
        return lambda step: as_batch(given(step))
    if one_batch(given):
        same = as_batch(given)
        return lambda step: same
    stream = _again_and_again(given)
    return lambda step: next(stream, None)


def is_function_of_the_step(batches: object) -> bool:
    """Whether these are called with a step's number; a generator function is called without, for each pass."""
    return callable(batches) and not isinstance(batches, Tensor) and not inspect.isgeneratorfunction(batches)


def ended_early(batches: object, taken: int, steps: int) -> str:
    """What is said of batches that end before the run."""
    return (
        f"the batches ended after {taken} of {steps} steps: this {type(batches).__name__} gives every batch once. "
        f"{WHAT_REPEATS} Or a function of the step."
    )


def _again_and_again(batches: Data) -> Iterator[Examples]:
    while True:
        empty = True
        for batch in batches_of(batches):
            empty = False
            yield batch
        if empty:  # an iterator that is used up, or nothing at all
            return
