"""Programs without a batch plate: all the data are one example, in terms, sums and draws; forgotten plates are refused."""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

from inference import (
    SVI,
    Adversarial,
    Gradient,
    ImportanceWeighted,
    Objective,
    Pair,
    ProgramError,
    check,
    decode,
    elbo,
    evaluate,
    exact,
    importance,
    iwae,
    log_joint,
    posterior,
    reconstruct,
    renyi,
    sample,
    terms,
)
from inference.programs.dataset import scope

FLIPS = torch.tensor([1.0] * 6 + [0.0] * 4, dtype=torch.float64)
X = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LOC = torch.tensor([-1.0, 1.5], dtype=torch.float64)
CHAIN = torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64)


def coin(x: Tensor) -> None:
    fairness = pyro.sample("fairness", dist.Beta(x.new_tensor(10.0), x.new_tensor(10.0)))
    for i in range(len(x)):
        pyro.sample(f"flip_{i}", dist.Bernoulli(fairness), obs=x[i])


def sequential_coin(x: Tensor) -> None:
    fairness = pyro.sample("fairness", dist.Beta(x.new_tensor(10.0), x.new_tensor(10.0)))
    for i in pyro.plate("data", len(x)):
        pyro.sample(f"flip_{i}", dist.Bernoulli(fairness), obs=x[i])


def heads(x: Tensor) -> None:
    """The exact posterior after six heads in ten."""
    first = pyro.param("first", x.new_tensor(16.0), constraint=dist.constraints.positive)
    second = pyro.param("second", x.new_tensor(14.0), constraint=dist.constraints.positive)
    pyro.sample("fairness", dist.Beta(first, second))


def log_evidence_of_flips() -> float:
    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    return log_beta(16, 14) - log_beta(10, 10)


