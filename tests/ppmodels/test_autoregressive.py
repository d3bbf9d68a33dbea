"""The distribution over images drawn value by value: it sums to one, is sampled as it is scored, and is one Pyro site."""

import warnings
from collections.abc import Callable
from math import log, sqrt

import pyro
import pyro.distributions as dist
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from inference import elbo, evaluate, exact, importance, posterior
from ppmodels import VAE, Autoregressive, CharRNN, DiagonalBiLSTM, GatedPixelCNN, PixelCNN, RowLSTM
from ppmodels.nn import BernoulliHead, CategoricalHead, DiscretizedNormalHead, Head, LogisticMixtureHead, NormalHead
from ppmodels.nn.causal import AutoregressiveModel
from tests.ppmodels.test_causal import CASES, MODELS, Maker, alive, context_for, every_case, every_model


def every_image(shape: tuple[int, int, int], levels: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """All images of few levels, `(images, *shape)`; the values that are drawn first change slowest."""
    channels, height, width = shape
    values = torch.cartesian_prod(*[torch.arange(levels)] * (channels * height * width))
    return values.view(-1, height, width, channels).permute(0, 3, 1, 2).to(dtype)


def index_of(images: Tensor, levels: int) -> Tensor:
    """Where each image is in `every_image`."""
    values = images.movedim(-3, -1).flatten(-3).long()
    return (values * levels ** torch.arange(values.shape[-1] - 1, -1, -1)).sum(-1)


def allowed(probabilities: int, draws: int, alarm: float = 1e-6) -> float:
    """How far frequencies may be from so many probabilities, by Hoeffding, at that rate of false alarms."""
    return sqrt(log(2 * probabilities / alarm) / (2 * draws))


def telling(model: AutoregressiveModel, gap: Callable[[AutoregressiveModel], Tensor]) -> AutoregressiveModel:
    """The model with those of 40 random parameters, float32, whose `gap` is largest: where a wrong draw shows most."""
    found, largest = {}, -1.0
    for _ in range(40):
        size = float(gap(alive(model, 0.8).float()))
        if size > largest:
            found, largest = {name: value.clone() for name, value in model.state_dict().items()}, size
    model.load_state_dict(found)
    return model


# ---- probabilities ----

TINY = {
    "binary": {"shape": (1, 3, 3), "levels": 2},
    "binary, of a vector": {"shape": (1, 3, 3), "levels": 2, "context": 3},
    "binary, of a map": {"shape": (1, 3, 3), "levels": 2, "context": (2, 3, 3)},
    "binary, of a class": {"shape": (1, 3, 3), "levels": 2, "classes": 3},
    "colour": {"shape": (2, 1, 3), "levels": 3},
    "colour, of a vector": {"shape": (3, 2, 1), "levels": 3, "context": 2},
    "discretized normal": {"shape": (2, 1, 3), "levels": 3, "likelihood": "discretized-normal"},
    "logistic mixture": {"shape": (3, 2, 1), "levels": 3, "likelihood": "logistic-mixture"},
    "logistic mixture, of a map": {
        "shape": (3, 1, 2),
        "levels": 3,
        "likelihood": "logistic-mixture",
        "context": (1, 1, 2),
    },
}
every_tiny = pytest.mark.parametrize("case", TINY.values(), ids=TINY)


@every_tiny
@every_model
def test_the_probabilities_of_all_images_sum_to_one(make: Maker, case: dict) -> None:
    model = alive(make(**case), 0.4)
    images = every_image(case["shape"], case["levels"])
    context = context_for(model, 2)
    with torch.no_grad():
        p = model(context).log_prob(images if context is None else images.unsqueeze(1)).exp()
    assert p.shape == (len(images), *([] if context is None else [2]))
    assert (p.sum(0) - 1).abs().max() < 1e-10
    if context is not None:
        assert (p[:, 0] - p[:, 1]).abs().max() > 1e-5  # the context counts


@every_model
def test_float32_agrees_with_float64(make: Maker) -> None:
    model = make((3, 5, 3), 4, context=2)
    x, context = torch.randint(4, (6, 3, 5, 3)).float(), torch.randn(6, 2)
    single = model(context).log_prob(x)
    double = model.double()(context.double()).log_prob(x.double())
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-6, atol=1e-4)
    assert model(context.double()).sample().dtype == torch.float64


@every_model
def test_conditionals_are_what_log_prob_sums(make: Maker) -> None:
    model = alive(make((3, 3, 5), 4, context=2), 0.4)
    p = model(context_for(model, 2))
    x = torch.randint(4, (5, 2, 3, 3, 5)).double()
    found = p.conditionals(x)
    assert (found.batch_shape, found.event_shape) == ((10,), (3, 3, 5))
    nats = found.base_dist.log_prob(x.flatten(0, 1))
    assert nats.shape == (10, 3, 3, 5)
    torch.testing.assert_close(nats.sum((1, 2, 3)).view(5, 2), p.log_prob(x))


