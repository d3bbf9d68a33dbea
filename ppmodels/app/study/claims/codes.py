"""Claim 5: VAEs have low-dimensional codes, autoregressive models have none."""

from collections.abc import Sequence
from functools import partial

from ppmodels.app.study.claims.claim import UNDECIDED, Claim, Part, claim, every, listed, verdict_of
from ppmodels.app.study.groups import AUTOREGRESSIVE, VARIATIONAL, Group, of
from ppmodels.app.study.measurement import NO_LATENTS, Codes
from ppmodels.app.study.tables import Cell, count, none, share, table, text
from ppmodels.app.study.uncertain import LEVEL, Uncertain, over_seeds

MARGIN = 0.05
"""How much more than chance codes that know the classes give."""
RULE = (
    "A linear probe reads the classes off the codes of held-out examples. VAEs have codes if, for every VAE, the interval "
    "of the probe's accuracy (95 %, with the seeds' spread by Student's quantile) lies above chance and five hundredths; "
    "they have none if it lies below that for one VAE, widened for their number. It errs at most 5 % of times. One seed: "
    "not decided. That an autoregressive program has no latents is a fact of the program. Chance is the share of the "
    "commonest class where it has been measured, else one over the number of classes."
)


def codes(groups: Sequence[Group], classes: int | None) -> Claim:
    """What the latents know of the classes."""
    return claim(
        5,
        "Codes",
        "VAEs give low-dimensional codes; autoregressive models give none.",
        [_has(groups, classes), _has_none(groups)],
        RULE,
        [
            table(
                "codes",
                "Accuracy of a linear probe for the classes [95 % interval]",
                ["model", "of the codes", "of x itself", "chance", "numbers in a code", "seeds"],
                [_row(group, classes) for group in groups],
            )
        ],
    )


def found(group: Group) -> list[Codes]:
    """Of the seeds that have them."""
    return [run.codes for run in group.finished if isinstance(run.codes, Codes)]


def accuracy(group: Group) -> Uncertain:
    """The probe's, over the seeds."""
    return over_seeds([each.accuracy for each in found(group)])


def chance(numbers: Sequence[Codes], classes: int | None) -> float | None:
    """What is right without looking."""
    measured = next((each.chance for each in numbers if each.chance is not None), None)
    return measured if measured is not None else None if not classes else 1 / classes


def _has(groups: Sequence[Group], classes: int | None) -> Part:
    make = partial(Part, "codes-variational", "VAEs", "VAEs give codes that know the classes.")
    members = of(VARIATIONAL, groups)
    if not members:
        return make(UNDECIDED, "there is no variational autoencoder here")
    scored = [group for group in members if found(group)]
    if not scored:
        return make(UNDECIDED, listed(dict.fromkeys(group.reason("codes") for group in members)))
    decided = every(knows(group, classes, len(scored)) for group in scored)
    said = listed(f"{group.name} {share(accuracy(group).number()).text}" for group in scored)
    alone = (
        "; of one seed nobody knows what another would give" if any(len(found(group)) < 2 for group in scored) else ""
    )
    lacking = [f"{group.name} ({group.reason('codes')})" for group in members if group not in scored]
    if lacking:
        return make(verdict_of(False if decided is False else None), f"{said}; without {listed(lacking)}")
    return make(verdict_of(decided), f"accuracy {said}{alone}")


def knows(group: Group, classes: int | None, tests: int) -> bool | None:
    """Whether the codes know of the classes; that they do not errs at most so often that all tests share the level."""
    numbers = found(group)
    least = chance(numbers, classes)
    if least is None or len(numbers) < 2:
        return None
    lead = accuracy(group) - Uncertain(least + MARGIN, ())
    return True if lead.sign() > 0 else False if lead.sign(LEVEL / tests) < 0 else None


def _has_none(groups: Sequence[Group]) -> Part:
    make = partial(Part, "codes-autoregressive", "autoregressive models", "Autoregressive models give no codes.")
    members = [group for group in of(AUTOREGRESSIVE, groups) if group.finished]
    if not members:
        return make(UNDECIDED, "there is no finished autoregressive model here")
    having = [group.name for group in members if found(group)]
    if having:
        return make(verdict_of(False), f"{listed(having)} has codes")
    reasons = {group.name: group.reason("codes") for group in members}
    absent = all(reason == NO_LATENTS for reason in reasons.values())
    return make(verdict_of(absent or None), listed(f"{name}: {reason}" for name, reason in reasons.items()))


def _row(group: Group, classes: int | None) -> list[Cell]:
    numbers = found(group)
    if not numbers:
        return [text(group.name), none(group.reason("codes")), *[text("")] * 4]
    least = chance(numbers, classes)
    return [
        text(group.name),
        share(accuracy(group).number()),
        share(over_seeds([each.of_pixels for each in numbers]).number()),
        none("neither the share of the commonest class nor the number of classes is known")
        if least is None
        else Cell(f"{least:.2f}", least),
        count(numbers[0].numbers),
        count(len(numbers)),
    ]


def probe(group: Group) -> Cell:
    """The accuracy, as the main table has it."""
    return share(accuracy(group).number()) if found(group) else none(group.reason("codes"))
