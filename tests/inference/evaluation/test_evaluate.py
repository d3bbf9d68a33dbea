"""The evaluator: right numbers, honest labels, and nothing that depends on how the data were cut."""

import json
import math
from collections.abc import Iterable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from torch import Tensor, nn

from inference import Pair, ProgramError, elbo, evaluate, exact, importance, iwae, renyi, terms
from tests.problems import LinearGaussian, Mixture, SharedMean

X = LinearGaussian.data(9)


class Pixels(nn.Module):
    """Independent Bernoulli pixels: no latents, so its likelihood is exact."""

    def __init__(self, pixels: int = 4) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.linspace(-1, 1, pixels, dtype=torch.float64))

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            return pyro.sample("x", dist.Bernoulli(logits=self.logits).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None: ...


def test_a_program_without_latents_is_exact_and_has_bits_per_dim() -> None:
    program = Pixels()
    x = torch.bernoulli(torch.full((50, 4), 0.4, dtype=torch.float64))
    found = evaluate(program, x, {"exact": exact(), "elbo": importance(1, elbo), "iwae": importance(7)})
    expected = dist.Bernoulli(logits=program.logits.detach()).to_event(1).log_prob(x)
    for name in ("exact", "elbo", "iwae"):
        torch.testing.assert_close(found.log_prob[name], expected, atol=1e-12, rtol=0)
    assert found.bits_per_dim("exact") == pytest.approx(-float(expected.mean()) / (4 * math.log(2)))
    assert found.standard_error("exact") == pytest.approx(float(expected.std()) / 50**0.5)
    assert found.measured_on["likelihood"] == "discrete"


def test_discrete_latents_are_summed_out() -> None:
    program, x = Mixture(), Mixture.data(30)
    for candidate in (program, Pair(config_enumerate(program.model))):
        found = evaluate(candidate, x, {"exact": exact()})
        torch.testing.assert_close(found.log_prob["exact"], program.log_evidence(x).detach(), atol=1e-12, rtol=0)
    assert found.kind["exact"] == "exact"


def test_summing_out_follows_plates_and_chains() -> None:
    # A latent per pixel inside a plate, under a latent per example: 2 · 2^3 configurations, summed by hand.
    weight, flip = torch.tensor([0.3, 0.7], dtype=torch.float64), torch.tensor([0.2, 0.9], dtype=torch.float64)
    loc = torch.tensor([-1.0, 1.0], dtype=torch.float64)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(weight))
            with pyro.plate("pixels", 3, dim=-2):
                b = pyro.sample("b", dist.Bernoulli(flip[k]))
                pyro.sample("x", dist.Normal(loc[b.long()], 0.5), obs=x.T)

    each = torch.stack([dist.Normal(value, 0.5).log_prob(X) for value in loc])
    prior = torch.stack([(1 - flip).log(), flip.log()])  # (b, k)
    per_pixel = torch.logsumexp(each.unsqueeze(1) + prior.reshape(2, 2, 1, 1), 0).sum(-1)  # (k, batch)
    expected = torch.logsumexp(per_pixel + weight.log().unsqueeze(1), 0)
    found = evaluate(Pair(model), X, {"exact": exact()})
    torch.testing.assert_close(found.log_prob["exact"], expected, atol=1e-12, rtol=0)


def test_sequential_markov_latents_are_summed_out() -> None:
    start = torch.tensor([0.6, 0.4], dtype=torch.float64)
    move = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=torch.float64)
    loc = torch.tensor([-1.0, 1.0], dtype=torch.float64)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            state = None
            for t in pyro.markov(range(3)):
                state = pyro.sample(f"z{t}", dist.Categorical(start if state is None else move[state]))
                pyro.sample(f"x{t}", dist.Normal(loc[state], 0.5), obs=x[:, t])

    forward = start.log() + dist.Normal(loc, 0.5).log_prob(X[:, :1])
    for t in (1, 2):
        forward = torch.logsumexp(forward.unsqueeze(-1) + move.log(), 1) + dist.Normal(loc, 0.5).log_prob(
            X[:, t : t + 1]
        )
    found = evaluate(Pair(model), X, {"exact": exact()})
    torch.testing.assert_close(found.log_prob["exact"], torch.logsumexp(forward, 1), atol=1e-12, rtol=0)


