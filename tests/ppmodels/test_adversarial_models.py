"""Laws: properties that every adversarial model must satisfy. A new model is one line of CASES.

And tests of the networks that these models use.
"""

import copy
import math
from collections.abc import Callable

import pyro
import pytest
import safetensors.torch
import torch
from pyro.distributions import Normal
from torch import Tensor, nn

from inference import (
    Adversarial,
    ProgramError,
    Step,
    Traced,
    adam,
    both,
    check,
    elbo,
    evaluate,
    gradient_penalty,
    importance,
    r1,
    r2,
    relativistic,
    sample,
    terms,
    wasserstein,
)
from inference.training.differentiate import backward
from ppmodels import (
    ALI,
    AVB,
    GAN,
    AdversarialAutoencoder,
    CodeCritic,
    ConvFeatures,
    ConvGenerator,
    Critic,
    DiscretizedNormal,
    HierarchicalImplicitModel,
    JointCritic,
    LotkaVolterra,
    MLPEncoder,
    MLPFeatures,
    MLPGenerator,
    NoiseEncoder,
    NoisyGenerator,
    NormalPosterior,
    NormalPrior,
    ProjectionCritic,
    spectrally_normalised,
)

IMAGE = (1, 8, 6)
SMALL = (8,)


def _images(batch: int) -> tuple[Tensor, ...]:
    return (torch.randint(17, (batch, *IMAGE)).float(),)


def _labelled(batch: int) -> tuple[Tensor, ...]:
    return (*_images(batch), torch.randint(3, (batch,)))


def _series(batch: int) -> tuple[Tensor, ...]:
    return (3 + torch.randn(batch, 2, 5),)


