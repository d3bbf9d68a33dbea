"""Scenes of several objects: attend, infer, repeat."""

from inference import Traced
from ppmodels.app.presets import CANVAS, Preset
from ppmodels.app.recipe import Recipe, bounds, cosine
from ppmodels.app.settings import Count
from ppmodels.data import Dataset
from ppmodels.models import AIR


def air(
    data: Dataset,
    objects: Count = 3,
    k: float = 0.01,
    window: Count = 8,
    what: Count = 50,
    hidden: Count = 256,
    layer: Count = 200,
    sd: float = 0.3,
    explore: int = 1000,
) -> AIR:
    """Up to so many objects in a scene; an object costs -log k nats, and a window is about as large as it is.

    For the first `explore` steps every count is tried.
    """
    if data.levels is None:
        raise ValueError(f"{data.name} are real numbers and no images, which alone have scenes; train the recipe vae")
    return AIR(data.shape, data.levels, objects, k, window, what, hidden, layer, sd, explore)


RECIPES: dict[str, Recipe] = {
    "air": Recipe(
        program=air,
        family="scenes",
        summary="objects found one by one, their number summed exactly",
        data="multi-digits",
        steps=3000,
        batch_size=64,
        clip=100.0,
        traced=Traced,
        schedule=cosine,
        average=0.995,
        validate_every=1000,
        estimators=bounds(100),
        presets=(Preset(CANVAS, {"objects": 2, "window": 28}),),
    )
}
