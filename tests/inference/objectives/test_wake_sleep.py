"""Wake-sleep against sums over all draws, its two players, and the programs that it takes and refuses."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation, AutoNormal
from torch import Tensor, nn

from inference import ImportanceWeighted, Objective, Pair, ProgramError, Step, Traced, WakeSleep, adam, fit
from inference.programs.traces import Drawn
from tests.problems import Chain, LinearGaussian, Mixture, SharedMean

X = torch.tensor([1.0], dtype=torch.float64)
OF_MODEL = ("logits_of_a", "logits_of_b", "logits_of_x")
OF_GUIDE = ("slope_of_b", "slope_of_a")


def _gradient(program: nn.Module, names: tuple[str, ...], loss: Tensor) -> Tensor:
    gradients = torch.autograd.grad(loss, [program.get_parameter(name) for name in names])
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def _tuples(log_guide: Tensor, particles: int) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Every way to draw so many particles of a finite guide, in no order, and its probability."""
    for drawn in itertools.combinations_with_replacement(range(len(log_guide)), particles):
        orders = math.factorial(particles) // math.prod(map(math.factorial, Counter(drawn).values()))
        yield drawn, orders * log_guide[list(drawn)].sum().exp()


def _expected(
    objective: WakeSleep, loss: Callable[[Tensor], Tensor], names: tuple[str, ...], x: Tensor, particles: int
) -> Tensor:
    """The mean of a loss's gradient over all that the guide may draw."""
    program = objective.program
    total = torch.zeros((), dtype=torch.float64)
    for drawn, probability in _tuples(program.log_densities(float(x))[1].detach(), particles):
        a, b = (torch.tensor(each) for each in zip(*(Chain.LATENTS[each] for each in drawn), strict=True))
        with Drawn({"a": a.double(), "b": b}):
            total = total + probability * _gradient(program, names, loss(x))
    return total


@pytest.mark.parametrize("particles", [2, 3])
def test_the_model_has_the_gradient_of_the_importance_weighted_bound_in_the_mean(particles: int) -> None:
    program = Chain()
    objective = WakeSleep(program, particles)
    found = _expected(objective, objective.model_loss, OF_MODEL, X, particles)
    joint, guide = program.log_densities(1.0)
    bound = torch.stack(
        [
            probability.detach() * (torch.logsumexp((joint - guide)[list(drawn)], 0) - math.log(particles))
            for drawn, probability in _tuples(guide, particles)
        ]
    ).sum()
    torch.testing.assert_close(found, -_gradient(program, OF_MODEL, bound), atol=1e-12, rtol=0)


def test_at_the_same_draws_the_model_has_this_gradient_and_the_loss_this_value() -> None:
    x = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    program = Chain()
    torch.manual_seed(0)
    ours = WakeSleep(program, 4).model_loss(x)
    torch.manual_seed(0)
    other = ImportanceWeighted(program, particles=4).loss(x)
    torch.testing.assert_close(ours, other, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        _gradient(program, OF_MODEL, ours), _gradient(program, OF_MODEL, other), atol=1e-12, rtol=0
    )


def _bias(particles: int) -> float:
    """How far wake-φ is from the gradient of the posterior's cross-entropy, of the log-weights themselves."""
    program = Mixture()
    x = torch.tensor([0.7], dtype=torch.float64)
    log_q, log_joint = program.log_guide(x)[0], program.log_joint(x)[0]
    posterior = torch.softmax(log_joint, 0).detach()
    names = ("slope", "intercept")
    exact = _gradient(program, names, -(posterior * log_q).sum())
    objective, mean = WakeSleep(program, particles), torch.zeros_like(exact)
    for drawn, probability in _tuples(log_q.detach(), particles):
        with Drawn({"k": torch.tensor(drawn)}):
            mean += probability * _gradient(program, names, objective.guide_loss(x))
    return float((mean - exact).norm())


