"""Claim 2: samples of VAEs are slightly blurry, and GANs give the sharpest images."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from ppmodels.app.study.claims.claim import LEFT_OUT, UNDECIDED, Claim, Part, claim, every, leading, listed, verdict_of
from ppmodels.app.study.groups import ADVERSARIAL, VARIATIONAL, Group, of, others
from ppmodels.app.study.measurement import Missing, Samples, Sharpness
from ppmodels.app.study.tables import Cell, count, interval, none, table, text
from ppmodels.app.study.uncertain import LEVEL, Uncertain, over_seeds

RULE = (
    "Sharpness is the log ratio of the energy of samples to that of held-out data, of gradients and of high frequencies: "
    "0 is the data, below 0 is blurred, above 0 is noise as much as edges. Draws of x and means of x given the latents "
    "are judged apart; draws of binary pixels say nothing, and are left out. Samples of VAEs are blurry if, for every "
    "VAE, the intervals of both ratios lie below 0 (95 %), and are not if one lies above 0, by an interval widened for "
    "the number of ratios that could. GANs are sharpest if one's gradients are nearer to those of the data than every "
    "other model's: the distances from 0 that the intervals leave possible do not overlap; others are sharpest likewise. "
    "Either errs at most 5 % of times. Intervals hold the seeds' spread, with Student's quantile at their degrees of "
    "freedom; of one seed: not decided."
)
Kind = Literal["sharpness", "sharpness_of_means"]
KINDS: tuple[tuple[Kind, str], ...] = (("sharpness", "draws"), ("sharpness_of_means", "means"))


def sharpness(groups: Sequence[Group], real: Samples | None) -> Claim:
    """How the energies of samples compare with those of held-out data."""
    parts = [make(groups, kind, word) for make in (_blurry, _sharpest) for kind, word in KINDS]
    return claim(
        2,
        "Sharpness",
        "Samples of VAEs are slightly blurry, and GANs give the sharpest images.",
        parts,
        RULE,
        [
            table(
                f"sharpness-{word}",
                f"Log ratios of energies to held-out data, of {word} [95 % interval]",
                ["model", "gradient", "high frequency", "seeds"],
                [*(_row(group, kind) for group in groups), *([_real(real, kind)] if kind == "sharpness" else [])],
            )
            for kind, word in KINDS
        ],
    )


def found(group: Group, kind: Kind) -> list[Sharpness] | Missing:
    """The seeds' numbers, or why there are none."""
    samples = [run.samples for run in group.finished]
    had = [getattr(each, kind) for each in samples if isinstance(each, Samples)]
    numbers = [each for each in had if isinstance(each, Sharpness)]
    reasons = [each.missing for each in (*had, *samples) if isinstance(each, Missing)]
    return numbers or Missing(reasons[0] if reasons else group.reason("samples"))


def _blurry(groups: Sequence[Group], kind: Kind, word: str) -> Part:
    make = partial(Part, f"blurry-{word}", word, f"Samples of VAEs are blurry ({word}).")
    members = of(VARIATIONAL, groups)
    if not members:
        return make(UNDECIDED, "there is no variational autoencoder here")
    numbers = {group.name: found(group, kind) for group in members}
    had = {name: each for name, each in numbers.items() if not isinstance(each, Missing)}
    if not had:
        return make(*_unavailable(numbers))
    ratios = {name: [_over(each, "gradient"), _over(each, "high_frequency")] for name, each in had.items()}
    tests = 2 * len(had)
    decided = every(
        _below(ratio, tests) if len(had[name]) > 1 else None for name, both in ratios.items() for ratio in both
    )
    said = listed(f"{name} {interval(both[0].number()).text}" for name, both in ratios.items())
    alone = "; of one seed nobody knows what another would give" if min(map(len, had.values())) < 2 else ""
    noisy = "; above 0, which is noise on the pixels as much as edges" if decided is False else ""
    return make(verdict_of(decided), f"gradients: {said}{noisy}{alone}")


def _below(ratio: Uncertain, tests: int) -> bool | None:
    """Whether a ratio is below 0; of several any of which could refute, each is refuted by its share of the level."""
    return True if ratio.sign() < 0 else False if ratio.sign(LEVEL / tests) > 0 else None


def _sharpest(groups: Sequence[Group], kind: Kind, word: str) -> Part:
    make = partial(Part, f"sharpest-{word}", word, f"GANs give the sharpest images ({word}).")
    members, rivals = of(ADVERSARIAL, groups), others(ADVERSARIAL, groups)
    if not members or not rivals:
        return make(UNDECIDED, f"there is no {'model of the other families' if members else 'adversarial model'} here")
    numbers = {group.name: found(group, kind) for group in (*members, *rivals)}
    had = {name: each for name, each in numbers.items() if not isinstance(each, Missing)}
    scored, against = ([each for each in some if each.name in had] for some in (members, rivals))
    if not scored or not against:
        return make(*_unavailable({name: each for name, each in numbers.items() if name not in had}))

    def nearer(one: Group, other: Group, level: float) -> bool:
        mine, theirs = had[one.name], had[other.name]
        if min(len(mine), len(theirs)) < 2:
            return False
        return _distance(mine, level / 2)[1] < _distance(theirs, level / 2)[0]  # each interval may miss

    decided = leading(scored, against, nearer, LEVEL)
    said = listed(
        f"{group.name} {interval(_over(had[group.name], 'gradient').number()).text}" for group in (*scored, *against)
    )
    return make(verdict_of(decided), f"gradients: {said}{_without(numbers, had)}")


def _distance(numbers: Sequence[Sharpness], level: float) -> tuple[float, float]:
    """The least and the largest distance from 0 that the interval leaves possible."""
    ratio = _over(numbers, "gradient").number(level)
    ends = abs(ratio.low), abs(ratio.high)
    return (0.0 if ratio.low < 0 < ratio.high else min(ends)), max(ends)


def _over(numbers: Sequence[Sharpness], name: Literal["gradient", "high_frequency"]) -> Uncertain:
    return over_seeds([getattr(each, name) for each in numbers])


def _unavailable(numbers: dict[str, list[Sharpness] | Missing]) -> tuple[str, str]:
    """The verdict where nobody has numbers: left out if the runs are there and such data have none."""
    reasons = list(dict.fromkeys(each.missing for each in numbers.values() if isinstance(each, Missing)))
    nothing = all(reason.startswith("no run") for reason in reasons)
    return UNDECIDED if nothing else LEFT_OUT, listed(reasons)


def _without(numbers: dict[str, list[Sharpness] | Missing], had: dict[str, list[Sharpness]]) -> str:
    missing = [f"{name} ({each.missing})" for name, each in numbers.items() if isinstance(each, Missing)]
    return f"; without {listed(missing)}" if missing and had else ""


def _row(group: Group, kind: Kind) -> list[Cell]:
    numbers = found(group, kind)
    if isinstance(numbers, Missing):
        return [text(group.name), none(numbers.missing), none(numbers.missing), text("")]
    return [
        text(group.name),
        interval(_over(numbers, "gradient").number()),
        interval(_over(numbers, "high_frequency").number()),
        count(len(numbers)),
    ]


def _real(real: Samples | None, kind: Kind) -> list[Cell]:
    numbers = Missing("not measured yet") if real is None else getattr(real, kind)
    if isinstance(numbers, Missing):
        return [text("real data"), none(numbers.missing), none(numbers.missing), text("")]
    return [text("real data"), interval(numbers.gradient), interval(numbers.high_frequency), text("")]
