"""What trains the program of an experiment: its step, and its validation."""

from collections.abc import Callable

from inference import Step, Validation, elbo, predictive
from inference.evaluation.estimators import Importance
from inference.training.differentiate import backward
from ppmodels.app.experiment import Experiment
from ppmodels.app.recipe import Recipe


def step_of(experiment: Experiment, seed: int) -> Step:
    """The step that trains an experiment's program as its recipe says."""
    recipe = experiment.recipe
    return Step(
        experiment.objective,
        recipe.optimizer(recipe.learning_rate),
        seed=seed,
        clip=recipe.clip,
        learning_rate=_by_step(recipe),
        average=recipe.average,
        differentiate=recipe.traced() if recipe.traced else backward,
    )


def validation_of(experiment: Experiment) -> Validation | None:
    """The validation that the recipe asks for, if it asks for one."""
    recipe = experiment.recipe
    if recipe.validate_every is None:
        return None
    if experiment.has_values_of_rows:
        if experiment.likelihood.per_example:
            raise ValueError(
                "the guide has values for the training examples, and the model shares no latents with others, so that the "
                "valid split says nothing of the fit; train without it: --set validate_every=none"
            )
        return Validation(experiment.scored("valid", 500), recipe.validate_every, recipe.patience, predictive(20))
    # Over many examples one draw of each is enough; other estimators, such as exact(), are used as they are.
    first = next(iter(recipe.estimators.values()))
    estimator = Importance(1, elbo) if isinstance(first, Importance) else first
    return Validation(experiment.scored("valid", 500), recipe.validate_every, recipe.patience, estimator)


def _by_step(recipe: Recipe) -> Callable[[int], float] | None:
    schedule = recipe.schedule
    return None if schedule is None else lambda step: schedule(step / recipe.steps)
