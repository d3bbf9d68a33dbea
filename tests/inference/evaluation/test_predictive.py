"""The predictive density of held-out data against closed forms and quadrature; what is refused, what a number is called."""

import math
from collections.abc import Callable

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

from inference import Evaluation, Pair, Program, ProgramError, evaluate, exact, importance, predictive
from tests.problems import LinearGaussian, SharedMean

NEW = torch.linspace(-2.0, 3.0, 7, dtype=torch.float64)
"""Held-out data, of another number than what a guide knows."""


def _nothing(*batch: Tensor) -> None: ...


def _within_error(found: Evaluation, expected: Tensor, largest_error: float) -> None:
    """Six standard errors: a false alarm in 1e8; what `largest_error` leaves unseen is six of it."""
    distance = (found.log_prob["p"] - expected).abs() / found.error["p"]
    assert float(distance.max()) < 6.0
    assert float(found.error["p"].max()) < largest_error


def test_a_conjugate_mean() -> None:
    x = torch.randn(20, dtype=torch.float64)
    found = evaluate(SharedMean(20).at(x), list(NEW.split(3)), {"p": predictive(400)})
    _within_error(found, dist.Normal(x.sum() / 21, (22 / 21) ** 0.5).log_prob(NEW), 0.05)
    assert found.kind == {"p": "predictive density"}
    assert found.settings["p"] == {"draws": 400, "particles": 100}
    assert found.per_example


def test_a_conjugate_rate_of_discrete_data_has_bits() -> None:
    ones, zeros = 3.0, 7.0
    x = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)

    def model(x: Tensor) -> None:
        rate = pyro.sample("rate", dist.Beta(x.new_tensor(1.0), x.new_tensor(1.0)))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(rate), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("rate", dist.Beta(x.new_tensor(1.0 + ones), x.new_tensor(1.0 + zeros)))

    found = evaluate(Pair(model, guide), x, {"p": predictive(1000)})
    _within_error(found, torch.where(x == 1, 4 / 12, 8 / 12).double().log(), 0.02)
    assert found.bits_per_dim("p") == pytest.approx(-found.mean("p") / math.log(2))
    assert found.measured_on["likelihood"] == "discrete"


def test_a_regression_has_the_covariates_of_new_data() -> None:
    x, y = torch.randn(30, 2, dtype=torch.float64), torch.randn(30, dtype=torch.float64)
    precision = torch.eye(2, dtype=torch.float64) + x.T @ x / 0.5**2
    covariance = torch.linalg.inv(precision)
    mean = covariance @ x.T @ y / 0.5**2

    def model(x: Tensor, y: Tensor | None = None) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        with pyro.plate("data", 30, subsample_size=len(x)):
            pyro.sample("y", dist.Normal(x @ w, 0.5), obs=y)

    def guide(x: Tensor, y: Tensor | None = None) -> None:
        pyro.sample("w", dist.MultivariateNormal(mean, covariance))

    new_x = torch.stack([NEW, NEW.flip(0)], 1) / 2
    new_y = new_x @ mean + 0.3 * NEW
    found = evaluate(Pair(model, guide), (new_x, new_y), {"p": predictive(600)})
    spread = (0.25 + ((new_x @ covariance) * new_x).sum(1)).sqrt()
    _within_error(found, dist.Normal(new_x @ mean, spread).log_prob(new_y), 0.05)


