"""Claim 3: adversarial training is unstable, autoregressive training simple and stable."""

from collections.abc import Sequence
from statistics import fmean, variance

from inference.evaluation.rank_statistics import distributions
from ppmodels.app.study.claims.claim import UNDECIDED, Claim, Part, claim, listed, verdict_of
from ppmodels.app.study.groups import ADVERSARIAL, AUTOREGRESSIVE, PARAGRAPH, Group, of, others
from ppmodels.app.study.measurement import FAILED, LogLikelihood, Measurement, Missing, Number, Samples
from ppmodels.app.study.tables import Cell, count, interval, none, plain, table, text
from ppmodels.app.study.uncertain import LEVEL

SEEDS = 5
"""Below so many a spread is not judged."""
RULE = (
    "GANs are judged against all others, and autoregressive models against GANs alone. A run that failed, or collapsed "
    "(its samples cover less than half of what as many data would, as those of a run that was hardly trained do too), is "
    "a fact and needs no test: the claim holds if adversarial runs did and no other run did, and does not hold if only "
    f"others did; of one seed of a model: not decided. Else the spread decides, from {SEEDS} seeds of each model on: the "
    "variance of the final KID over seeds, within models, of the adversarial family against each of the other two, by an "
    "F test, which takes KID over seeds as normal. It holds if it is larger than both, each at 2.5 %; it does not hold if "
    "it is smaller than one of them, each at 2.5 % over their number. If KID is normal it errs at most 5 % of times. The "
    "variance has KID's own noise in it, of all families alike."
)


def stability(groups: Sequence[Group]) -> Claim:
    """How the last samples differ from seed to seed, and which runs failed."""
    members, rivals, stable = of(ADVERSARIAL, groups), others(ADVERSARIAL, groups), of(AUTOREGRESSIVE, groups)
    tests = len({each.family for each in rivals})
    parts = [
        Part(
            "stability",
            "",
            "Training of GANs is less stable than that of the others.",
            *_decided(members, rivals, "model of the other families", tests),
        ),
        Part(
            "stability-autoregressive",
            "",
            "Training of autoregressive models is more stable than that of GANs.",
            *_decided(members, stable, "autoregressive model", tests),
        ),
    ]
    columns = ["model", "runs", "failed", "collapsed", "spread of KID", "worst seed, KID", "spread of nats"]
    return claim(
        3,
        "Stability",
        "GANs are hard to optimise, as their training is unstable; autoregressive models train simply and stably.",
        parts,
        RULE,
        [
            table(
                "stability",
                "Runs that went wrong, and standard deviations over the others' seeds",
                columns,
                [_row(group) for group in groups],
                _notes(groups),
            )
        ],
    )


def _decided(members: Sequence[Group], rivals: Sequence[Group], sought: str, tests: int) -> tuple[str, str]:
    """Whether adversarial models are less stable than the rivals; each of so many tests could refute the claim."""
    if not members or not rivals:
        return UNDECIDED, f"there is no {sought if members else 'adversarial model'} here"
    ours, theirs = _wrong(members), _wrong(rivals)
    single = min(len(each.runs) for each in (*members, *rivals)) < 2
    alone = "; of one seed nobody knows what another would give" if single else ""
    if ours and not theirs:
        said = f"of the adversarial runs {_told(members)}, of the others none{alone}"
        return verdict_of(None if single else True), said
    if theirs and not ours:
        said = f"of the other families' runs {_told(rivals)}, of the adversarial ones none{alone}"
        return verdict_of(None if single else False), said
    both = f"runs went wrong on both sides: of the adversarial ones {_told(members)}, of the others {_told(rivals)}; "
    return _by_spread(members, rivals, tests, both if ours and theirs else "")