def test_the_bias_of_the_guides_gradient_awake_shrinks_as_one_by_the_particles() -> None:
    few, some, many = _bias(4), _bias(8), _bias(16)
    assert some > 1e-3
    assert 1.8 < few / some < 2.4
    assert 1.9 < some / many < 2.2


def test_asleep_the_guide_has_the_gradient_of_its_own_loss_in_the_mean() -> None:
    program = Chain()
    objective = WakeSleep(program, 1, sleep=1.0)
    found, exact = torch.zeros(12, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for x in (0.0, 1.0):
        joint, guide = program.log_densities(x)
        exact = exact - (joint.exp().detach() * guide).sum()
        for (a, b), probability in zip(Chain.LATENTS, joint.exp().detach(), strict=True):
            drawn = {"a": torch.tensor([a]).double(), "b": torch.tensor([b]), "x": torch.tensor([x]).double()}
            with Drawn(drawn):
                found += probability * _gradient(program, OF_GUIDE, objective.guide_loss(X))
    torch.testing.assert_close(found, _gradient(program, OF_GUIDE, exact), atol=1e-12, rtol=0)


def test_between_wake_and_sleep_the_loss_is_their_weighted_mean() -> None:
    program, drawn = Chain(), {"a": torch.ones(1).double(), "b": torch.tensor([2])}
    x = torch.tensor([1.0], dtype=torch.float64)
    with Drawn({**drawn, "x": x}):  # one draw, again and again
        asleep = WakeSleep(program, 1, sleep=1.0).guide_loss(x)
    with Drawn({name: value.expand(3) for name, value in drawn.items()}):
        awake = WakeSleep(program, 3).guide_loss(x)
    torch.testing.assert_close(asleep, awake)  # all weights are equal, and log q is the same
    torch.manual_seed(0)
    both = WakeSleep(program, 3, sleep=0.25).guide_loss(x)
    torch.manual_seed(0)
    apart = 0.75 * WakeSleep(program, 3).guide_loss(x) + 0.25 * WakeSleep(program, 3, sleep=1.0).guide_loss(x)
    torch.testing.assert_close(both, apart)


class Scored(nn.Module):
    """A class k and a position z given k, with labels for some rows: continuous and discrete latents, masks, covariates.

    Args:
        size: of the dataset, or None for that of the batch.
    """

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.size = size
        self.decode = nn.Linear(3, 2).double()
        self.encode = nn.Linear(3, 4).double()
        self.place = nn.Linear(3, 1).double()

    def model(self, c: Tensor, x: Tensor, y: Tensor) -> Tensor:
        with pyro.plate("data", self.size or len(x), subsample=torch.arange(len(x))):
            k = pyro.sample("k", dist.Categorical(logits=c.new_zeros(len(x), 3)))
            z = pyro.sample("z", dist.Normal(k.to(c), 1.0))
            found = self.decode(torch.stack([z, k.to(c), c], 1))
            with pyro.poutine.mask(mask=y >= 0):
                pyro.sample("y", dist.Bernoulli(logits=found[:, 1]), obs=y)
            return pyro.sample("x", dist.Normal(found[:, 0], 0.5), obs=x)

    def guide(self, c: Tensor, x: Tensor, y: Tensor) -> None:
        code = self.encode(torch.stack([c, x, y], 1))
        with pyro.plate("data", self.size or len(x), subsample=torch.arange(len(x))):
            k = pyro.sample("k", dist.Categorical(logits=code[:, :3]))
            loc = self.place(torch.stack([x, c, k.to(x)], 1)).squeeze(1)
            pyro.sample("z", dist.Normal(loc, code[:, 3].exp()))


def _labelled(rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    c, x = torch.randn(2, rows, generator=generator, dtype=torch.float64)
    return c, x, torch.tensor([0.0, 1.0, -1.0]).double().repeat(rows)[:rows]


def _made(size: int | None = None) -> Scored:
    torch.manual_seed(0)
    return Scored(size)


@pytest.mark.parametrize("sleep", [0.0, 1.0])
def test_a_subsampled_plate_changes_no_loss(sleep: float) -> None:
    losses = []
    for size in (12, 600):
        objective = WakeSleep(_made(size), 3, sleep)
        torch.manual_seed(1)
        losses.append(torch.stack([objective.model_loss(_labelled()), objective.guide_loss(_labelled())]))
    torch.testing.assert_close(*losses)


def test_what_a_mask_hides_has_no_say() -> None:
    c, x, y = _labelled()
    program = _made()
    losses = []
    for decoded in (0.0, 3.0):  # the logit of a label is moved where none is seen
        with torch.no_grad():
            program.decode.bias[1] = decoded
        torch.manual_seed(1)
        losses.append(WakeSleep(program, 3).model_loss((c, x, torch.full_like(y, -1.0))))
    torch.testing.assert_close(*losses)


def test_asleep_covariates_and_hidden_labels_are_the_batchs_own() -> None:
    seen: list[tuple[Tensor, ...]] = []

    class Noted(Scored):
        def guide(self, c: Tensor, x: Tensor, y: Tensor) -> None:
            seen.append((c, x, y))
            super().guide(c, x, y)

    c, x, y = _labelled()
    WakeSleep(Noted(), 1, sleep=1.0).guide_loss((c, x, y))
    ((dreamt_c, dreamt_x, dreamt_y),) = seen
    assert dreamt_c.equal(c)
    assert not dreamt_x.eq(x).any()
    assert dreamt_y[y < 0].eq(-1).all()
    assert dreamt_y[y >= 0].ge(0).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda program: WakeSleep(program, 3),
        lambda program: WakeSleep(program, 3, sleep=0.5),
        lambda program: WakeSleep(program, 1, sleep=1.0),
        lambda program: ImportanceWeighted(program, particles=3),
    ],
)
def test_traced_steps_are_the_eager_ones_where_sites_depend_on_each_other(
    make: Callable[[nn.Module], Objective],
) -> None:
    batch, found = _labelled(), []
    for options in ({}, {"differentiate": Traced()}):
        step = Step(make(_made()), adam(1e-2), **options)
        metrics = [step(batch) for _ in range(3)][-1]
        found.append([*metrics.values(), *(p.detach() for p in step.objective.parameters())])
    torch.testing.assert_close(*found, atol=1e-10, rtol=1e-10)