@every_model
def test_the_conditionals_are_those_of_the_joint(make: Maker) -> None:
    """p(xᵢ | x_<i) is a ratio of sums over all images; so the factors are of the distribution, in the order declared."""
    model = alive(make((2, 1, 2), 3), 0.4)
    images = every_image(model.shape, 3)
    joint = model().log_prob(images).exp().view(3, 3, 3, 3)
    nats = model().conditionals(images).base_dist.log_prob(images)  # (image, channel, row, column)
    for value, (channel, column) in enumerate([(0, 0), (1, 0), (0, 1), (1, 1)]):
        prefix = joint.flatten(value + 1).sum(-1) if value < 3 else joint
        conditional = prefix / prefix.sum(-1, keepdim=True)
        expected = conditional.reshape(*conditional.shape, *[1] * (3 - value)).expand(3, 3, 3, 3).flatten()
        torch.testing.assert_close(nats[:, channel, 0, column].exp(), expected, rtol=1e-9, atol=1e-12)


@every_case
@every_model
def test_gradients_reach_all_parameters_and_the_context(make: Maker, case: dict) -> None:
    model = make(**case)
    context = context_for(model, 2, torch.float32)
    if context is not None and context.is_floating_point():
        context.requires_grad_()
    x = torch.randint(model.levels, (2, *model.shape)).float()
    model(context).log_prob(x).sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    if context is not None and context.is_floating_point():
        assert context.grad.abs().sum() > 0


# ---- draws ----


def drawn_naively(model: AutoregressiveModel, n: int, context: Tensor | None) -> Tensor:
    """Images drawn by a whole pass for every value."""
    x = torch.zeros(n, *model.shape, dtype=torch.float64)
    maps = context[..., None, None] if context is not None and context.ndim == 2 else context
    channels, height, width = model.shape
    size = channels // model.ordered
    for row in range(height):
        for column in range(width):
            for channel in range(0, channels, size):
                parameters = model.network(model.standardise(x), maps)[:, :, row, column]
                now = slice(channel, channel + size)
                x[:, now, row, column] = model.draw(parameters)[:, now]
    return x


@every_case
@every_model
def test_a_sample_is_that_of_a_pass_for_every_value(make: Maker, case: dict) -> None:
    """With the same noise: the image is the same, value for value."""
    model = alive(make(**case), 0.4)
    p = model(context_for(model, 32))
    torch.manual_seed(1)
    found = p.sample() if p.batch_shape else p.sample((32,))
    torch.manual_seed(1)
    expected = drawn_naively(model, 32, p.context)
    assert torch.equal(found, expected)
    assert expected.unique().numel() > 1


DRAWS = 30_000
DRAWN = {
    "binary": {"shape": (1, 2, 2), "levels": 2},
    "colour": {"shape": (3, 1, 1), "levels": 3},
    "discretized normal": {"shape": (2, 1, 2), "levels": 2, "likelihood": "discretized-normal"},
    "logistic mixture": {"shape": (2, 1, 2), "levels": 2, "likelihood": "logistic-mixture"},
}


