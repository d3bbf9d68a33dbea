"""Missing cells of a table: which programs take them, and what is said where one does not."""

from typing import Any

from inference import Adversarial, Objective
from inference.programs.pair import arguments
from ppmodels.data import Dataset
from ppmodels.data.reading import Names

_SHOWN = 5


def refuse_missing(data: Dataset, objective: Objective, batch: tuple[Any, ...]) -> None:
    """Raises ValueError, naming the columns, where cells are missing and the model has no third argument `observed`.

    A critic compares whole examples, and is not told what is missing of them.
    """
    if not data.missing or (_takes(objective, batch) and not isinstance(objective, Adversarial)):
        return
    counts = data.missing_cells
    shown = ", ".join(f"{_called(data, at)} lacks {count:,}" for at, count in counts[:_SHOWN])
    more = f" and {len(counts) - _SHOWN} more columns lack some" if len(counts) > _SHOWN else ""
    remedies = [f"leave the columns out{_option(data, counts)}"] * (len(counts) < data.shape[0])
    remedies += ["fill the cells in", "train the recipe vae, which takes what is observed"]
    raise ValueError(
        f"{data.name} has missing cells, and {type(objective.program).__name__} takes whole examples: {shown}{more}; "
        f"{', '.join(remedies[:-1])}, or {remedies[-1]}"
    )


def _takes(objective: Objective, batch: tuple[Any, ...]) -> bool:
    """Whether what is observed reaches the model under that name: `model(x, y=None, observed=None)`."""
    return list(arguments(objective.program, batch))[2:] == ["observed"]


def _called(data: Dataset, at: int) -> str:
    return data.columns[at] if data.columns and data.columns[at] else f"column {at + 1}"


def _option(data: Dataset, counts: list[tuple[int, int]]) -> str:
    """What leaves columns out of a text file, where it is one option and they go by their own names."""
    if data.reading.columns or data.reading.categories or len(counts) > _SHOWN:
        return " (--columns)"
    names = Names(data.columns or [""] * data.shape[0])
    return " (--columns=" + ",".join(f"-{names.called(at)}" for at, _ in counts) + ")"
