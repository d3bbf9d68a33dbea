"""log p(x) of the study's fixed test examples, by the best number that a run has."""

import math
from collections.abc import Mapping

import torch

from inference import Estimator, Evaluation, Program, iwae, sandwich
from inference.evaluation.estimators import EXACT, Importance
from inference.evaluation.inference_gap import part_of
from inference.evaluation.sandwich import SIMULATED_GAP
from inference.evaluation.simulated_gap import simulated_gap
from ppmodels.app.experiment import Experiment
from ppmodels.app.run import Run
from ppmodels.app.scoring import best_of, estimators_of, scoring_of
from ppmodels.app.study.measurement import LogLikelihood, Missing, Number
from ppmodels.app.study.missing import around, found_or_missing
from ppmodels.app.study.settled import with_test

ANNEALED = sandwich(60, 4, "prior", 4, simulations=12)
"""Of a program whose x or z has no density."""
FEW = 60
"""The first of the study's examples, which annealing takes."""
SIMULATIONS = 50


def log_likelihood(run: Run, experiment: Experiment, examples: list[int]) -> LogLikelihood:
    """The exact number, else the tightest of the recipe's bounds, else an annealed bound of the first examples.

    Raises ValueError, which may be a ProgramError, where the program has no such number for an example.
    """
    own = experiment.recipe.estimators
    chosen: Mapping[str, Estimator] = estimators_of(experiment, "test") if own else {"annealed": ANNEALED}
    name = best_of(chosen)
    rows = torch.tensor(examples if own else examples[:FEW])
    subject = with_test(experiment, rows)
    scoring = scoring_of(run, experiment, {name: chosen[name]}, progress=False)
    found = scoring.result(subject, "test", None, 0, False, None if own else FEW)
    if not found.per_example:
        raise ValueError("examples share latents, so that none has a number of its own")
    nats = found.log_prob[name]
    if not bool(nats.isfinite().all()):
        raise ValueError(f"log p(x) of {int((~nats.isfinite()).sum())} of {len(nats)} examples is not finite")
    if len(nats) < 2:
        raise ValueError("a single example has no error")
    notes = [] if scoring.noise is None else [_noise_in_words(experiment, scoring.noise)]
    if len(rows) < len(examples):
        notes.append(f"the first {len(rows)} of {len(examples)} examples")
    return LogLikelihood(
        kind=found.kind[name],
        estimator=in_words(name, found.settings[name]),
        nats=found.mean(name),
        standard_error=found.standard_error(name),
        bits_per_dim=found.bits_per_dim(name) if found.dimensions is not None else None,
        per_example=nats.tolist(),
        gap=None if found.kind[name] == EXACT else _gap(found, name, scoring.program, subject, chosen[name]),
        note="; ".join(notes),
    )


def in_words(name: str, settings: Mapping[str, object]) -> str:
    """An estimator with its settings: "iwae, particles = 256"."""
    return ", ".join([name, *(f"{setting} = {value}" for setting, value in settings.items() if value != name)])


def _noise_in_words(experiment: Experiment, noise: float) -> str:
    unit = "levels" if experiment.data.discrete else "units of the standardised columns"
    return f"of the generator with normal observation noise of {noise:.3g} {unit}, fitted on the valid split"


def _gap(found: Evaluation, name: str, program: Program, subject: Experiment, estimator: Estimator) -> Number | None:
    """How loose the bound is on data simulated from the program; None where that can not be had."""
    gaps = found.details[name].get(SIMULATED_GAP)
    if gaps is None and isinstance(estimator, Importance) and estimator.bound == iwae and not subject.fits_rows:
        batch = subject.examples(SIMULATIONS)
        simulated = found_or_missing(lambda: simulated_gap(program, batch, estimator.particles))
        gaps = None if isinstance(simulated, Missing) else simulated
    if gaps is None or len(gaps) < 2:
        return None
    mean, error = part_of(gaps)
    return around(mean, error) if math.isfinite(mean) else None
