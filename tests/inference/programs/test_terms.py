"""What `terms` counts, case by case, against densities written down by hand."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn

from inference import Pair, ProgramError, log_joint, posterior, terms
from tests.problems import LinearGaussian, Mixture, SharedMean

X = LinearGaussian.data(5)
NORMAL = dist.Normal(torch.zeros((), dtype=torch.float64), 1.0)


def _z_guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, 0], 0.5))


def _log_q(x: Tensor, z: Tensor) -> Tensor:
    return dist.Normal(x[:, 0], 0.5).log_prob(z)


LATENTS = {"z": torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(3, 5)}
Z = LATENTS["z"]


def test_the_exact_posterior_has_constant_weights() -> None:
    program = LinearGaussian()
    weights = terms(program, X, particles=6).log_weights
    assert weights.shape == (6, 5)
    torch.testing.assert_close(weights, program.log_evidence(X).expand(6, 5), atol=1e-9, rtol=0)


def test_discrete_draws_are_scored_and_kept_apart() -> None:
    program = Mixture()
    x = Mixture.data()
    drawn = terms(program, x, particles=4)
    torch.testing.assert_close(drawn.score, drawn.posterior)
    assert terms(LinearGaussian(), X).score.count_nonzero() == 0


def test_particles_tiled_or_one_by_one_are_the_same_numbers() -> None:
    program = LinearGaussian(error=0.3)
    latents = {"z": torch.randn(4, 5, 2, dtype=torch.float64)}
    tiled = terms(program, X, latents=latents)

    class OneByOne(LinearGaussian):
        tiles = False

    single = OneByOne(error=0.3)
    for part, other in zip(tiled[:4], terms(single, X, latents=latents)[:4], strict=True):
        torch.testing.assert_close(part, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("program", [LinearGaussian(error=0.4), Mixture()])
def test_a_guide_run_once_draws_and_scores_as_one_run_on_copies(program: nn.Module) -> None:
    x = Mixture.data() if isinstance(program, Mixture) else X

    name = "k" if isinstance(program, Mixture) else "z"
    drawn = posterior(program, x, 20_000)[name].double()
    latents = {name: drawn[:3] if isinstance(program, LinearGaussian) else drawn[:3].long()}
    once = terms(program, x, latents=latents)
    each = [terms(program, x, latents={name: value[k : k + 1] for name, value in latents.items()}) for k in range(3)]
    torch.testing.assert_close(once.posterior, torch.cat([one.posterior for one in each]))
    torch.testing.assert_close(once.log_weights, torch.cat([one.log_weights for one in each]))
    # The draws' mean against the guide's own, within six standard errors: copies that were mixed up would be far off.
    fn = pyro.poutine.trace(program.guide).get_trace(x).nodes[name]["fn"]
    mean = fn.probs @ torch.arange(3.0).double() if isinstance(program, Mixture) else fn.mean
    error = drawn.std(0) / 20_000**0.5
    assert ((drawn.mean(0) - mean.detach()).abs() < 6 * error).all()


def test_given_latents_are_scored_where_they_stand() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", NORMAL)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 1])

    scored = terms(Pair(model, _z_guide), X, latents=LATENTS)
    torch.testing.assert_close(scored.prior, NORMAL.log_prob(Z))
    torch.testing.assert_close(scored.posterior, _log_q(X, Z))
    torch.testing.assert_close(scored.likelihood, dist.Normal(Z, 1.0).log_prob(X[:, 1]))
    torch.testing.assert_close(log_joint(Pair(model, _z_guide), X, LATENTS), scored.prior + scored.likelihood)


def test_several_observations_and_factors_add_up_and_deterministic_counts_for_nothing() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", NORMAL)
            pyro.deterministic("double", 2 * z)
            pyro.sample("first", dist.Normal(z, 1.0), obs=x[:, 1])
            pyro.sample("second", dist.Normal(-z, 2.0), obs=x[:, 2])
            pyro.factor("prefer", z**2)

    scored = terms(Pair(model, _z_guide), X, latents=LATENTS)
    expected = dist.Normal(Z, 1.0).log_prob(X[:, 1]) + dist.Normal(-Z, 2.0).log_prob(X[:, 2]) + Z**2
    torch.testing.assert_close(scored.likelihood, expected)
    torch.testing.assert_close(scored.prior, NORMAL.log_prob(Z))


def test_a_mask_removes_what_it_hides_and_obs_mask_makes_a_latent() -> None:
    keep = torch.tensor([True, False, True, True, False])

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", NORMAL)
            kept = keep.repeat(len(x) // 5)
            pyro.sample("x", dist.Normal(z, 1.0).mask(kept), obs=x[:, 1])
            with poutine.mask(mask=kept):
                pyro.sample("y", dist.Normal(z, 1.0), obs=x[:, 2])

    scored = terms(Pair(model, _z_guide), X, latents=LATENTS)
    both = dist.Normal(Z, 1.0).log_prob(X[:, 1]) + dist.Normal(Z, 1.0).log_prob(X[:, 2])
    torch.testing.assert_close(scored.likelihood, torch.where(keep, both, torch.zeros_like(both)))


@pytest.mark.parametrize("outside", [True, False])
def test_plates_over_pixels_are_summed_into_the_example(outside: bool) -> None:
    def model(x: Tensor) -> None:
        if outside:
            with pyro.plate("data", len(x), dim=-1):
                z = pyro.sample("z", NORMAL)
                with pyro.plate("pixels", 3, dim=-2):
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x.T)
        else:
            with pyro.plate("data", len(x), dim=-2):
                z = pyro.sample("z", NORMAL)
                with pyro.plate("pixels", 3, dim=-1):
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-1 if outside else -2):
            pyro.sample("z", dist.Normal(x[:, 0] if outside else x[:, :1], 0.5))

    latents = LATENTS if outside else {"z": Z.unsqueeze(-1)}
    scored = terms(Pair(model, guide), X, latents=latents)
    torch.testing.assert_close(scored.likelihood, dist.Normal(Z.unsqueeze(-1), 1.0).log_prob(X).sum(-1))
    torch.testing.assert_close(scored.posterior, _log_q(X, Z))
    assert terms(Pair(model, guide), X, particles=4).log_weights.shape == (4, 5)


def test_a_batch_may_be_several_tensors() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(y, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 1])

    y = torch.arange(5, dtype=torch.float64)
    scored = terms(Pair(model, lambda x, y: _z_guide(x)), (X, y), latents=LATENTS)
    torch.testing.assert_close(scored.prior, dist.Normal(y, 1.0).log_prob(Z))


def test_between_two_plates_of_the_batch_length_the_one_named_data_counts() -> None:
    def model(name: str, other: str):
        def run(x: Tensor) -> None:
            with pyro.plate(name, len(x), dim=-1), pyro.plate(other, 5, dim=-2):
                pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x @ x.T)

        return run

    x = torch.randn(5, 3, dtype=torch.float64)
    expected = NORMAL.log_prob(x @ x.T).sum(0)
    torch.testing.assert_close(terms(Pair(model("data", "pixels")), x).likelihood[0], expected)
    with pytest.raises(ProgramError, match=r"\['pixels', 'rows'\] are all as long as the batch \(5\).*Name it `data`"):
        terms(Pair(model("rows", "pixels")), x)


def test_random_subsamples_index_the_same_rows_in_model_and_guide() -> None:
    class Subsampled(nn.Module):
        def model(self, x: Tensor) -> None:
            with pyro.plate("data", len(x), subsample_size=3) as rows:
                z = pyro.sample("z", dist.Normal(x[rows, 0], 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows, 1])

        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x), subsample_size=3) as rows:
                pyro.sample("z", dist.Delta(x[rows, 0]))

    x = torch.stack([torch.arange(50.0), torch.arange(50.0)], 1).double()
    drawn = terms(Subsampled(), x, particles=4)
    assert drawn.log_weights.shape == (4, 3)
    # With other rows in the model the likelihood would be far below that of an observation at its own mean.
    torch.testing.assert_close(drawn.likelihood, NORMAL.log_prob(torch.zeros(4, 3, dtype=torch.float64)))


def test_plate_scales_change_no_number() -> None:
    class Scaled(LinearGaussian):
        def model(self, x: Tensor) -> Tensor:
            with poutine.block(hide=[]):
                return self._in(pyro.plate("data", 600, subsample_size=len(x)), x)

        def _in(self, plate: pyro.plate, x: Tensor) -> Tensor:
            with plate:
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                return pyro.sample("x", dist.Normal(z @ self.weight.T + self.bias, self.noise).to_event(1), obs=x)

    latents = {"z": torch.randn(2, 5, 2, dtype=torch.float64)}
    plain = terms(LinearGaussian(), X, latents=latents).log_weights
    torch.testing.assert_close(terms(Scaled(), X, latents=latents).log_weights, plain)


def test_shared_sites_are_reported_of_the_dataset() -> None:
    x = torch.randn(8, dtype=torch.float64)
    program = SharedMean(8).at(x)
    drawn = terms(program, x, particles=3)
    assert drawn.shared is not None
    assert drawn.likelihood.shape == (3, 8)
    assert drawn.shared.prior.shape == (3,)
    assert drawn.examples == 8
    torch.testing.assert_close(drawn.log_weights, program.log_evidence(x).expand(3, 1), atol=1e-9, rtol=0)


def test_shared_sites_of_a_part_are_scaled_to_the_dataset() -> None:
    x = torch.randn(8, dtype=torch.float64)
    program = SharedMean(8).at(x)
    mean = torch.tensor([0.3], dtype=torch.float64)
    part = terms(program, x[:2], latents={"mean": mean})
    likelihood = dist.Normal(mean, 1.0).log_prob(x[:2]).sum()
    posterior = dist.Normal(x.sum() / 9, 9**-0.5).log_prob(mean)
    torch.testing.assert_close(part.log_weights[0], 8 / 2 * likelihood + NORMAL.log_prob(mean) - posterior)


class _NoDensity(dist.Normal):
    has_log_prob = False

    def log_prob(self, value: Tensor) -> Tensor:
        raise NotImplementedError


def test_implicit_sites_are_left_out_and_named() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", NORMAL)
            pyro.sample("x", _NoDensity(z.unsqueeze(-1).expand(-1, 3), 1.0).to_event(1), obs=x)

    drawn = terms(Pair(model, _z_guide), X)
    assert drawn.implicit == ("x",)
    assert drawn.likelihood.count_nonzero() == 0
    with pytest.raises(ProgramError, match=r"\['x'\] have no density.*Adversarial"):
        _ = drawn.log_weights


def _scaled(x: Tensor) -> None:
    with pyro.plate("data", len(x)), poutine.scale(scale=0.1):
        z = pyro.sample("z", NORMAL)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 1])


def _no_event(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", NORMAL)
    pyro.sample("x", dist.Normal(x.new_zeros(len(x), 3), 1.0), obs=x)


def _other_name(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("code", NORMAL)
        pyro.sample("x", dist.Normal(x[:, 0], 1.0), obs=x[:, 1])


def _forgotten(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", NORMAL)
        k = pyro.sample("k", dist.Bernoulli(x.new_full((), 0.5)))
        pyro.sample("x", dist.Normal(k, 1.0), obs=x[:, 1])


def _one_row(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", NORMAL)
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[:1, 1])


def _inner_subsample(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", NORMAL)
        with pyro.plate("pixels", 3, subsample_size=2) as pixels:
            pyro.sample("x", dist.Normal(z, 1.0), obs=x.T[pixels])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_scaled, r"'x' is scaled by 0.1.*Remove poutine.scale"),
        (_no_event, r"'x' has a log density of shape \(5, 3\).*to_event\(2\)"),
        (_other_name, r"does not draw the model's latent sites \['code'\].*under the same names"),
        (_forgotten, r"\['k'\] are of finite support. Mark these.*enumerate.*or draw them in the guide"),
        (_one_row, r"'x' has a value of shape \(1,\).*broadcast"),
        (_inner_subsample, r"plate 'pixels' takes 2 of 3 at random"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(model, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        terms(Pair(model, _z_guide), X)


def test_guides_that_say_too_much_are_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", NORMAL)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 1])

    def extra(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", NORMAL)
            pyro.sample("w", NORMAL)

    def factor(x: Tensor) -> None:
        _z_guide(x)
        pyro.factor("f", x.sum(), has_rsample=False)

    def auxiliary(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("a", NORMAL, infer={"is_auxiliary": True})
            pyro.sample("z", NORMAL)

    for guide, message in (
        (extra, r"draws \['w'\], which the model does not"),
        (factor, r"the guide observes site 'f'"),
        (auxiliary, r"auxiliary sites \['a'\].*Trace_ELBO"),
    ):
        with pytest.raises(ProgramError, match=message):
            terms(Pair(model, guide), X)
    with pytest.raises(ProgramError, match=r"given for \['w'\]; the guide draws \['z'\]"):
        terms(Pair(model, _z_guide), X, latents={"w": Z})


def test_half_precision_densities_are_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(()), x.new_ones(())), obs=x)

    with pytest.raises(ProgramError, match=r"log density in torch\.bfloat16"):
        terms(Pair(model), torch.zeros(4, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((torch.zeros(3), torch.zeros(2)), r"must share a first axis.*'batch\[0\]': \(3,\), 'batch\[1\]': \(2,\)"),
        (torch.zeros(0, 3), "at least one example"),
        (([1, 2],), r"batch\[0\] is a list; expected a tensor"),
    ],
)
def test_what_is_no_batch_is_refused(batch, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        terms(LinearGaussian(), batch)
