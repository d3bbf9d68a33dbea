"""The check that data have levels, for recipes of several families."""

from ppmodels.data import Dataset


def whole_levels(data: Dataset) -> int:
    """The number of levels. Raises ValueError for real numbers, of which there is no autoregressive model here."""
    if data.levels is None:
        raise ValueError(
            f"{data.name} are real numbers, and an autoregressive model is one of whole levels; train the recipe vae"
        )
    return data.levels