def test_numbers_do_not_depend_on_batch_size_chunks_or_plate_sizes() -> None:
    program = LinearGaussian()  # at the exact posterior the estimates have no noise
    whole = evaluate(
        program, X, {"iwae": importance(5), "elbo": importance(5, elbo), "renyi": importance(5, renyi(0.5))}
    )
    cut = evaluate(
        program,
        list(X.split(4)),
        {"iwae": importance(5), "elbo": importance(5, elbo), "renyi": importance(5, renyi(0.5))},
    )
    for name in whole.log_prob:
        torch.testing.assert_close(whole.log_prob[name], cut.log_prob[name], atol=1e-9, rtol=0)
        torch.testing.assert_close(whole.log_prob[name], program.log_evidence(X).detach(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("bound", [elbo, iwae, renyi(0.5), renyi(3.0)])
def test_streamed_bounds_and_errors_equal_those_of_all_weights_at_once(bound) -> None:
    from inference.evaluation.estimators import Mean, PowerMean

    weights = 3 * torch.randn(101, 4, dtype=torch.float64)
    moments = Mean() if bound is elbo else PowerMean(1 - bound.alpha)
    for part in weights.split(17):
        moments.add(part)
    estimate = moments.estimate()
    torch.testing.assert_close(estimate.log_prob, bound(weights))
    if bound is elbo:
        expected = weights.std(0) / 101**0.5
    else:
        power = 1 - bound.alpha
        scaled = (power * weights - (power * weights).max()).exp()
        expected = scaled.std(0) / (scaled.mean(0) * 101**0.5 * abs(power))
    torch.testing.assert_close(estimate.error, expected)


def test_the_error_is_the_spread_of_repeated_estimates() -> None:
    # 150 repetitions: the observed spread has a relative standard error of 0.06; six of them before an alarm.
    program = LinearGaussian(error=0.2)
    for bound in (elbo, iwae):
        estimates = [importance(100, bound)(program, X[:2]) for _ in range(150)]
        spread = torch.stack([estimate.log_prob for estimate in estimates]).std(0)
        claimed = torch.stack([estimate.error for estimate in estimates]).mean(0)
        assert (claimed / spread - 1).abs().max() < 0.36


def test_shared_sites_are_scored_of_the_dataset() -> None:
    x = torch.randn(12, dtype=torch.float64)
    program = SharedMean(12, error=0.1).at(x)
    found = evaluate(program, list(x.split(5)), {"iwae": importance(2000), "elbo": importance(2000, elbo)})
    truth = float(program.log_evidence(x))
    assert found.log_prob["iwae"].shape == (1,)
    assert not found.per_example
    assert found.mean("iwae") == pytest.approx(truth, abs=6 * found.standard_error("iwae"))
    # KL(q || posterior) of a mean moved by 0.1: 0.1² · 13 / 2.
    assert found.mean("elbo") == pytest.approx(truth - 0.065, abs=6 * found.standard_error("elbo"))
    with pytest.raises(ProgramError, match="between the 12 examples of its dataset, and 4 were given"):
        evaluate(program, list(x[:4].split(2)), {"iwae": importance(2)})


def test_evaluation_is_repeatable_and_leaves_no_trace() -> None:
    program = nn.ModuleDict({"program": LinearGaussian(error=0.3)})["program"].train()
    state = torch.get_rng_state()
    first = evaluate(program, X, {"iwae": importance(10)})
    assert torch.equal(torch.get_rng_state(), state)
    second = evaluate(program, X, {"iwae": importance(10)})
    other = evaluate(program, X, {"iwae": importance(10)}, seed=1)
    assert torch.equal(first.log_prob["iwae"], second.log_prob["iwae"])
    assert not torch.equal(first.log_prob["iwae"], other.log_prob["iwae"])
    assert program.training
    assert not first.log_prob["iwae"].requires_grad


def test_dropout_and_batch_norm_are_in_eval_mode() -> None:
    class Noisy(Pixels):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def model(self, x: Tensor) -> Tensor:
            with pyro.plate("data", len(x)):
                return pyro.sample("x", dist.Bernoulli(logits=self.dropout(self.logits)).to_event(1), obs=x)

    x = torch.ones(3, 4, dtype=torch.float64)
    expected = dist.Bernoulli(logits=Pixels().logits.detach()).to_event(1).log_prob(x)
    torch.testing.assert_close(evaluate(Noisy(), x, {"exact": exact()}).log_prob["exact"], expected)


def test_a_difference_is_paired_and_only_between_like_numbers() -> None:
    good, bad = LinearGaussian(), LinearGaussian(error=0.5)
    estimators = {"elbo": importance(50, elbo)}
    first = evaluate(good, X, estimators, measured_on={"data": "made"})
    second = evaluate(bad, X, estimators, measured_on={"data": "made"})
    gap, error = first.difference(second, "elbo")
    assert gap == pytest.approx(first.mean("elbo") - second.mean("elbo"))
    assert error < first.standard_error("elbo")  # pairing removes what the examples have in common
    for other in (
        evaluate(bad, X, estimators, measured_on={"data": "other"}),
        evaluate(bad, X, {"elbo": importance(51, elbo)}, measured_on={"data": "made"}),
    ):
        with pytest.raises(ProgramError, match="only where data, kind and settings agree"):
            first.difference(other, "elbo")


def test_an_exact_number_compares_with_a_lower_bound_and_with_nothing_looser() -> None:
    class Observed(LinearGaussian):
        """Nothing is latent: its density is exact."""

        def model(self, x: Tensor) -> Tensor:
            with pyro.plate("data", len(x)):
                return pyro.sample("x", dist.Normal(x.new_zeros(3), 1.0).to_event(1), obs=x)

        def guide(self, x: Tensor) -> None: ...

    bounds = {"elbo": importance(50, elbo), "loose": importance(50, renyi(-1.0))}
    bounded = evaluate(LinearGaussian(), X, bounds, measured_on={"data": "made"})
    known = evaluate(Observed(), X, {"exact": exact()}, measured_on={"data": "made"})
    ahead, error = bounded.difference(known, "elbo", "exact")
    assert ahead == pytest.approx(bounded.mean("elbo") - known.mean("exact"))
    assert known.difference(bounded, "exact", "elbo") == pytest.approx((-ahead, error))
    elsewhere = evaluate(Observed(), X, {"exact": exact()}, measured_on={"data": "other"})
    for other, than in ((bounded, "loose"), (elsewhere, "exact")):
        with pytest.raises(ProgramError, match="only where data, kind and settings agree"):
            known.difference(other, "exact", than)


def test_labels_say_what_a_number_is() -> None:
    found = evaluate(LinearGaussian(), X, {"r": importance(3, renyi(-1.0)), "e": importance(3, elbo)})
    assert found.kind == {"r": "estimate, no bound", "e": "lower bound in expectation"}
    assert found.settings["r"] == {"bound": "renyi(-1)", "particles": 3}
    assert found.measured_on["likelihood"] == "density"
    with pytest.raises(ProgramError, match="bits per dimension are of one discrete observed site"):
        found.bits_per_dim("e")
    with pytest.raises(ProgramError, match=r"no estimate 'iwae'; this evaluation has \['e', 'r'\]"):
        found.mean("iwae")
    json.dumps(found.summary(), allow_nan=False)


def test_descriptions_travel_with_the_batches() -> None:
    class Described(list):
        def __init__(self, batches: Iterable[Tensor]) -> None:
            super().__init__(batches)
            self.description = {"data": "digits", "split": "test"}

    found = evaluate(LinearGaussian(), Described(X.split(3)), {"elbo": importance(1, elbo)})
    assert found.measured_on == {"data": "digits", "split": "test", "likelihood": "density"}


def test_what_cannot_be_scored_is_refused() -> None:
    class Subsamples(nn.Module):
        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x), subsample_size=2) as rows:
                pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x[rows, 0])

        def guide(self, x: Tensor) -> None: ...

    with pytest.raises(ProgramError, match="draws its own subsample of 2 from 9"):
        evaluate(Subsamples(), X, {"elbo": importance(1)})
    with pytest.raises(ProgramError, match=r"'z' \(Independent\) has no finite support"):
        evaluate(LinearGaussian(), X, {"exact": exact()})
    with pytest.raises(ProgramError, match="there are no batches: this list is empty"):
        evaluate(LinearGaussian(), [], {"elbo": importance(1)})
    with pytest.raises(ValueError, match="at least 1, got 0"):
        importance(0)