def test_each_player_has_its_own_parameters_and_moves_no_other() -> None:
    program, batch = _made(), _labelled()
    objective = WakeSleep(program, 3, 0.5)
    objective.prepare(batch)
    players = objective.players()
    assert players["model"].parameters == [*program.decode.parameters()]
    assert [player.log_density for player in players.values()] == [True, False]
    assert players["guide"].parameters == [*program.encode.parameters(), *program.place.parameters()]
    for name, others in (("model", program.encode), ("guide", program.decode)):
        reached = torch.autograd.grad(players[name].loss(batch), [*others.parameters()], allow_unused=True)
        assert reached == (None, None)


def _cross_entropy(program: Mixture, x: Tensor) -> Tensor:
    """KL(p(k | x) ‖ q(k | x)), the mean over examples."""
    posterior = torch.log_softmax(program.log_joint(x), -1)
    return (posterior.exp() * (posterior - program.log_guide(x))).sum(-1).mean().detach()


@pytest.mark.parametrize(("sleep", "particles"), [(0.0, 10), (0.5, 10), (1.0, 1)])
def test_the_guide_becomes_the_posterior_of_a_model_that_is_known(sleep: float, particles: int) -> None:
    program, x = Mixture(), Mixture.data(200)
    for parameter in (program.logits, program.loc):
        parameter.requires_grad_(False)
    assert _cross_entropy(program, x) > 0.1
    step = Step(WakeSleep(program, particles, sleep), adam(2e-2), differentiate=Traced())
    fitted = fit(step, x, 400)
    assert {*step.optimizers} == {"guide"}
    assert fitted.steps == 400
    assert _cross_entropy(program, x) < 0.01


