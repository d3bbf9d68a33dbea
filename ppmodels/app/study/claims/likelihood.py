"""Claim 1: autoregressive models have the best log-likelihoods."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from inference.evaluation.estimators import EXACT
from inference.programs.bounds import LOWER_BOUND
from ppmodels.app.study.claims.claim import Claim, Part, claim, leading, listed, verdict_of
from ppmodels.app.study.groups import AUTOREGRESSIVE, Group, of, others
from ppmodels.app.study.measurement import LogLikelihood, Missing
from ppmodels.app.study.tables import Cell, Table, count, none, probability, table, text, with_error
from ppmodels.app.study.uncertain import LEVEL, Uncertain, known, mean_of_examples, paired

RULE = (
    "Differences are paired by test example, of those that both models were scored on, each example's score averaged over "
    "the seeds of a model. Their standard error is the root of: the variance of the differences over the number of "
    "examples, and for each model the variance of its seeds' means over the number of seeds (a seed shifts all examples "
    "at once, which their spread does not show). Each variance is weighed by Student's quantile at its own degrees of "
    "freedom (Banerjee 1960), so that few seeds make wide intervals. Of a lower bound log p(x) lies above the number: a "
    "bound above a number decides; one below it decides only if a lead remains when its gap, as it was measured on data "
    "simulated from the model, is taken off with the gap's own error; else it is not decided. It holds if one "
    "autoregressive model is above every model of the other two families, and does not hold if one of these is above "
    "every autoregressive model. It errs at most 5 % of times (2.5 % on either side, shared among the models of a side). "
    "One seed tells nothing of what another would be: not decided."
)


@dataclass(frozen=True)
class Lead:
    """How far one model's log p(x) is above another's."""

    measured: Uncertain | None
    """The paired difference of the numbers as they are."""
    least: Uncertain | None
    """Of log p(x), the least that the difference can be: less the other's gap; None where that is not known."""
    reason: str
    """Why there is no such number; empty where there is."""


def likelihood(groups: Sequence[Group]) -> Claim:
    """The autoregressive models against those of the other two families."""
    members, rivals = of(AUTOREGRESSIVE, groups), others(AUTOREGRESSIVE, groups)
    scored = [[each for each in some if each.had("log_likelihood")] for some in (members, rivals)]
    part = Part("likelihood", "", "They have the best log-likelihoods.", *_decided(members, rivals, *scored))
    pairs = [[text(one.name), text(other.name), *_pair(one, other)] for one in scored[0] for other in scored[1]]
    return claim(
        1,
        "Likelihood",
        "Autoregressive models have the best log-likelihoods.",
        [part],
        RULE,
        [
            table(
                "likelihood-models",
                "log p(x) of the test examples, the mean over examples and seeds ± its standard error",
                ["model", "nats", "of log p(x)", "by", "seeds", "gap of the bound"],
                [_scored(group) for group in groups],
                _notes(groups),
            ),
            *([_paired(pairs)] if pairs else []),
        ],
    )


def _paired(pairs: Sequence[Sequence[Cell]]) -> Table:
    return table(
        "likelihood-pairs",
        "Paired differences: how far the first is ahead, and the probability that it is worse",
        ["model", "against", "ahead, nats", "after the gap", "P(worse)", "examples", "seeds"],
        pairs,
    )


def _decided(
    members: Sequence[Group], rivals: Sequence[Group], scored: Sequence[Group], against: Sequence[Group]
) -> tuple[str, str]:
    if not members or not rivals:
        return verdict_of(
            None
        ), f"there is no {'autoregressive model' if not members else 'model of the other families'} here"
    if missing := [
        f"{each.name} ({each.reason('log_likelihood')})"
        for each in (*members, *rivals)
        if each not in [*scored, *against]
    ]:
        lacking = f"; without a number: {listed(missing)}"
    else:
        lacking = ""
    if not scored or not against:
        return verdict_of(None), f"there are no numbers to compare{lacking}"
    found = leading(scored, against, above, LEVEL)
    if found and len(against) < len(rivals):
        return verdict_of(None), f"{_best(scored).name} is ahead of all that have a number{lacking}"
    return verdict_of(found), _because(scored, against, found) + lacking


def _because(scored: Sequence[Group], against: Sequence[Group], found: bool | None) -> str:
    """The pair that matters: the two best of both sides."""
    one, other = _best(scored), _best(against)
    found_lead = lead(one, other)
    if found_lead.measured is None:
        return found_lead.reason
    measured = found_lead.measured
    way = "ahead of" if measured.value >= 0 else "behind"
    size = with_error(measured if measured.value >= 0 else -measured).text
    said = f"{one.name} is {size} nats {way} {other.name}"
    if found is None and found_lead.reason and _side(measured) > 0:
        return f"{said}; {found_lead.reason}"
    if found is None and min(len(each.had("log_likelihood")) for each in (*scored, *against)) < 2:
        return f"{said} by the runs at hand, but of one seed nobody knows what another would give"
    return said if found is not None else f"{said}, within what seeds and examples leave open"


def _side(value: Uncertain) -> int:
    return 1 if value.value > 0 else -1


