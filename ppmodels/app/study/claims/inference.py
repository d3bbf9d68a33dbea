"""Claim 6: VAEs infer their latents."""

from collections.abc import Sequence

from ppmodels.app.study.claims.claim import UNDECIDED, Claim, Part, claim, every, listed, verdict_of
from ppmodels.app.study.groups import VARIATIONAL, Group, of
from ppmodels.app.study.measurement import Measurement, Missing, Number, Posterior
from ppmodels.app.study.tables import Cell, count, interval, none, plain, probability, table, text
from ppmodels.app.study.uncertain import LEVEL

TRUSTED, DISTRUSTED = 0.1, 0.5
"""Shares of the examples with k̂ above 0.7: up to the first the guide's weights are trusted, from the second they are not."""
RULE = (
    "A guide's posterior is judged by two numbers of each run: the share of test examples whose weights have Pareto k̂ "
    "above 0.7, and the p-value of simulation-based calibration, as it was corrected for its statistics. It does not hold "
    "if in one run calibration is refused, at 5 % over the number of VAE runs (so that right guides are refused at most 5 "
    "% of times), or most of the examples have k̂ above 0.7. It holds if in every run no more than a tenth of them have, "
    "and calibration is not refused at 5 %: that is the absence of a fault that this count of simulations would find, and "
    "no proof. Else, and of one seed, it is not decided."
)


def inference(groups: Sequence[Group]) -> Claim:
    """How far the posterior can be trusted where there is one."""
    part = Part("inference", "", "Their posterior can be trusted.", *_decided(of(VARIATIONAL, groups)))
    rows = [row for group in groups for row in ([_row(run) for run in group.had("posterior")] or [_nothing(group)])]
    return claim(
        6,
        "Inference",
        "VAEs learn and infer in graphical models with latents.",
        [part],
        RULE,
        [
            table(
                "inference",
                "The guide's posterior, by run",
                ["model", "seed", "k̂ above 0.7", "amortisation gap, nats", "calibration, p"],
                rows,
                dict.fromkeys(
                    f"{group.name}, seed {run.seed}: {run.posterior.words}"
                    for group in groups
                    for run in group.finished
                    if isinstance(run.posterior, Posterior) and run.posterior.words
                ),
            )
        ],
    )


def _decided(members: Sequence[Group]) -> tuple[str, str]:
    if not members:
        return UNDECIDED, "there is no variational autoencoder here"
    runs = [run for group in members for run in group.finished]
    if not runs:
        return UNDECIDED, "no run of a variational autoencoder finished"
    said = listed(dict.fromkeys(_said(group) for group in members if group.finished))
    if min(len(group.finished) for group in members if group.finished) < 2:
        return UNDECIDED, f"{said}; of one seed nobody knows what another would give"
    return verdict_of(every(trusted(run, len(runs)) for run in runs)), said


def trusted(run: Measurement, runs: int) -> bool | None:
    """Whether the posterior of a run, one of so many, can be trusted."""
    found = run.posterior
    if isinstance(found, Missing):
        return None
    share = None if isinstance(found.k_hat, Missing) else found.k_hat
    p = None if isinstance(found.calibration, Missing) else found.calibration.value
    if (p is not None and p < LEVEL / runs) or (share is not None and share > DISTRUSTED):
        return False
    return True if p is not None and p >= LEVEL and share is not None and share <= TRUSTED else None


def _said(group: Group) -> str:
    found = [run.posterior for run in group.finished if isinstance(run.posterior, Posterior)]
    if not found:
        return f"{group.name}: {group.reason('posterior')}"
    shares = [each.k_hat for each in found if not isinstance(each.k_hat, Missing)]
    values = [each.calibration.value for each in found if isinstance(each.calibration, Number)]
    most = f"at most {max(shares):.0%} of the examples have" if any(shares) else "no example has"
    k_hat = f"{most} k̂ above 0.7" if shares else "no k̂"
    p = f"the smallest p-value of calibration is {probability(min(values)).text}" if values else "no calibration"
    return f"{group.name}: {k_hat}, {p}"


def _row(run: Measurement) -> list[Cell]:
    found = run.posterior
    assert isinstance(found, Posterior)
    k_hat, p = found.k_hat, found.calibration
    return [
        text(run.model),
        count(run.seed),
        none(k_hat.missing) if isinstance(k_hat, Missing) else plain(k_hat, 3),
        interval(found.amortisation_gap),
        none(p.missing) if isinstance(p, Missing) else probability(p.value),
    ]


def _nothing(group: Group) -> list[Cell]:
    return [text(group.name), text(""), *[none(group.reason("posterior"))] * 3]
