"""Laws of the feed: every example once an epoch, batches as functions of the step, one fixed draw in evaluation."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ppmodels.data import Dataset, InOrder, Shuffled, Split, load


def numbered(n: int) -> Dataset:
    """A table whose only feature, like its label, is the example's index."""
    split = Split(torch.arange(n).float()[:, None], torch.arange(n))
    return Dataset("numbered", split, split, split, None)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 40), data=st.data(), seed=st.integers(-5, 2**40))
def test_every_epoch_visits_every_example_once(n: int, data: st.DataObject, seed: int) -> None:
    batch_size = data.draw(st.integers(1, n))
    batches = Shuffled(numbered(n), batch_size=batch_size, seed=seed, labelled=True)
    epochs, seen = 3, []
    for step in range(-(-epochs * n // batch_size)):
        x, y = batches(step)
        assert x.shape == (batch_size, 1)
        assert torch.equal(x[:, 0].long(), y)
        seen.append(y)
    visits = torch.cat(seen)[: epochs * n].view(epochs, n)
    assert torch.equal(visits.sort(1).values, torch.arange(n).expand(epochs, n))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = set()
    for seed in range(10):
        batches = Shuffled(numbered(20), batch_size=10, seed=seed)
        orders |= {
            tuple(torch.cat([batches(2 * epoch)[0], batches(2 * epoch + 1)[0]]).flatten().tolist())
            for epoch in range(10)
        }
    assert len(orders) == 100


def test_a_batch_of_the_whole_split_keeps_its_order() -> None:
    batches = Shuffled(numbered(20), batch_size=20, seed=3)
    assert all(torch.equal(batches(step)[0].flatten(), torch.arange(20.0)) for step in range(3))


@pytest.mark.parametrize("how", ["none", "dynamic"])
def test_a_batch_is_a_function_of_the_step_alone(digits: Dataset, how: str) -> None:
    data = digits.binarized(how)
    batches = Shuffled(data, batch_size=100, seed=7, labelled=True)
    x, y = batches(37)
    for step in (0, 14, 15, 400, 36):
        batches(step)
    for again in (batches(37), Shuffled(data, batch_size=100, seed=7, labelled=True)(37)):
        assert torch.equal(again[0], x)
        assert torch.equal(again[1], y)
    assert not torch.equal(Shuffled(data, batch_size=100, seed=8)(37)[0], x)
    (unlabelled,) = Shuffled(data, batch_size=100, seed=7)(37)
    assert torch.equal(unlabelled, x)


def test_no_global_generator_is_read_or_moved(digits: Dataset) -> None:
    def states() -> tuple[bytes, bytes, object]:
        legacy = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002 (the test is about the global state)
        return torch.get_rng_state().numpy().tobytes(), legacy.tobytes(), random.getstate()

    before, first = states(), Shuffled(digits.binarized("dynamic"), batch_size=64)(3)
    digits.binarized("static", seed=1)
    list(InOrder(digits.binarized("dynamic"), "valid", 50))
    load("digits", seed=2)
    assert states() == before
    torch.rand(3)
    assert torch.equal(first[0], Shuffled(digits.binarized("dynamic"), batch_size=64)(3)[0])


def test_grey_batches_are_float_levels(digits: Dataset) -> None:
    (x,) = Shuffled(digits, batch_size=128)(0)
    assert (x.dtype, x.shape) == (torch.float32, (128, 1, 8, 8))
    assert float(x.max()) == 16
    assert torch.equal(x, x.round())


def test_dynamic_batches_are_fresh_draws_with_the_right_probabilities(digits: Dataset) -> None:
    n = len(digits.train)
    batches = Shuffled(digits.binarized("dynamic"), batch_size=n, labelled=True)
    grey = Shuffled(digits, batch_size=n, labelled=True)
    total, variance = 0.0, 0.0
    for step in range(8):
        (x, y), (levels, same) = batches(step), grey(step)
        assert torch.equal(y, same)
        assert x.dtype == torch.float32
        assert set(x.unique().tolist()) == {0.0, 1.0}
        p = levels.double() / 16
        total += float((x - p).sum())
        variance += float((p * (1 - p)).sum())
    # z < 5.5: false alarm 4e-8; 736,000 pixels catch a shift of the mean probability of 0.002.
    assert abs(total / variance**0.5) < 5.5


def test_no_two_steps_share_their_noise() -> None:
    half = Split(torch.full((100, 1, 8, 8), 1, dtype=torch.uint8))
    batches = Shuffled(Dataset("half", half, half, half, 3).binarized("dynamic"), batch_size=100)
    draws = torch.stack([batches(step)[0] for step in range(20)]).flatten(1)
    agree = (draws[:, None] == draws[None]).double().mean(-1)[~torch.eye(20, dtype=torch.bool)]
    # Of 6,400 fair pixels half agree; z < 6 for each of 190 pairs: false alarm 4e-7; shared noise agrees everywhere.
    assert float((agree - 0.5).abs().max()) < 6 * 0.5 / 80


def test_in_order_covers_the_split_once_and_again(digits: Dataset) -> None:
    batches = InOrder(digits, "test", 50, labelled=True)
    assert len(batches) == 4
    for _ in range(2):
        parts = list(batches)
        assert [len(x) for x, _ in parts] == [50, 50, 50, 30]
        assert torch.equal(torch.cat([x for x, _ in parts]), digits.test.values.float())
        assert digits.test.labels is not None
        assert torch.equal(torch.cat([y for _, y in parts]), digits.test.labels)
    assert len(list(InOrder(digits, "test", 1000))) == len(InOrder(digits, "test", 1000)) == 1


def test_evaluation_of_dynamic_binarisation_does_not_depend_on_the_batch_size(digits: Dataset) -> None:
    dynamic = digits.binarized("dynamic")
    whole = [torch.cat([x for (x,) in InOrder(dynamic, "test", size)]) for size in (1, 7, 180, 500)]
    assert all(torch.equal(whole[0], other) for other in whole[1:])
    assert set(whole[0].unique().tolist()) == {0.0, 1.0}
    again = InOrder(dynamic, "test", 60)
    assert torch.equal(torch.cat([x for (x,) in again]), torch.cat([x for (x,) in again]))


def test_writing_into_a_batch_does_not_reach_the_data() -> None:
    data = numbered(6)
    before = data.test.values.clone()
    for x, y in InOrder(data, "test", 4, labelled=True):
        x.zero_()
        y.zero_()
    for x, y in (Shuffled(data, batch_size=3, labelled=True)(step) for step in range(3)):
        x.zero_()
        y.zero_()
    assert torch.equal(data.test.values, before)
    assert torch.equal(data.test.labels, torch.arange(6))


def test_feeds_carry_the_description_of_their_split(digits: Dataset) -> None:
    assert Shuffled(digits, "valid", 10).description == digits.description("valid")
    assert InOrder(digits, "test", 10).description == digits.description("test")


def test_impossible_feeds_are_refused(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="expected at most 180, the examples in the test split of digits, got 181"):
        Shuffled(digits, "test", 181)
    with pytest.raises(ValueError, match="batch_size: expected a whole number of at least 1, got 0"):
        InOrder(digits, "test", 0)
    unlabelled = Dataset("bare", *(Split(torch.zeros(4, 2)) for _ in range(3)), levels=None)
    for feed in (
        lambda: Shuffled(unlabelled, batch_size=2, labelled=True),
        lambda: InOrder(unlabelled, "valid", 2, labelled=True),
    ):
        with pytest.raises(ValueError, match=r"bare has no labels in its .* split; use labelled=False"):
            feed()
