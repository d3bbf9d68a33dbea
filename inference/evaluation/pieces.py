"""What is scored at once: each batch by itself; or all of them, where no example stands alone."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from inference.evaluation.likelihood import Likelihood
from inference.programs.entries import Examples, joined, layout, named, rows_of
from inference.programs.program import Program, ProgramError
from inference.programs.traces import runs


def scored_at_once(program: Program, likelihood: Likelihood, batches: Iterable[Examples]) -> Iterator[Examples]:
    """The batches; all of them as one, where the program shares sites between examples or no plate counts these.

    Raises:
        ProgramError: they are not the whole dataset between whose examples sites are shared, or there are several and no
            plate.
    """
    if likelihood.per_example:
        yield from batches
    else:
        yield _whole(program, likelihood, [*batches])


def _only(batches: list[Examples]) -> Examples:
    """The one batch of a program without a batch plate."""
    if len(batches) > 1:
        raise ProgramError(
            f"no plate counts the examples, so that each of the {len(batches)} batches would count as the whole dataset. "
            "Give all the data as one batch; or draw the sites of each example inside `with pyro.plate('data', len(x)):`."
        )
    return batches[0]


def _whole(program: Program, likelihood: Likelihood, batches: list[Examples]) -> Examples:
    """All batches as one: a program whose sites are shared is scored on the whole dataset or not at all."""
    if likelihood.dataset is None:
        return _only(batches)
    kinds = {layout(batch, lambda tensor: tuple(tensor.shape[1:])) for batch in batches}
    if len(kinds) > 1:
        raise ProgramError(
            "the program shares sites between all examples, so that its batches are joined into one, and their entries are "
            f"different: {' against '.join(sorted({str(_shapes(batch)) for batch in batches}))}. Give batches of one kind."
        )
    whole = joined(batches)
    size, rows = likelihood.dataset, rows_of(whole)
    if size == rows_of(batches[0]) < rows:  # a plate as long as the first batch may grow with it
        with suppress(ValueError):
            size = runs(program, whole)[0].dataset_size
    if size != rows:
        raise ProgramError(
            f"the program shares sites between the {size} examples of its dataset, and {rows} were given. Evaluate it on "
            "all of them, or declare the plate by the data: pyro.plate('data', len(x)). Held-out data are scored by "
            "predictive(draws)."
        )
    return whole


def _shapes(batch: Examples) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape[1:]) for name, tensor in named(batch).items()}
