"""The batch of each step of a run."""

import inspect
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from inference.evaluation.passes import WHAT_REPEATS, Data, batches_of, one_batch
from inference.programs.entries import Examples
from inference.programs.program import Batch, as_batch

Feed = Callable[[int], Examples | None]
"""The batch of a step; None where there are no more."""


def feed_of(batches: Callable[[int], Batch] | Data, taken: int = 0) -> Feed:
    """Gives the batch of each step: a function's; the same one at every step; or those of an iterable, again and again.

    A list goes on after `taken` steps of its run; another iterable starts anew.
    """
    given: Any = batches  # of the kind that is asked for
    if is_function_of_the_step(given):
        return lambda step: as_batch(given(step))
    if one_batch(given):
        same = as_batch(given)
        return lambda step: same
    stream = _again_and_again(given)
    if isinstance(given, list) and given:
        stream = islice(stream, taken % len(given), None)
    return lambda step: next(stream, None)


def repeats(batches: object) -> bool:
    """Whether a run that is resumed has the batches that it would have had."""
    return is_function_of_the_step(batches) or one_batch(batches) or isinstance(batches, list)


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