def test_a_mixture_sums_its_labels_with_priors_on_everything() -> None:
    mean, factor = torch.tensor([-1.0, 2.0], dtype=torch.float64), torch.tensor([20.0, 30.0], dtype=torch.float64)
    shape, rate = torch.tensor([12.0, 15.0], dtype=torch.float64), torch.tensor([9.0, 20.0], dtype=torch.float64)
    counts = torch.tensor([5.0, 9.0], dtype=torch.float64)

    def components(mean: Tensor, factor: Tensor, shape: Tensor, rate: Tensor, counts: Tensor) -> tuple[Tensor, ...]:
        weights = pyro.sample("weights", dist.Dirichlet(counts))
        with pyro.plate("components", 2):
            precision = pyro.sample("precision", dist.Gamma(shape, rate))
            return weights, precision, pyro.sample("mean", dist.Normal(mean, (factor * precision).rsqrt()))

    def model(x: Tensor) -> None:
        one = torch.ones(2, dtype=torch.float64)
        weights, precision, means = components(0 * one, 0.1 * one, one, one, one)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(means[k], precision[k].rsqrt()), obs=x)

    def guide(x: Tensor) -> None:
        components(mean, factor, shape, rate, counts)

    found = evaluate(Pair(model, guide), NEW, {"p": predictive(400)})
    student = dist.StudentT(2 * shape, mean, (rate * (factor + 1) / (shape * factor)).sqrt())
    expected = torch.logsumexp((counts / counts.sum()).log() + student.log_prob(NEW.unsqueeze(1)), 1)
    _within_error(found, expected, 0.05)
    assert found.kind == {"p": "predictive density"}  # nothing local is drawn


class Counts(nn.Module):
    """t ~ N(0, 1) for all; z_n ~ N(t, 0.5²), x_n ~ Poisson(exp z_n) for each. q(t) = N(0.4, 0.2²)."""

    def __init__(self, size: int = 12) -> None:
        super().__init__()
        self.size = size
        self.t = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))
        self.z = nn.Parameter(torch.linspace(-1.0, 1.0, size, dtype=torch.float64))
        self.slope = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def model(self, x: Tensor) -> None:
        t = pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(t, 0.5))
            pyro.sample("x", dist.Poisson(z.exp()), obs=x)

    def amortised(self, x: Tensor) -> None:
        t = pyro.sample("t", dist.Normal(self.t, 0.2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.7 * t + self.slope * x.log1p(), 0.5))

    def by_row(self, x: Tensor) -> None:
        pyro.sample("t", dist.Normal(self.t, 0.2))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.z, 0.1))

    def of_all_rows(self, x: Tensor) -> None:
        pyro.sample("t", dist.Normal(self.t, 0.2))
        with pyro.plate("data", self.size):
            pyro.sample("z", dist.Normal(self.z, 0.1))

    def program(self, guide: Callable[..., None]) -> Pair:
        return Pair(self.model, guide)

    @staticmethod
    def log_predictive(x: Tensor) -> Tensor:
        """z of a new example is N(0.4, 0.2² + 0.5²): by Gauss and Hermite."""
        nodes, weights = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(60))
        z = 0.4 + math.sqrt(0.29) * nodes
        log_weights = (weights / weights.sum()).log()
        return torch.logsumexp(log_weights + dist.Poisson(z.exp()).log_prob(x.unsqueeze(1)), 1)


