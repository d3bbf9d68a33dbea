"""What a critic compares in programs of all shapes: other plates, AutoGuides, Pairs, whole numbers, weights, masks."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn

from inference import Adversarial, Pair, ProgramError, Step, adam, both, gradient_penalty, kl, plug_in_kl, r1
from inference.objectives.adversarial.comparison import comparison
from inference.objectives.adversarial.joint_samples import exact_terms, p_samples, q_samples
from ppmodels.distributions import Implicit

X = torch.randn(32, 1, generator=torch.Generator().manual_seed(0))


class Of(nn.Module):
    """A linear critic of what a subclass's forward names."""

    def __init__(self, inputs: int = 1) -> None:
        super().__init__()
        self.network = nn.Linear(inputs, 1)

    def value_of(self, *values: Tensor) -> Tensor:
        rows = max(len(value) for value in values if value.dim())
        flat = [value.float().expand(rows, *value.shape[1:]).reshape(rows, -1) for value in values]
        return self.network(torch.cat(flat, 1)).squeeze(1)


class OfX(Of):
    def forward(self, x: Tensor) -> Tensor:
        return self.value_of(x)


class OfXMean(Of):
    def forward(self, x: Tensor, mean: Tensor) -> Tensor:
        return self.value_of(x, mean.reshape(1, 1))


class OfZ(Of):
    def forward(self, z: Tensor) -> Tensor:
        return self.value_of(z)


class OfXY(Of):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.value_of(x, y)


def _simulator(x: Tensor) -> Tensor:
    mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 2.0))
    with pyro.plate("data", 100, subsample_size=len(x)):
        return pyro.sample("x", Implicit(lambda: mean + torch.randn(len(x), 1), (len(x),), (1,)), obs=x)


def test_the_entropy_of_an_autoguide_counts() -> None:
    """AutoNormal keeps log q in an auxiliary site beside a point; without it a posterior would shrink to that point."""
    program = Pair(_simulator, AutoNormal)
    objective = Adversarial(program, OfXMean(2))
    objective.prepare(X)
    found = comparison(program, (X,), None)
    guide, q = q_samples(program, (X,), found)
    loc, scale = program._functions["guide"]._get_loc_and_scale("mean")
    log_q = dist.Normal(loc, scale).log_prob(q["mean"])
    expected = (dist.Normal(0.0, 2.0).log_prob(q["mean"]) - log_q) / 100
    torch.testing.assert_close(exact_terms(program, (X,), found, guide, None, ()), expected)
    Step(objective, adam(1e-3))(X)


class Forgets(nn.Module):
    """A simulator whose guide draws the given value."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names, self.loc = names, nn.Parameter(torch.tensor(0.1))

    def model(self, x: Tensor) -> Tensor:
        return _simulator(x)

    def guide(self, x: Tensor) -> None:
        for name in self.names:
            pyro.sample(name, dist.Normal(self.loc, 0.1))


@pytest.mark.parametrize(
    ("names", "message"), [((), r"does not draw.*\['mean'\]"), (("mu",), r"latent sites \['mean'\]")]
)
def test_a_forgotten_shared_latent_is_named(names: tuple[str, ...], message: str) -> None:
    for critic in (OfX(), OfXMean(2)):
        with pytest.raises(ProgramError, match=message):
            Step(Adversarial(Forgets(*names), critic, kl)).prepare(X)


class Latent(nn.Module):
    """z local, x from z; what is implicit, masked, scaled, or discrete is set by functions."""

    def __init__(
        self,
        guided: bool = True,
        second: bool = False,
        around: Callable[[], object] | None = None,
        discrete: bool = False,
        outer: bool = False,
        take: int | None = None,
    ) -> None:
        super().__init__()
        self.weight, self.encoder = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.4))
        self.guided, self.second, self.around = guided, second, around
        self.discrete, self.outer, self.take = discrete, outer, take

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), subsample_size=self.take) as index:
            z = pyro.sample("z", self._prior(len(index)))
            fn = Implicit(lambda: self.weight * z + torch.randn(len(index), 1), (len(index),), (1,))
            if self.around is None:
                drawn = pyro.sample("x", fn, obs=x[index])
            else:
                with self.around():
                    drawn = pyro.sample("x", fn, obs=x[index])
            if self.second:
                pyro.sample("w", dist.Normal(z, 1.0).to_event(1), obs=x[index])
            return drawn

    def _prior(self, rows: int) -> object:
        if self.discrete:
            return dist.Bernoulli(torch.full((rows, 1), 0.5)).to_event(1)
        return dist.Normal(torch.zeros(rows, 1), 1.0).to_event(1)

    def guide(self, x: Tensor) -> None:
        if not self.guided:
            return
        with pyro.plate("data", len(x), subsample_size=self.take) as index:
            around = self.encoder * x[index]
            fn = dist.Bernoulli(logits=around) if self.discrete else dist.Normal(around, 1.0)
            pyro.sample("z", fn.to_event(1))


class OfXZ(Of):
    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.value_of(x, z)


class Shares(nn.Module):
    """A critic that is partly the program's own."""

    def __init__(self, program: Latent) -> None:
        super().__init__()
        self.weight = program.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x.squeeze(1)


