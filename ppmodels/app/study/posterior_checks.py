"""How far a guide can be trusted: tails of its weights, what amortisation costs, ranks of what made simulated data."""

import torch

from inference import calibration, diagnose, refined
from inference.evaluation.calibration import Calibration
from inference.evaluation.diagnose import Diagnosis
from ppmodels.app.experiment import Experiment
from ppmodels.app.scoring import unvalidated
from ppmodels.app.study.measurement import Missing, Number, Posterior
from ppmodels.app.study.missing import around, found_or_missing
from ppmodels.app.study.probe import refuse_without_codes
from ppmodels.app.study.settled import with_test

EXAMPLES, DRAWS, LARGE = 50, 500, 0.7
"""The first of the study's examples that are diagnosed; draws for each; the k̂ above which weights are not to be trusted."""
REFINED = refined(100, 4, 200)
SIMULATIONS, RANKED_AMONG = 200, 99


def posterior_checks(experiment: Experiment, examples: list[int], seed: int = 0) -> Posterior:
    """The three, each by small settings. Raises ValueError where the guide has no posterior of an example."""
    refuse_without_codes(experiment)
    rows = torch.tensor(examples[:EXAMPLES])
    subject = with_test(experiment, rows)
    batches = subject.in_order("test", len(rows))
    given = subject.in_order("train", min(SIMULATIONS, len(subject.data.train)))
    with unvalidated():
        diagnosed = found_or_missing(lambda: diagnose(subject.program, batches, DRAWS, REFINED, seed))
        ranked = found_or_missing(
            lambda: calibration(subject.program, next(iter(given)), SIMULATIONS, RANKED_AMONG, seed=seed)
        )
    return Posterior(
        k_hat=diagnosed if isinstance(diagnosed, Missing) else float((diagnosed.khat > LARGE).double().mean()),
        amortisation_gap=diagnosed if isinstance(diagnosed, Missing) else _gap(diagnosed),
        calibration=ranked if isinstance(ranked, Missing) else _smallest(ranked),
        words=_in_words(len(rows), diagnosed, ranked),
    )


def _gap(found: Diagnosis) -> Number | Missing:
    gap, error = found.amortisation_gap, found.amortisation_gap_error
    if gap is None or error is None:
        return Missing(found.without_amortisation_gap)
    return found_or_missing(lambda: around(gap, error))


def _smallest(found: Calibration) -> Number:
    """The smallest p-value, times how many there are (Bonferroni); a p-value has no interval."""
    smallest = min(test.p_value for test in found.tests.values()) * len(found.tests)
    return Number(*[min(1.0, float(smallest))] * 3)


def _in_words(rows: int, diagnosed: Diagnosis | Missing, ranked: Calibration | Missing) -> str:
    said = []
    if not isinstance(diagnosed, Missing):
        said.append(
            f"{rows} test examples, {DRAWS} draws each: median k̂ {float(diagnosed.khat.median()):.2f}, largest "
            f"{float(diagnosed.khat.max()):.2f}; the amortisation gap by {REFINED.steps} steps for each example"
        )
    if not isinstance(ranked, Missing):
        flagged = ranked.flagged
        named = f": {', '.join(flagged[:3])}{' and others' if len(flagged) > 3 else ''}" if flagged else ""
        said.append(
            f"{len(flagged)} of {len(ranked.tests)} quantities do not rank uniformly in {SIMULATIONS} simulations{named}; "
            f"the p-value is the smallest, times {len(ranked.tests)}"
        )
    return "; ".join(said)