def test_memory_is_flat_in_particles() -> None:
    seen: list[int] = []
    encoded: list[int] = []

    class CountingRuns(LinearGaussian):
        def model(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            return super().model(x)

        def guide(self, x: Tensor) -> None:
            encoded.append(len(x))
            super().guide(x)

    evaluate(CountingRuns(), X, {"iwae": importance(5000)})
    assert max(seen) <= 2000
    assert sum(seen[1:]) == 5000 * len(X)
    assert set(encoded) == {len(X)}  # the guide's networks see an example once a chunk, not once a particle


def test_terms_and_evaluation_agree() -> None:
    program = LinearGaussian(error=0.1)
    weights = terms(program, X, 4000).log_weights
    found = evaluate(program, X, {"iwae": importance(4000)})
    assert (found.log_prob["iwae"] - iwae(weights)).abs().max() < 0.1


def test_the_gap_of_two_estimates_is_paired_and_noise_is_a_part_of_the_error() -> None:
    program = LinearGaussian(error=0.5)
    found = evaluate(program, X, {"iwae": importance(300), "elbo": importance(300, elbo)})
    gap, error = found.gap("iwae", "elbo")
    assert gap == pytest.approx(found.mean("iwae") - found.mean("elbo"))
    assert error < found.standard_error("elbo")
    assert found.noise("elbo") == pytest.approx(float(found.error["elbo"].square().sum().sqrt()) / 9)
    assert found.noise("elbo") < found.standard_error("elbo")


def test_a_point_estimate_is_called_one() -> None:
    class Point(LinearGaussian):
        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Delta((x - self.bias) @ self.gain.T, event_dim=1))

    found = evaluate(Point(), X, {"iwae": importance(5)})
    assert found.kind["iwae"] == "log joint at a point estimate, no bound"


def test_data_without_a_description_are_known_by_their_values() -> None:
    program, estimators = LinearGaussian(), {"iwae": importance(2)}
    first, same = evaluate(program, X, estimators), evaluate(program, list(X.split(4)), estimators)
    assert first.difference(same, "iwae")[0] == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ProgramError, match="only where data, kind and settings agree"):
        first.difference(evaluate(program, X.flip(0), estimators), "iwae")


def test_subsampled_inner_plates_are_never_called_exact() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            k = pyro.sample("k", dist.Bernoulli(x.new_full((), 0.5)))
            with pyro.plate("pixels", 3, subsample_size=2, dim=-1) as pixels:
                pyro.sample("x", dist.Normal(k, 1.0), obs=x[:, pixels])

    with pytest.raises(ProgramError, match="'pixels' takes 2 of 3 at random"):
        evaluate(Pair(model), X, {"exact": exact()})
