"""The observation noise by which a generator without a density is scored: fitted on the valid split, and kept by its run."""

import json
import math
import warnings
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from inference import ProgramError, annealed, evaluate
from inference.evaluation.stages import one_of
from inference.training.files import contents_of
from ppmodels.app.experiment import Experiment
from ppmodels.app.results import write_results
from ppmodels.app.run import NOISE, Run, as_json
from ppmodels.data import InOrder
from ppmodels.models import NoisyGenerator
from ppmodels.nn import Generator

_EXAMPLES, _STEPS, _MOVES = 12, 8, 3
_BOUND = annealed(30, 4, "prior", 4)
_SEED = 0  # one for all: a noise that followed the seed of a command would make another model for each
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def noisy_generator(run: Run, experiment: Experiment) -> NoisyGenerator | None:
    """The generator of a run with the noise that the run keeps; None of another program.

    A noise is kept with what it was fitted by: the weights, the valid examples, the bound. Where any of it is another now,
    or nothing is kept, it is fitted anew, and kept.
    """
    program = experiment.program
    generator = getattr(program, "generator", None)
    if not isinstance(generator, Generator):
        return None
    valid = experiment.in_order("valid")
    fitted_by = {
        "weights_sha256": run.record["weights_sha256"],
        "measured_on": valid.description,
        "bound": {**_BOUND.settings, "examples": _EXAMPLES, "steps": _STEPS, "moves": _MOVES, "seed": _SEED},
    }
    scale = _kept(run, fitted_by)
    if scale is None:
        scale = fitted_scale(generator, program.classes, valid)
        write_results(run, {NOISE: as_json({"scale": scale, "fitted_by": fitted_by})})
    return NoisyGenerator(generator, scale, program.classes).to(experiment.device)


def fitted_scale(generator: Generator, classes: int, valid: InOrder) -> float:
    """The scale of observation noise at which annealing bounds log p(x) of valid examples highest.

    The same noise serves all scales, so that they are compared by their own differences.
    """
    batch = tuple(tensor[:_EXAMPLES] for tensor in next(iter(valid)))
    span = float(batch[0].double().std()) if generator.levels is None else generator.levels - 1.0

    tried = count()

    def bound(log_scale: float) -> float:
        noisy = NoisyGenerator(generator, math.exp(log_scale), classes).to(batch[0].device).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that few transitions are accepted where a scale is far too small
            with one_of(min(next(tried), _STEPS + 2), _STEPS + 3, "observation noise"):
                found = evaluate(noisy, batch, {"bound": _BOUND}, seed=_SEED).mean("bound")
        return found if math.isfinite(found) else -math.inf

    best = _highest(bound, math.log(0.02 * span), math.log(span))
    if bound(best) == -math.inf:
        raise ProgramError(
            "no scale of observation noise gives the generator a finite bound on log p(x) of valid examples. Look at "
            "its samples."
        )
    return math.exp(best)


def _kept(run: Run, fitted_by: Mapping[str, Any]) -> float | None:
    """The scale that the run keeps, if it was fitted by the same."""
    try:
        kept = json.loads(contents_of(run.folder / NOISE))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(kept, dict) or kept.get("fitted_by") != fitted_by:
        return None
    scale = kept.get("scale")
    return scale if isinstance(scale, float) and 0 < scale < math.inf else None


def _highest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one peak is highest, below `high`; it is looked for below `low` too where it is there.

    A noise as large as the data's range explains all of them, and is no end to look beyond.
    """
    for _ in range(_MOVES + 1):
        width = high - low
        found_low, found_high = _golden_sections(function, low, high)
        if found_low > low:
            break
        # So that what lies at the end of one interval is inside of the next.
        low, high = low - width, found_high + (found_high - found_low)
    else:
        warnings.warn(
            f"the observation noise is at the end of what was looked through, {math.exp((found_low + found_high) / 2):.3g}, "
            "and the bound rises below it: look at the samples.",
            stacklevel=2,
        )
    return (found_low + found_high) / 2.0


def _golden_sections(function: Callable[[float], float], low: float, high: float) -> tuple[float, float]:
    """What is left of an interval about the highest value of a function of one peak (Kiefer 1953)."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    for _ in range(_STEPS):
        if at_left >= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return low, high