@pytest.mark.parametrize(("player", "names"), [("model", ("logits", "loc")), ("guide", ("slope", "intercept"))])
def test_a_player_that_is_unfrozen_gets_its_optimizer(player: str, names: tuple[str, ...]) -> None:
    program, x = Mixture(), Mixture.data()
    frozen = [program.get_parameter(name).requires_grad_(False) for name in names]
    step = Step(WakeSleep(program, 3), adam(1e-2))
    before = [each.clone() for each in frozen]
    assert player not in step(x)
    assert all(map(torch.equal, frozen, before))
    frozen[1].requires_grad_(True)
    assert player in step(x)
    assert frozen[0].equal(before[0])
    assert not frozen[1].equal(before[1])


def test_all_data_share_one_weight_where_they_share_a_site() -> None:
    """At the exact posterior every weight is the evidence; the guide's loss is its entropy, per example."""
    x = torch.randn(8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    program = SharedMean(8).at(x)
    objective = WakeSleep(program, 4)
    objective.prepare(x)
    assert {*objective.players()} == {"guide"}
    torch.testing.assert_close(objective.model_loss(x), -program.log_evidence(x) / 8)
    with Drawn({"mean": program.total.detach() / 9}):
        expected = -dist.Normal(0.0, 9**-0.5).log_prob(torch.tensor(0.0)).double() / 8
        torch.testing.assert_close(objective.guide_loss(x), expected)


def test_asleep_a_site_that_all_share_counts_once_for_all() -> None:
    class OfAll(SharedMean):
        def guide(self, x: Tensor) -> None:
            pyro.sample("mean", dist.Normal(x.mean() + self.error, 0.5))

    x, drawn = torch.linspace(-1, 2, 8, dtype=torch.float64), torch.linspace(-2, 1, 8, dtype=torch.float64)
    program = OfAll(8)
    program.total.requires_grad_(False)  # it has no part in this guide
    objective = WakeSleep(program, 1, sleep=1.0)
    Step(objective, adam(1e-2)).prepare(x)
    with Drawn({"mean": torch.tensor(0.3).double(), "x": drawn}):
        found = objective.guide_loss(x)
    expected = -dist.Normal(drawn.mean(), 0.5).log_prob(torch.tensor(0.3).double()) / 8
    torch.testing.assert_close(found, expected)


class Held(nn.Module):
    """A program of the functions that it is given."""

    def __init__(self, model: Callable[..., None], guide: Callable[..., None], **parameters: Tensor) -> None:
        super().__init__()
        self.run_model, self.run_guide = model, guide
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(value.double()))

    def model(self, x: Tensor) -> None:
        self.run_model(self, x)

    def guide(self, x: Tensor) -> None:
        self.run_guide(self, x)


