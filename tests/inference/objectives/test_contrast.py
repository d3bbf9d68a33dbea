"""Adaptive contrast: an explicit r(z | x) takes the prior's place, and what is exact about it stays exact."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import Adversarial, ProgramError, Step, adam, kl, log_joint
from inference.objectives.adversarial.comparison import comparison, contrast_of
from inference.objectives.adversarial.joint_samples import q_samples
from ppmodels.distributions import Implicit

X = torch.randn(40, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Affine(nn.Module):
    """z ~ N(0, I) in two dimensions, x ~ N(z1 + z2, 1), and a guide that is an affine map of x and noise."""

    def __init__(self, implicit: bool = True, implicit_x: bool = False) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.3, 0.4]))
        self.implicit, self.implicit_x = implicit, implicit_x

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))
            likelihood = dist.Normal(z.sum(1, keepdim=True), 1.0).to_event(1)
            return pyro.sample(
                "x", Implicit(likelihood.sample, (len(x),), (1,)) if self.implicit_x else likelihood, obs=x
            )

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            around = dist.Normal(x * self.slope, 0.8).to_event(1)
            pyro.sample("z", Implicit(around.rsample, (len(x),), (2,)) if self.implicit else around)


class Normal(nn.Module):
    """r(z | x), away from the guide."""

    def __init__(self, event: int = 1) -> None:
        super().__init__()
        self.loc, self.scale = nn.Parameter(torch.tensor([0.1, -0.2])), nn.Parameter(torch.tensor([0.5, 1.5]))
        self.event = event

    def forward(self, x: Tensor) -> object:
        return dist.Normal(self.loc + 0.1 * x, self.scale).to_event(self.event)


class Says(nn.Module):
    """A critic that says 0.3 whatever z is, and remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0))
        self.given: list[Tensor] = []

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        self.given.append(z.detach())
        return 0.3 + self.weight * z.sum(1) + 0 * x.squeeze(1)


@pytest.fixture
def objective() -> Adversarial:
    made = Adversarial(Affine(), Says(), contrast=Normal()).double()
    made.prepare(X)
    return made


def _guided() -> Tensor:
    torch.manual_seed(3)
    return X * torch.tensor([0.3, 0.4], dtype=torch.float64) + 0.8 * torch.randn(40, 2, dtype=torch.float64)


def test_the_loss_is_an_elbo_by_way_of_r(objective: Adversarial) -> None:
    """E_q[T + log r - log p(z) - log p(x | z)], in which T alone is an estimate."""
    z = _guided()
    torch.manual_seed(3)
    loss = objective.program_loss(X)
    log_p = dist.Normal(0.0, 1.0).log_prob(z).sum(1) + dist.Normal(z.sum(1), 1.0).log_prob(X.squeeze(1))
    log_r = objective.contrast(X).log_prob(z)
    torch.testing.assert_close(loss, (0.3 + log_r - log_p).mean())
    torch.manual_seed(3)
    # log q/p of z, by the critic and r: the same without the likelihood.
    torch.testing.assert_close(objective.log_ratio(X), 0.3 + log_r - dist.Normal(0.0, 1.0).log_prob(z).sum(1))


def test_a_critic_that_knows_the_ratio_to_r_makes_it_the_elbo() -> None:
    """T = log q/r of the whitened z: the loss is then minus the ELBO of the guide's density, draw by draw."""

    class Knows(nn.Module):
        def __init__(self, r: nn.Module) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.0))
            self.r = [r]  # not a submodule: its parameters are the contrast's

        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            r = self.r[0](x)
            z = r.mean + r.stddev * z
            log_q = dist.Normal(x * torch.tensor([0.3, 0.4], dtype=x.dtype), 0.8).to_event(1).log_prob(z)
            return log_q - r.log_prob(z) + 0 * self.weight

    contrast = Normal()
    objective = Adversarial(Affine(), Knows(contrast), contrast=contrast).double()
    objective.prepare(X)
    torch.manual_seed(3)
    loss = objective.program_loss(X)
    z = _guided()
    explicit = Affine(implicit=False).double()
    log_q = dist.Normal(X * explicit.slope, 0.8).to_event(1).log_prob(z)
    log_p = log_joint(explicit, X, {"z": z.unsqueeze(0)}).squeeze(0)
    torch.testing.assert_close(loss, (log_q - log_p).mean())


def test_the_critic_sees_z_as_r_does(objective: Adversarial) -> None:
    objective.critic.given.clear()
    z = _guided()
    torch.manual_seed(3)
    objective.critic_loss(X)
    r = objective.contrast(X)
    q, p = objective.critic.given
    torch.testing.assert_close(q, (z - r.mean) / r.stddev)
    # 80 standard normal numbers: means and deviations within 5.5 standard errors, so by chance below 1e-7.
    assert p.shape == (40, 2)
    assert abs(float(p.mean())) < 5.5 / 80**0.5
    assert abs(float(p.std()) - 1) < 5.5 / 160**0.5


