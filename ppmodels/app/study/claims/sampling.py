"""Claim 4: autoregressive models are slow to sample from."""

from collections.abc import Sequence
from statistics import median

from ppmodels.app.study.claims.claim import UNDECIDED, Claim, Part, claim, every, listed, verdict_of
from ppmodels.app.study.groups import AUTOREGRESSIVE, Group, of, others
from ppmodels.app.study.measurement import Sampling
from ppmodels.app.study.tables import Cell, count, duration, none, seconds, table, text

FACTOR = 2.0
"""What a busy machine can do to a median."""
RULE = (
    "Times are medians of repeated draws, on the study's device and one thread. An autoregressive model is slower than "
    f"another if its fastest seed takes more than {FACTOR:g} times what the other's slowest seed takes for an image, and "
    "faster likewise. It holds if every autoregressive model is slower than every model of the other two families, one "
    "image at a time and a hundred at once; it does not hold if one is faster in one of these. The factor stands for the "
    "error: a busy machine may change a median by that much, and no probability is claimed."
)


def sampling(groups: Sequence[Group]) -> Claim:
    """What an image costs."""
    part = Part("sampling", "", "Sampling from autoregressive models is slow.", *_decided(groups))
    return claim(
        4,
        "Sampling",
        "Autoregressive models are slow to sample from.",
        [part],
        RULE,
        [
            table(
                "sampling",
                "Time an image, the median over seeds, and passes of the network that wait for one another",
                ["model", "one at a time", "100 at once", "sequential steps"],
                [_row(group) for group in groups],
            )
        ],
    )


def times(group: Group) -> list[Sampling]:
    """Of the seeds that have them."""
    return [run.sampling for run in group.finished if isinstance(run.sampling, Sampling)]


def _decided(groups: Sequence[Group]) -> tuple[str, str]:
    members, rivals = of(AUTOREGRESSIVE, groups), others(AUTOREGRESSIVE, groups)
    scored, against = ([each for each in some if times(each)] for some in (members, rivals))
    if not scored or not against:
        return (
            UNDECIDED,
            f"no time of {'an autoregressive model' if not scored else 'a model of the other families'} is here",
        )
    decided = every(slower(one, other) for one in scored for other in against)
    lacking = [group.name for group in (*members, *rivals) if not times(group)]
    said = listed(f"{each.name} takes {duration(_alone(each))}" for each in (*scored, *against))
    if decided and lacking:
        return UNDECIDED, f"{said}; without a time: {listed(lacking)}"
    return verdict_of(decided), f"{said} for one image alone"


def slower(one: Group, other: Group) -> bool | None:
    """Whether an image of the first takes longer, alone and among 100; None where they are within the factor."""
    found = []
    for name in ("seconds_alone", "seconds_of_100"):
        mine, theirs = ([getattr(each, name) for each in times(group)] for group in (one, other))
        found.append(True if min(mine) > FACTOR * max(theirs) else False if FACTOR * max(mine) < min(theirs) else None)
    return every(found)


def _alone(group: Group) -> float:
    return median(each.seconds_alone for each in times(group))


def _row(group: Group) -> list[Cell]:
    found = times(group)
    if not found:
        return [text(group.name), none(group.reason("sampling")), text(""), text("")]
    return [
        text(group.name),
        seconds(_alone(group)),
        seconds(median(each.seconds_of_100 for each in found)),
        count(found[0].sequential_steps),
    ]
