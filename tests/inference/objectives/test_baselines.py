"""Neural baselines: gradients without bias, against sums over all draws, with less variance, and what is refused."""

import itertools
from collections.abc import Callable, Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from inference import SVI, ProgramError, Step, Traced, adam, fit, terms
from inference.programs.traces import Drawn
from tests.problems import Chain, LinearGaussian, Mixture

X = torch.tensor([1.0], dtype=torch.float64)


class OfData(nn.Module):
    """A number by x."""

    def __init__(self, weight: float = 0.3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(-0.7, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x + self.bias


class OfEarlier(nn.Module):
    """A number by x and the latent that was drawn first."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor([0.4, -1.1, 2.0], dtype=torch.float64))

    def forward(self, b: Tensor, x: Tensor) -> Tensor:
        return self.table[b] * (1 + x)


def _by_site() -> nn.Module:
    return nn.ModuleDict({"b": OfData(), "a": OfEarlier()})


def _all_gradients(program: nn.Module, loss: Tensor) -> Tensor:
    return torch.cat([gradient.reshape(-1) for gradient in torch.autograd.grad(loss, [*program.parameters()])])


def _gradients(objective: SVI, particles: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The probability and the gradient of all that the guide may draw."""
    program = objective.program
    log_guide = program.log_densities(1.0)[1].detach()
    for drawn in itertools.product(range(6), repeat=particles):
        a, b = (torch.tensor(each) for each in zip(*(Chain.LATENTS[each] for each in drawn), strict=True))
        with Drawn({"a": a.double(), "b": b}):
            yield log_guide[list(drawn)].sum().exp(), _all_gradients(program, objective.loss(X))


def _exact(program: Chain) -> Tensor:
    joint, guide = program.log_densities(1.0)
    return _all_gradients(program, -(guide.exp() * (joint - guide)).sum())


@pytest.mark.parametrize("particles", [1, 2])
@pytest.mark.parametrize("baseline", [lambda: None, OfData, _by_site], ids=["none", "of data", "by site"])
def test_the_gradient_has_no_bias(baseline: Callable[[], nn.Module | None], particles: int) -> None:
    program = Chain()
    objective = SVI(program, particles=particles, baseline=baseline())
    mean = torch.stack([probability * gradient for probability, gradient in _gradients(objective, particles)]).sum(0)
    torch.testing.assert_close(mean, _exact(program), atol=1e-12, rtol=0)


def test_a_number_for_every_row_of_all_particles() -> None:
    """The rows are those of all particles, one after the other, so that each has its own latents' baseline."""
    program, seen = Chain(), []

    class Noted(OfEarlier):
        def forward(self, b: Tensor, x: Tensor) -> Tensor:
            seen.append((b, x))
            return super().forward(b, x)

    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    b = torch.tensor([0, 1, 2, 0, 1, 2])
    with Drawn({"a": torch.zeros(6).double(), "b": b}):
        SVI(program, particles=3, baseline=nn.ModuleDict({"b": OfData(), "a": Noted()})).loss(x)
    ((of_b, of_x),) = seen
    assert of_b.equal(b)
    assert of_x.equal(x.repeat(3))


def _variance(baseline: nn.Module | None, particles: int) -> float:
    objective = SVI(Chain(), particles=particles, baseline=baseline)
    weighed = [(probability, gradient) for probability, gradient in _gradients(objective, particles)]
    mean = torch.stack([probability * gradient for probability, gradient in weighed]).sum(0)
    return float(torch.stack([p * (g - mean).square().sum() for p, g in weighed]).sum())


def test_a_fitted_baseline_predicts_the_elbo_and_takes_variance_off() -> None:
    program, baseline = Chain(), OfData(0.0)
    joint, guide = program.log_densities(1.0)
    elbo = float((guide.exp() * (joint - guide)).sum().detach())
    baseline.weight.requires_grad_(False)
    optimizers = {"loss": lambda parameters: torch.optim.SGD(parameters, 0.0), "baseline": adam(0.02)}
    step = Step(SVI(program, particles=50, baseline=baseline), optimizers, differentiate=Traced())
    fit(step, X.repeat(20), 200)
    assert float(baseline.bias.detach()) == pytest.approx(elbo, abs=0.05)
    with torch.no_grad():
        baseline.bias.fill_(elbo)
    assert _variance(baseline, 1) < 0.8 * _variance(None, 1)


@pytest.mark.parametrize("size", [12, 600])
def test_targets_are_per_example_whatever_the_size_of_the_dataset(size: int) -> None:
    class Coins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.loc, self.gain = (nn.Parameter(torch.tensor(each).double()) for each in (0.5, 0.8))

        def model(self, x: Tensor) -> None:
            with pyro.plate("data", size, subsample=torch.arange(len(x))):
                k = pyro.sample("k", dist.Bernoulli(x.new_full((len(x),), 0.3)))
                pyro.sample("x", dist.Normal(self.loc * k, 1.0), obs=x)

        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", size, subsample=torch.arange(len(x))):
                pyro.sample("k", dist.Bernoulli(logits=self.gain * x))

    x, program = torch.tensor([-1.0, 2.0], dtype=torch.float64), Coins()
    drawn = terms(program, x, latents={"k": torch.tensor([[1.0, 0.0]]).double()})
    expected = (drawn.log_weights[0].detach() - OfData()(x)).square().mean()
    with Drawn({"k": torch.tensor([1.0, 0.0]).double()}):
        torch.testing.assert_close(SVI(program, baseline=OfData()).baseline_loss(x), expected)


class Sequential(nn.Module):
    """A shared mean m, a coin k for each example, z given k: the score function for k, and gradients through m and z.

    Args:
        late: whether something outside the plate is observed after k.
        shared_coin: whether the coin is one for all.
    """

    def __init__(self, late: bool = False, shared_coin: bool = False) -> None:
        super().__init__()
        self.late, self.shared_coin = late, shared_coin
        start = {"m_loc": 0.2, "gain": 0.7, "shift": -0.4, "scale": 0.6, "loc": 1.3}
        self.values = nn.ParameterDict({name: torch.tensor(value).double() for name, value in start.items()})

    def model(self, x: Tensor) -> None:
        m = pyro.sample("m", dist.Normal(x.new_zeros(()), 1.0))
        if self.shared_coin:
            pyro.sample("s", dist.Bernoulli(x.new_tensor(0.3)))
        with pyro.plate("data", 8, subsample=torch.arange(len(x))):
            k = pyro.sample("k", dist.Bernoulli(x.new_full((len(x),), 0.3)))
            z = pyro.sample("z", dist.Normal(m + k, 1.0))
            pyro.sample("x", dist.Normal(self.values["loc"] * z, 1.0), obs=x)
        if self.late:
            pyro.sample("y", dist.Normal(k.sum(), 1.0), obs=x.new_tensor(1.0))

    def guide(self, x: Tensor) -> None:
        pyro.sample("m", dist.Normal(self.values["m_loc"], 0.5))
        if self.shared_coin:
            pyro.sample("s", dist.Bernoulli(logits=self.values["gain"]))
        with pyro.plate("data", 8, subsample=torch.arange(len(x))):
            k = pyro.sample("k", dist.Bernoulli(logits=self.values["gain"] * x))
            pyro.sample("z", dist.Normal(self.values["shift"] * k + 0.3 * x, self.values["scale"]))


def test_beside_shared_and_continuous_latents_the_gradient_has_no_bias() -> None:
    """At any noise of m and z, the sum over the coins is the derivative of the ELBO summed over the coins."""
    program, x = Sequential(), torch.tensor([0.8, -1.2], dtype=torch.float64)
    objective = SVI(program, baseline=OfData())
    mean, value = torch.zeros(5, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for coins in itertools.product((0.0, 1.0), repeat=2):
        k = torch.tensor(coins).double()
        probability = dist.Bernoulli(logits=program.values["gain"] * x).log_prob(k).sum().exp()
        with Drawn({"k": k}):
            torch.manual_seed(3)
            mean += probability.detach() * _all_gradients(program, objective.loss(x))
            torch.manual_seed(3)
            value = value - probability * terms(program, x).log_weights.squeeze() / 8
    torch.testing.assert_close(mean, _all_gradients(program, value), atol=1e-12, rtol=0)


@pytest.mark.parametrize("particles", [1, 3])
def test_traced_steps_are_the_eager_ones(particles: int) -> None:
    x, found = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64), []
    for options in ({}, {"differentiate": Traced()}):
        step = Step(SVI(Chain(), particles=particles, baseline=_by_site()), adam(1e-2), **options)
        metrics = [step(x) for _ in range(3)][-1]
        assert [*metrics] == ["loss", "loss/gradient", "baseline", "baseline/gradient"]
        found.append([*metrics.values(), *(p.detach() for p in step.objective.parameters())])
    torch.testing.assert_close(*found, atol=1e-10, rtol=1e-10)


def test_program_and_baseline_send_each_other_no_gradient() -> None:
    baseline, x = _by_site(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    objective = SVI(Chain(), baseline=baseline)
    objective.prepare(x)
    for loss, others in (
        (objective.loss(x), baseline.parameters()),
        (objective.baseline_loss(x), objective.program.parameters()),
    ):
        assert set(torch.autograd.grad(loss, [*others], allow_unused=True)) == {None}


class Takes(nn.Module):
    """A network that asks for something, and gives numbers of some shape."""

    def __init__(self, shape: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.weight, self.shape = nn.Parameter(torch.ones((), dtype=torch.float64)), shape

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * self.shape(x)


class TakesDraw(Takes):
    def forward(self, k: Tensor) -> Tensor:  # type: ignore[override]
        return self.weight * k


class TakesLater(Takes):
    def forward(self, a: Tensor) -> Tensor:  # type: ignore[override]
        return self.weight * a


class TakesUnknown(Takes):
    def forward(self, y: Tensor) -> Tensor:  # type: ignore[override]
        return self.weight * y


def _as_one(program: nn.Module) -> nn.Module:
    return program


@pytest.mark.parametrize(
    ("program", "baseline", "message"),
    [
        (LinearGaussian, Takes(), r"the guide draws \['z'\], all with gradients of their own"),
        (Mixture, TakesDraw(), r"takes \['k'\], and before 'k' is drawn only \['x'\] are known"),
        (
            Chain,
            nn.ModuleDict({"b": TakesLater(), "a": Takes()}),
            r"takes \['a'\], and before 'b' is drawn only \['x'\]",
        ),
        (Chain, nn.ModuleDict({"b": Takes(), "a": TakesUnknown()}), r"takes \['y'\], .* only \['b', 'x'\] are known"),
        (Chain, OfEarlier(), r"takes \['b'\], and before 'b' is drawn"),
        (Chain, nn.ModuleDict({"b": Takes(), "c": Takes()}), r"are \['b', 'a'\], and the ModuleDict has networks for"),
        (Chain, nn.ModuleDict({"b": Takes()}), r"networks for \['b'\]"),
        (Mixture, Takes(lambda x: x.unsqueeze(1)), r"shape \(4,\), got \(4, 1\); let the forward of Takes"),
        (Mixture, Takes(lambda x: x.sum()), r"shape \(4,\), got \(\)"),
        (lambda: Sequential(late=True), Takes(), r"the draws of \['k'\] count for all examples"),
        (lambda: Sequential(shared_coin=True), Takes(), r"the draws of \['s'\] count for all examples"),
        (Mixture, Takes().float().requires_grad_(False), "the player 'baseline' has no trainable parameters"),
        (Mixture, nn.Linear(1, 1), r"takes \['input'\]"),
    ],
)
def test_what_can_not_be_a_baseline_is_refused(
    program: Callable[[], nn.Module], baseline: nn.Module, message: str
) -> None:
    x = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    made = program()
    with pytest.raises(ProgramError, match=message):
        Step(SVI(made, baseline=baseline)).prepare(x.unsqueeze(1).expand(4, 3) if program is LinearGaussian else x)


def test_a_baseline_of_the_programs_own_parameters_is_refused() -> None:
    program, baseline = Mixture(), Takes()
    program.borrowed = baseline
    with pytest.raises(ProgramError, match="share parameters"):
        Step(SVI(program, baseline=baseline)).prepare(Mixture.data())


def test_arguments_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ProgramError, match=r"expected an nn.Module, got a function"):
        SVI(Mixture(), baseline=_as_one)  # type: ignore[arg-type]
    with pytest.raises(ProgramError, match="Trace_ELBO has ways of its own"):
        SVI(Mixture(), Trace_ELBO(), baseline=Takes())
