"""What long computations tell of how far they have come: of stages within stages, and by every estimator."""

from collections.abc import Callable

import pytest
import torch

from inference import (
    Estimator,
    annealed,
    calibration,
    diagnose,
    evaluate,
    importance,
    predictive,
    refined,
    sandwich,
    to_arviz,
)
from inference.evaluation import annealing
from inference.evaluation.passes import count_of
from inference.evaluation.stages import followed_by, one_of, reached, shares, stage
from tests.problems import LinearGaussian, SharedMean

Told = list[tuple[float, str]]
PROGRAM, DATA = LinearGaussian(), LinearGaussian.data(6)


def told_by(compute: Callable[[], object]) -> Told:
    told: Told = []
    with followed_by(lambda done, what: told.append((done, what))):
        compute()
    return told


def test_a_stage_within_a_stage_counts_as_its_part() -> None:
    def compute() -> None:
        with stage(0.5, 1.0, "second"), one_of(1, 4, "batch"):
            reached(0.5, "draw 1")

    assert (0.5 + 0.5 * (0.25 + 0.25 * 0.5), "second, batch 2 of 4, draw 1") in told_by(compute)
    assert told_by(compute)[0] == (0.5, "second"), "a stage tells that it begins"
    assert told_by(compute)[-1] == (1.0, "second"), "and that it ends, with the one around it"


def test_an_error_leaves_the_follower_to_those_around() -> None:
    def compute() -> None:
        with pytest.raises(ZeroDivisionError), stage(0.0, 0.5, "first"), stage(0.0, 0.5, "of it"):
            reached(1 / 0)
        reached(0.75, "after")

    assert told_by(compute)[-1] == (0.75, "after")
    told: Told = []
    with pytest.raises(ZeroDivisionError), followed_by(lambda done, what: told.append((done, what))):
        1 / 0  # noqa: B018
    reached(1.0)
    assert not told, "nobody follows any more"


def test_work_shares_the_time() -> None:
    assert shares([1, 3]) == [(0.0, 0.25), (0.25, 1.0)]
    assert shares([]) == []


def test_batches_are_counted_where_that_takes_no_pass() -> None:
    assert count_of(DATA) == 1
    assert count_of((DATA, DATA)) == 1
    assert count_of([DATA, DATA]) == 2
    assert count_of(iter([DATA])) is None


@pytest.mark.filterwarnings("ignore:.*transitions were accepted")
@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (importance(9000), ""),
        (annealed(5, 4, leapfrog=1), "temperature 3 of 5"),
        (annealed(400, 4, leapfrog=1), "pilot round"),
        (sandwich(5, 4, leapfrog=1, simulations=2), "simulated, back, temperature 2 of 5"),
        (refined(5, draws=20), "step 4 of 5"),
    ],
    ids=["importance", "annealed", "pilot", "sandwich", "refined"],
)
def test_every_slow_estimator_tells_what_it_does(
    estimator: Estimator, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(annealing, "_PILOT_TRANSITIONS", 5)
    told = told_by(lambda: evaluate(PROGRAM, [DATA[:3], DATA[3:]], {"number": estimator, "other": importance(1)}))
    done = [each for each, _ in told]
    assert done == sorted(done)
    assert done[-1] == pytest.approx(1.0)
    assert len({each for each in done if each < 0.5}) > 4, "within one batch"
    assert [what for _, what in told if what.startswith("batch 1 of 2, number") and what.endswith(said)]


def test_an_estimator_of_a_users_own_needs_to_tell_nothing() -> None:
    class Own:
        kind, settings = "own", {}

        def __call__(self, program: object, batch: object) -> object:
            return importance(1)(PROGRAM, DATA)

    assert told_by(lambda: evaluate(PROGRAM, DATA, {"own": Own()}))[-1] == (1.0, "")


@pytest.mark.filterwarnings("ignore:k̂ of the weights")
def test_diagnosis_calibration_prediction_and_exports_tell_too() -> None:
    program, shared = SharedMean(5), torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    computed: dict[str, Callable[[], object]] = {
        "diagnosis": lambda: diagnose(PROGRAM, [DATA, DATA], 1000, refined(3, draws=20)),
        "calibration": lambda: calibration(PROGRAM, DATA, 500, 99),
        "refits": lambda: calibration(program, shared, 20, 3, refit=lambda batch: program),
        "prediction": lambda: evaluate(program, shared, {"p": predictive(5)}),
        "export": lambda: to_arviz(PROGRAM, DATA, 1000),
    }
    for name, compute in computed.items():
        done = [each for each, _ in told_by(compute)]
        assert done == sorted(done), name
        assert done[-1] == pytest.approx(1.0), name
        assert len(set(done)) > 3, name


def test_numbers_do_not_depend_on_who_follows() -> None:
    estimators = {"iwae": importance(20), "refined": refined(3, draws=20)}
    alone = evaluate(PROGRAM, DATA, estimators).log_prob
    followed: list[dict[str, torch.Tensor]] = []
    told_by(lambda: followed.append(evaluate(PROGRAM, DATA, estimators).log_prob))
    assert all(alone[name].equal(followed[0][name]) for name in estimators)