class OfSeries(nn.Module):
    """A critic of series and the rates that all of them share."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(14, 8), nn.SiLU(), nn.Linear(8, 1))

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return self.network(torch.cat((x.flatten(1), theta.expand(len(x), 4)), 1)).squeeze(1)


def _features() -> MLPFeatures:
    return MLPFeatures(IMAGE, 17, SMALL)


def _predators() -> Adversarial:
    loc = [0.0, -4.6, -5.3, -0.5]
    model = HierarchicalImplicitModel(
        LotkaVolterra(5, 5.0, 10), NormalPrior(loc, 0.3), NormalPosterior(loc, 0.2), size=100
    )
    return Adversarial(model, OfSeries(), turns=2)


Case = tuple[Callable[[], Adversarial], Callable[[int], tuple[Tensor, ...]]]

CASES: dict[str, Case] = {
    "gan": (lambda: Adversarial(GAN(IMAGE, 17, 3), Critic(_features())), _images),
    "gan of a table": (
        lambda: Adversarial(
            GAN((4,), None, 3), Critic(MLPFeatures((4,), None, SMALL)), wasserstein, penalty=gradient_penalty(), turns=2
        ),
        lambda batch: (torch.randn(batch, 4),),
    ),
    "dcgan, conditional": (
        lambda: Adversarial(
            GAN(IMAGE, 17, 3, ConvGenerator(6, IMAGE, 17, (8, 4)), classes=3),
            ProjectionCritic(ConvFeatures(IMAGE, 17, (4, 8)), 3),
            penalty=r1(),
        ),
        _labelled,
    ),
    "gan, spectrally normalised": (
        lambda: Adversarial(GAN(IMAGE, 17, 3), spectrally_normalised(Critic(ConvFeatures(IMAGE, 17, (4, 8))))),
        _images,
    ),
    "conditional, spectrally normalised": (
        lambda: Adversarial(GAN(IMAGE, 17, 3, classes=3), spectrally_normalised(ProjectionCritic(_features(), 3))),
        _labelled,
    ),
    "r3gan": (
        lambda: Adversarial(
            GAN(IMAGE, 17, 3),
            Critic(_features()),
            relativistic,
            penalty=both(r1(), r2()),
            anneal=lambda step: 0.5**step,
        ),
        _images,
    ),
    "ali": (lambda: Adversarial(ALI(IMAGE, 17, 3), JointCritic(_features(), 3, SMALL)), _images),
    "avb": (lambda: Adversarial(AVB(IMAGE, 17, 3), JointCritic(_features(), 3, SMALL)), _images),
    "avb, contrast": (
        lambda: Adversarial(
            AVB(IMAGE, 17, 3), JointCritic(_features(), 3, SMALL), contrast=MLPEncoder(IMAGE, 17, 3, SMALL)
        ),
        _images,
    ),
    "adversarial autoencoder": (
        lambda: Adversarial(AdversarialAutoencoder(IMAGE, 17, 3), CodeCritic(3, SMALL), compare=("z",)),
        _images,
    ),
    "simulator": (_predators, _series),
}
WITH_DENSITY = ("adversarial autoencoder",)


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_the_objective_runs_where_there_are_no_values(case: Case) -> None:
    """On the meta device a constant made on the CPU, and every wait for a value, fails: a test for GPUs without one."""
    make, batches = case
    objective, batch = make(), batches(6)
    objective.prepare(batch)
    there, examples = copy.deepcopy(objective).to("meta"), tuple(tensor.to("meta") for tensor in batch)
    with pyro.validation_enabled(False):
        for player in there.players().values():
            loss = player.loss(examples)
            loss.backward(inputs=player.parameters)
            assert loss.shape == ()
            assert all(parameter.grad is not None for parameter in player.parameters)


@pytest.mark.gpu
def test_an_adversarial_model_is_trained_on_a_gpu(case: Case) -> None:
    make, batches = case
    step = Step(make().to("cuda"), adam(1e-3), average=0.9)
    batch = tuple(tensor.to("cuda") for tensor in batches(16))
    for _ in range(10):
        assert all(torch.isfinite(value) for value in step(batch).values())
    assert all(torch.isfinite(value) for value in step.monitor(batch).values())


def test_a_traced_step_is_the_same_step_and_a_run_repeats(case: Case) -> None:
    make, batches = case
    torch.manual_seed(1)
    batch, other = batches(6), batches(6)
    losses = []
    for differentiate in (backward, Traced(), backward):
        torch.manual_seed(2)
        step = Step(make(), adam(1e-3), differentiate=differentiate)
        found = [step(examples) for examples in (batch, other, batch)]
        losses.append([[float(metrics[name]) for name in ("critic", "program")] for metrics in found])
    assert losses[0] == losses[2]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-5, atol=1e-5)


def test_watching_changes_nothing(case: Case) -> None:
    make, batches = case
    torch.manual_seed(1)
    batch = batches(8)
    losses = []
    for monitored in (False, True):
        torch.manual_seed(2)
        step = Step(make(), adam(1e-3))
        step(batch)
        if monitored:
            metrics = step.monitor(batch)
            assert {"critic/accuracy", "program/diversity", "program/coverage", "program/precision"} <= metrics.keys()
            assert all(torch.isfinite(value) for value in metrics.values())
        losses.append([float(value) for value in step(batch).values()])
    assert losses[0] == losses[1]


def test_weights_survive_a_file(case: Case) -> None:
    make, batches = case
    objective, other, batch = make(), make(), batches(3)
    Step(objective, adam(1e-2))(batch)
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(objective.state_dict())))
    drawn = []
    for each in (objective, other):
        torch.manual_seed(3)
        drawn.append(sample(each.program, batch)["x"])
    assert torch.equal(*drawn)


def test_a_density_that_there_is_not_is_refused(case: Case) -> None:
    make, batches = case
    objective, batch = make(), batches(4)
    if isinstance(objective.program, AdversarialAutoencoder):
        assert terms(objective.program, batch).log_weights.isfinite().all()
        return
    with pytest.raises(ProgramError, match=r"have no density|shares sites"):
        evaluate(objective.program, batch, {"elbo": importance(1, elbo)})


def test_autocast_leaves_losses_in_full_precision_and_finite(case: Case) -> None:
    make, batches = case
    step = Step(make(), adam(1e-4), autocast=torch.bfloat16)
    assert all(torch.isfinite(value) for value in step(batches(6)).values())


@pytest.mark.parametrize(("levels", "low", "high"), [(2, 0.0, 1.0), (256, 0.0, 255.0)])
def test_a_generator_of_levels_stays_among_them(levels: int, low: float, high: float) -> None:
    made = MLPGenerator(3, IMAGE, levels)
    with torch.no_grad():
        x = made(100 * torch.randn(50, 3)).rsample()
    assert float(x.min()) >= low
    assert float(x.max()) <= high
    assert float(x.max() - x.min()) > 0.5 * (high - low)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 9, 7), (1, 1, 5)])
def test_convolutional_generators_have_any_shape(shape: tuple[int, ...]) -> None:
    assert ConvGenerator(3, shape, 256, (8, 4)).generated(torch.randn(2, 3)).shape == (2, *shape)


def test_a_projection_critic_adds_what_the_class_says() -> None:
    features = MLPFeatures(IMAGE, 17, SMALL)
    critic = ProjectionCritic(features, 3)
    x, y = _labelled(5)
    torch.testing.assert_close(critic(x, y), Critic.forward(critic, x), atol=0.1, rtol=0)  # little yet
    nn.init.normal_(critic.embedding.weight)
    expected = critic.last(features(x)).squeeze(1) + torch.einsum("bi,bi->b", critic.embedding.weight[y], features(x))
    torch.testing.assert_close(critic(x, y), expected)


def test_features_end_with_an_activation() -> None:
    """A critic is linear in its features, and so would be linear in the last layer's input without it."""
    x = _images(5)[0]
    seen = 2 * x / 16 - 1
    dense = MLPFeatures(IMAGE, 17, SMALL)
    first, *_ = (layer for layer in dense.modules() if isinstance(layer, nn.Linear))
    torch.testing.assert_close(dense(x), nn.functional.leaky_relu(first(seen.flatten(1)), 0.2))
    convolutional = ConvFeatures(IMAGE, 17, (4,), width=6)
    (convolution,) = (layer for layer in convolutional.modules() if isinstance(layer, nn.Conv2d))
    (last,) = (layer for layer in convolutional.modules() if isinstance(layer, nn.Linear))
    hidden = nn.functional.leaky_relu(convolution(seen), 0.2)
    torch.testing.assert_close(convolutional(x), nn.functional.leaky_relu(last(hidden.flatten(1)), 0.2))


