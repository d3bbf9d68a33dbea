"""exact() and the posterior of finite latents, against sums over all assignments."""

import itertools
import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from inference import Pair, ProgramError, decode, evaluate, exact, reconstruct

WEIGHTS = torch.tensor([0.3, 0.7], dtype=torch.float64)
MEANS = torch.tensor([-1.0, 2.0], dtype=torch.float64)
STEPS = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64)
X = torch.tensor([-1.2, 0.4, 1.5, 3.0], dtype=torch.float64)
SEEN = torch.tensor([True, False, True, False])


def _component(x: Tensor) -> Tensor:
    k = pyro.sample("k", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel"})
    return pyro.sample("x", dist.Normal(MEANS[k], 1.0), obs=x)


def _masked(x: Tensor, seen: Tensor) -> Tensor:
    with pyro.plate("data", len(x)), poutine.mask(mask=seen):
        return _component(x)


def _mask_of_nothing(x: Tensor, seen: Tensor) -> Tensor:
    with pyro.plate("data", len(x)), poutine.mask(mask=False):
        return _component(x)


def _masked_distributions(x: Tensor, seen: Tensor) -> Tensor:
    with pyro.plate("data", len(x)):
        hidden = dist.Categorical(WEIGHTS).expand([len(x)]).mask(seen)
        k = pyro.sample("k", hidden, infer={"enumerate": "parallel"})
        return pyro.sample("x", dist.Normal(MEANS[k], 1.0).mask(seen), obs=x)


def _latent_hidden_alone(x: Tensor, seen: Tensor) -> Tensor:
    """A hidden latent is summed over its probabilities all the same, as what depends on it is seen."""
    with pyro.plate("data", len(x)):
        with poutine.mask(mask=seen):
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel"})
        return pyro.sample("x", dist.Normal(MEANS[k], 1.0), obs=x)


def _summed(x: Tensor) -> Tensor:
    return torch.logsumexp(WEIGHTS.log() + dist.Normal(MEANS, 1.0).log_prob(x.unsqueeze(-1)), -1)


@pytest.mark.parametrize(
    ("model", "right"),
    [
        (_masked, torch.where(SEEN, _summed(X), 0.0)),
        (_mask_of_nothing, torch.zeros(4, dtype=torch.float64)),
        (_masked_distributions, torch.where(SEEN, _summed(X), 0.0)),
        (_latent_hidden_alone, _summed(X)),
    ],
)
def test_a_hidden_latent_sums_to_one(model: Callable[..., Tensor], right: Tensor) -> None:
    found = evaluate(Pair(model), (X, SEEN), {"exact": exact()}).log_prob["exact"]
    torch.testing.assert_close(found, right, rtol=0, atol=1e-12)


def _chain(x: Tensor, lengths: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = torch.zeros(len(x), dtype=torch.long)
        for t in pyro.markov(range(x.shape[1])):
            with poutine.mask(mask=t < lengths):
                z = pyro.sample(f"z{t}", dist.Categorical(STEPS[z]), infer={"enumerate": "parallel"})
                pyro.sample(f"x{t}", dist.Normal(MEANS[z], 1.0), obs=x[:, t])


def _paths(x: Tensor) -> tuple[list[tuple[int, ...]], Tensor]:
    """All paths of a chain, and log p(x, path) of each."""
    paths = list(itertools.product(range(2), repeat=len(x)))
    joint = []
    for path in paths:
        steps = zip((0, *path), path, strict=False)
        prior = sum(math.log(STEPS[a, b]) for a, b in steps)
        joint.append(prior + float(dist.Normal(MEANS[list(path)], 1.0).log_prob(x).sum()))
    return paths, torch.tensor(joint, dtype=torch.float64)


CHAINS = torch.tensor([[-0.5, 1.0, 2.2], [1.4, -1.0, 0.0], [2.0, 0.3, -2.0]], dtype=torch.float64)
LENGTHS = torch.tensor([3, 2, 1])


def test_chains_of_unequal_lengths_are_each_their_own() -> None:
    found = evaluate(Pair(_chain), (CHAINS, LENGTHS), {"exact": exact()}).log_prob["exact"]
    right = torch.stack([_paths(x[:n])[1].logsumexp(0) for x, n in zip(CHAINS, LENGTHS, strict=True)])
    torch.testing.assert_close(found, right, rtol=0, atol=1e-12)


def test_observations_that_are_missing_are_imputed_and_summed() -> None:
    table = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.2, 0.7]], dtype=torch.float64)

    def model(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(WEIGHTS))
            for j in range(2):
                pyro.sample(f"x{j}", dist.Categorical(table[k]), obs=x[:, j], obs_mask=seen[:, j])

    x, seen = torch.tensor([[0, 2]] * 4), torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]]).bool()
    right = [
        math.log(
            sum(
                float(WEIGHTS[k] * math.prod(table[k, x[i, j]] if seen[i, j] else 1.0 for j in range(2)))
                for k in (0, 1)
            )
        )
        for i in range(4)
    ]
    found = evaluate(Pair(model), (x, seen), {"exact": exact()}).log_prob["exact"]
    torch.testing.assert_close(found, torch.tensor(right, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3])
