"""DRAW: an image painted in steps through a moving window."""

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from inference import Traced
from ppmodels.app.presets import LARGE, Preset
from ppmodels.app.recipe import Recipe, bounds
from ppmodels.app.settings import Count
from ppmodels.data import Dataset
from ppmodels.models import DRAW
from ppmodels.nn import Head, make_head


def draw(
    data: Dataset,
    glimpses: Count = 8,
    latent: Count = 20,
    hidden: Count = 128,
    read: int | None = 2,
    write: int | None = 4,
    likelihood: str | None = None,
) -> nn.Module:
    """DRAW in `glimpses` steps; where `read` or `write` is none, the whole image is read or written at once."""
    head = make_head(data.levels, likelihood)
    return DRAW(data.shape, data.levels, glimpses, latent, hidden, read, write, _mean_canvas(data, head), head)


def _mean_canvas(data: Dataset, head: Head) -> Tensor:
    """The head's parameters for each pixel of the training images by itself: those images without any stroke."""
    values = data.train.values.float()
    if data.grey_levels is not None and data.levels is not None:  # grey means of pixels that are binarised anew
        values = values * (data.levels - 1) / (data.grey_levels - 1)
    return head.marginal(values)


def _falling_at_the_end(fraction: float) -> float:
    """1 for two thirds of the steps, then down to 0.05 along half a cosine."""
    late = max(0.0, 3 * fraction - 2)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * late))


_DRAW = Recipe(
    program=draw,
    family="variational autoencoders",
    summary="DRAW: painted in 16 steps through a moving window",
    steps=3000,
    batch_size=100,
    clip=10.0,
    traced=Traced,
    schedule=_falling_at_the_end,
    average=0.99,
    validate_every=500,
)
_LARGE: Mapping[str, object] = {
    "glimpses": 16,
    "latent": 100,
    "hidden": 256,
    "write": 5,
    "steps": 20_000,
    "average": 0.999,
    "validate_every": 2500,
    "estimators": bounds(64),
}

RECIPES: dict[str, Recipe] = {
    "draw": replace(_DRAW, presets=(Preset(LARGE, _LARGE),)),
    "draw-64": replace(
        _DRAW,
        summary="DRAW in 64 steps, for a GPU",
        settings={"glimpses": 64},
        # A GPU takes no longer over 400 images than over 100.
        presets=(Preset(LARGE, {**_LARGE, "glimpses": 64, "batch_size": 400, "steps": 20_000}),),
    ),
}
