"""exact() against sums over every assignment, row by row."""

import itertools
import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from inference import Pair, ProgramError, evaluate, exact

START = torch.tensor([0.6, 0.4], dtype=torch.float64)
MOVE = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
LOC = torch.tensor([-1.0, 1.0], dtype=torch.float64)
X = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([3, 1, 2, 0])


def _exact(model: Callable[..., object], *batch: Tensor) -> Tensor:
    return evaluate(Pair(model), batch, {"exact": exact()}).log_prob["exact"]


def _chain(x: Tensor, lengths: Tensor) -> None:
    with pyro.plate("data", len(x)):
        state = None
        for t in pyro.markov(range(x.shape[1])):
            state = pyro.sample(f"z{t}", dist.Categorical(START if state is None else MOVE[state]))
            with poutine.mask(mask=t < lengths):
                pyro.sample(f"x{t}", dist.Normal(LOC[state], 0.5), obs=x[:, t])


def _chain_masked_whole(x: Tensor, lengths: Tensor) -> None:
    with pyro.plate("data", len(x)):
        state = None
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=t < lengths):
                state = pyro.sample(f"z{t}", dist.Categorical(START if state is None else MOVE[state]))
                pyro.sample(f"x{t}", dist.Normal(LOC[state], 0.5), obs=x[:, t])


def _by_hand(x: Tensor) -> float:
    total = 0.0
    for states in itertools.product(range(2), repeat=len(x)):
        chances = [START[states[0]] if t == 0 else MOVE[states[t - 1], state] for t, state in enumerate(states)]
        log_x = [dist.Normal(LOC[state], 0.5).log_prob(x[t]) for t, state in enumerate(states)]
        total += math.prod(map(float, chances)) * math.exp(sum(map(float, log_x)))
    return math.log(total)


@pytest.mark.parametrize("model", [_chain, _chain_masked_whole], ids=["observations", "whole steps"])
def test_a_chain_of_every_length_has_the_evidence_of_what_was_seen(model: Callable[..., object]) -> None:
    expected = [_by_hand(row[:length]) if length else 0.0 for row, length in zip(X, LENGTHS.tolist(), strict=True)]
    torch.testing.assert_close(_exact(model, X, LENGTHS).tolist(), expected)


def test_a_mask_inside_the_example_hides_single_values() -> None:
    seen = torch.tensor([[True, True, False], [False, False, False], [True, False, True], [True, True, True]])

    def model(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(START))
            with pyro.plate("values", 3, dim=-2), poutine.mask(mask=seen.T):
                pyro.sample("x", dist.Normal(LOC[k], 0.5), obs=x.T)

    each = torch.stack([dist.Normal(loc, 0.5).log_prob(X) for loc in LOC])
    each = torch.where(seen, each, torch.zeros_like(each)).sum(2)
    torch.testing.assert_close(_exact(model, X, seen), torch.logsumexp(START.log().unsqueeze(1) + each, 0))


def test_observed_values_of_finite_support_are_not_summed_out() -> None:
    chance = torch.tensor([[0.1, 0.9], [0.6, 0.4]], dtype=torch.float64)  # of y given k
    y = torch.tensor([0, 1, 1, 0])

    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(START))
            pyro.sample("y", dist.Categorical(chance[k]), obs=y)
            pyro.sample("x", dist.Normal(LOC[k], 0.5), obs=x[:, 0])

    each = torch.stack(
        [START[k].log() + chance[k, y].log() + dist.Normal(LOC[k], 0.5).log_prob(X[:, 0]) for k in (0, 1)]
    )
    torch.testing.assert_close(_exact(model, X, y), torch.logsumexp(each, 0))


def test_a_subsampled_plate_scales_no_example() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", 100, subsample_size=len(x)):
            k = pyro.sample("k", dist.Categorical(START))
            pyro.sample("x", dist.Normal(LOC[k], 0.5), obs=x[:, 0])

    each = torch.stack([START[k].log() + dist.Normal(LOC[k], 0.5).log_prob(X[:, 0]) for k in (0, 1)])
    torch.testing.assert_close(_exact(model, X), torch.logsumexp(each, 0))


def _shared(x: Tensor) -> None:
    k = pyro.sample("k", dist.Categorical(START))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(LOC[k], 0.5), obs=x[:, 0])


def _shared_observation(x: Tensor) -> None:
    pyro.sample("y", dist.Normal(x.new_zeros(()), 1.0), obs=x.new_ones(()))
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(START))
        pyro.sample("x", dist.Normal(LOC[k], 0.5), obs=x[:, 0])


def _scaled(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(START))
        with poutine.scale(scale=0.5):
            pyro.sample("x", dist.Normal(LOC[k], 0.5), obs=x[:, 0])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_shared, r"site 'k'.*shared by all examples"),
        (_shared_observation, r"site 'y'.*shared by all examples"),
        (_scaled, "site 'x' is scaled by 0.5"),
    ],
)
def test_what_has_no_exact_number_per_example_is_refused(model: Callable[..., object], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        _exact(model, X)