def _model(self: Held, x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(self.loc.expand(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _guide(self: Held, x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(self.gain * x, 1.0))


def _factor(self: Held, x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(self.loc.expand(len(x)), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.factor("f", -(z**2))


def _own_rows(self: Held, x: Tensor) -> None:
    with pyro.plate("data", len(x), subsample_size=2) as rows:
        z = pyro.sample("z", dist.Normal(self.loc.expand(2), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x[rows])


def _guide_of_rows(self: Held, x: Tensor) -> None:
    with pyro.plate("data", len(x), subsample_size=2) as rows:
        pyro.sample("z", dist.Normal(self.gain * x[rows], 1.0))


def _guide_of_the_prior(self: Held, x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(self.gain.expand(len(x)), 1.0))


def _density(self: Held, x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(self.loc.expand(len(x)), 1.0), obs=x)


class Planar(Held):
    """A guide whose flow can draw, and knows the density of its own draws alone."""

    def __init__(self) -> None:
        super().__init__(_model, _guide, **_one(loc=0.1))
        self.transform = pyro.distributions.transforms.Planar(1).double()

    def guide(self, x: Tensor) -> None:
        base = dist.Normal(x.unsqueeze(1), 1.0).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("flow", dist.TransformedDistribution(base, [self.transform]))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("flow", dist.Normal(self.loc.expand(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.squeeze(1), 1.0), obs=x)


def _one(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


BOTH = _one(loc=0.1, gain=0.4)
FIVE = torch.linspace(-1, 1, 5, dtype=torch.float64)
PRIOR = "does not depend on what the model observes"


def _auto(kind: type) -> Pair:
    def model(x: Tensor) -> None:
        loc = pyro.param("loc", x.new_tensor(0.1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc.expand(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    return Pair(model, kind)


@pytest.mark.parametrize(
    ("program", "sleep", "message"),
    [
        (lambda: Held(_own_rows, _guide_of_rows, **BOTH), 0.0, "its own subsample of 2 from 5"),
        (lambda: Held(_factor, _guide, **BOTH), 0.5, "the factor 'f'"),
        (lambda: Held(_model, _guide_of_the_prior, **BOTH), 1.0, PRIOR),
        (lambda: _auto(AutoNormal), 0.5, PRIOR),
        (lambda: _auto(AutoDelta), 0.0, r"all its mass at one value of \['z'\]"),
        (lambda: _auto(AutoLaplaceApproximation), 0.0, "all its mass at one value of"),
        (lambda: Held(_model, lambda self, x: None, **BOTH), 0.0, r"does not draw the model's latent sites \['z'\]"),
        (lambda: Held(_density, lambda self, x: None, **_one(loc=0.1)), 0.0, "the guide draws nothing"),
        (lambda: Planar(), 0.0, "the guide's transform has no inverse"),
        (lambda: SharedMean(50), 0.0, "shares sites between all 50 examples and the batch holds 5"),
        (lambda: LinearGaussian(features=1), 0.0, r"share the parameters \['bias'\]"),
    ],
)
def test_what_it_can_not_fit_is_refused(program: Callable[[], nn.Module], sleep: float, message: str) -> None:
    x = FIVE.unsqueeze(1) if message.startswith("share the") else FIVE
    with pytest.raises(ProgramError, match=message):
        Step(WakeSleep(program(), 3, sleep), adam(1e-2)).prepare(x)


def _guide_of_signs(self: Held, x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(self.gain * (x > 0), 1.0))


@pytest.mark.parametrize(
    "program",
    [lambda: Held(_model, _guide, **_one(loc=0.1, gain=0.0)), lambda: Held(_model, _guide_of_signs, **BOTH)],
    ids=["starts at zero", "reads signs"],
)
def test_a_guide_that_can_read_the_data_may_sleep(program: Callable[[], nn.Module]) -> None:
    Step(WakeSleep(program(), 3, 0.5), adam(1e-2)).prepare(FIVE)


@pytest.mark.parametrize("program", [lambda: Held(_factor, _guide, **BOTH), lambda: _auto(AutoNormal)])
def test_awake_a_factor_and_a_guide_of_rows_are_nothing_special(program: Callable[[], nn.Module]) -> None:
    Step(WakeSleep(program(), 3), adam(1e-2))(FIVE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"particles": 1}, "at least 2, .*, got 1"),
        ({"particles": 0, "sleep": 1.0}, "at least 1, .*, got 0"),
        ({"particles": 2.5}, "at least 2, .*, got 2.5"),
        ({"sleep": 1.5}, "from 0 to 1; got 1.5"),
        ({"sleep": float("nan")}, "from 0 to 1; got nan"),
        ({"sleep": "0.5"}, "from 0 to 1; got '0.5'"),
        ({"particles": True, "sleep": 1.0}, "a whole number of at least 1, .*, got True"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: Mapping[str, float], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        WakeSleep(Mixture(), **arguments)  # type: ignore[arg-type]