def _by_spread(members: Sequence[Group], rivals: Sequence[Group], tests: int, before: str) -> tuple[str, str]:
    fewest = min(len(kids(each)) for each in (*members, *rivals))
    if fewest < SEEDS:
        seeds = f"{fewest} seed{'' if fewest == 1 else 's'}"
        return UNDECIDED, f"{before}KID is known for {seeds} of a model, and a spread is judged from {SEEDS} on"
    families = [of(family, rivals) for family in PARAGRAPH if of(family, rivals)]
    ratios = [(within(members)[0] / within(some)[0], within(members)[1], within(some)[1]) for some in families]
    f = distributions().f
    larger = all(f.sf(ratio, mine, theirs) < LEVEL / 2 for ratio, mine, theirs in ratios)
    smaller = any(f.cdf(ratio, mine, theirs) < LEVEL / 2 / tests for ratio, mine, theirs in ratios)
    said = listed(
        f"{ratio:.2g} times that of {some[0].family}" for (ratio, _, _), some in zip(ratios, families, strict=True)
    )
    return verdict_of(
        True if larger else False if smaller else None
    ), f"{before}the variance of the final KID is {said}"


def within(groups: Sequence[Group]) -> tuple[float, int]:
    """The variance of KID over seeds within models, and its degrees of freedom."""
    found = [[each.value for each in kids(group)] for group in groups]
    freedom = sum(len(each) - 1 for each in found)
    return max(sum(variance(each) * (len(each) - 1) for each in found) / freedom, 1e-300), freedom


def kids(group: Group) -> list[Number]:
    """The final KID of each seed that has one."""
    found = (run.samples for run in group.finished)
    return [each.kid for each in found if isinstance(each, Samples) and isinstance(each.kid, Number)]


def worst(group: Group) -> Measurement | None:
    """The finished run of the largest KID."""
    scored = [
        (run.samples.kid.value, run)
        for run in group.finished
        if isinstance(run.samples, Samples) and isinstance(run.samples.kid, Number)
    ]
    return max(scored, key=lambda each: each[0])[1] if scored else None


def failed(group: Group) -> int:
    """How many runs failed."""
    return sum(run.status == FAILED for run in group.runs)


def collapsed(group: Group) -> int:
    """How many finished runs collapsed."""
    return sum(run.collapsed for run in group.finished)


def _wrong(groups: Sequence[Group]) -> int:
    return sum(failed(group) + collapsed(group) for group in groups)


def _told(groups: Sequence[Group]) -> str:
    count = sum(len(group.runs) for group in groups)
    return f"{sum(map(failed, groups))} failed and {sum(map(collapsed, groups))} collapsed of {count}"


def _row(group: Group) -> list[Cell]:
    found, last = kids(group), worst(group)
    nats = [run.log_likelihood.nats for run in group.finished if isinstance(run.log_likelihood, LogLikelihood)]
    kid = last.samples.kid if last is not None and isinstance(last.samples, Samples) else Missing(_why(group))
    told = interval(kid)
    seed = "" if last is None else f"seed {last.seed}: "
    return [
        text(group.name),
        *map(count, (len(group.runs), failed(group), collapsed(group))),
        _spread([each.value for each in found], _why(group)),
        Cell(f"{seed}{told.text}", told.value, told.low, told.high, told.missing),
        _spread(nats, group.reason("log_likelihood")),
    ]


def _why(group: Group) -> str:
    reasons = [run.samples.kid for run in group.finished if isinstance(run.samples, Samples)]
    return next((each.missing for each in reasons if isinstance(each, Missing)), group.reason("samples"))


def _spread(values: Sequence[float], reason: str) -> Cell:
    if len(values) < 2:
        return none("one seed has no spread" if values else reason)
    spread = variance(values) ** 0.5
    return plain(spread, 4 if abs(fmean(values)) < 1 else 2)


def _notes(groups: Sequence[Group]) -> list[str]:
    return [
        f"{run.model}, seed {run.seed}, failed after {run.training.steps:,} steps: {run.reason}"
        for group in groups
        for run in group.runs
        if run.status == FAILED
    ] + [f"{run.model}, seed {run.seed}, collapsed." for group in groups for run in group.finished if run.collapsed]