def test_r_is_fitted_to_the_guide_by_the_critics_player_alone(objective: Adversarial) -> None:
    """And by its likelihood alone: the critic's loss would have it whiten z so that q and r differ."""
    torch.nn.init.constant_(objective.critic.weight, 0.7)
    z = _guided()
    expected = torch.autograd.grad(-objective.contrast(X).log_prob(z).mean(), list(objective.contrast.parameters()))
    torch.manual_seed(3)
    objective.critic_loss(X).backward()
    for parameter, gradient in zip(objective.contrast.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert objective.program.slope.grad is None
    step = Step(objective, {"critic": adam(1e-12), "program": adam(1e-2)})
    before = objective.contrast.loc.detach().clone()
    step(X)
    torch.testing.assert_close(objective.contrast.loc, before, atol=1e-9, rtol=0)


def test_r_comes_to_the_moments_of_the_guide() -> None:
    """After 400 steps, within 0.1 of the guide's slope at 0 and of its deviation, 0.8."""
    torch.manual_seed(0)
    objective = Adversarial(Affine().double(), Says().double(), contrast=Normal().double())
    step = Step(objective, {"critic": adam(2e-2), "program": adam(1e-12)})
    for _ in range(400):
        step(torch.zeros(256, 1, dtype=torch.float64))
    torch.testing.assert_close(objective.contrast.loc, torch.zeros(2, dtype=torch.float64), atol=0.1, rtol=0)
    torch.testing.assert_close(objective.contrast.scale, torch.full((2,), 0.8, dtype=torch.float64), atol=0.1, rtol=0)


def test_r_of_a_latent_gives_it_its_gradient() -> None:
    """r(z | x, t) with a critic that knows log q/r: the loss is minus an ELBO, and so is its gradient by t's mean."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def model(self, x: Tensor) -> Tensor:
            t = pyro.sample("t", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(t * x.new_ones(len(x), 1), 1.0).to_event(1))
                return pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

        def guide(self, x: Tensor) -> None:
            t = pyro.sample("t", dist.Normal(self.mean, 0.1))
            around = dist.Normal(x + 0.5 * t, 0.8).to_event(1)
            with pyro.plate("data", len(x)):
                pyro.sample("z", Implicit(around.rsample, (len(x),), (1,)))

    class R(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

        def forward(self, x: Tensor, t: Tensor) -> object:
            return dist.Normal(x + t.square() + self.shift, 0.5).to_event(1)

    class Knows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

        def forward(self, x: Tensor, z: Tensor, t: Tensor) -> Tensor:
            r = contrast(x, t)
            z = r.mean + r.stddev * z
            return dist.Normal(x + 0.5 * t, 0.8).to_event(1).log_prob(z) - r.log_prob(z) + 0 * self.weight

    contrast, program = R(), Shared()
    objective = Adversarial(program, Knows(), contrast=contrast)
    objective.prepare(X)
    torch.manual_seed(5)
    found = torch.autograd.grad(objective.program_loss(X), program.mean)[0]
    torch.manual_seed(5)
    t = program.mean + 0.1 * torch.randn((), dtype=torch.float64)
    z = X + 0.5 * t + 0.8 * torch.randn(40, 1, dtype=torch.float64)
    log_q = (
        dist.Normal(X + 0.5 * t, 0.8).log_prob(z) - dist.Normal(t, 1.0).log_prob(z) - dist.Normal(z, 1.0).log_prob(X)
    )
    shared = dist.Normal(program.mean, 0.1).log_prob(t) - dist.Normal(0.0, 1.0).log_prob(t)
    expected = torch.autograd.grad(log_q.mean() + shared / 40, program.mean)[0]
    torch.testing.assert_close(found, expected)


class Point(nn.Module):
    """Not a density."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class OfStrangers(Point):
    def forward(self, height: Tensor) -> Tensor:
        return self.weight * height


@pytest.mark.parametrize(
    ("program", "contrast", "message"),
    [
        (Affine(), lambda x: x, "contrast: expected an nn.Module"),
        (Affine(), Point(), r"got a Tensor without \['stddev', 'log_prob'\]"),
        (Affine(), OfStrangers(), r"\['height'\] is unknown"),
        (Affine(), Normal(event=0), r"let it end with \.to_event\(1\)"),
        (Affine(implicit_x=True), Normal(), "between the guide and the prior of one latent site"),
    ],
)
def test_what_is_no_contrast_is_refused(program: nn.Module, contrast: nn.Module, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        Adversarial(program, Says(), contrast=contrast).prepare(X.float())


def test_a_contrast_counts_in_nats() -> None:
    """Its log r has a unit, so that a potential can not stand beside it; a bound of the KL can."""
    found = comparison(Affine(), (X.float(),), None)
    assert contrast_of(Normal(), found, Affine(), (X.float(),)).site == "z"
    assert q_samples(Affine(), (X.float(),), found)[1]["z"].shape == (40, 2)
    objective = Adversarial(Affine(), Says(), kl, contrast=Normal())
    objective.prepare(X.float())
    assert objective.divergence is kl