COUNTS = torch.tensor([0.0, 2.0, 5.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("rows", [4, 12])
@pytest.mark.parametrize(
    ("guide", "source"), [("amortised", "the guide"), ("by_row", "the prior"), ("of_all_rows", "the prior")]
)
def test_local_latents_are_weighted_from_what_knows_of_new_rows(guide: str, source: str, rows: int) -> None:
    problem = Counts()
    x = COUNTS.repeat(rows // 4)
    found = evaluate(problem.program(getattr(problem, guide)), x, {"p": predictive(300, particles=40)})
    _within_error(found, problem.log_predictive(x), 0.04)
    assert found.kind == {"p": f"predictive density, local latents weighted from {source}"}


def test_particles_from_the_prior_are_laid_along_the_batch() -> None:
    """Although the AutoGuide, which keeps its rows, is run particle by particle where it draws them."""
    rows: list[int] = []

    def model(x: Tensor) -> None:
        rows.append(len(x))
        Counts().model(x)

    program = Pair(model, AutoNormal)
    program.guide(torch.zeros(12, dtype=torch.float64))
    evaluate(program, COUNTS, {"p": predictive(2, particles=500)})
    assert max(rows) == 2000
    assert len(rows) < 30


def test_summed_labels_beside_latents_from_the_prior() -> None:
    """k ~ Bernoulli, z | k ~ N(t + 3 k, 1) from the prior of a drawn k, x | z ~ N(z, 1)."""

    def model(x: Tensor) -> None:
        t = pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(x.new_tensor(0.3)), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(t + 3 * k, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("t", dist.Normal(x.new_tensor(0.3), 0.2))

    found = evaluate(Pair(model, guide), NEW, {"p": predictive(200, particles=200)})
    parts = dist.Normal(torch.tensor([0.3, 3.3]).double(), math.sqrt(2.04)).log_prob(NEW.unsqueeze(1))
    expected = torch.logsumexp(parts + torch.tensor([0.7, 0.3]).double().log(), 1)
    _within_error(found, expected, 0.05)
    assert found.kind == {"p": "predictive density, local latents weighted from the prior"}


@pytest.mark.parametrize("guide", [AutoNormal, AutoMultivariateNormal, AutoDelta])
def test_autoguides_give_their_shared_part(guide: type) -> None:
    problem = Counts()
    program = Pair(problem.model, guide)
    with pytest.raises(ProgramError, match="has not been run, and learns the latent sites from the first batch"):
        evaluate(program, COUNTS, {"p": predictive(2)})
    program.guide(torch.zeros(12, dtype=torch.float64))
    program.double()
    if guide is AutoNormal:
        program.autoguide.locs.t = torch.tensor(0.4, dtype=torch.float64)
        program.autoguide.scales.t = torch.tensor(0.2, dtype=torch.float64)
    found = evaluate(program, COUNTS, {"p": predictive(200, particles=40)})
    shown = "predictive density, local latents weighted from the prior"
    assert found.kind == {"p": f"{shown}, at a point estimate of t" if guide is AutoDelta else shown}
    if guide is AutoNormal:
        _within_error(found, problem.log_predictive(COUNTS), 0.06)


def test_the_error_is_the_spread_of_repeated_estimates() -> None:
    # 150 repetitions: the observed spread has a relative standard error of 0.06; six of them before an alarm.
    program = SharedMean(2).at(torch.tensor([0.3, 0.9], dtype=torch.float64))
    with torch.no_grad():
        estimates = [predictive(15)(program, NEW[2:4]) for _ in range(150)]
    spread = torch.stack([estimate.log_prob for estimate in estimates]).std(0)
    claimed = torch.stack([estimate.error for estimate in estimates]).square().mean(0).sqrt()
    assert float((claimed / spread - 1).abs().max()) < 0.36


def test_the_noise_of_a_mean_is_that_of_draws_which_the_examples_share() -> None:
    """100 repetitions, as above. Taken as independent, the noise of seven like examples would be too small by 7^(1/2)."""
    program = SharedMean(7).at(torch.tensor([1.2], dtype=torch.float64))
    x = torch.linspace(1.5, 1.6, 7, dtype=torch.float64)
    found = [evaluate(program, x, {"p": predictive(15)}, seed=seed) for seed in range(100)]
    spread = torch.tensor([each.mean("p") for each in found]).std()
    claimed = torch.tensor([each.noise("p") for each in found]).square().mean().sqrt()
    assert abs(float(claimed / spread) - 1) < 0.43
    cut = evaluate(program, [x[:3], x[3:]], {"p": predictive(15)})
    assert cut.noise("p") < found[0].noise("p") * 1.2  # two batches have draws of their own
    assert all(each.standard_error("p") >= each.noise("p") * 0.9 for each in found)


def test_held_out_data_are_scored_the_same_however_they_are_cut() -> None:
    program = Counts().program(Counts().amortised)
    whole, cut = (evaluate(program, batches, {"p": predictive(200)}) for batches in (COUNTS, [COUNTS[:1], COUNTS[1:]]))
    distance = (whole.log_prob["p"] - cut.log_prob["p"]).abs() / (whole.error["p"] + cut.error["p"])
    assert float(distance.max()) < 6.0


def test_observations_that_all_examples_share_are_no_part_of_a_new_one() -> None:
    def model(x: Tensor) -> None:
        t = pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("y", dist.Normal(t, 0.5).expand([2]).to_event(1), obs=x.new_tensor([0.7, 0.1]))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(t, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("t", dist.Normal(x.new_tensor(0.3), 0.2))

    found = evaluate(Pair(model, guide), NEW, {"p": predictive(400)})
    _within_error(found, dist.Normal(0.3, math.sqrt(1.04)).log_prob(NEW), 0.05)


def test_an_improper_prior_is_never_drawn_from() -> None:
    def model(x: Tensor) -> None:
        flat = dist.ImproperUniform(dist.constraints.real, (), ())
        t = pyro.sample("t", flat)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(t, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        pyro.sample("t", dist.Normal(x.new_tensor(0.3), 0.2))

    found = evaluate(Pair(model, guide), NEW, {"p": predictive(400)})
    _within_error(found, dist.Normal(0.3, math.sqrt(1.04)).log_prob(NEW), 0.05)


def test_rescaled_data_are_scored_in_their_own_units() -> None:
    class Rescaled(list):
        log_jacobian = 0.7

    x = torch.randn(20, dtype=torch.float64)
    program, estimators = SharedMean(20).at(x), {"p": predictive(3)}
    there, here = evaluate(program, Rescaled([NEW]), estimators), evaluate(program, NEW, estimators)
    torch.testing.assert_close(there.log_prob["p"], here.log_prob["p"] + 0.7)


def _hierarchy(x: Tensor) -> None:
    data = pyro.plate("data", len(x))
    with data:
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
    t = pyro.sample("t", dist.Normal(z.mean(), 1.0))
    with data:
        pyro.sample("x", dist.Normal(z + t, 1.0), obs=x)


def _of_this_batch(x: Tensor) -> None:
    pyro.sample("mean", dist.Normal(x.sum() / 21, 0.2))


def _late(x: Tensor) -> None:
    with pyro.plate("data", 5):
        pyro.sample("z", dist.Normal(torch.zeros(6), 1.0))
    pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))


def _one_event(x: Tensor) -> None:
    t = pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))
    pyro.sample("x", dist.Normal(t, 1.0).expand([len(x)]).to_event(1), obs=x)


def _draws_t(x: Tensor) -> None:
    pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))


