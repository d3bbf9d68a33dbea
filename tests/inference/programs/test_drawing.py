"""What is drawn, and how: every function that draws runs networks as they are evaluated, and gives modes back."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from inference import Pair, decode, posterior, predict, reconstruct, sample

X = torch.ones(3, 4, dtype=torch.float64)


class Dropped(nn.Module):
    """z and x through dropout in both directions, with next to no noise."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Dropout(0.5), nn.Dropout(0.5)
        self.still = nn.Dropout(0.5).eval()  # a part that its owner keeps in eval mode

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_ones(4), 1e-6).to_event(1))
            return pyro.sample("x", dist.Normal(self.decoder(z), 1e-6).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 1e-6).to_event(1))


@pytest.mark.parametrize(
    "drawn",
    [
        lambda program: sample(program, X, 50)["x"],
        lambda program: posterior(program, X, 50)["z"],
        lambda program: reconstruct(program, X, 50)["x"],
        lambda program: predict(program, X, 50)["x"],
        lambda program: decode(program, X, {"z": torch.ones(50, 3, 4, dtype=torch.float64)})["x"],
    ],
    ids=["sample", "posterior", "reconstruct", "predict", "decode"],
)
def test_draws_are_made_without_dropout_and_without_a_graph(drawn: Callable[[Any], Tensor]) -> None:
    program = Dropped().train()
    program.still.eval()
    found = drawn(program)
    assert found.shape == (50, 3, 4)
    assert not found.requires_grad
    torch.testing.assert_close(found, torch.ones_like(found), atol=1e-4, rtol=0)
    assert [module.training for module in (program, program.encoder, program.decoder, program.still)] == [
        True,
        True,
        True,
        False,
    ]


def test_reconstructions_come_from_the_guides_draws() -> None:
    """The guide says 3 where the prior says 1: a reconstruction follows the guide, and a sample the prior."""
    program = Dropped()
    found = reconstruct(program, 3 * X, 2)["x"]
    torch.testing.assert_close(found, torch.full_like(found, 3.0), atol=1e-4, rtol=0)
    prior = sample(program, 3 * X, 2)["x"]
    torch.testing.assert_close(prior, torch.ones_like(prior), atol=1e-4, rtol=0)


def _observed_once(x: Tensor) -> None:
    """A shared latent with an observation of its own, and examples around it."""
    t = pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))
    pyro.sample("y", dist.Normal(t, 1.0), obs=x.new_ones(()))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(t, 1.0).expand([len(x)]), obs=x[:, 0])


def test_a_posterior_has_the_models_latents_and_not_an_autoguides_own() -> None:
    assert posterior(Pair(_observed_once, AutoNormal), X, 3).keys() == {"t"}


def test_what_is_decoded_is_of_the_examples() -> None:
    t = torch.tensor([0.5, -1.0], dtype=torch.float64)
    found = decode(Pair(_observed_once, AutoNormal), X, {"t": t})
    assert found.keys() == {"x"}
    torch.testing.assert_close(found["x"], t.unsqueeze(1).expand(2, 3))