def above(one: Group, other: Group, level: float) -> bool:
    """Whether log p(x) of the first is above that of the second, which is wrongly said at most `level` of times."""
    found = lead(one, other)
    seeds = min(len(one.had("log_likelihood")), len(other.had("log_likelihood")))
    return found.least is not None and seeds > 1 and found.least.sign(2 * level) > 0


def lead(one: Group, other: Group) -> Lead:
    """How far one model's log p(x) is above another's."""
    mine, theirs = _numbers(one), _numbers(other)
    if not mine or not theirs:
        return Lead(None, None, f"{(other if mine else one).name} has no number")
    shared = _shared(one, other)
    if shared < 2:
        return Lead(None, None, f"{one.name} and {other.name} have no numbers of the same examples")
    if not all(math.isfinite(score) for each in (*mine, *theirs) for score in each.per_example):
        return Lead(None, None, f"numbers of {one.name} or {other.name} are not finite")
    measured = paired(*([each.per_example[:shared] for each in some] for some in (mine, theirs)))
    strange = [group.name for group, some in ((one, mine), (other, theirs)) if not _understood(some)]
    if strange:
        return Lead(measured, None, f"the number of {listed(strange)} is neither exact nor a bound")
    gap = gap_of(theirs)
    if gap is None:
        return Lead(measured, None, f"the number of {other.name} is a lower bound, whose gap has not been measured")
    return Lead(measured, measured - gap, "")


def gap_of(numbers: Sequence[LogLikelihood]) -> Uncertain | None:
    """How far log p(x) may lie above the numbers: nothing for exact ones; None where that has not been measured.

    The mean over seeds. A gap is nowhere below 0, whatever its estimate.
    """
    if all(each.kind == EXACT for each in numbers):
        return Uncertain(0.0, ())
    gaps = [each.gap for each in numbers if each.kind != EXACT]
    found = [known(gap) for gap in gaps if gap is not None]
    if len(found) < len(gaps):
        return None
    own = sum(each.parts[0][0] for each in found) / len(numbers) ** 2
    return Uncertain(sum(max(0.0, each.value) for each in found) / len(numbers), ((own, math.inf),))


def _numbers(group: Group) -> list[LogLikelihood]:
    found = (run.log_likelihood for run in group.finished)
    return [each for each in found if not isinstance(each, Missing)]


def _shared(*groups: Group) -> int:
    """How many of the study's examples all of them were scored on: of a shorter list the first."""
    return min((len(each.per_example) for group in groups for each in _numbers(group)), default=0)


def _understood(numbers: Sequence[LogLikelihood]) -> bool:
    return all(each.kind in (EXACT, LOWER_BOUND) for each in numbers)


def _best(groups: Sequence[Group]) -> Group:
    return max(groups, key=lambda group: fmean(each.nats for each in _numbers(group)))


def nats(group: Group) -> Cell:
    """A model's mean over examples and seeds, with its standard error."""
    numbers = _numbers(group)
    if not numbers:
        return none(group.reason("log_likelihood"))
    shared = _shared(group)
    if shared < 2:
        return with_error(
            Uncertain(fmean(each.nats for each in numbers), ((numbers[0].standard_error ** 2, math.inf),))
        )
    return with_error(mean_of_examples([each.per_example[:shared] for each in numbers]))


def kind(group: Group) -> str:
    """What a model's number is of log p(x)."""
    return listed(dict.fromkeys(each.kind.removesuffix(" in expectation") for each in _numbers(group)))


def _scored(group: Group) -> list[Cell]:
    numbers = _numbers(group)
    if not numbers:
        return [text(group.name), none(group.reason("log_likelihood")), *[text("")] * 4]
    gap = gap_of(numbers)
    told = none("the gap of this bound has not been measured") if gap is None else with_error(gap)
    exact = all(each.kind == EXACT for each in numbers)
    by = listed(dict.fromkeys(each.estimator for each in numbers))
    return [
        *map(text, (group.name,)),
        nats(group),
        text(kind(group)),
        text(by),
        count(len(numbers)),
        text("") if exact else told,
    ]


def _pair(one: Group, other: Group) -> list[Cell]:
    found = lead(one, other)
    of = count(_shared(one, other)), text(f"{len(_numbers(one))} and {len(_numbers(other))}")
    if found.measured is None:
        return [none(found.reason), text(""), none(found.reason), *of]
    if found.least is None:
        # The true difference is at most the measured one, and P(worse) at least what that would give.
        worse = found.measured.p_below()
        told = probability(worse, "≥ ") if worse > 0.5 else none(found.reason)
        return [with_error(found.measured), none(found.reason), told, *of]
    return [with_error(found.measured), with_error(found.least), probability(found.least.p_below()), *of]


def _notes(groups: Sequence[Group]) -> list[str]:
    notes = dict.fromkeys(f"{group.name}: {each.note}" for group in groups for each in _numbers(group) if each.note)
    return [
        *notes,
        *(
            f"{group.name}: one seed; errors and P(worse) are of this run, and know of no other"
            for group in groups
            if len(_numbers(group)) == 1
        ),
    ]
