"""Normalizing flows for tables of real numbers: no latents, log p(x) exact."""

from collections.abc import Sequence

from torch import nn

from inference import exact
from ppmodels.app.recipe import Recipe, cosine
from ppmodels.app.settings import Count
from ppmodels.data import Dataset
from ppmodels.models import Flow


def flow(data: Dataset, transforms: Count = 3, hidden: Sequence[Count] = (64, 64), bins: Count = 8) -> nn.Module:
    """A neural spline flow."""
    if len(data.shape) > 1:
        raise ValueError(
            f"{data.name} are images, and a flow here is a density of the columns of a table; train the recipe vae or "
            "gated-pixelcnn"
        )
    if data.levels is not None:
        raise ValueError(
            f"{data.name} are whole levels, and a flow is a density of real numbers, without bound where values repeat; "
            "train the recipe vae"
        )
    return Flow(data.shape[0], transforms, hidden, bins)


RECIPES: dict[str, Recipe] = {
    "flow": Recipe(
        program=flow,
        family="normalizing flows",
        summary="a neural spline flow of a table's columns (needs zuko)",
        data="ring-8",
        steps=2000,
        batch_size=128,
        learning_rate=2e-3,
        clip=10.0,
        schedule=cosine,
        average=0.99,
        validate_every=200,
        estimators={"exact": exact()},
    )
}