class Whole(nn.Module):
    """A network without incremental sampling."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        found: Tensor = self.network(x, context)
        return found


@every_model
def test_a_network_of_ones_own_needs_no_walk(make: Maker) -> None:
    model = alive(make((3, 3, 2), 3, context=2), 0.4)
    p = model(context_for(model, 5))
    x = torch.randint(3, (5, 3, 3, 2)).double()
    torch.manual_seed(1)
    drawn, score = p.sample((2,)), p.log_prob(x)
    model.network = Whole(model.network)
    torch.manual_seed(1)
    assert torch.equal(p.sample((2,)), drawn)
    assert torch.equal(p.log_prob(x), score)


@pytest.mark.parametrize("case", DRAWN.values(), ids=DRAWN)
@every_model
def test_frequencies_are_the_probabilities(make: Maker, case: dict) -> None:
    """By Hoeffding over all images, false alarm 1e-6; an image's probability that is off by 0.035 is caught as surely.

    The product of the values' own probabilities is further off than that, as is checked: draws that did not heed the
    values before would be found.
    """
    images = every_image(case["shape"], case["levels"], torch.float32)
    values = images.movedim(1, -1).flatten(1)

    def gap(model: AutoregressiveModel) -> Tensor:
        p, own = model().log_prob(images).exp(), torch.ones(len(images))
        for value in values.unbind(1):
            own = own * torch.stack([p[value == level].sum() for level in range(case["levels"])])[value.long()]
        return (own - p).abs().max()

    model = telling(make(**case, layers=1), gap)
    assert gap(model) > 0.035
    assert allowed(len(images), DRAWS) < 0.0175
    found = index_of(model().sample((DRAWS,)), case["levels"]).bincount(minlength=len(images)) / DRAWS
    assert (found - model().log_prob(images).exp()).abs().max() < allowed(len(images), DRAWS)


@every_model
def test_frequencies_follow_the_context(make: Maker) -> None:
    """By Hoeffding over the images of three labels, false alarm 1e-6; a probability off by 0.036 is caught as surely.

    Each label's probabilities are further than that from the others', as is checked.
    """
    images = every_image((1, 2, 2), 2, torch.float32)

    def probabilities(model: AutoregressiveModel) -> Tensor:
        return model(torch.arange(3)).log_prob(images.unsqueeze(1)).exp().T

    def gap(model: AutoregressiveModel) -> Tensor:
        p = probabilities(model)
        return torch.stack([(p[i] - p[i - 1]).abs().max() for i in range(3)]).min()

    model = telling(make((1, 2, 2), 2, layers=1, classes=3), gap)
    assert gap(model) > 0.036
    assert allowed(48, DRAWS) < 0.018
    drawn = model(torch.arange(3)).sample((DRAWS,))
    found = torch.stack([index_of(x, 2).bincount(minlength=16) for x in drawn.unbind(1)]) / DRAWS
    assert (found - probabilities(model)).abs().max() < allowed(48, DRAWS)


@every_case
@every_model
def test_draws_lie_in_the_support_and_carry_no_graph(make: Maker, case: dict) -> None:
    model = make(**case)
    p = model(context_for(model, 2, torch.float32))
    x = p.sample((3,))
    assert x.shape == (3, *p.batch_shape, *model.shape)
    assert x.dtype == torch.float32
    assert not x.requires_grad
    assert p.support.check(x).all()
    assert p.support.event_dim == p.event_dim == 3
    assert p.support.is_discrete
    assert p.log_prob(x).shape == (3, *p.batch_shape)
    assert p.sample((0,)).shape == (0, *p.batch_shape, *model.shape)
    assert p.sample((2, 1)).shape == (2, 1, *p.batch_shape, *model.shape)


def test_sampling_is_silent_and_repeats() -> None:
    p = PixelCNN((1, 5, 4), 2, 6, 1)()
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = p.sample((4,))
    torch.manual_seed(3)
    assert torch.equal(p.sample((4,)), first)


# ---- completing an image ----


@pytest.mark.parametrize("case", ["binary", "colour", "colour, of a map", "grey levels, of a class"])
@every_model
def test_known_values_are_kept_and_nothing_else_is_read(make: Maker, case: str) -> None:
    model = make(**CASES[case])
    p = model(context_for(model, 4, torch.float32))
    x = torch.randint(model.levels, (4, *model.shape)).float()
    known = torch.zeros(model.shape[1:], dtype=torch.bool)
    known[0], known[1, 0] = True, True
    noise = torch.where(known, x, torch.nan)  # what is not known may be anything
    before = noise.clone()
    torch.manual_seed(2)
    found = p.complete(noise, known)
    assert torch.equal(noise.nan_to_num(-1.0), before.nan_to_num(-1.0))
    assert torch.equal(found[..., known], x[..., known])
    assert p.support.check(found).all()
    torch.manual_seed(2)
    assert torch.equal(p.complete(x, known), found)


@every_model
def test_all_known_is_x_and_nothing_known_is_a_sample(make: Maker) -> None:
    p = make((3, 3, 5), 4)()
    x = torch.randint(4, (4, 3, 3, 5)).float()
    assert torch.equal(p.complete(x, torch.ones((), dtype=torch.bool)), x)
    torch.manual_seed(2)
    found = p.complete(x, torch.zeros(3, 5, dtype=torch.bool))
    torch.manual_seed(2)
    assert torch.equal(p.sample((4,)), found)


@every_model
def test_a_completion_is_that_of_a_pass_for_every_value(make: Maker) -> None:
    """Known values are passed over as drawn ones are: with the same noise the rest is what a whole pass gives."""
    model = alive(make((3, 3, 5), 3, context=2), 0.4)
    p = model(context_for(model, 6))
    x = torch.randint(3, (6, 3, 3, 5)).double()
    known = torch.zeros(3, 3, 5, dtype=torch.bool)
    known[:, 0], known[:, 1, :2], known[0, 1, 2] = True, True, True
    torch.manual_seed(2)
    found = p.complete(x, known)
    torch.manual_seed(2)
    expected = torch.where(known, x, 0.0)
    for row in range(1, 3):
        for column in range(5):
            for channel in range(3):
                if not known[channel, row, column]:
                    parameters = model.network(model.standardise(expected), p.context[..., None, None])
                    expected[:, channel, row, column] = model.draw(parameters[:, :, row, column])[:, channel]
    assert torch.equal(found, expected)


COMPLETED = {
    "binary": ({"shape": (1, 2, 2), "levels": 2}, 2),
    "colour, within a pixel": ({"shape": (3, 1, 2), "levels": 2}, 4),
    "logistic mixture": ({"shape": (2, 1, 2), "levels": 2, "likelihood": "logistic-mixture"}, 2),
}


@pytest.mark.parametrize(("case", "first"), COMPLETED.values(), ids=COMPLETED)
@every_model
def test_completions_are_draws_given_what_is_known(make: Maker, case: dict, first: int) -> None:
    """By enumeration: the `first` values are known. By Hoeffding, false alarm 1e-6; an error of 0.035 is caught as surely.

    The rest's probabilities without what is known are further off than that, as is checked.
    """
    levels = case["levels"]
    images = every_image(case["shape"], levels, torch.float32).view(levels**first, -1, *case["shape"])

    def gaps(model: AutoregressiveModel) -> Tensor:
        joint = model().log_prob(images).exp()
        return (joint / joint.sum(1, keepdim=True) - joint.sum(0)).abs().amax(1)

    model = telling(make(**case, layers=1), lambda model: gaps(model).max())
    given = int(gaps(model).argmax())  # of the values that can be known, those that say most about the rest
    assert gaps(model)[given] > 0.035
    channels, height, width = case["shape"]
    known = (torch.arange(channels * height * width) < first).view(height, width, channels).permute(2, 0, 1)
    completed = model().complete(images[given, 0].expand(DRAWS, *case["shape"]), known)
    rest = index_of(completed, levels) - given * images.shape[1]
    assert 0 <= rest.min() <= rest.max() < images.shape[1]
    expected = model().log_prob(images[given]).softmax(0)
    assert allowed(len(expected), DRAWS) < 0.0175
    found = rest.bincount(minlength=len(expected)) / DRAWS
    assert (found - expected).abs().max() < allowed(len(expected), DRAWS)


@every_model
def test_known_values_after_unknown_ones_are_kept_with_a_warning(make: Maker) -> None:
    p = make((1, 3, 5), 2)()
    x, known = torch.ones(2, 1, 3, 5), torch.zeros(3, 5, dtype=torch.bool)
    known[2] = True
    with pytest.warns(UserWarning, match="complete: some known values come after values to be drawn"):
        found = p.complete(x, known)
    assert (found[..., 2, :] == 1).all()


def test_the_warning_is_about_the_order_of_values() -> None:
    """Channels are innermost: a whole channel is after the others' pixels, the first channels of a pixel are before."""
    p, x = PixelCNN((3, 1, 2), 4, 12, 1)(), torch.zeros(2, 3, 1, 2)
    within = torch.tensor([[True, False], [True, False], [False, False]]).view(3, 1, 2)
    assert p.complete(x, within).shape == x.shape
    for known in (torch.tensor([True, False, False]).view(3, 1, 1), torch.tensor([False, True]).view(1, 1, 2)):
        with pytest.warns(UserWarning, match="in raster order with channels innermost"):
            p.complete(x, known)


