"""A number, or the reason why it can not be had."""

import math
from collections.abc import Callable
from typing import TypeVar

from inference.evaluation.sample_metrics.score import Score
from ppmodels.app.drawn import Impossible
from ppmodels.app.study.measurement import Missing, Number

Found = TypeVar("Found")


def found_or_missing(find: Callable[[], Found]) -> Found | Missing:
    """What is found, or in its place what the error says: a program of the user's own can fail anywhere."""
    try:
        return find()
    except (ValueError, Impossible) as error:  # ProgramError among them: these say what is the matter
        return Missing(str(error))
    except Exception as error:
        return Missing(f"it failed with {type(error).__name__}: {error}")


def number(score: Score) -> Number:
    """A score as a number. Raises ValueError where it is not finite."""
    if not all(map(math.isfinite, score)):
        raise ValueError(
            f"the number is not finite: {score.value:g}, in an interval from {score.low:g} to {score.high:g}"
        )
    return Number(*score)


def around(value: float, error: float) -> Number:
    """A mean with 1.96 standard errors to either side. Raises ValueError where it is not finite."""
    return number(Score(value, value - 1.96 * error, value + 1.96 * error))
