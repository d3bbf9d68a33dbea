"""Masks hide what they are put around, and nothing else: in model and guide, for one particle and for several."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from inference import Pair, check, evaluate, importance, iwae, posterior, sample, terms

X = torch.tensor([0.3, -1.2, 0.8, 2.0, -0.5], dtype=torch.float64)
KEEP = torch.tensor([True, False, True, True, False])
Hide = Callable[[Tensor], AbstractContextManager[object]]


def _program(guide_mask: Hide, latent_mask: Hide, distribution_masks: bool = False) -> Pair:
    """z_n ~ N(0, 1), x_n ~ N(z_n, 1), observed where `keep` is true; the guide draws N(0.4 x_n, 0.8)."""

    def masked(fn: dist.TorchDistribution, keep: Tensor) -> dist.TorchDistribution:
        return fn.mask(keep) if distribution_masks else fn

    def model(x: Tensor, keep: Tensor) -> None:
        with pyro.plate("data", len(x)):
            with latent_mask(keep):
                z = pyro.sample("z", masked(dist.Normal(x.new_zeros(len(x)), 1.0), keep))
            with poutine.mask(mask=keep):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor, keep: Tensor) -> None:
        with pyro.plate("data", len(x)), guide_mask(keep):
            pyro.sample("z", masked(dist.Normal(0.4 * x, 0.8), keep))

    return Pair(model, guide)


def _by_row(keep: Tensor) -> AbstractContextManager[object]:
    return poutine.mask(mask=keep)


def _all(keep: Tensor) -> AbstractContextManager[object]:
    return poutine.mask(mask=False)


def _none(keep: Tensor) -> AbstractContextManager[object]:
    return nullcontext()


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize(
    ("program", "seen"),
    [
        (_program(_by_row, _by_row), KEEP),
        (_program(_none, _none, distribution_masks=True), KEEP),
        (_program(_all, _all), torch.zeros(5, dtype=torch.bool)),
        (_program(_none, _none), torch.ones(5, dtype=torch.bool)),
    ],
    ids=["by row", "by distribution", "mask=False", "unmasked latents"],
)
def test_a_latent_counts_where_it_is_not_masked(program: Pair, seen: Tensor, particles: int) -> None:
    torch.manual_seed(1)
    z = posterior(program, (X, KEEP), particles)["z"]
    torch.manual_seed(1)
    drawn = terms(program, (X, KEEP), particles)
    assert z.shape == (particles, 5)
    zero = torch.zeros_like(z)
    torch.testing.assert_close(drawn.posterior, torch.where(seen, dist.Normal(0.4 * X, 0.8).log_prob(z), zero))
    torch.testing.assert_close(drawn.prior, torch.where(seen, dist.Normal(0.0, 1.0).log_prob(z), zero))
    torch.testing.assert_close(drawn.likelihood, torch.where(KEEP, dist.Normal(z, 1.0).log_prob(X), zero))


def test_an_example_of_which_nothing_is_seen_has_the_evidence_one() -> None:
    found = evaluate(_program(_by_row, _by_row), (X, KEEP), {"iwae": importance(4)})
    assert found.log_prob["iwae"][~KEEP].tolist() == [0.0, 0.0]
    assert (found.log_prob["iwae"][KEEP] != 0).all()


def test_masked_scores_carry_no_credit() -> None:
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)

    def model(x: Tensor, keep: Tensor) -> None:
        with pyro.plate("data", len(x)), poutine.mask(mask=keep):
            k = pyro.sample("k", dist.Bernoulli(x.new_full((len(x),), 0.5)))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    def guide(x: Tensor, keep: Tensor) -> None:
        with pyro.plate("data", len(x)), poutine.mask(mask=keep):
            pyro.sample("k", dist.Bernoulli(logits=logits.expand(len(x) // 5, 5).flatten()))

    drawn = terms(Pair(model, guide), (X, KEEP), 3)
    torch.testing.assert_close(drawn.score, drawn.posterior)
    (gradient,) = torch.autograd.grad(drawn.log_scores.sum(), logits)
    assert gradient[~KEEP].tolist() == [0.0, 0.0]
    assert (gradient[KEEP] != 0).all()


def test_a_mask_inside_the_example_hides_single_values() -> None:
    seen = torch.tensor([[True, True, False], [False, False, False], [True, False, True]])
    x = torch.tensor([[0.1, 0.4, -2.0], [1.0, 2.0, 3.0], [-0.3, 0.2, 0.9]], dtype=torch.float64)
    log_prob = torch.where(seen, dist.Normal(0.5, 2.0).log_prob(x), torch.zeros_like(x)).sum(1)

    def in_the_event(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_full(x.shape, 0.5), 2.0).mask(seen).to_event(1), obs=x)

    def in_a_plate(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2), pyro.plate("values", 3, dim=-1), poutine.mask(mask=seen):
            pyro.sample("x", dist.Normal(x.new_full((), 0.5), 2.0), obs=x)

    for model in (in_the_event, in_a_plate):
        torch.testing.assert_close(iwae(terms(Pair(model), (x, seen), 1).log_weights), log_prob)


def test_values_outside_the_support_may_be_masked() -> None:
    """A missing count is often written as -1 and masked."""
    counts = torch.tensor([2.0, -1.0, 0.0, 5.0, -1.0], dtype=torch.float64)

    def model(x: Tensor, keep: Tensor) -> None:
        with pyro.plate("data", len(x)), poutine.mask(mask=keep):
            pyro.sample("x", dist.Poisson(x.new_full((len(x),), 3.0), validate_args=False), obs=x)

    def nothing_seen(x: Tensor, keep: Tensor) -> None:
        with pyro.plate("data", len(x)), poutine.mask(mask=False):
            pyro.sample("x", dist.Poisson(x.new_full((len(x),), 3.0), validate_args=False), obs=x)

    for each in (model, nothing_seen):
        check(Pair(each), (counts, KEEP))
    assert sample(Pair(model), (counts, KEEP))["x"].min() >= 0