def test_a_pixel_known_in_part_warns_where_its_channels_are_drawn_at_once() -> None:
    p, x = PixelCNN((3, 1, 2), 4, 12, 1, likelihood="logistic-mixture")(), torch.ones(2, 3, 1, 2)
    pixel = torch.tensor([True, False]).view(1, 1, 2)
    assert torch.equal(p.complete(x, pixel)[..., 0], x[..., 0])
    part = torch.tensor([[True, False], [False, False], [False, False]]).view(3, 1, 2)
    with pytest.warns(UserWarning, match="some pixels are known in part"):
        found = p.complete(x, part)
    assert (found[:, 0, 0, 0] == 1).all()


def own_masks() -> tuple[Tensor, Tensor]:
    """Images of ones, and what is known of them: of one the first 3 values, of another the first 8, and all, and none."""
    return torch.ones(4, 1, 3, 5), (torch.arange(15) < torch.tensor([[3], [8], [15], [0]])).view(4, 1, 3, 5)


@every_model
def test_each_image_may_have_known_values_of_its_own(make: Maker) -> None:
    model = alive(make((1, 3, 5), 2), 0.4)
    x, known = own_masks()
    torch.manual_seed(1)
    found = model().complete(x.double(), known)
    assert (found[known] == 1).all()
    torch.manual_seed(1)
    expected = torch.where(known, x.double(), 0.0)
    for row in range(3):
        for column in range(5):
            drawn = model.draw(model.network(model.standardise(expected), None)[:, :, row, column])
            here = known[:, :, row, column]
            expected[:, :, row, column] = torch.where(here, expected[:, :, row, column], drawn)
    assert torch.equal(found, expected)


def test_the_order_of_what_is_known_is_judged_in_each_image() -> None:
    x, known = own_masks()
    p = PixelCNN((1, 3, 5), 2, 6, 1)()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p.complete(x, known)
        whole_pixels = PixelCNN((3, 3, 5), 4, 12, 1, likelihood="logistic-mixture")()
        whole_pixels.complete(x.expand(4, 3, 3, 5), known)
    known[2, 0, 0, 0] = False  # of one image alone
    with pytest.warns(UserWarning, match="some known values come after"):
        p.complete(x, known)


def test_a_mask_may_have_any_shape_that_broadcasts() -> None:
    p = PixelCNN((2, 3, 5), 4, 8, 1)(None).expand((4,))
    x = torch.randint(4, (4, 2, 3, 5)).float()
    for shape in ((3, 5), (1, 3, 5), (2, 3, 5), (1, 1, 3, 5), (4, 2, 3, 5), (3, 1)):
        known = torch.zeros(shape, dtype=torch.bool)
        known[..., 0, :] = True
        assert torch.equal(p.complete(x, known)[..., 0, :], x[..., 0, :])
    alone = p.complete(x[0], torch.ones(3, 5, dtype=torch.bool))
    assert torch.equal(alone, x[0].expand(4, 2, 3, 5))  # x is broadcast as log_prob does
    for shape in ((5, 3), (3, 3, 5), (3, 2, 3, 5), (2, 4, 2, 3, 5)):
        with pytest.raises(ValueError, match=r"mask: expected a shape that broadcasts to \(4, 2, 3, 5\)"):
            p.complete(x, torch.ones(shape, dtype=torch.bool))


# ---- as a distribution ----


@every_model
def test_batch_shapes_are_those_of_torch(make: Maker) -> None:
    free, given = make((2, 3, 1), 3), make((2, 3, 1), 3, context=2)
    p, q = free(), given(torch.randn(5, 4, 2))
    assert isinstance(p, Autoregressive)
    assert (p.batch_shape, p.event_shape) == ((), (2, 3, 1))
    assert (q.batch_shape, q.event_shape) == ((5, 4), (2, 3, 1))
    assert given(torch.randn(2)).batch_shape == ()
    for d in (p, q, given(torch.randn(2))):
        x = d.sample((6, 2))
        assert x.shape == (6, 2, *d.batch_shape, 2, 3, 1)
        log_p = d.log_prob(x)
        assert log_p.shape == (6, 2, *d.batch_shape)
        torch.testing.assert_close(d.log_prob(x[1, 0]), log_p[1, 0])
        torch.testing.assert_close(d.log_prob(x[0].unsqueeze(1))[:, 0], log_p[0])
    one = torch.randint(3, (2, 3, 1)).float()
    assert p.log_prob(one).shape == ()
    assert q.log_prob(one).shape == (5, 4)
    assert q.log_prob(one.expand(4, 2, 3, 1)).shape == (5, 4)