def test_spectral_normalisation_gives_unit_norms() -> None:
    critic = spectrally_normalised(Critic(MLPFeatures((4,), None, (16, 16))))
    for _ in range(200):  # the power iteration takes one step a call
        critic(torch.randn(8, 4))
    weights = [layer.weight.detach() for layer in critic.modules() if isinstance(layer, nn.Linear)]
    norms = [float(torch.linalg.matrix_norm(weight, 2)) for weight in weights]
    assert len(norms) == 3
    assert norms == pytest.approx([1.0] * 3, abs=1e-3)


def test_spectral_normalisation_reaches_convolutions_and_classes() -> None:
    critic = spectrally_normalised(ProjectionCritic(ConvFeatures(IMAGE, 17, (4, 8)), 3))
    x, y = _labelled(8)
    for _ in range(200):
        critic(x, y)
    kinds = (nn.Conv2d, nn.Embedding, nn.Linear)
    weights = [layer.weight.detach().flatten(1) for layer in critic.modules() if isinstance(layer, kinds)]
    assert [float(torch.linalg.matrix_norm(weight, 2)) for weight in weights] == pytest.approx([1.0] * 5, abs=1e-3)


def test_a_joint_critic_is_a_network_of_features_and_code() -> None:
    features = _features()
    critic = JointCritic(features, 3, SMALL)
    x, z = _images(5)[0], torch.randn(5, 3)
    torch.testing.assert_close(critic(x, z), critic.network(torch.cat((features(x), z), 1)).squeeze(1))
    assert not torch.equal(critic(x, z), critic(x, z.flip(0)))
    assert not torch.equal(critic(x, z), critic(x.flip(0), z))