def line(x: Tensor) -> None:
    weights = pyro.sample("weights", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
    for i in range(len(x)):
        pyro.sample(f"y_{i}", dist.Normal(weights[0] + weights[1] * i, 0.5), obs=x[i])


def near_zero(x: Tensor) -> None:
    pyro.sample("mean", dist.Normal(pyro.param("loc", x.new_zeros(())), 1.0))


@pytest.mark.parametrize("model", [coin, sequential_coin])
def test_terms_are_of_the_whole_dataset_part_by_part(model: Callable[[Tensor], None]) -> None:
    fairness = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    found = terms(Pair(model, heads), FLIPS, latents={"fairness": fairness})
    assert found.shared is None
    assert found.examples == 1
    beta = [dist.Beta(torch.tensor(a).double(), torch.tensor(b).double()) for a, b in ((10.0, 10.0), (16.0, 14.0))]
    torch.testing.assert_close(found.likelihood, (6 * fairness.log() + 4 * (1 - fairness).log()).unsqueeze(1))
    torch.testing.assert_close(found.prior, beta[0].log_prob(fairness).unsqueeze(1))
    torch.testing.assert_close(found.posterior, beta[1].log_prob(fairness).unsqueeze(1))
    torch.testing.assert_close(
        log_joint(Pair(model, heads), FLIPS, {"fairness": fairness}), found.likelihood + found.prior
    )


@pytest.mark.parametrize("model", [coin, sequential_coin])
@pytest.mark.parametrize(
    "objective",
    [
        lambda program: SVI(program),
        lambda program: SVI(program, particles=3),
        lambda program: ImportanceWeighted(program, iwae, 3),
        lambda program: ImportanceWeighted(program, renyi(0.5), 3),
        lambda program: ImportanceWeighted(program, elbo, 2, gradient=Gradient.STICKING_THE_LANDING),
        lambda program: ImportanceWeighted(program, iwae, 2, gradient=Gradient.DOUBLY_REPARAMETERISED),
        lambda program: SVI(program, Trace_ELBO()),
        lambda program: SVI(program, TraceGraph_ELBO()),
    ],
    ids=["svi", "svi particles", "iwae", "renyi", "landing", "doubly", "Trace", "TraceGraph"],
)
def test_a_loss_is_minus_the_evidence_of_the_dataset(
    model: Callable[[Tensor], None], objective: Callable[[nn.Module], Objective]
) -> None:
    fitted = objective(Pair(model, heads))
    fitted.prepare(FLIPS)
    fitted.check(FLIPS)
    expected = torch.tensor(-log_evidence_of_flips(), dtype=torch.float64)
    torch.testing.assert_close(fitted.loss(FLIPS), expected, atol=1e-9, rtol=0)


def test_beta_weighs_the_prior_and_not_the_likelihood() -> None:
    objective = ImportanceWeighted(Pair(coin, heads), elbo, 1, beta=0.0)
    torch.manual_seed(0)
    loss = objective.loss(FLIPS)
    torch.manual_seed(0)
    torch.testing.assert_close(loss, -terms(Pair(coin, heads), FLIPS).likelihood.squeeze())


def test_a_number_of_the_dataset_says_so() -> None:
    found = evaluate(Pair(coin, heads), FLIPS, {"iwae": importance(5)})
    assert found.log_prob["iwae"].tolist() == pytest.approx([log_evidence_of_flips()], abs=1e-9)
    assert not found.per_example
    assert found.summary()["per_example"] is False
    with pytest.raises(ProgramError, match="no plate counts the examples, and the number is the whole dataset's"):
        found.bits_per_dim("iwae")


def test_a_plate_beside_the_examples_is_summed() -> None:
    """Topics, states, columns: their plates are as long as they are, and none is the batch's."""

    def model(x: Tensor) -> None:
        with pyro.plate("states", 3):
            mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
        for i in range(len(x)):
            pyro.sample(f"x_{i}", dist.Normal(mean[i % 3], 1.0), obs=x[i])

    mean = torch.tensor([[0.1, -0.4, 2.0]], dtype=torch.float64)
    expected = dist.Normal(0.0, 1.0).log_prob(mean).sum() + dist.Normal(mean.repeat(1, 2), 1.0).log_prob(X).sum()
    torch.testing.assert_close(log_joint(Pair(model), X, {"mean": mean}), expected.reshape(1, 1))


def test_draws_have_no_axis_of_examples() -> None:
    program = Pair(coin, heads)
    assert posterior(program, FLIPS, 5)["fairness"].shape == (5,)
    drawn = sample(program, FLIPS, 400)
    assert drawn["fairness"].shape == drawn["flip_3"].shape == (400,)
    assert len(drawn["fairness"].unique()) == 400
    fairness = torch.tensor([0.2, 0.7], dtype=torch.float64)
    torch.testing.assert_close(decode(program, FLIPS, {"fairness": fairness})["flip_9"], fairness)
    assert reconstruct(program, FLIPS, 7)["flip_0"].shape == (7,)


def test_deterministic_sites_follow_each_draw() -> None:
    def model(x: Tensor) -> None:
        coin(x)
        pyro.deterministic("curve", x)

    def guide(x: Tensor) -> None:
        heads(x)

    assert posterior(Pair(model, guide), FLIPS, 3)["curve"].shape == (3, 10)


@pytest.mark.parametrize("auto", [AutoNormal, AutoMultivariateNormal, AutoDelta, AutoLaplaceApproximation])
def test_autoguides_draw_and_score_the_latents_of_the_dataset(auto: type) -> None:
    program = Pair(line, auto)
    check(program, X)
    drawn = posterior(program, X, 4)
    assert drawn["weights"].shape == (4, 2)
    joint = log_joint(program, X, drawn)
    found = terms(program, X, latents=drawn)
    torch.testing.assert_close((found.likelihood + found.prior), joint, check_dtype=False)
    times = torch.arange(6.0, dtype=torch.float64)
    mean = drawn["weights"][:, :1] + drawn["weights"][:, 1:] * times
    expected = dist.Normal(0.0, 1.0).log_prob(drawn["weights"]).sum(1) + dist.Normal(mean, 0.5).log_prob(X).sum(1)
    torch.testing.assert_close(joint, expected.unsqueeze(1), check_dtype=False)


def hidden_markov(x: Tensor) -> None:
    state: int | Tensor = 0
    for t in pyro.markov(range(len(x))):
        state = pyro.sample(f"state_{t}", dist.Categorical(CHAIN[state]), infer={"enumerate": "parallel"})
        pyro.sample(f"x_{t}", dist.Normal(pyro.param("loc", LOC.clone())[state], 1.0), obs=x[t])


def log_evidence_of_chain(x: Tensor) -> Tensor:
    """The forward algorithm."""
    log_state = CHAIN[0].log() + dist.Normal(LOC, 1.0).log_prob(x[0])
    for value in x[1:]:
        log_state = torch.logsumexp(log_state.unsqueeze(1) + CHAIN.log(), 0) + dist.Normal(LOC, 1.0).log_prob(value)
    return torch.logsumexp(log_state, 0)


@pytest.mark.parametrize("length", [1, 6, 100])
def test_one_series_of_hidden_states_is_summed_out(length: int) -> None:
    x = torch.randn(length, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = evaluate(Pair(hidden_markov), x, {"exact": exact()})
    torch.testing.assert_close(found.log_prob["exact"], log_evidence_of_chain(x).reshape(1))


def test_a_series_of_hidden_states_is_fitted_by_enumeration_per_dataset() -> None:
    objective = SVI(Pair(hidden_markov), TraceEnum_ELBO(max_plate_nesting=0))
    objective.prepare(X)
    objective.check(X)
    torch.testing.assert_close(objective.loss(X), -log_evidence_of_chain(X))


def test_reconstructions_of_a_series_draw_its_states_given_the_data() -> None:
    """Far from all but one of the means, data leave no doubt about the states, which the prior would get wrong."""
    truth = [0, 1, 1, 0, 1]
    drawn = reconstruct(Pair(hidden_markov), 40 * LOC[truth], 4)
    assert [drawn[f"state_{t}"].tolist() for t in range(5)] == [[state] * 4 for state in truth]


@pytest.mark.parametrize(
    "steps",
    [
        lambda x: range(len(x)),
        lambda x: pyro.plate("data", len(x)),
        lambda x: pyro.markov(range(len(x)), history=0),
    ],
    ids=["loop", "sequential plate", "markov"],
)
def test_a_component_for_each_example_of_a_loop_is_summed_out(steps: Callable[[Tensor], range]) -> None:
    def model(x: Tensor) -> None:
        for i in steps(x):
            component = pyro.sample(f"component_{i}", dist.Categorical(x.new_tensor([0.3, 0.7])))
            pyro.sample(f"x_{i}", dist.Normal(LOC[component], 1.0), obs=x[i])

    log_p = X.new_tensor([0.3, 0.7]).log() + dist.Normal(LOC, 1.0).log_prob(X.unsqueeze(1))
    found = exact()(Pair(model), X)
    torch.testing.assert_close(found.log_prob, torch.logsumexp(log_p, 1).sum().reshape(1))


def test_a_loop_of_more_sites_than_a_tensor_has_axes_is_shown_the_way_out() -> None:
    def model(x: Tensor) -> None:
        for i in range(len(x)):
            k = pyro.sample(f"k_{i}", dist.Categorical(x.new_tensor([0.3, 0.7])), infer={"enumerate": "parallel"})
            pyro.sample(f"x_{i}", dist.Normal(LOC[k], pyro.param("scale", x.new_ones(()))), obs=x[i])

    message = r"more sites than a tensor has axes \(64\).*pyro.markov\(range\(len\(x\)\)\)"
    with pytest.raises(ProgramError, match=message):
        exact()(Pair(model), X.repeat(20))
    objective = SVI(Pair(model), TraceEnum_ELBO(max_plate_nesting=0))
    objective.prepare(X.repeat(20))
    with pytest.raises(ProgramError, match=message):
        objective.loss(X.repeat(20))


def forgotten(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
    pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


@pytest.mark.parametrize("kind", [None, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO])
def test_a_density_for_each_row_that_no_plate_counts_is_refused(kind: type[ELBO] | None) -> None:
    """Pyro's estimators would add it up without a word."""
    message = (
        r"no plate counts the 6 examples.*'x' has a log density of shape \(6,\).*pyro.plate\('data', len\(x\)\)"
        r".*\.to_event\(1\)"
    )
    program = Pair(forgotten, near_zero)
    for refused in (
        lambda: SVI(program, None if kind is None else kind()).check(X),
        lambda: check(program, X),
        lambda: terms(program, X),
        lambda: terms(program, X, particles=3),
        lambda: sample(program, X, 2),
        lambda: evaluate(program, X, {"iwae": importance(2)}),
    ):
        with pytest.raises(ProgramError, match=message):
            refused()


def test_an_event_of_all_rows_is_one_example() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(mean, 1.0).expand(x.shape).to_event(1), obs=x)

    mean = torch.tensor([0.2], dtype=torch.float64)
    expected = dist.Normal(0.0, 1.0).log_prob(mean) + dist.Normal(mean, 1.0).log_prob(X).sum()
    torch.testing.assert_close(log_joint(Pair(model, near_zero), X, {"mean": mean}), expected.reshape(1, 1))


def test_a_plate_of_another_length_than_the_data_is_refused() -> None:
    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", 100):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    for refused in (terms, check, sample):
        with pytest.raises(ProgramError, match=r"'x' has a value of shape \(6,\); plate 'data' has 100 examples"):
            refused(Pair(model, near_zero), X)


def test_a_plate_around_everything_is_not_taken_for_copies_of_the_batch() -> None:
    """Twelve rows in a plate of their own, and a batch of six: two particles of them could not be told apart."""

    def model(x: Tensor) -> None:
        with pyro.plate("rows", 12):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=x.new_ones(12))

    with pytest.raises(ProgramError, match="no plate counts the 6 examples of the batch, and plate 'rows' of 12"):
        check(Pair(model, AutoNormal), X)


def test_a_model_that_does_nothing_is_refused() -> None:
    with pytest.raises(ProgramError, match="the model draws and observes no site"):
        check(Pair(lambda x: coin), X)


def part_of_a_loop(x: Tensor) -> None:
    mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
    for i in pyro.plate("data", len(x), subsample_size=2):
        pyro.sample(f"x_{i}", dist.Normal(mean, 1.0), obs=x[i])


def test_a_sequential_plate_that_takes_a_part_has_no_bound() -> None:
    message = r"'x_\d': plate 'data' takes 2 of 6 at random, so its log density is an estimate"
    program = Pair(part_of_a_loop, near_zero)
    for refused in (
        lambda: terms(program, X),
        lambda: SVI(program).check(X),
        lambda: evaluate(program, X, {"iwae": importance(2)}),
    ):
        with pytest.raises(ProgramError, match=message):
            refused()


def test_a_sequential_plate_that_takes_a_part_is_fitted_by_an_estimator_of_pyro() -> None:
    """Its loss is scaled to the dataset: near the mean over draws of the parts."""
    objective = SVI(Pair(part_of_a_loop, near_zero), Trace_ELBO(num_particles=100))
    objective.prepare(X)
    objective.check(X)
    # E over N(0, 1) of -log p(x | mean), the prior being the guide.
    expected = 6 * 0.5 * math.log(2 * math.pi) + 0.5 * (X.square().sum() + 6)
    torch.manual_seed(0)
    assert float(objective.loss(X).detach()) == pytest.approx(float(expected), rel=0.2)


def test_one_critic_for_all_the_data_is_refused() -> None:
    program = Pair(coin, heads)
    program.guide(FLIPS)
    with pytest.raises(ProgramError, match="no plate counts the 10 examples of the batch, and a critic compares"):
        Adversarial(program, nn.Linear(1, 1), compare=("fairness",)).prepare(FLIPS)


def test_copies_of_the_batch_stop_at_the_first_site_of_all_the_data() -> None:
    """What follows, such as a matrix of all pairs of rows, is not computed for copies in vain."""
    seen = []

    def model(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
        seen.append(len(x))
        pyro.sample("x", dist.Normal(mean, 1.0).expand(x.shape).to_event(1), obs=x)

    assert terms(Pair(model, near_zero), X, particles=3).log_weights.shape == (3, 1)
    assert seen == [6, 6, 6]


def test_no_row_has_parameters_of_its_own() -> None:
    assert scope(Pair(coin, heads), (FLIPS,)) == ((), 1, (), None)