@every_model
def test_a_batch_of_contexts_is_each_context_alone(make: Maker) -> None:
    model = alive(make((1, 3, 5), 2, context=(2, 3, 5)), 0.4)
    contexts, x = torch.randn(3, 4, 2, 3, 5).double(), torch.randint(2, (3, 4, 1, 3, 5)).double()
    whole = model(contexts).log_prob(x)
    for i in range(3):
        for j in range(4):
            torch.testing.assert_close(model(contexts[i, j]).log_prob(x[i, j]), whole[i, j])
    assert whole.unique().numel() == 12


def test_labels_have_any_batch_shape() -> None:
    model = GatedPixelCNN((1, 3, 2), 2, 4, 1, classes=3)
    assert model(torch.tensor(2)).batch_shape == ()
    assert model(torch.zeros(2, 4, dtype=torch.int64)).batch_shape == (2, 4)
    x = torch.randint(2, (3, 1, 3, 2)).float()
    each = torch.stack([model(torch.tensor(label)).log_prob(x[label]) for label in range(3)])
    torch.testing.assert_close(model(torch.arange(3)).log_prob(x), each)


@pytest.mark.parametrize("context", [0, 2])
@every_model
def test_expand_leaves_the_original_as_it_is(make: Maker, context: int) -> None:
    model = make((1, 3, 2), 2, context=context)
    d = model(torch.randn(1, 3, 2) if context else None)
    d = d if context else d.expand((1, 3))
    x = d.sample()
    score = d.log_prob(x)
    wide = d.expand((2, 4, 3))
    assert type(wide) is Autoregressive
    assert (wide.batch_shape, wide.event_shape) == ((2, 4, 3), (1, 3, 2))
    assert wide.sample((5,)).shape == (5, 2, 4, 3, 1, 3, 2)
    torch.testing.assert_close(wide.log_prob(x), score.expand(2, 4, 3))
    assert wide.expand((5, 2, 4, 3)).batch_shape == (5, 2, 4, 3)
    assert d.batch_shape == (1, 3)
    torch.testing.assert_close(d.log_prob(x), score)
    assert wide.support.check(wide.sample()).all()
    with pytest.raises(ValueError, match="whole levels"):
        wide.log_prob(x + 0.5)


def test_expanded_draws_differ() -> None:
    x = PixelCNN((1, 5, 5), 2, 6, 1)().expand((6,)).sample()
    assert len(x.unique(dim=0)) > 1


@every_model
def test_in_plates_and_masked(make: Maker) -> None:
    model = make((1, 3, 2), 2, context=2)
    context, x = torch.randn(4, 2), torch.randint(2, (4, 1, 3, 2)).float()
    keep = torch.tensor([True, False, True, True])

    def program() -> Tensor:
        with pyro.plate("particles", 3, dim=-2), pyro.plate("data", 4, dim=-1):
            pyro.sample("y", model(context))
            return pyro.sample("x", model(context).mask(keep), obs=x)

    trace = pyro.poutine.trace(program).get_trace()
    trace.compute_log_prob()
    expected = torch.where(keep, model(context).log_prob(x), 0.0).expand(3, 4)
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], expected)
    y = trace.nodes["y"]
    assert y["value"].shape == (3, 4, 1, 3, 2)
    torch.testing.assert_close(y["log_prob"], model(context).log_prob(y["value"]))
    assert isinstance(model(context).to_event(1), dist.Independent)
    torch.testing.assert_close(model(context).to_event(1).log_prob(x), model(context).log_prob(x).sum())


@every_model
def test_without_a_context_a_plate_gives_each_image_its_own_draw(make: Maker) -> None:
    model = make((1, 4, 3), 2)
    with pyro.plate("data", 16):
        x = pyro.sample("x", model())
    assert x.shape == (16, 1, 4, 3)
    assert len(x.unique(dim=0)) > 1


# ---- as a program ----

PROGRAMS = {
    "free": {"shape": (1, 3, 5), "levels": 2},
    "of a class": {"shape": (3, 3, 2), "levels": 4, "classes": 3},
    "of a vector": {"shape": (1, 3, 5), "levels": 2, "context": 3},
    "logistic mixture": {"shape": (3, 3, 2), "levels": 256},
}


@pytest.mark.parametrize("case", PROGRAMS.values(), ids=PROGRAMS)
@every_model
def test_every_bound_is_log_p(make: Maker, case: dict) -> None:
    model = make(**case)
    x, context = torch.randint(case["levels"], (7, *case["shape"])).float(), context_for(model, 7, torch.float32)
    batch = (x,) if context is None else (x, context)
    found = evaluate(
        model,
        batch,
        {"elbo": importance(1, elbo), "many": importance(5, elbo), "iwae": importance(5), "exact": exact()},
    )
    with torch.no_grad():
        expected = model(context).log_prob(x).double()
    for name, value in found.log_prob.items():
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-4, msg=name)
    assert found.kind["exact"] == "exact"
    assert found.measured_on["likelihood"] == "discrete"
    assert found.dimensions == x[0].numel()
    bits = -expected.mean() / (x[0].numel() * log(2))
    assert found.bits_per_dim("exact") == pytest.approx(float(bits), rel=1e-5)
    assert posterior(model, batch) == {}