def test_nested_plates_with_masks(size: int) -> None:
    x = torch.linspace(-2.0, 3.0, 4 * size, dtype=torch.float64).reshape(4, size)
    seen = torch.arange(4 * size).reshape(4, size) % 3 != 0

    def model(x: Tensor, seen: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel"})
            with pyro.plate("parts", x.shape[1], dim=-1), poutine.mask(mask=seen):
                j = pyro.sample("j", dist.Categorical(STEPS[k]), infer={"enumerate": "parallel"})
                pyro.sample("x", dist.Normal(MEANS[j], 1.0), obs=x)

    part = torch.logsumexp(STEPS.log() + dist.Normal(MEANS, 1.0).log_prob(x[:, :, None, None]), -1)  # (batch, parts, k)
    right = torch.logsumexp(WEIGHTS.log() + torch.where(seen.unsqueeze(-1), part, 0.0).sum(1), -1)
    found = evaluate(Pair(model), (x, seen), {"exact": exact()}).log_prob["exact"]
    torch.testing.assert_close(found, right, rtol=0, atol=1e-12)


def _mixture(x: Tensor) -> Tensor:
    with pyro.plate("data", len(x)):
        return _component(x)


def test_a_batch_of_one_example_is_summed_like_any_other() -> None:
    found = evaluate(Pair(_mixture), list(X[:3].split(2)), {"exact": exact()}).log_prob["exact"]
    torch.testing.assert_close(found, _summed(X[:3]), rtol=0, atol=1e-12)


def test_enumeration_by_draws_is_not_exact() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel", "num_samples": 3})
            pyro.sample("x", dist.Normal(MEANS[k], 1.0), obs=x)

    with pytest.raises(ProgramError, match=r"site 'k' is drawn 3 times \(num_samples\)"):
        evaluate(Pair(model), X, {"exact": exact()})


def test_crossed_plates_are_refused_by_name() -> None:
    def model(x: Tensor) -> None:
        rows, columns = pyro.plate("rows", x.shape[1], dim=-2), pyro.plate("columns", x.shape[2], dim=-1)
        with pyro.plate("data", len(x), dim=-3):
            with rows:
                a = pyro.sample("a", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel"})
            with columns:
                b = pyro.sample("b", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel"})
            with rows, columns:
                pyro.sample("x", dist.Normal(MEANS[a] + MEANS[b], 1.0), obs=x)

    with pytest.raises(ProgramError, match=r"'a', 'b'.*plates that cross"):
        evaluate(Pair(model), torch.zeros(2, 3, 4, dtype=torch.float64), {"exact": exact()})


# ---- the assignments, given x ----


def test_reconstructions_draw_the_component_given_x() -> None:
    """10,000 draws each: an error of 0.03 in a probability would be seen, at a false-alarm rate below 1e-6."""
    drawn = reconstruct(Pair(_masked), (X, SEEN), 10_000)
    weight = torch.softmax(WEIGHTS.log() + dist.Normal(MEANS, 1.0).log_prob(X.unsqueeze(-1)), -1)[:, 1]
    right = torch.where(SEEN, weight, WEIGHTS[1])
    torch.testing.assert_close(drawn["k"].double().mean(0), right, rtol=0, atol=0.026)
    torch.testing.assert_close(drawn["x"].mean(0), MEANS[0] + right * (MEANS[1] - MEANS[0]), rtol=0, atol=0.1)


def test_reconstructions_of_a_chain_draw_whole_paths() -> None:
    """20,000 draws: an error of 0.02 in the probability of a path would be seen, at a false-alarm rate below 1e-6."""
    drawn = reconstruct(Pair(_chain), (CHAINS[:1], LENGTHS[:1]), 20_000)
    paths, joint = _paths(CHAINS[0])
    found = torch.stack([drawn[f"z{t}"][:, 0] for t in range(3)], 1)
    shares = torch.stack([(found == torch.tensor(path)).all(1).double().mean() for path in paths])
    torch.testing.assert_close(shares, joint.softmax(0), rtol=0, atol=0.018)


def test_decode_assigns_by_x_and_by_given_latents() -> None:
    """20,000 draws: an error of 0.02 in a probability would be seen, at a false-alarm rate below 1e-6."""

    def model(x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            shift = pyro.sample("shift", dist.Normal(x.new_zeros(()), 1.0))
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel"})
            return pyro.sample("x", dist.Normal(MEANS[k] + shift, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("shift", dist.Normal(x.new_zeros(()), 1.0))

    shift = torch.full((20_000, 4), 0.5, dtype=torch.float64)
    found = decode(Pair(model, guide), X, {"shift": shift})["x"].mean(0)
    weight = torch.softmax(WEIGHTS.log() + dist.Normal(MEANS + 0.5, 1.0).log_prob(X.unsqueeze(-1)), -1)
    torch.testing.assert_close(found, (weight * MEANS).sum(-1) + 0.5, rtol=0, atol=0.06)


def test_decode_refuses_a_batch_that_observes_nothing() -> None:
    def model(x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel"})
            return pyro.sample("x", dist.Normal(MEANS[k], 1.0))

    with pytest.raises(ProgramError, match=r"observes nothing.*predict\(program, batch\)"):
        decode(Pair(model), X, {})


def test_reconstruct_refuses_latents_that_would_be_drawn_whatever_x_is() -> None:
    def model(x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            return pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ProgramError, match=r"does not draw the latent sites \['z'\]"):
        reconstruct(Pair(model), X)


# ---- what would be scored wrongly beside an enumerated site ----


def test_values_that_are_broadcast_beside_an_enumerated_site_are_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", 5):
            k = pyro.sample("k", dist.Bernoulli(torch.tensor(0.5)), infer={"enumerate": "parallel"})
            odds = (k - 0.5).unsqueeze(-1).expand(*k.shape, 3)
            pyro.sample("x", dist.Bernoulli(logits=odds).to_event(1), obs=x)

    with pytest.raises(ProgramError, match="broadcast inside the event"):
        evaluate(Pair(model), torch.ones(5, 1), {"exact": exact()})


def test_a_forgotten_to_event_beside_an_enumerated_site_is_named() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(MEANS[k].unsqueeze(-1).expand(*k.shape, 3), 1.0), obs=x)

    with pytest.raises((ProgramError, ValueError), match=r"x"):
        evaluate(Pair(model), torch.zeros(5, 3, dtype=torch.float64), {"exact": exact()})