_OWN = Latent(guided=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Adversarial(Latent(guided=False, second=True), OfX(), kl),
            r"observed sites \['w'\] have a density given",
        ),
        (lambda: Adversarial(Latent(discrete=True), OfXZ(2)), r"sites \['z'\] have no reparameterised draws"),
        (
            lambda: Adversarial(
                Latent(guided=False, around=lambda: pyro.poutine.mask(mask=torch.zeros(32) > 0)), OfX()
            ),
            "'x' is masked and compared",
        ),
        (
            lambda: Adversarial(Latent(guided=False, around=lambda: pyro.poutine.scale(scale=0.1)), OfX()),
            "scaled by 0.1",
        ),
        (
            lambda: Adversarial(Latent(guided=False, take=8), OfX()),
            r"takes 8 of the batch's 32 examples by itself",
        ),
        (lambda: Adversarial(_OWN, Shares(_OWN)), "critic and program share parameters"),
    ],
    ids=["a latent before a density", "discrete", "mask", "scale", "own subsample", "shared parameters"],
)
def test_what_adversarial_training_can_not_fit_is_refused(make: Callable[[], Adversarial], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        Step(make()).prepare(X)


def test_observations_with_a_density_can_be_compared_without_a_guide() -> None:
    class Explicit(Latent):
        def model(self, x: Tensor) -> Tensor:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", self._prior(len(x)))
                return pyro.sample("x", dist.Normal(self.weight * z, 1.0).to_event(1), obs=x)

    program = Explicit(guided=False)
    program.encoder.requires_grad_(False)
    objective = Adversarial(program, OfX(), compare=("x",))
    Step(objective)(X)
    assert comparison(program, (X,), ("x",)).compared == ("x",)


@pytest.mark.parametrize("penalty", [r1(), gradient_penalty(), both(r1(), gradient_penalty())])
def test_a_penalty_by_whole_numbers_is_refused(penalty: object) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.5))

        def model(self, x: Tensor) -> Tensor:
            with pyro.plate("data", len(x)):
                return pyro.sample("x", Implicit(lambda: self.weight * torch.randn(len(x), 1), (len(x),), (1,)), obs=x)

        def guide(self, x: Tensor) -> None: ...

    whole = torch.arange(32).unsqueeze(1)
    with pytest.raises(ProgramError, match=r"penalty: the gradient.*int64"):
        Step(Adversarial(Counts(), OfX(), penalty=penalty)).prepare(whole)
    Step(Adversarial(Counts(), OfX()))(whole)  # without one it is trained


def test_a_pair_gives_its_models_arguments() -> None:
    network = nn.Linear(2, 1)

    def model(x: Tensor, y: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            draw = Implicit(lambda: network(torch.cat((z, y.float().unsqueeze(1)), 1)), (len(x),), (1,))
            return pyro.sample("x", draw, obs=x)

    step = Step(Adversarial(Pair(model, None, network), OfXY(2)))
    assert step((X, torch.arange(32)))["critic"].isfinite()


def test_labels_may_come_first() -> None:
    class Labelled(Latent):
        def model(self, y: Tensor, x: Tensor) -> Tensor:
            return super().model(x)

        def guide(self, y: Tensor, x: Tensor) -> None: ...

    program = Labelled(guided=False)
    program.encoder.requires_grad_(False)
    assert Step(Adversarial(program, OfX()))((torch.arange(32), X))["program"].isfinite()


def test_examples_are_in_front_wherever_their_plate_is() -> None:
    """z has one value for each of three parts and each example, `(3, 32)`; the critic is given `(32, 3)`."""

    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.tensor([0.1, 1.0, 10.0]))

        def model(self, x: Tensor) -> Tensor:
            data = pyro.plate("data", len(x), dim=-1)
            with data, pyro.plate("parts", 3):
                z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([3, len(x)]))
            with data:
                return pyro.sample("x", dist.Normal(z.sum(0).unsqueeze(1), 1.0).to_event(1), obs=x)

        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)), pyro.plate("parts", 3):
                draw = Implicit(lambda: self.slope.unsqueeze(1) * (x.T + torch.randn(3, len(x))), (3, len(x)), ())
                pyro.sample("z", draw)

    program = Parts()
    objective = Adversarial(program, OfZ(3), penalty=gradient_penalty())
    Step(objective)(X)
    found = comparison(program, (X,), None)
    guide, q = q_samples(program, (X,), found)
    p = p_samples(program, (X,), found, guide, q)
    assert q["z"].shape == p["z"].shape == (32, 3)
    assert q["z"].std(0).tolist() == sorted(q["z"].std(0).tolist())
    torch.testing.assert_close(q["z"].T, guide.nodes["z"]["value"])


def test_faults_of_exact_sites_are_found_on_the_first_batch() -> None:
    class Grey(Latent):
        def model(self, x: Tensor) -> Tensor:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", self._prior(len(x)))
                return pyro.sample("x", dist.Bernoulli(logits=self.weight * z).to_event(1), obs=x)

        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", Implicit(lambda: self.encoder * x + torch.randn(len(x), 1), (len(x),), (1,)))

    with pytest.raises(ProgramError, match="Binarise"), pyro.validation_enabled(False):
        Step(Adversarial(Grey(), OfZ())).prepare(torch.rand(32, 1))


def test_only_a_divergence_of_samples_of_q_alone_is_blamed_for_a_missing_gradient() -> None:
    program = Latent(guided=False)  # its encoder has no part in anything
    with pytest.raises(ProgramError, match="encoder") as refused:
        Step(Adversarial(program, OfX(), kl)).prepare(X)
    assert "divergence" not in str(refused.value)
    with pytest.raises(ProgramError, match="Or it is the divergence"):
        Step(Adversarial(program, OfX(), plug_in_kl)).prepare(X)


def test_under_autocast_the_loss_is_in_full_precision() -> None:
    program = Latent(guided=False)
    objective = Adversarial(program, OfX())
    objective.prepare(X)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert objective.critic_loss(X).dtype == objective.program_loss(X).dtype == torch.float32


def test_a_compiled_critic_is_asked_by_its_own_names() -> None:
    program = Latent(guided=False)
    objective = Adversarial(program, torch.compile(OfX(), backend="eager"))
    objective.prepare(X)
    assert objective.critic_loss(X).isfinite()