@every_model
def test_the_program_observes_x_and_draws_nothing_else(make: Maker) -> None:
    model = make((1, 3, 2), 2)
    x = torch.randint(2, (4, 1, 3, 2)).float()
    trace = pyro.poutine.trace(model.model).get_trace(x)
    assert [name for name, site in trace.nodes.items() if site["type"] == "sample" and name != "data"] == ["x"]
    assert model.model(x) is x
    assert not pyro.poutine.trace(model.guide).get_trace(x).stochastic_nodes
    drawn = pyro.poutine.uncondition(model.model)(x)
    assert drawn.shape == x.shape


@every_model
def test_a_vae_with_such_a_decoder_is_given_its_latents(make: Maker) -> None:
    """log p(x | z) is the decoder's, and z moves it: it is not left out on the way."""
    vae = VAE((1, 3, 5), 2, 3, decoder=make((1, 3, 5), 2, context=3))
    x = torch.randint(2, (4, 1, 3, 5)).float()
    trace = pyro.poutine.trace(vae.model).get_trace(x)
    trace.compute_log_prob()
    z = trace.nodes["z"]["value"]
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], vae.decoder(z).log_prob(x))
    assert (vae.decoder(z).log_prob(x) - vae.decoder(z + 1).log_prob(x)).abs().min() > 1e-5


@every_model
def test_weights_go_through_a_file(make: Maker) -> None:
    model, other = make((3, 3, 5), 4, context=2), make((3, 3, 5), 4, context=2)
    context, x = torch.randn(4, 2), torch.randint(4, (4, 3, 3, 5)).float()
    assert not torch.equal(other(context).log_prob(x), model(context).log_prob(x))
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(model.state_dict())))
    assert torch.equal(other(context).log_prob(x), model(context).log_prob(x))
    torch.manual_seed(1)
    drawn = model(context).sample()
    torch.manual_seed(1)
    assert torch.equal(other(context).sample(), drawn)


@every_model
def test_a_draw_knows_the_parameters_as_they_are_now(make: Maker) -> None:
    """A distribution holds the model, not a copy of its weights: after a step, draws and scores are those of the new."""
    model = make((1, 3, 5), 2)
    p, x = model(), torch.randint(2, (2, 1, 3, 5)).float()
    p.sample()
    alive(model, 0.4).float()
    torch.testing.assert_close(p.log_prob(x), model().log_prob(x))
    torch.manual_seed(1)
    drawn = p.sample((3,))
    torch.manual_seed(1)
    assert torch.equal(model().sample((3,)), drawn)


@every_model
def test_the_layout_of_weights_changes_no_number(make: Maker) -> None:
    model, other = make((3, 3, 5), 4, context=2), make((3, 3, 5), 4, context=2)
    other.load_state_dict(model.state_dict())
    other = other.to(memory_format=torch.channels_last)
    context, x = torch.randn(4, 2), torch.randint(4, (4, 3, 3, 5)).float()
    torch.testing.assert_close(other(context).log_prob(x), model(context).log_prob(x))
    torch.manual_seed(1)
    drawn = model(context).sample()
    torch.manual_seed(1)
    assert torch.equal(other(context).sample(), drawn)


@every_model
def test_under_autocast_numbers_are_float32_and_draws_are_levels(make: Maker) -> None:
    model = make((3, 3, 5), 4, context=2)
    p, x = model(torch.randn(4, 2)), torch.randint(4, (4, 3, 3, 5)).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        log_p, drawn = p.log_prob(x), p.sample((2,))
    assert log_p.dtype == drawn.dtype == torch.float32
    torch.testing.assert_close(log_p, p.log_prob(x), rtol=0, atol=0.5)
    assert p.support.check(drawn).all()


# ---- a head's own draw ----

