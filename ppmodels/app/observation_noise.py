"""The observation noise by which a generator without a density is scored, fitted on the valid split."""

import math
import warnings
from collections.abc import Callable

from inference import ProgramError, annealed, evaluate
from ppmodels.data import InOrder
from ppmodels.models import NoisyGenerator
from ppmodels.nn import Generator

_EXAMPLES, _STEPS = 12, 8
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


def with_fitted_noise(generator: Generator, classes: int, valid: InOrder, seed: int) -> NoisyGenerator:
    """The generator with the scale of observation noise at which annealing bounds log p(x) of valid examples highest.

    The same noise serves all scales, so that they are compared by their own differences.
    """
    batch = tuple(tensor[:_EXAMPLES] for tensor in next(iter(valid)))
    span = float(batch[0].double().std()) if generator.levels is None else generator.levels - 1.0
    device = batch[0].device

    def bound(log_scale: float) -> float:
        noisy = NoisyGenerator(generator, math.exp(log_scale), classes).to(device).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that few transitions are accepted where a scale is far too small
            found = evaluate(noisy, batch, {"bound": annealed(30, 4, "prior", 4)}, seed=seed).mean("bound")
        return found if math.isfinite(found) else -math.inf

    best = _highest(bound, math.log(0.02 * span), math.log(span))
    if bound(best) == -math.inf:
        raise ProgramError(
            "no scale of observation noise gives the generator a finite bound on log p(x) of valid examples. Look at "
            "its samples."
        )
    return NoisyGenerator(generator, math.exp(best), classes).to(device)


def _highest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one peak is highest between two places, by golden sections (Kiefer 1953)."""
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
    return (low + high) / 2.0
