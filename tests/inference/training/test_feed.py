"""The batches of a run: what repeats, what ends, and what is said where they end early."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from inference import SVI, ProgramError, Step, Validation, evaluate, fit, importance
from tests.problems import LinearGaussian

X = LinearGaussian.data(12)


def _passes(size: int = 4) -> Iterator[Tensor]:
    yield from X.split(size)


def _step() -> Step:
    return Step(SVI(LinearGaussian()))


def test_a_generator_that_ends_early_says_so() -> None:
    with pytest.warns(UserWarning, match=r"ended after 3 of 10 steps: this generator gives.*Or a function of") as said:
        short = fit(_step(), _passes(), 10, progress=False)
    assert (short.steps, short.stopped) == (3, "out of batches")
    assert [warning.filename for warning in said] == [__file__]


@pytest.mark.parametrize("batches", [_passes, partial(_passes, 6), lambda step: X, X.numpy(), DataLoader(X, 5)])
def test_what_starts_anew_lasts_for_all_steps(batches: object) -> None:
    assert fit(_step(), batches, 7, progress=False).stopped == "finished"


def test_a_generator_that_lasts_is_no_cause_for_a_warning() -> None:
    assert fit(_step(), _passes(), 3, progress=False).stopped == "finished"


def test_a_used_generator_is_refused_the_second_time() -> None:
    batches = _passes()
    fit(_step(), batches, 3, progress=False)
    with pytest.raises(ProgramError, match=r"this generator is used up.*the generator function itself"):
        fit(_step(), batches, 3, progress=False)
    with pytest.raises(ProgramError, match="this generator is used up"):
        evaluate(LinearGaussian(), batches, {"elbo": importance(1)})


@pytest.mark.parametrize("batches", [[], (), DataLoader(torch.zeros(0, 3))], ids=["list", "tuple", "loader"])
def test_no_batches_are_refused(batches: object) -> None:
    with pytest.raises(ProgramError, match=r"no batches: this \w+ is empty"):
        fit(_step(), batches, 3, progress=False)
    with pytest.raises(ProgramError, match=r"no batches: this \w+ is empty"):
        evaluate(LinearGaussian(), batches, {"elbo": importance(1)})
    with pytest.raises(ProgramError, match=r"the validation: there are no batches"):
        fit(_step(), X, 3, validation=Validation(batches), progress=False)


def test_a_validation_may_be_a_generator_function_and_no_generator() -> None:
    found = fit(_step(), X, 4, validation=Validation(_passes, every=2), progress=False)
    assert [row["step"] for row in found.history if "validation" in row] == [2.0, 4.0]
    with pytest.raises(ProgramError, match=r"an iterator ends after.*generator function itself"):
        Validation(_passes())


def test_a_generator_function_is_scored_as_its_list_is() -> None:
    scores = [
        evaluate(LinearGaussian(), each, {"elbo": importance(2)}).mean("elbo") for each in (_passes, [*_passes()])
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (5, "got a int"),
        (None, "there is no tensor"),
        (TensorDataset(X), r"got a TensorDataset. Its items are single examples: DataLoader"),
        (lambda step: None, "there is no tensor"),
        ("data.npy", r"batch\[0\] is a str"),
        ([3.0], r"batch\[0\] is a float"),
    ],
    ids=["number", "none", "dataset", "function of nothing", "name", "numbers"],
)
def test_what_is_no_batches_is_refused(batches: object, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        fit(_step(), batches, 3, progress=False)


def _three_times(step: int) -> Tensor:
    return X[:4] * (step + 1)


@pytest.mark.parametrize(
    "kind", [list, iter, lambda each: lambda step: each[step]], ids=["list", "iterator", "function"]
)
def test_the_batches_are_those_that_were_given(kind: Callable[[list[Tensor]], object]) -> None:
    given = [_three_times(step) for step in range(3)]
    losses: list[float] = []
    fit(_step(), kind(given), 3, callbacks=[lambda _, values: losses.append(float(values["loss"]))], progress=False)
    own = _step()
    assert losses == [float(own(batch)["loss"]) for batch in given]


def test_arrays_of_a_list_are_batches_and_an_array_is_one() -> None:
    rows: list[int] = []

    class Counted(LinearGaussian):
        def model(self, x: Tensor) -> Tensor:
            rows.append(len(x))
            return super().model(x)

    for batches, expected in ((X.numpy(), 12), ([X[:5].numpy(), X[:5].numpy()], 5), (np.split(X.numpy(), 3), 4)):
        rows.clear()
        fit(Step(SVI(Counted())), batches, 2, progress=False)
        assert {*rows} == {expected}
