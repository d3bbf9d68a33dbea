"""The built-in recipes by name, a file for each family."""

from ppmodels.app.recipe import Recipe
from ppmodels.app.recipes import adversarial, autoregressive, draw, flow, scenes, vae

RECIPES: dict[str, Recipe] = {
    **vae.RECIPES,
    **draw.RECIPES,
    **autoregressive.RECIPES,
    **flow.RECIPES,
    **adversarial.RECIPES,
    **scenes.RECIPES,
}

__all__ = ["RECIPES"]
