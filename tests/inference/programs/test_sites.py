"""What sites count for: which plate holds the examples, what is summed into one, and which weights are refused."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from inference import Pair, ProgramError, check, evaluate, exact, terms
from ppmodels.distributions import Implicit
from tests.problems import LinearGaussian

X = LinearGaussian.data(3)
LOC = torch.tensor([-1.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("names", [("data", "other"), ("other", "data")])
def test_the_plate_named_data_counts_wherever_it_stands(names: tuple[str, str]) -> None:
    """Two plates as long as the batch, one over rows and one over columns; `data` may be either, and come second."""

    def model(x: Tensor) -> None:
        outer, inner = (pyro.plate(name, 3, dim=dim) for name, dim in zip(names, (-2, -1), strict=True))
        with outer, inner:
            pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x)

    log_prob = dist.Normal(0.0, 1.0).log_prob(X)
    expected = log_prob.sum(1 if names[0] == "data" else 0)
    torch.testing.assert_close(terms(Pair(model), X).log_weights.squeeze(0), expected)


@pytest.mark.parametrize("enumerated", [False, True])
def test_a_sequential_plate_is_no_axis_even_where_it_is_as_long_as_the_batch(enumerated: bool) -> None:
    chance = torch.tensor([0.3, 0.7], dtype=torch.float64)

    def model(x: Tensor) -> None:
        with pyro.plate("examples", len(x)):
            k = pyro.sample("k", dist.Categorical(chance)) if enumerated else torch.tensor(1)
            for j in pyro.plate("values", 3):
                pyro.sample(f"x{j}", dist.Normal(LOC[k], 1.0), obs=x[:, j])

    each = torch.stack([dist.Normal(loc, 1.0).log_prob(X).sum(1) for loc in LOC])
    expected = torch.logsumexp(chance.log().unsqueeze(1) + each, 0) if enumerated else each[1]
    torch.testing.assert_close(evaluate(Pair(model), X, {"exact": exact()}).log_prob["exact"], expected)


@pytest.mark.parametrize(
    "scale",
    [0.99, 1.01, 2.0, torch.tensor(0.5), torch.tensor([1.0, 2.0, 3.0])],
    ids=["less", "more", "twice", "a tensor", "by row"],
)
@pytest.mark.parametrize("size", [None, 12], ids=["whole", "part"])
def test_a_scale_beside_that_of_the_plates_is_refused(scale: float | Tensor, size: int | None) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", size or len(x), subsample_size=len(x)), poutine.scale(scale=scale):
            pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x[:, 0])

    with pytest.raises(ProgramError, match="site 'x' is scaled by"):
        terms(Pair(model), X)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_density_in_half_precision_is_refused(dtype: torch.dtype) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(()), x.new_ones(())), obs=x)

    with pytest.raises(ProgramError, match=rf"log density in {dtype}"):
        terms(Pair(model), torch.zeros(4, dtype=dtype))


@pytest.mark.parametrize("rows", [1, 3])
def test_an_autoguide_of_local_latents_has_one_value_an_example_however_many_particles_came_first(rows: int) -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x[:, 0])

    pair = Pair(model, partial(AutoNormal, init_scale=0.2))
    drawn = terms(pair, X[:rows], particles=4)
    assert drawn.log_weights.shape == (4, rows)
    assert len(drawn.prior.unique()) == 4 * rows
    assert {tuple(parameter.shape) for parameter in pair.parameters()} == {(rows,)}


def test_latents_of_unlike_numbers_of_particles_are_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            w = pyro.sample("w", dist.Normal(z, 1.0))
            pyro.sample("x", dist.Normal(w, 1.0), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0], 1.0))
            pyro.sample("w", dist.Normal(x[:, 0], 1.0))

    latents = {"z": X.new_zeros(2, 3), "w": X.new_zeros(4, 3)}
    with pytest.raises(ProgramError, match=r"share their first axis, the particles.*'z': 2, 'w': 4"):
        terms(Pair(model, guide), X, latents=latents)


def test_a_check_is_silent_of_a_guide_without_a_density() -> None:
    network = nn.Linear(3, 1, dtype=torch.float64)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x[:, :1])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", Implicit(lambda: network(x), (len(x),), (1,)))

    check(Pair(model, guide, network), X)


def test_a_parameter_that_is_read_again_has_its_constraint_and_is_one() -> None:
    def model(x: Tensor) -> None:
        scale = pyro.param("scale", torch.tensor(2.0, dtype=torch.float64), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), scale))
            pyro.sample("x", dist.Normal(z, pyro.param("scale")), obs=x[:, 0])

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, 0], 1.0))

    pair = Pair(model, guide)
    z = X[:, 1].unsqueeze(0)
    for _ in range(2):
        scored = terms(pair, X, latents={"z": z})
        torch.testing.assert_close(scored.prior, dist.Normal(X.new_zeros(()), 2.0).log_prob(z))
        torch.testing.assert_close(scored.likelihood, dist.Normal(z, 2.0).log_prob(X[:, 0]))
    assert len(list(pair.parameters())) == 1


def test_a_site_without_a_density_is_named_however_the_particles_were_run() -> None:
    def model(x: Tensor) -> None:
        t = pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", Implicit(lambda: t.expand(len(x), 1), (len(x),), (1,)), obs=x[:, :1])

    def guide(x: Tensor) -> None:
        pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))

    for particles in (1, 3):
        drawn = terms(Pair(model, guide), X, particles)
        assert drawn.implicit == ("x",)
        with pytest.raises(ProgramError, match=r"\['x'\] have no density"):
            _ = drawn.log_weights
