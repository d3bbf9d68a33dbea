"""What of a run is scored, by which estimators: the program itself, or a generator with observation noise."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch.distributions import Distribution

import inference
from inference import Estimator, Evaluation, InferenceGap, annealed, elbo, inference_gap, predictive
from inference.evaluation.annealed import Annealed
from inference.evaluation.estimators import EXACT, Importance
from inference.evaluation.refined import AMORTISATION_GAP, Refined
from inference.evaluation.sandwich import SIMULATED_GAP, Sandwich
from inference.programs.noise import own_noise
from inference.programs.program import ProgramError, evaluating
from inference.training.progress import shown_stages
from ppmodels.app.experiment import Experiment
from ppmodels.app.observation_noise import noisy_generator
from ppmodels.app.run import Run

OBSERVATION_NOISE = "observation noise"
"""The name in an evaluation's details of the noise that belongs to a scored generator, in levels or in units of x."""

_BATCH, _SLOW_BATCH = 100, 20  # of each batch a sandwich simulates some examples, by which its gap is told
_SLOW = Annealed | Sandwich | Refined


@dataclass(frozen=True)
class Scoring:
    """A program, the estimators that score it, and the observation noise that was fitted to make it one."""

    program: Any
    estimators: Mapping[str, Estimator]
    noise: float | None = None

    def result(
        self,
        experiment: Experiment,
        split: str,
        limit: int | None,
        seed: int,
        progress: bool,
        at_once: int | None = None,
    ) -> Evaluation:
        """The numbers on a split, of which `at_once` examples make a batch."""
        refused = self._refused(experiment)
        estimators = {name: each for name, each in self.estimators.items() if name not in refused}
        size = _SLOW_BATCH if any(isinstance(each, _SLOW) for each in estimators.values()) else _BATCH
        batches = experiment.scored(split, at_once or size, limit)
        about = batches.description
        if about["examples"] != (whole := len(experiment.data.split(split))):
            about = about | {"of_examples": whole}
        with unvalidated(), shown_stages(progress):
            found = inference.evaluate(self.program, batches, estimators, about, seed)
        found = dataclasses.replace(found, left_out=refused)
        if self.noise is None:
            return found
        told = {OBSERVATION_NOISE: torch.tensor([self.noise], dtype=torch.float64)}
        return dataclasses.replace(found, details={name: {**found.details[name], **told} for name in found.log_prob})

    def _refused(self, experiment: Experiment) -> dict[str, str]:
        """Of several estimators, those that refuse the guide, and why: the others are not to be lost with them."""
        refused: dict[str, str] = {}
        batch = experiment.examples(2, "train")
        for name, each in self.estimators.items():
            if isinstance(each, Refined) and len(self.estimators) > 1:
                try:
                    with evaluating(self.program), own_noise(0), unvalidated():
                        each.refuse(self.program, batch)
                except ProgramError as error:
                    refused[name] = str(error)
        return refused


def scoring_of(run: Run, experiment: Experiment, estimators: Mapping[str, Estimator], progress: bool) -> Scoring:
    """How a run is scored; a generator without a density gets the observation noise that its run keeps."""
    if experiment.recipe.estimators:
        return Scoring(experiment.program, estimators)
    with unvalidated(), shown_stages(progress):
        noisy = noisy_generator(run, experiment)
    if noisy is None:
        return Scoring(experiment.program, estimators)
    return Scoring(noisy, estimators, float(noisy.scale))


def estimators_of(
    experiment: Experiment, split: str, given: Mapping[str, Estimator] | None = None, particles: int | None = None
) -> dict[str, Estimator]:
    """The estimators of a run: the given ones, or its recipe's; with so many particles, where these are given.

    Held-out data of a program whose examples share latents are scored by their predictive density. A recipe without
    estimators draws x or z without a density: chains then start from the prior, whatever the guide is.
    """
    found = experiment.likelihood
    shares = found.dataset is not None and not found.per_example
    own = {"predictive": predictive(200)} if shares and split != "train" else experiment.recipe.estimators
    chosen = with_particles(given or own or {"annealed": annealed(200, 8, leapfrog=5)}, particles)
    return chosen if own else {name: _from_the_prior(each) for name, each in chosen.items()}


def with_particles(estimators: Mapping[str, Estimator], particles: int | None) -> dict[str, Estimator]:
    """The estimators, the importance-weighted bounds with that many particles; an ELBO keeps its own."""
    if particles is None:
        return dict(estimators)
    return {
        name: dataclasses.replace(estimator, particles=particles)
        if isinstance(estimator, Importance) and estimator.bound != elbo
        else estimator
        for name, estimator in estimators.items()
    }


def gap_of(result: Evaluation) -> InferenceGap | None:
    """The gap between ELBO and log p(x), taken apart, where an evaluation has `refined` and a better number; else None."""
    refined = next((name for name, details in result.details.items() if AMORTISATION_GAP in details), None)
    better = [
        *(name for name, kind in result.kind.items() if kind == EXACT),
        *(name for name, details in result.details.items() if SIMULATED_GAP in details),
        *(name for name, settings in result.settings.items() if "temperatures" in settings),
    ]
    return inference_gap(result, refined, better[0]) if refined is not None and better else None


def best_of(estimators: Mapping[str, Estimator]) -> str:
    """The name of the exact estimator where there is one, else of the last: recipes have the tightest bound there."""
    return next((name for name, each in estimators.items() if each.kind == EXACT), list(estimators)[-1])


@contextmanager
def unvalidated() -> Iterator[None]:
    """A block without Pyro's and torch's validation, a sixth of a step's time; `fit` and `evaluate` check the data.

    torch's own switch is restored too: compiling a step leaves it off, and Pyro sets it to Pyro's.
    """
    validated = Distribution._validate_args
    try:
        with pyro.validation_enabled(False):
            yield
    finally:
        Distribution.set_default_validate_args(validated)


def _from_the_prior(estimator: Estimator) -> Estimator:
    if isinstance(estimator, Annealed):
        return dataclasses.replace(estimator, start="prior")
    if isinstance(estimator, Sandwich):
        return dataclasses.replace(estimator, annealed=dataclasses.replace(estimator.annealed, start="prior"))
    return estimator
