"""Precision, recall, density, coverage and copied training data, where the answer is known."""

import pytest
import torch
from torch import Tensor

from inference.evaluation.sample_metrics import neighbours as subject
from inference.evaluation.sample_metrics.neighbours import expected_coverage, memorisation, neighbours, smallest_k
from inference.evaluation.sample_metrics.score import distances


def modes(n: int, seed: int, count: int = 4) -> Tensor:
    """So many far modes on a line, `(n, 2)`."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.randint(count, (n,), generator=generator)
    return torch.randn(n, 2, generator=generator, dtype=torch.float64) + 20 * torch.stack((at, torch.zeros(n)), 1)


def test_coverage_of_alike_samples_is_what_is_expected() -> None:
    for n, m in ((60, 60), (120, 60), (50, 80)):
        found = [neighbours(modes(n, 2 * s), modes(m, 2 * s + 1), 3).coverage.value for s in range(100)]
        values = torch.tensor(found)
        assert abs(float(values.mean()) - expected_coverage(n, m, 3)) < 5 * float(values.std()) / 100**0.5


def test_k_is_the_smallest_that_covers() -> None:
    assert smallest_k(10_000, 10_000) == 5
    for n, m in ((100, 100), (180, 180), (1000, 180)):
        k = smallest_k(n, m)
        assert expected_coverage(n, m, k) >= 0.95
        assert k == 1 or expected_coverage(n, m, k - 1) < 0.95
    with pytest.raises(ValueError, match="too few for coverage"):
        smallest_k(2, 1000)


def test_dropped_modes_cost_recall_and_coverage_but_no_precision() -> None:
    data = modes(400, 0)
    whole, fewer = neighbours(modes(400, 1), data), neighbours(modes(400, 2, count=2), data)
    assert min(whole.coverage.value, whole.recall.value, whole.precision.value) > 0.9
    assert fewer.precision.value > 0.9
    for each in (fewer.recall, fewer.coverage):  # half of the data lie in the two modes
        assert 0.4 < each.value < 0.55


def test_duplicated_samples_cover_less() -> None:
    data, few = modes(300, 0), modes(20, 1)
    found = neighbours(few.repeat(15, 1), data)
    assert found.precision.value > 0.8
    assert found.coverage.high < 0.7


def test_a_scale_costs_what_it_should() -> None:
    """Samples that are too narrow are precise and recall little; those that are too wide the other way round."""
    data = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fresh = torch.randn(400, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    narrow, wide = neighbours(0.3 * fresh, data), neighbours(3 * fresh, data)
    assert narrow.precision.value > 0.99 > 0.6 > narrow.recall.high
    assert wide.recall.value > 0.95 > 0.6 > wide.precision.high
    assert wide.density.high < 0.6 < 0.95 < narrow.density.low


def test_neighbours_are_found_in_pieces_of_the_training_data(monkeypatch: pytest.MonkeyPatch) -> None:
    train, held_out, samples = modes(300, 0), modes(50, 1), modes(40, 2)
    whole = memorisation(samples, train, held_out)
    monkeypatch.setattr(subject, "_AT_ONCE", 7)
    pieces = memorisation(samples, train, held_out)
    assert pieces.nearer == whole.nearer
    assert pieces.nearest.equal(whole.nearest)
    assert pieces.distance.equal(whole.distance)
    assert memorisation(samples, train[:1], held_out).nearest.eq(0).all()
    with pytest.raises(ValueError, match="train: expected at least 1"):
        memorisation(samples, train[:0], held_out)


def test_samples_off_the_data_have_neither() -> None:
    found = neighbours(modes(100, 0) + 500, modes(100, 1))
    assert [each.value for each in (found.precision, found.recall, found.density, found.coverage)] == [0, 0, 0, 0]


def test_copies_are_seen_and_fresh_draws_are_not() -> None:
    train, held_out = modes(300, 0), modes(200, 1)
    fresh = memorisation(modes(200, 2), train, held_out).nearer
    assert fresh.low < 0.5 < fresh.high
    copied = memorisation(train[:100], train, held_out)
    assert copied.nearer.value == 1.0
    assert copied.nearest.tolist() == list(range(100))
    assert float(copied.distance.max()) == 0.0
    half = memorisation(torch.cat((train[:100], modes(100, 3))), train, held_out).nearer
    assert 0.6 < half.low < half.high < 0.9, "½ · 1 + ½ · ½"


def test_the_interval_holds_what_it_says() -> None:
    inside = 0
    for seed in range(200):
        found = memorisation(modes(60, 3 * seed), modes(100, 3 * seed + 1), modes(60, 3 * seed + 2)).nearer
        inside += found.low <= 0.5 <= found.high
    assert inside >= 165, "0.95 of 200 are 190; that the training data are the same for both costs a little"


@pytest.mark.parametrize("rows", [torch.rand(60, 50, dtype=torch.float64), torch.randint(17, (60, 50)).double()])
def test_equal_rows_have_no_distance(rows: Tensor) -> None:
    assert distances(rows, rows).diagonal().eq(0).all()


def test_k_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="k: expected 1 to 9"):
        neighbours(modes(10, 0), modes(20, 1), 10)