def _summed_label(x: Tensor) -> None:
    k = pyro.sample("k", dist.Bernoulli(x.new_tensor(0.5)), infer={"enumerate": "parallel"})
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(k, 1.0), obs=x)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (LinearGaussian(), r"shares no latents between examples.*Use importance\(particles\)"),
        (Pair(_one_event, _draws_t), "no plate counts the examples"),
        (Pair(SharedMean(20).model, _nothing), r"does not draw the latent sites \['mean'\], which all examples share"),
        (Pair(SharedMean(20).model, _of_this_batch), r"draws the shared sites \['mean'\] by the batch"),
        (Pair(Counts().model, _late), r"does not draw the latent sites \['t'\].*or only after a site with values for"),
        (Pair(_hierarchy, _draws_t), r"draws \['t'\], which all examples share, after latents of single examples"),
        (Pair(_summed_label, _nothing), r"does not draw the latent sites \['k'\], which all examples share"),
        (SharedMean(5), "a plate of 5 examples, which are the whole dataset, is asked to hold 9 of a batch"),
    ],
    ids=["none shared", "no plate", "not drawn", "of this batch", "late", "late in the model", "summed", "larger"],
)
def test_what_has_no_predictive_density_is_refused(program: Program, message: str) -> None:
    x = LinearGaussian.data(9) if isinstance(program, LinearGaussian) else LinearGaussian.data(9)[:, 0]
    with pytest.raises(ProgramError, match=message):
        evaluate(program, x, {"p": predictive(2)})


def test_numbers_of_new_examples_and_of_the_dataset_stand_apart() -> None:
    program = SharedMean(7).at(NEW)
    with pytest.raises(ProgramError, match=r"\['p'\] score each example .* and \['e', 'i'\] the evidence of these"):
        evaluate(program, NEW, {"p": predictive(2), "i": importance(2), "e": exact()})
    evidence = evaluate(program, NEW, {"p": importance(50)})
    assert not evidence.per_example
    with pytest.raises(ProgramError, match="only where data, kind and settings agree"):
        evidence.difference(evaluate(program, NEW, {"p": predictive(2)}), "p")


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(
        ValueError, match="draws: expected a whole number of at least 2, of which an error can be told, got 1"
    ):
        predictive(1)
    with pytest.raises(ValueError, match="particles: expected a whole number of at least 1, got 0"):
        predictive(2, particles=0)