def test_a_noisy_encoder_is_of_x_in_its_own_scale_and_of_noise() -> None:
    torch.manual_seed(0)
    of_levels, of_numbers = NoiseEncoder(IMAGE, 17, 3), NoiseEncoder(IMAGE, None, 3)
    of_numbers.network.load_state_dict(of_levels.network.state_dict())
    x = _images(5)[0]
    drawn = []
    for encoder, seen in ((of_levels, x), (of_numbers, 2 * x / 16 - 1), (of_levels, x.flip(0))):
        torch.manual_seed(1)
        drawn.append(encoder(seen).rsample())
    torch.testing.assert_close(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(of_levels(x).rsample(), of_levels(x).rsample())


def test_a_convolutional_critic_is_no_sum_over_patches() -> None:
    torch.manual_seed(0)
    critic = Critic(ConvFeatures((1, 28, 28), 256, (4, 8))).double()
    plain = torch.full((1, 28, 28), 128.0, dtype=torch.float64)
    left, right = torch.zeros(2, *plain.shape, dtype=torch.float64)
    left[:, :7, :7] = 100.0
    right[:, -7:, -7:] = -100.0  # no unit of the convolutions sees both corners
    with torch.no_grad():
        neither, one, other, two = critic(torch.stack((plain, plain + left, plain + right, plain + left + right)))
    assert abs(float(two - one - other + neither)) > 1e-6  # 1e-17 if it were


def test_too_many_halvings_are_refused() -> None:
    with pytest.raises(ValueError, match="3 halvings leave nothing"):
        ConvFeatures((1, 4, 4), 2, (8, 8, 8))


def test_a_noisy_generator_is_an_ordinary_program() -> None:
    generator = MLPGenerator(3, IMAGE, 17, (8,))
    program = NoisyGenerator(generator, 2.0)
    (x,) = _images(5)
    z = torch.randn(2, 5, 3)
    found = terms(program, x, latents={"z": z})
    for particle in range(2):
        around = DiscretizedNormal(generator.generated(z[particle]), torch.tensor(2.0), 17).to_event(3)
        torch.testing.assert_close(found.likelihood[particle], around.log_prob(x))
        torch.testing.assert_close(found.prior[particle], Normal(0.0, 1.0).log_prob(z[particle]).sum(1))
    torch.testing.assert_close(found.prior, found.posterior)  # its guide is the prior
    check(program, x)
    drawn = sample(program, x)["x"]
    assert drawn.shape == (1, *x.shape)
    assert torch.equal(drawn, drawn.round())
    assert evaluate(program, x, {"iwae": importance(20)}).log_prob["iwae"].isfinite().all()


def test_a_noisy_generator_of_real_numbers_is_normal_and_needs_a_scale() -> None:
    generator = MLPGenerator(3, (4,), None, (8,))
    x, z = torch.randn(5, 4), torch.randn(1, 5, 3)
    found = terms(NoisyGenerator(generator, 0.5), x, latents={"z": z})
    expected = Normal(generator.generated(z[0]), 0.5).log_prob(x).sum(1)
    torch.testing.assert_close(found.likelihood[0], expected)
    with pytest.raises(ValueError, match="scale: expected a positive number"):
        NoisyGenerator(generator, 0.0)


def test_a_noisy_generator_of_classes_is_given_them_and_what_is_no_generator_is_refused() -> None:
    gan = GAN(IMAGE, 17, 3, MLPGenerator(6, IMAGE, 17, (8,)), classes=3)
    x, y = _labelled(5)
    z = torch.randn(1, 5, 3)
    program = NoisyGenerator(gan.generator, 2.0, classes=3)
    found = terms(program, (x, y), latents={"z": z})
    label = nn.functional.one_hot(y, 3).float()
    around = DiscretizedNormal(gan.generator.generated(torch.cat((z[0], label), 1)), torch.tensor(2.0), 17).to_event(3)
    torch.testing.assert_close(found.likelihood[0], around.log_prob(x))
    with pytest.raises(ValueError, match=r"expected a ppmodels\.Generator, got a Linear without \['shape', 'levels'"):
        NoisyGenerator(nn.Linear(3, 4), 2.0)


def test_prey_alone_is_a_birth_process() -> None:
    """Without meals prey grow from 100 by the factor e^(λt), with the variance 100 e^(λt)(e^(λt) - 1).

    10,000 series at t = 1, λ = 0.5, in 100 steps: Euler's own error is 0.13 % of the mean, and a mean off by 0.5 % or a
    variance off by 8 % is caught; by chance each fails below 1e-7.
    """
    torch.manual_seed(0)
    simulator = LotkaVolterra(times=1, end=1.0, steps=100, start=(100.0, 0.0))
    theta = torch.tensor([math.log(0.5), -30.0, -30.0, -30.0])
    prey = simulator.simulated(theta.expand(10_000, 4))[:, 0, 0].expm1()
    growth = math.exp(0.5)
    assert float(prey.mean()) == pytest.approx(100 * growth, rel=0.005)
    assert float(prey.var()) == pytest.approx(100 * growth * (growth - 1), rel=0.08)


def test_predators_alone_die_out() -> None:
    """A death process from 1,000: the mean is 1000 e^(-λt), the variance 1000 e^(-λt)(1 - e^(-λt)).

    10,000 series in 100 steps: Euler's own error is 0.13 % of the mean; the bounds' false alarms are below 1e-7.
    """
    torch.manual_seed(0)
    simulator = LotkaVolterra(times=1, end=1.0, steps=100, start=(0.0, 1000.0))
    theta = torch.tensor([-30.0, -30.0, -30.0, math.log(0.5)])
    predators = simulator.simulated(theta.expand(10_000, 4))[:, 1, 0].expm1()
    left = math.exp(-0.5)
    assert float(predators.mean()) == pytest.approx(1000 * left, rel=0.005)
    assert float(predators.var()) == pytest.approx(1000 * left * (1 - left), rel=0.08)


def test_a_meal_costs_prey_what_its_own_rate_says_and_feeds_predators_by_another() -> None:
    """One step of 0.01 with 100 prey and 50 predators: 5,000 pairs, so 50 θ2 prey are eaten and 50 θ3 predators raised.

    The numbers eaten and raised are Poisson-like, of their own noise: variances equal the means, and no correlation.
    10,000 series; means and variances are held to 7 standard errors, the correlation to 6.
    """
    torch.manual_seed(0)
    simulator = LotkaVolterra(times=1, end=0.01, steps=1, start=(100.0, 50.0))
    theta = torch.tensor([-30.0, math.log(0.4), math.log(0.1), -30.0])
    prey, predators = simulator.simulated(theta.expand(10_000, 4))[:, :, 0].expm1().double().T
    eaten, raised = 100 - prey, predators - 50
    assert float(eaten.mean()) == pytest.approx(20, abs=0.32)
    assert float(raised.mean()) == pytest.approx(5, abs=0.16)
    assert float(eaten.var()) == pytest.approx(20, rel=0.1)
    assert float(raised.var()) == pytest.approx(5, rel=0.1)
    assert abs(float(torch.corrcoef(torch.stack((eaten, raised)))[0, 1])) < 0.06


def test_a_population_that_is_eaten_up_is_never_below_zero() -> None:
    torch.manual_seed(0)
    simulator = LotkaVolterra(times=10, end=10.0, steps=20, start=(5.0, 500.0))
    seen = simulator.simulated(torch.tensor([-3.0, 1.0, -30.0, -3.0]).expand(200, 4))
    assert seen.isfinite().all()
    assert float(seen.min()) == 0.0


def test_series_are_seen_at_equal_times_up_to_the_end() -> None:
    """Without noise to speak of: a million prey that only grow, seen at 1, 2, 3 and 4 of 4."""
    simulator = LotkaVolterra(times=4, end=4.0, steps=400, start=(1000.0, 0.0))
    theta = torch.tensor([math.log(0.1), -30.0, -30.0, -30.0])
    torch.manual_seed(0)
    prey = simulator.simulated(theta.expand(4_000, 4))[:, 0].expm1().mean(0)
    expected = 1000 * (0.1 * torch.arange(1.0, 5.0)).exp()
    torch.testing.assert_close(prey, expected, rtol=0.005, atol=0)


def test_a_simulator_says_what_its_steps_must_be() -> None:
    with pytest.raises(ValueError, match="multiple of times=20"):
        LotkaVolterra(times=20, steps=50)


def test_a_posterior_has_its_own_parameters_and_any_correlation() -> None:
    posterior = NormalPosterior([1.0, 2.0], [0.1, 0.2])
    torch.testing.assert_close(posterior().mean, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(posterior().variance.sqrt(), torch.tensor([0.1, 0.2]))
    with torch.no_grad():
        posterior.below.fill_(0.5)
    covariance = posterior().covariance_matrix
    torch.testing.assert_close(covariance[0, 1], torch.tensor(0.1 * 0.2 * 0.5))
