"""How many steps fit into minutes, of made-up timings."""

import pytest

from ppmodels.app.study.budget import TIMED, Cost, makespan, steps_within

PLAIN = Cost(start=10.0, step=0.1, score=0.0, score_every=None)
SCORED = Cost(start=10.0, step=0.1, score=5.0, score_every=100)


def test_seconds_are_start_and_steps_and_scores() -> None:
    assert PLAIN.seconds(250) == pytest.approx(35.0)
    assert SCORED.seconds(250) == pytest.approx(35.0 + 3 * 5.0)  # at 100, at 200, and at the last step


def test_steps_are_the_most_that_fit() -> None:
    for seconds in (10.0, 16.0, 31.0, 77.7):
        found = SCORED.steps(seconds, 10**6)
        assert SCORED.seconds(found) <= seconds or found == 0
        assert SCORED.seconds(found + 1) > seconds
    assert SCORED.steps(1e9, 123) == 123
    assert SCORED.steps(3.0, 123) == 0


def test_jobs_are_begun_in_their_turn_by_whoever_is_free() -> None:
    assert makespan([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    assert makespan([1.0, 1.0, 3.0], 2) == 4.0
    assert makespan([1.0, 2.0, 3.0], 1) == 6.0
    assert makespan([], 2) == 0.0


def test_all_runs_are_given_the_same_time() -> None:
    """Two processes and two models with three seeds are three rounds of a minute each."""
    costs = {"slow": Cost(10.0, 1.0, 0.0, None), "quick": Cost(20.0, 0.01, 0.0, None)}
    found = steps_within(3.0, costs, {"slow": 10**6, "quick": 10**6}, seeds=3, processes=2)
    assert found == {"slow": 50, "quick": 4000}


def test_what_a_recipe_does_not_need_is_the_others() -> None:
    costs = {"short": Cost(0.0, 0.1, 0.0, None), "long": Cost(0.0, 0.1, 0.0, None)}
    found = steps_within(10.0, costs, {"short": 100, "long": 10**6}, seeds=1, processes=1)
    assert found == {"short": 100, "long": 5900}
    whole = steps_within(60.0, costs, {"short": 100, "long": 200}, seeds=1, processes=1)
    assert whole == {"short": 100, "long": 200}


def test_too_few_minutes_are_refused_with_those_that_are_needed() -> None:
    costs = {"slow": Cost(50.0, 2.0, 0.0, None), "quick": PLAIN}
    most = {"slow": 1000, "quick": 1000}
    with pytest.raises(
        ValueError, match=r"--minutes 1 leaves too few steps: slow 5, where 20 are the fewest"
    ) as refused:
        steps_within(1.0, costs, most, seeds=1, processes=2)
    needed = float(str(refused.value).split("These need ")[1].split(" minutes")[0])
    assert needed == pytest.approx(1.5)
    found = steps_within(needed, costs, most, seeds=1, processes=2)
    assert min(found.values()) >= TIMED


def test_a_recipe_of_few_steps_is_no_reason_to_refuse() -> None:
    assert steps_within(10.0, {"tiny": PLAIN}, {"tiny": 3}, seeds=1, processes=1) == {"tiny": 3}
