"""Estimators of log p(x) by name, as the command line takes them."""

import difflib
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from inference import Estimator, annealed, elbo, exact, importance, predictive, refined, sandwich


class _Named(NamedTuple):
    make: Callable[[int], Estimator]
    default: int
    counts: str
    """What a number after the name counts; empty where none can follow."""


# The simulated examples of a sandwich are those of a batch of 20, beside which the bound on real data stands.
_NAMES = {
    "exact": _Named(lambda _: exact(), 0, ""),
    "elbo": _Named(lambda number: importance(number, elbo), 100, "draws"),
    "iwae": _Named(importance, 1000, "draws"),
    "refined": _Named(refined, 500, "steps"),
    "annealed": _Named(annealed, 1000, "temperatures"),
    "predictive": _Named(predictive, 200, "draws"),
    "sandwich": _Named(lambda number: sandwich(number, simulations=5), 1000, "temperatures"),
}

EXPECTED = ", ".join(name + (f"[:{each.counts.upper()}]" if each.counts else "") for name, each in _NAMES.items())


def estimators_named(text: str) -> dict[str, Estimator]:
    """The estimators of a list such as `elbo,iwae:5000,annealed:1000`; names that stand there twice keep their number.

    Raises:
        ValueError: a name is not known or stands there twice with one number, or a number is none.
    """
    parts = [part.strip() for part in text.split(",")]
    twice = [part for part, count in Counter(parts).items() if count > 1]
    if twice:
        raise ValueError(f"estimators: {twice[0]!r} stands there twice; name each once.")
    names = Counter(part.split(":")[0] for part in parts)
    return {part if names[part.split(":")[0]] > 1 else part.split(":")[0]: _made(part) for part in parts}


def _made(part: str) -> Estimator:
    name, colon, number = part.partition(":")
    if name not in _NAMES:
        near = difflib.get_close_matches(name, _NAMES, n=1)
        raise ValueError(
            f"estimators: {name!r} is none;{f' did you mean {near[0]}?' if near else ''} expected a list of {EXPECTED}."
        )
    each = _NAMES[name]
    if not colon:
        return each.make(each.default)
    if not each.counts:
        raise ValueError(f"estimators: {name} takes no number, got {part!r}.")
    if not (number.isascii() and number.isdigit()):
        raise ValueError(
            f"estimators: {part!r}: expected a number of {each.counts} after the colon, such as {name}:{each.default}."
        )
    return each.make(int(number))
