"""Networks: every head on every network, shapes, precision, flows as posteriors, and errors that say what to do."""

import importlib
import math
import subprocess
import sys
from collections.abc import Callable

import pyro
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ppmodels.distributions import DiscretizedLogisticMixture
from ppmodels.nn import (
    HEADS,
    MLP,
    BernoulliHead,
    CategoricalHead,
    ConvDecoder,
    ConvEncoder,
    DiscretizedNormalHead,
    Encoder,
    FlowEncoder,
    LogisticMixtureHead,
    MLPDecoder,
    MLPEncoder,
    NormalHead,
    Standardise,
    make_head,
)

LEVELS = {"bernoulli": 2, "categorical": 8, "discretized-normal": 256, "logistic-mixture": 256, "normal": None}
SHAPES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (2, 7, 9), (1, 1, 5)]
ENCODERS: dict[str, Callable[..., Encoder]] = {"mlp": MLPEncoder, "conv": ConvEncoder, "flow": FlowEncoder}


def example(shape: tuple[int, ...], levels: int | None, batch: int = 3) -> Tensor:
    if levels is None:
        return torch.randn(batch, *shape)
    return torch.randint(0, levels, (batch, *shape)).float()


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("decoder", [MLPDecoder, ConvDecoder])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_head_on_every_decoder(name: str, decoder: Callable[..., nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = decoder(4, shape, make_head(LEVELS[name], name))
    x = example(shape, LEVELS[name])
    p = network(torch.randn(3, 4))
    assert (p.batch_shape, p.event_shape) == ((3,), shape)
    log_p = p.log_prob(x)
    assert log_p.shape == (3,)
    assert log_p.isfinite().all()
    assert p.support.check(p.sample()).all()
    log_p.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())


@pytest.mark.parametrize("name", [name for name in HEADS if name != "logistic-mixture"])
def test_heads_for_vectors(name: str) -> None:
    network = MLPDecoder(4, (6,), make_head(LEVELS[name], name))
    p = network(torch.randn(3, 4))
    assert (p.batch_shape, p.event_shape) == ((3,), (6,))
    assert p.log_prob(example((6,), LEVELS[name])).shape == (3,)


@pytest.mark.parametrize("name", HEADS)
def test_heads_keep_log_probabilities_in_full_precision(name: str) -> None:
    head = make_head(LEVELS[name], name)
    parameters = torch.randn(2, head.outputs(1), 4, 4)
    x = example((1, 4, 4), LEVELS[name], 2)
    assert head(parameters.bfloat16()).log_prob(x).dtype == torch.float32
    assert head(parameters.half()).log_prob(x).dtype == torch.float32
    assert head(parameters.double()).log_prob(x.double()).dtype == torch.float64


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("size", [0.0, 1e4, -1e4])
def test_heads_take_any_finite_parameters(name: str, size: float) -> None:
    head = make_head(LEVELS[name], name)
    parameters = torch.full((2, head.outputs(3), 4, 4), size, requires_grad=True)
    log_p = head(parameters).log_prob(example((3, 4, 4), LEVELS[name], 2))
    (gradient,) = torch.autograd.grad(log_p.sum(), parameters)
    assert log_p.isfinite().all()
    assert gradient.isfinite().all()


def test_each_parameter_goes_to_its_own_place() -> None:
    """Channel 1 of a head is channel 1 of its distribution: the layout, with numbers that can be told apart."""
    parameters = torch.zeros(1, 6, 1, 1)
    parameters[0, 1] = 5.0
    assert NormalHead()(parameters).mean.flatten().tolist() == [0.0, 5.0, 0.0]
    assert DiscretizedNormalHead(9)(0.1 * parameters).mean.flatten().argmax() == 1
    assert BernoulliHead()(parameters).mean.flatten().argmax() == 1
    logits = torch.zeros(1, CategoricalHead(4).outputs(3), 1, 1)
    logits[0, 3 * 3 + 2] = 50.0  # level 3 of channel 2
    torch.testing.assert_close(CategoricalHead(4)(logits).mean.flatten(), torch.tensor([1.5, 1.5, 3.0]))


def test_the_mixture_head_couples_the_channels() -> None:
    head = LogisticMixtureHead(256, components=2)
    assert (head.outputs(1), head.outputs(2), head.outputs(3)) == (6, 12, 20)
    p = head(torch.randn(2, 20, 4, 4))
    assert isinstance(p, DiscretizedLogisticMixture)
    assert p.coefficients.shape == (2, 2, 3, 4, 4)


def test_a_network_that_says_nothing_gives_a_distribution_over_the_whole_range() -> None:
    """Of parameters 0: the documented places and widths, in levels."""
    softplus = math.log(2) + 1e-4
    normal = NormalHead()(torch.zeros(1, 2, 1, 1)).base_dist
    assert (float(normal.mean), float(normal.scale)) == (0.0, pytest.approx(softplus))
    rounded = DiscretizedNormalHead(11)(torch.zeros(1, 2, 1, 1)).base_dist
    assert (float(rounded.loc), float(rounded.scale)) == (5.0, pytest.approx(5 * softplus))
    mixture = LogisticMixtureHead(11, components=5)(torch.zeros(1, 15, 1, 1))
    assert isinstance(mixture, DiscretizedLogisticMixture)
    assert mixture.loc.flatten().tolist() == [1.0, 3.0, 5.0, 7.0, 9.0]
    torch.testing.assert_close(mixture.scale.flatten(), torch.full((5,), softplus))
    assert not mixture.logits.any()
    assert not mixture.coefficients.any()


def test_a_unit_of_a_parameter_is_half_the_range() -> None:
    rounded = DiscretizedNormalHead(11)(torch.ones(1, 2, 1, 1)).base_dist
    assert (float(rounded.loc), float(rounded.scale)) == (10.0, pytest.approx(5 * (math.log1p(math.e) + 1e-4)))
    parameters = torch.zeros(1, 30, 1, 1)
    parameters[0, 7] = 1.0  # the second of three components: its logit, then two locations
    mixture = LogisticMixtureHead(11, components=5)(parameters)
    assert isinstance(mixture, DiscretizedLogisticMixture)
    assert mixture.loc[0, 1].flatten().tolist() == [8.0, 3.0]


@pytest.mark.parametrize("levels", [None, 2, 8, 32, 33, 256])
def test_the_usual_head(levels: int | None) -> None:
    usual = {None: NormalHead, 2: BernoulliHead, 8: CategoricalHead, 32: CategoricalHead}
    assert type(make_head(levels)) is usual.get(levels, LogisticMixtureHead)


@pytest.mark.parametrize(
    ("levels", "name", "message"),
    [
        (17, "bernoulli", "expected 2 levels, got 17; binarise the data, or choose 'categorical'"),
        (None, "categorical", "choose 'normal'"),
        (17, "normal", "choose 'discretized-normal'"),
        (17, "poisson", "expected one of bernoulli, categorical"),
        (1, None, "at least 2, or None"),
    ],
)
def test_a_head_that_does_not_fit_the_levels(levels: int | None, name: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_head(levels, name)


@pytest.mark.parametrize("head", [LogisticMixtureHead(256), CategoricalHead(4), NormalHead()])
def test_a_wrong_number_of_outputs(head: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"head\.outputs\(channels\)"):
        head(torch.zeros(2, 7, 4, 4))
    with pytest.raises(ValueError, match=r"LogisticMixtureHead: expected images|reshape the network"):
        head(torch.zeros(2, 7, 4) if not isinstance(head, LogisticMixtureHead) else torch.zeros(2, 15))


# ---- encoders ----


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("context", [0, 2])
def test_every_encoder_returns_a_posterior(
    encoder: Callable[..., Encoder], shape: tuple[int, ...], context: int
) -> None:
    torch.manual_seed(0)
    network = encoder(shape, 8, 5, context=context)
    given = torch.randn(3, context) if context else None
    q = network(example(shape, 8), given)
    assert (q.batch_shape, q.event_shape, q.has_rsample) == ((3,), (5,), True)
    z = q.rsample()
    log_q = q.log_prob(z)
    assert (z.shape, log_q.shape) == ((3, 5), (3,))
    (log_q.sum() + z.sum()).backward()
    assert all(weight.grad is not None for weight in network.parameters())


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_every_encoder_depends_on_its_context(encoder: Callable[..., Encoder]) -> None:
    torch.manual_seed(0)
    network = encoder((1, 4, 4), 2, 3, context=2)
    x, z = example((1, 4, 4), 2), torch.randn(3, 3)
    one, other = network(x, torch.zeros(3, 2)).log_prob(z), network(x, torch.ones(3, 2)).log_prob(z)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_every_encoder_runs_on_the_meta_device(encoder: Callable[..., Encoder]) -> None:
    with pyro.validation_enabled(False):
        network = encoder((1, 7, 9), 8, 4).to("meta")
        q = network(torch.zeros(2, 1, 7, 9, device="meta"))
        q.log_prob(q.rsample()).sum().backward()
    assert next(network.parameters()).is_meta


@pytest.mark.parametrize("encoder", [MLPEncoder, ConvEncoder])
def test_scales_are_never_0_or_infinite(encoder: Callable[..., Encoder]) -> None:
    network = encoder((1, 4, 4), 2, 3)
    for size in (-1e30, 1e30):
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        nn.init.constant_(last.bias, size)
        scale = network(example((1, 4, 4), 2)).base_dist.scale
        assert bool(((scale >= 1e-4) & scale.isfinite()).all())


def test_levels_are_scaled_and_tables_standardised() -> None:
    x = torch.tensor([0.0, 8.0, 16.0])
    assert Standardise.for_levels(17)(x).tolist() == [-1, 0, 1]
    assert Standardise.for_levels(None)(x).tolist() == x.tolist()
    table = 5 + 3 * torch.randn(100, 4)
    network = MLPEncoder((4,), None, 2, standardise=Standardise(table.mean(0), table.std(0)))
    assert {"standardise.loc", "standardise.scale"} <= set(network.state_dict())
    torch.testing.assert_close(network.standardise(table).std(0), torch.ones(4))


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_every_encoder_sees_levels_between_minus_one_and_one(encoder: Callable[..., Encoder]) -> None:
    torch.manual_seed(0)
    of_levels, of_numbers = encoder((1, 4, 4), 17, 3), encoder((1, 4, 4), None, 3)
    state = {name: value for name, value in of_levels.state_dict().items() if not name.startswith("standardise")}
    of_numbers.load_state_dict(state, strict=False)
    x, z = example((1, 4, 4), 17), torch.randn(3, 3)
    torch.testing.assert_close(of_levels(x).log_prob(z), of_numbers(2 * x / 16 - 1).log_prob(z))


def test_errors_of_encoders() -> None:
    network = MLPEncoder((1, 4, 4), 2, 3, context=2)
    with pytest.raises(ValueError, match=r"x: expected \(batch, 1, 4, 4\), got \(3, 1, 5, 5\)"):
        network(torch.zeros(3, 1, 5, 5))
    with pytest.raises(ValueError, match=r"context: expected shape \(3, 2\), got \(3, 0\)"):
        network(torch.zeros(3, 1, 4, 4))
    with pytest.raises(ValueError, match=r"expected \(channel, height, width\), got \(4,\)"):
        ConvEncoder((4,), None, 3)
    with pytest.raises(ValueError, match="add one"):
        MLP((3,))


# ---- flows ----


def flow(latent: int = 2, batch: int = 3) -> tuple[FlowEncoder, Tensor]:
    torch.manual_seed(0)
    network = FlowEncoder((1, 4, 4), 2, latent, hidden=(16,), transforms=2)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return network.double(), example((1, 4, 4), 2, batch).double()


def test_a_flow_integrates_to_one() -> None:
    """By a Riemann sum over a square that holds all but a negligible mass."""
    network, x = flow(batch=2)
    q = network(x)
    z = q.sample((2000,))
    centre, side = z.mean((0, 1)), 2 * float((z - z.mean((0, 1))).abs().max())
    axis = torch.linspace(-side, side, 801, dtype=torch.float64)
    grid = centre + torch.cartesian_prod(axis, axis).unsqueeze(1)
    with torch.no_grad():
        mass = q.log_prob(grid.expand(-1, 2, 2)).exp().sum(0) * (2 * side / 800) ** 2
    torch.testing.assert_close(mass, torch.ones_like(mass), rtol=0, atol=2e-3)


@pytest.mark.parametrize("latent", [1, 2, 5])
def test_a_flow_scores_given_values_as_its_own_draws(latent: int) -> None:
    network, x = flow(latent)
    q = network(x)
    z = q.rsample()
    torch.testing.assert_close(q.log_prob(z), network(x).log_prob(z.detach().clone()), rtol=1e-8, atol=1e-8)
    assert q.rsample((4,)).shape == (4, 3, latent)
    assert q.log_prob(torch.randn(4, 3, latent).double()).shape == (4, 3)
    assert q.expand((4, 3)).sample().shape == (4, 3, latent)


def test_a_flow_drawn_without_gradients_is_scored_with_them() -> None:
    network, x = flow()
    q = network(x)
    with torch.no_grad():
        z = q()
    assert q.log_prob(z).requires_grad
    assert not q.sample().requires_grad


def test_a_flow_in_a_plate_and_masked() -> None:
    network, x = flow()

    def guide() -> Tensor:
        with pyro.plate("particles", 4, dim=-2), pyro.plate("data", 3, dim=-1):
            return pyro.sample("z", network(x).mask(torch.tensor([True, False, True])))

    trace = pyro.poutine.trace(guide).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["z"]
    assert site["value"].shape == (4, 3, 2)
    expected = network(x).log_prob(site["value"].detach()) * torch.tensor([1.0, 0.0, 1.0])
    torch.testing.assert_close(site["log_prob"], expected, rtol=1e-8, atol=1e-8)


def test_zuko_leaves_the_validation_of_distributions_as_it_was() -> None:
    for wanted in (True, False):
        code = (
            "import torch; from torch.distributions import Distribution as D\n"
            f"D.set_default_validate_args({wanted})\n"
            "import sys, ppmodels.nn; assert 'zuko' not in sys.modules\n"
            f"D.set_default_validate_args({wanted})\n"
            "ppmodels.nn.FlowEncoder((4,), None, 2)\n"
            f"assert 'zuko' in sys.modules and D._validate_args is {wanted}\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert Distribution._validate_args is True


def test_without_zuko_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    flows = importlib.import_module("ppmodels.nn.flows")
    monkeypatch.setitem(sys.modules, "zuko", None)
    with pytest.raises(ImportError, match=r'pip install "ppmodels\[flows\]"'):
        flows.FlowEncoder((4,), None, 2)


def test_a_flow_keeps_full_precision_under_autocast() -> None:
    network, x = flow(5)
    network, z = network.float(), torch.randn(3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = network(x.float())
        within = q.log_prob(z)
    torch.testing.assert_close(within, q.log_prob(z), rtol=1e-6, atol=1e-6)
