"""Simulated batches: what is observed is drawn, all else is kept."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

from inference import Pair, ProgramError, log_joint, simulated


def nothing(*batch: object) -> None:
    """A guide that draws nothing."""


def regression(x: Tensor, y: Tensor) -> None:
    slope = pyro.sample("slope", dist.Normal(x.new_tensor(0.0), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(slope * x, 1e-3), obs=y)


def test_covariates_are_kept_and_observations_are_drawn() -> None:
    torch.manual_seed(0)
    x, y = torch.linspace(1, 2, 5), torch.zeros(5)
    batch, latents = simulated(Pair(regression, nothing), (x, y))
    assert torch.equal(batch[0], x)
    assert torch.allclose(batch[1], latents["slope"] * x, atol=0.01)
    assert (y == 0).all(), "the caller's data stay"


def test_parts_and_views_of_entries_are_filled_in_their_place() -> None:
    def model(data: dict[str, Tensor]) -> None:
        x = data["x"]
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 10.0))
            pyro.sample("a", dist.Normal(z, 1e-3), obs=x[:, 0])
            pyro.sample("b", dist.Normal(-z.unsqueeze(-1).expand(len(x), 4), 1e-3).to_event(1), obs=x[:, 2:].flatten(1))
            pyro.sample("k", dist.Bernoulli(probs=torch.ones(len(x))), obs=data["k"])

    torch.manual_seed(0)
    x = torch.zeros(3, 6)
    (data,), latents = simulated(Pair(model, nothing), {"x": x, "k": torch.zeros(3)})
    z = latents["z"][0]
    assert latents["z"].shape == (1, 3)
    assert torch.allclose(data["x"][:, 0], z, atol=0.02)
    assert torch.allclose(data["x"][:, 2:], -z[:, None].expand(3, 4), atol=0.02)
    assert torch.equal(data["x"][:, 1], x[:, 1])
    assert torch.equal(data["k"], torch.ones(3))


def test_images_observed_as_rows_and_levels_as_integers() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Categorical(logits=torch.zeros(len(x), 6, 9)).to_event(1), obs=x.reshape(len(x), -1))

    torch.manual_seed(0)
    (x,), latents = simulated(Pair(model, nothing), torch.zeros(50, 2, 3, 1, dtype=torch.long).permute(0, 3, 1, 2))
    assert x.shape == (50, 1, 2, 3)
    assert x.dtype == torch.long
    assert set(x.unique().tolist()) == set(range(9))
    assert latents == {}


def test_what_a_mask_hides_is_kept() -> None:
    def model(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x)), 1.0))
            with poutine.mask(mask=y >= 0):
                pyro.sample("y", dist.Categorical(logits=torch.zeros(len(x), 3)), obs=y)
            pyro.sample("x", dist.Normal(z, 1.0).mask(x > -50), obs=x)

    torch.manual_seed(0)
    y = torch.tensor([0, -1, 2, -1])
    x = torch.tensor([-99.0, 0.0, 0.0, 0.0])
    batch, _ = simulated(Pair(model, nothing), (x, y))
    assert torch.equal(batch[1] == -1, y == -1)
    assert torch.equal(batch[0] == -99, x == -99)
    assert (batch[0][1:] != 0).all()


def test_a_simulation_is_drawn_from_the_joint() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(x.new_tensor([0.2, 0.8])), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(x.new_tensor([-3.0, 3.0])[k], 1.0), obs=x)

    torch.manual_seed(0)
    program = Pair(model, nothing)
    (x,), latents = simulated(program, torch.zeros(20_000, dtype=torch.float64))
    assert abs(float(x.mean()) - 1.8) < 0.1
    assert set(latents) == {"k"}
    # E[log p(x)] under p is minus the entropy, here that of k and of a normal, as the components are apart.
    entropy = (
        -(0.2 * torch.tensor(0.2).log() + 0.8 * torch.tensor(0.8).log())
        + 0.5 * torch.tensor(2 * torch.pi * torch.e).log()
    )
    assert abs(float(log_joint(program, x, {}).mean()) + float(entropy)) < 0.05


def test_a_series_goes_on_from_what_was_drawn() -> None:
    def model(x: Tensor) -> None:
        previous = x.new_zeros(len(x))
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                pyro.sample(f"x{t}", dist.Normal(previous + 1, 1e-3), obs=x[:, t])
                previous = x[:, t]

    torch.manual_seed(0)
    (x,), _ = simulated(Pair(model, nothing), torch.full((3, 5), 100.0))
    assert torch.allclose(x, torch.arange(1.0, 6.0).expand(3, 5), atol=0.02)


def test_a_model_that_reads_what_it_has_not_drawn_is_refused() -> None:
    def all_at_once(x: Tensor) -> None:
        previous = torch.cat([torch.zeros(len(x), 1), x[:, :-1]], 1)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(previous, 1.0).to_event(1), obs=x)

    def prior_of_the_data(x: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(x.mean(), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    with pytest.raises(ProgramError, match="site 'x' has another density given the simulated data"):
        simulated(Pair(all_at_once, nothing), torch.zeros(3, 4))
    with pytest.raises(ProgramError, match="site 'mean' has another density given the simulated data"):
        simulated(Pair(prior_of_the_data, nothing), torch.full((3,), 50.0))


def test_a_value_is_observed_once() -> None:
    def twice(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(x.new_zeros(len(x), 3), 1.0).to_event(1), obs=x)
            pyro.sample("b", dist.Normal(x.new_zeros(len(x)), 1.0), obs=x[:, 1])

    def windows(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("a", dist.Normal(x.new_zeros(len(x), 2, 2), 1.0).to_event(2), obs=x.unfold(1, 2, 1))

    for name, model in (("b", twice), ("a", windows)):
        with pytest.raises(ProgramError, match=rf"site '{name}' observes values of batch\[0\] that another site"):
            simulated(Pair(model, nothing), torch.zeros(4, 3))


def test_missing_values_of_an_obs_mask_are_kept_and_their_latents_given() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_full((len(x),), 5.0), 0.1), obs=x, obs_mask=x > -50)

    torch.manual_seed(0)
    (x,), latents = simulated(Pair(model, nothing), torch.tensor([-99.0, 0.0, -99.0, 0.0]))
    assert torch.equal(x == -99, torch.tensor([True, False, True, False]))
    assert torch.allclose(x[1::2], torch.tensor(5.0), atol=1.0)
    assert set(latents) == {"x_unobserved"}


def test_what_cannot_be_simulated_is_refused_by_name() -> None:
    def scaled(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(len(x)), 1.0), obs=x / 255)

    def factored(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.factor("penalty", -x)
            pyro.sample("x", dist.Normal(x.new_zeros(len(x)), 1.0), obs=x)

    with pytest.raises(ProgramError, match=r"site 'x' observes what is no entry of the batch \(batch\[0\]\)"):
        simulated(Pair(scaled, nothing), torch.zeros(3))
    with pytest.raises(ProgramError, match="the factor 'penalty'"):
        simulated(Pair(factored, nothing), torch.zeros(3))
    with pytest.raises(ProgramError, match="observes nothing"):
        simulated(Pair(lambda x, y: regression(x, y), nothing), (torch.zeros(3), None))

    def halved(x: Tensor) -> None:
        x /= 2
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(len(x)), 1.0), obs=x)

    def broadcast(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(len(x)), 1.0), obs=x[0])

    def continuous(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(torch.zeros(len(x)), 1.0), obs=x)

    with pytest.raises(ProgramError, match=r"the program writes into batch\[0\]"):
        simulated(Pair(halved, nothing), torch.zeros(3))
    with pytest.raises(ProgramError, match=r"an entry of torch.int64 can not hold. Give the entry as torch.float32"):
        simulated(Pair(continuous, nothing), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ProgramError, match=r"draws values of shape \(3,\) and observes \(1,\)"):
        simulated(Pair(broadcast, nothing), torch.zeros(3, 1))