HEADS: dict[str, Callable[[], Head]] = {
    "bernoulli": BernoulliHead,
    "categorical": lambda: CategoricalHead(3),
    "discretized normal": lambda: DiscretizedNormalHead(3),
    "logistic mixture": lambda: LogisticMixtureHead(3, 2),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_draws_what_it_scores(name: str) -> None:
    """Frequencies of a pixel's colours, by Hoeffding: false alarm 1e-6; a probability off by 0.02 is caught as surely."""
    head, draws = HEADS[name](), 100_000
    levels = 2 if name == "bernoulli" else 3
    for channels in (1, 3):
        colours = every_image((channels, 1, 1), levels, torch.float32)
        for parameters in torch.randn(2, 1, head.outputs(channels)):
            p = head(parameters[..., None, None]).log_prob(colours).exp()
            assert float(p.sum()) == pytest.approx(1.0, abs=1e-5)
            drawn = head.draw(parameters.expand(draws, -1))
            assert drawn.shape == (draws, channels)
            assert drawn.dtype == torch.float32
            found = index_of(drawn[..., None, None], levels).bincount(minlength=len(colours)) / draws
            assert allowed(len(colours), draws) < 0.01
            assert (found - p).abs().max() < allowed(len(colours), draws)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_draws_each_row_from_its_own_parameters(name: str) -> None:
    """Rows of opposite parameters, and extreme ones: a draw is then all but certain, in the precision of the parameters."""
    head = HEADS[name]()
    parameters = torch.zeros(2, head.outputs(1), dtype=torch.float64)
    if name == "categorical":
        parameters[0, 0] = parameters[1, 2] = 200.0
    else:
        place = 1 if name == "logistic mixture" else 0  # after the component's logit
        parameters[0, place], parameters[1, place] = -200.0, 200.0
        if name == "logistic mixture":
            parameters[:, place + 3] = parameters[:, place]  # the second component
    drawn = head.draw(parameters)
    assert drawn.dtype == torch.float64
    assert drawn.flatten().tolist() == [0.0, 1.0 if name == "bernoulli" else 2.0]
    assert head.draw(parameters.bfloat16()).dtype == torch.float32


# ---- what is refused ----


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.full((2, 1, 3, 5), 4.0), r"x: expected whole levels 0\.\.3, got values between 4 and 4"),
        (torch.full((2, 1, 3, 5), -1.0), r"x: expected whole levels 0\.\.3, got values between -1 and -1"),
        (torch.full((2, 1, 3, 5), 0.5), "30 of them not whole"),
        (torch.full((2, 1, 3, 5), torch.nan), r"x: expected whole levels 0\.\.3"),
        (torch.full((2, 1, 3, 5), torch.inf), r"x: expected whole levels 0\.\.3"),
        (
            torch.zeros(2, 1, 3, 5, dtype=torch.int64),
            r"x: expected levels as floats, got torch\.int64; call x\.float\(\)",
        ),
        (torch.zeros(2, 1, 3, 5, dtype=torch.bool), r"x: expected levels as floats, got torch\.bool"),
        (
            torch.zeros(2, 1, 5, 3),
            r"x: expected images \(1, 3, 5\) \(channel, height, width\), got shape \(2, 1, 5, 3\)",
        ),
        (torch.zeros(2, 3, 3, 5), r"x: expected images \(1, 3, 5\)"),
        (torch.zeros(2, 15), r"x: expected images \(1, 3, 5\)"),
        (torch.zeros(5), r"x: expected images \(1, 3, 5\)"),
    ],
)
def test_wrong_images_are_refused(wrong: Tensor, message: str) -> None:
    model = GatedPixelCNN((1, 3, 5), 4, 4, 1)
    everything_known = torch.ones((), dtype=torch.bool)
    refusing: list[Callable[[], object]] = [
        lambda: model().log_prob(wrong),
        lambda: model().conditionals(wrong),
        lambda: model().complete(wrong, everything_known),
        lambda: pyro.poutine.trace(model.model).get_trace(wrong).compute_log_prob(),
    ]
    for call in refusing:
        with pytest.raises(ValueError, match=message):
            call()


def test_without_validation_values_are_not_read() -> None:
    model, x = PixelCNN((1, 3, 5), 2, 6, 1), torch.full((2, 1, 3, 5), 0.5)
    with pytest.raises(ValueError, match="whole levels"):
        model().log_prob(x)
    with pyro.validation_enabled(False):
        assert model().log_prob(x).isfinite().all()
        assert model().expand((2,)).log_prob(x).isfinite().all()
        with pytest.raises(ValueError, match="expected images"):
            model().log_prob(x[..., :4])


@every_model
def test_wrong_contexts_are_refused(make: Maker) -> None:
    shape = (1, 3, 5)
    free, vector = make(shape, 2), make(shape, 2, context=4)
    maps, labelled = make(shape, 2, context=(2, 3, 5)), make(shape, 2, classes=3)
    wrong: list[tuple[AutoregressiveModel, Tensor | None, str]] = [
        (free, torch.zeros(2, 4), r"context: expected none, got \(2, 4\)"),
        (vector, None, r"context: expected the shape \(…, 4\), got none"),
        (vector, torch.zeros(2, 3), r"context: expected the shape \(…, 4\), got \(2, 3\)"),
        (vector, torch.zeros(()), r"context: expected the shape \(…, 4\), got \(\)"),
        (maps, torch.zeros(2, 2, 5, 3), r"context: expected the shape \(…, 2, 3, 5\), got \(2, 2, 5, 3\)"),
        (maps, torch.zeros(3, 5), r"context: expected the shape \(…, 2, 3, 5\), got \(3, 5\)"),
        (labelled, None, r"context: expected labels 0\.\.2, one for each image, got none"),
        (labelled, torch.zeros(2), r"context: expected int64 labels 0\.\.2, got torch\.float32"),
        (labelled, torch.tensor([0, 3]), r"context: expected labels 0\.\.2, got 0\.\.3"),
        (labelled, torch.tensor([-1, 0]), r"context: expected labels 0\.\.2, got -1\.\.0"),
    ]
    for model, context, message in wrong:
        with pytest.raises(ValueError, match=message):
            model(context)


@every_model
def test_a_context_of_another_batch_is_refused(make: Maker) -> None:
    vector, labelled = make((1, 3, 5), 2, context=4), make((1, 3, 5), 2, classes=3)
    x = torch.zeros(4, 1, 3, 5)
    with pytest.raises(
        ValueError, match=r"x: expected a batch that broadcasts with \(3,\), that of the context, got \(4,\)"
    ):
        vector(torch.zeros(3, 4)).log_prob(x)
    with pytest.raises(ValueError, match="x: expected a batch that broadcasts"):
        labelled(torch.zeros(3, dtype=torch.int64)).complete(x, torch.ones((), dtype=torch.bool))
    for model, context in ((vector, torch.zeros(3, 4)), (labelled, torch.zeros(1, dtype=torch.int64))):
        with pytest.raises(ValueError, match=r"context: expected shape \(4,.*one for each image in x, got \([13]"):
            model.model(x, context)
    with pytest.raises(ValueError, match="context: expected the shape"):
        vector.model(x)


