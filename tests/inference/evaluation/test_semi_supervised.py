"""A semi-supervised VAE (Kingma et al. 2014, arXiv 1406.5298) as a user of Pyro writes it: labels known for some."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from torch import Tensor, nn

from inference import (
    SVI,
    ImportanceWeighted,
    ProgramError,
    Step,
    adam,
    evaluate,
    fit,
    importance,
    posterior,
    reconstruct,
    terms,
)

CLASSES = 3


class SemiSupervised(nn.Module):
    """y ~ Categorical, z ~ N(0, 1), x | y, z: y is observed where it is known, and summed out where it is not."""

    def __init__(self) -> None:
        super().__init__()
        self.of_class = nn.Parameter(torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
        self.slope = nn.Parameter(torch.tensor([0.5, 0.5]))
        self.log_scale = nn.Parameter(torch.zeros(2))
        self.encoder = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))

    @config_enumerate
    def model(self, x: Tensor, y: Tensor, known: Tensor) -> None:
        with pyro.plate("data", len(x)):
            label = pyro.sample("y", dist.Categorical(logits=x.new_zeros(CLASSES)), obs=y, obs_mask=known)
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", self.likelihood(label, z), obs=x)

    def likelihood(self, label: Tensor, z: Tensor) -> dist.Distribution:
        return dist.Normal(self.of_class[label] + z.unsqueeze(-1) * self.slope, self.log_scale.exp()).to_event(1)

    def guide(self, x: Tensor, y: Tensor, known: Tensor) -> None:
        loc, log_scale = self.encoder(x).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()))

    @torch.no_grad()
    def log_evidence(self, x: Tensor, y: Tensor, known: Tensor) -> Tensor:
        """log p(x, y) where y is known, and log p(x) elsewhere: z integrated in closed form."""
        covariance = torch.outer(self.slope, self.slope) + (2 * self.log_scale).exp().diag()
        each = dist.MultivariateNormal(self.of_class, covariance).log_prob(x.unsqueeze(1)) - math.log(CLASSES)
        return torch.where(known, each.gather(1, y.unsqueeze(1)).squeeze(1), each.logsumexp(1))


def _data(examples: int = 90) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (examples,), generator=generator)
    centres = torch.tensor([[-2.0, -1.0], [2.0, -1.0], [0.0, 2.0]])
    x = centres[y] + 0.6 * torch.randn(examples, 2, generator=generator)
    return x, y, torch.arange(examples) % 10 == 0


def test_labels_known_for_some_are_observed_and_the_others_summed() -> None:
    torch.manual_seed(0)
    program, (x, y, known) = SemiSupervised(), _data()
    before = program.log_evidence(x, y, known).mean()
    fit(Step(ImportanceWeighted(program, particles=4), adam(0.03)), (x, y, known), 200, progress=False)
    found = evaluate(program, (x, y, known), {"iwae": importance(2000)})
    right = program.log_evidence(x, y, known)
    torch.testing.assert_close(found.log_prob["iwae"].float(), right, rtol=0, atol=0.1)
    assert right.mean() > before + 0.5
    drawn = reconstruct(program, (x, y, known), 30)["y_unobserved"]
    labels = posterior(program, (x, y, known), 30)
    assert torch.equal(labels["y"][:, known], y[known].expand(30, -1))
    assert torch.equal(
        labels["y"][:, ~known], labels["y_unobserved"][:, ~known]
    )  # pyro.deterministic, of the same draws
    assert (labels["y"].mode(0).values == y).float().mean() > 0.9
    assert (drawn.mode(0).values == y)[~known].float().mean() > 0.9


def test_the_label_that_is_given_for_an_unlabelled_row_counts_for_nothing() -> None:
    program, (x, y, known) = SemiSupervised(), _data()
    latents = {"z": torch.zeros(1, len(x))}
    first = terms(program, (x, y, known), latents=latents).log_weights
    for given in ((y + 1) % CLASSES, -torch.ones_like(y), torch.full_like(y, 99)):
        batch = (x, torch.where(known, y, given), known)
        torch.testing.assert_close(terms(program, batch, latents=latents).log_weights, first)
        assert reconstruct(program, batch)["x"].isfinite().all()
    with pytest.raises(ProgramError, match=r"'y_observed' .* has values outside its support"):
        terms(program, (x, torch.where(known, -1, y), known), latents=latents)


def test_without_marks_the_unlabelled_are_named() -> None:
    program, batch = SemiSupervised(), _data()
    program.model = type(program).model.__wrapped__.__get__(program)  # type: ignore[method-assign]
    with pytest.raises(ProgramError, match=r"\['y_unobserved'\] are of finite support. Mark these"):
        fit(Step(SVI(program)), batch, 1, progress=False)