def test_an_empty_batch_has_no_numbers() -> None:
    model = PixelCNN((1, 3, 5), 2, 6, 1)
    assert model().log_prob(torch.zeros(0, 1, 3, 5)).shape == (0,)
    assert model().complete(torch.zeros(0, 1, 3, 5), torch.ones((), dtype=torch.bool)).shape == (0, 1, 3, 5)


@pytest.mark.parametrize("kind", [RowLSTM, DiagonalBiLSTM])
def test_a_gradient_of_a_gradient_is_refused_rather_than_wrong(kind: type[AutoregressiveModel]) -> None:
    model = kind((1, 3, 5), 2, 4, 1)
    x = torch.zeros(2, 1, 3, 5, requires_grad=True)
    with pytest.raises(NotImplementedError, match="differentiable once"):
        torch.autograd.grad(model.network(x, None).sum(), x, create_graph=True)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a head of other levels": (
        lambda: PixelCNN((1, 3, 5), 17, likelihood=CategoricalHead(256)),
        "likelihood: expected a head of 17 levels.*CategoricalHead of 256",
    ),
    "a normal head": (
        lambda: PixelCNN((1, 3, 5), 17, likelihood=NormalHead()),
        "likelihood:.*NormalHead of real numbers",
    ),
    "a column of labels": (
        lambda: PixelCNN((1, 3, 5), 2, classes=3).model(torch.zeros(4, 1, 3, 5), torch.zeros(4, 1, dtype=torch.int64)),
        r"context: expected shape \(4,\)",
    ),
    "a single image": (lambda: PixelCNN((3, 3, 5), 2).model(torch.zeros(3, 3, 5)), "x: expected images.*pass a batch"),
    "doubles": (
        lambda: PixelCNN((1, 3, 5), 2)().log_prob(torch.zeros(2, 1, 3, 5, dtype=torch.float64)),
        r"x: expected torch\.float32, as the parameters are, got torch\.float64",
    ),
    "a context in doubles": (
        lambda: PixelCNN((1, 3, 5), 2, context=3)(torch.zeros(2, 3, dtype=torch.float64)),
        r"context: expected torch\.float32",
    ),
    "labels in a list": (lambda: PixelCNN((1, 3, 5), 2, classes=3)([0, 1]), "context: expected int64 labels"),  # type: ignore[arg-type]
    "a negative context": (lambda: PixelCNN((1, 3, 5), 2, context=-1), "context: expected the length of a vector"),
    "one level": (lambda: PixelCNN((1, 3, 5), 1), "levels: expected a whole number of at least 2, got 1"),
    "no levels": (lambda: RowLSTM((1, 3, 5), None), "levels: expected a whole number of at least 2, got None"),  # type: ignore[arg-type]
    "a vector": (lambda: CharRNN((5,), 2), r"expected \(channel, height, width\), got \(5,\)"),
    "even kernel": (lambda: GatedPixelCNN((1, 3, 5), 2, kernel=4), "kernel: expected an odd width, got 4; take 5"),
    "classes and context": (
        lambda: DiagonalBiLSTM((1, 3, 5), 2, classes=3, context=2),
        "context: expected none beside classes=3, which are the context, got 2",
    ),
    "a map of another size": (
        lambda: CharRNN((1, 3, 5), 2, context=(2, 5, 3)),
        r"context: expected a map of the image's size \(3, 5\), got \(2, 5, 3\)",
    ),
    "unknown likelihood": (lambda: PixelCNN((1, 3, 5), 2, likelihood="poisson"), "likelihood: expected one of"),
    "a density": (lambda: PixelCNN((1, 3, 5), 2, likelihood="normal"), "normal: expected real numbers"),
    "char rnn, few features": (
        lambda: CharRNN((3, 3, 5), 4, hidden=2),
        "features: expected 1 equal blocks of at least 3",
    ),
    "row lstm, few features": (
        lambda: RowLSTM((3, 3, 5), 4, hidden=2),
        "features: expected 4 equal blocks of at least 3",
    ),
    "diagonal bilstm, few features": (
        lambda: DiagonalBiLSTM((3, 3, 5), 4, hidden=2),
        "features: expected 8 equal blocks of at least 3",
    ),
    "pixelcnn, few features": (
        lambda: PixelCNN((3, 3, 5), 4, features=4),
        "features: expected 1 equal blocks of at least 3",
    ),
    "gated, few features": (
        lambda: GatedPixelCNN((3, 3, 5), 4, features=2),
        "features: expected 2 equal blocks of at least 3",
    ),
}


@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_models_that_can_not_be_are_refused(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_the_models_are_those_of_the_package() -> None:
    """So that a new one is put under these laws."""
    kinds = {type(make((1, 3, 5), 2)) for make in MODELS.values()}
    assert kinds == {CharRNN, RowLSTM, DiagonalBiLSTM, PixelCNN, GatedPixelCNN}
    assert {kind for kind in AutoregressiveModel.__subclasses__() if kind.__module__.startswith("ppmodels.")} == kinds
