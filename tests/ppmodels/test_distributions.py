"""Laws of the distributions over levels: they sum to one, agree with references, are sampled as they are scored."""

from collections.abc import Callable
from math import log, sqrt

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ppmodels.distributions import (
    CategoricalLevels,
    DiscretizedLogisticMixture,
    DiscretizedNormal,
    Implicit,
    LevelsDistribution,
)


def categorical(batch: tuple[int, ...] = (), levels: int = 4, **kind) -> CategoricalLevels:
    return CategoricalLevels(torch.randn(*batch, levels, **kind))


def normal(batch: tuple[int, ...] = (), levels: int = 4, **kind) -> DiscretizedNormal:
    loc = 0.5 * levels + torch.randn(batch, **kind)
    return DiscretizedNormal(loc, 0.3 + torch.rand(batch, **kind), levels)


def mixture(
    batch: tuple[int, ...] = (), levels: int = 4, channels: int = 1, side: int = 1, coupled: bool = False, **kind
) -> DiscretizedLogisticMixture:
    shape = (*batch, 3, channels, side, side)
    pairs = channels * (channels - 1) // 2
    return DiscretizedLogisticMixture(
        torch.randn(*batch, 3, side, side, **kind),
        0.5 * levels + 0.3 * levels * torch.randn(shape, **kind),
        0.3 + torch.rand(shape, **kind),
        levels,
        torch.randn(*batch, 3, pairs, side, side, **kind) if coupled else None,
    )


def colour(batch: tuple[int, ...] = (), levels: int = 3, **kind) -> DiscretizedLogisticMixture:
    return mixture(batch, levels, channels=3, coupled=True, **kind)


MAKERS: dict[str, Callable[..., LevelsDistribution]] = {
    "categorical": categorical,
    "normal": normal,
    "mixture": mixture,
    "colour": colour,
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def every_value(d: LevelsDistribution) -> Tensor:
    """All values of an event of few levels, `(values, *ones of the batch, *event)`."""
    size = d.event_shape.numel()
    grid = torch.cartesian_prod(*[torch.arange(float(d.levels))] * size).reshape(-1, size)
    parameter = getattr(d, next(iter(d.arg_constraints)))
    return grid.reshape(-1, *[1] * len(d.batch_shape), *d.event_shape).to(parameter)


def total(d: LevelsDistribution) -> Tensor:
    return d.log_prob(every_value(d)).double().exp().sum(0)


# ---- the levels sum to one, in float32 ----

finite = {"allow_nan": False, "width": 32}
scales = st.floats(-4, 4, **finite).map(lambda power: 10.0**power)


def locs(levels: int) -> st.SearchStrategy[float]:
    half_steps = st.integers(-2, 2 * levels).map(lambda k: k - 0.5)  # on an edge, where neighbours must share it
    return st.floats(-2.0 * levels, 3.0 * levels, **finite) | half_steps


@settings(deadline=None, max_examples=100, derandomize=True)
@given(data=st.data(), levels=st.integers(2, 300))
def test_categorical_sums_to_one(data: st.DataObject, levels: int) -> None:
    logits = data.draw(st.lists(st.floats(-50, 50, **finite), min_size=levels, max_size=levels))
    assert abs(float(total(CategoricalLevels(torch.tensor(logits)))) - 1) < 1e-6


@settings(deadline=None, max_examples=300, derandomize=True)
@given(data=st.data(), levels=st.integers(2, 300), scale=scales)
def test_normal_sums_to_one(data: st.DataObject, levels: int, scale: float) -> None:
    loc = data.draw(locs(levels))
    assert abs(float(total(DiscretizedNormal(torch.tensor(loc), torch.tensor(scale), levels))) - 1) < 1e-6


@settings(deadline=None, max_examples=300, derandomize=True)
@given(data=st.data(), levels=st.integers(2, 300), components=st.integers(1, 4))
def test_mixture_sums_to_one(data: st.DataObject, levels: int, components: int) -> None:
    def draw(values: st.SearchStrategy[float], *shape: int) -> Tensor:
        return torch.tensor(data.draw(st.lists(values, min_size=components, max_size=components))).reshape(shape)

    logits = draw(st.floats(-20, 20, **finite), -1, 1, 1)
    d = DiscretizedLogisticMixture(logits, draw(locs(levels), -1, 1, 1, 1), draw(scales, -1, 1, 1, 1), levels)
    assert abs(float(total(d)) - 1) < 1e-6


@settings(deadline=None, max_examples=200, derandomize=True)
@given(data=st.data())
def test_coupled_channels_sum_to_one_over_all_64_colours(data: st.DataObject) -> None:
    def draw(values: st.SearchStrategy[float], *shape: int) -> Tensor:
        n = int(np.prod(shape))
        return torch.tensor(data.draw(st.lists(values, min_size=n, max_size=n))).reshape(shape)

    d = DiscretizedLogisticMixture(
        draw(st.floats(-5, 5, **finite), 2, 1, 1),
        draw(locs(4), 2, 3, 1, 1),
        draw(scales, 2, 3, 1, 1),
        4,
        draw(st.floats(-3, 3, **finite), 2, 3, 1, 1),
    )
    assert abs(float(total(d)) - 1) < 1e-6


# ---- references written another way: quadrature of the density over a bin, tails from scipy ----


def binned(continuous: scipy.stats.rv_continuous, k: float, levels: int, loc: float, scale: float) -> float:
    """log P(level k) of a density: 150 Gauss-Legendre nodes inside, scipy's tails at the ends."""
    if k == 0:
        return float(continuous.logcdf(0.5, loc, scale))
    if k == levels - 1:
        return float(continuous.logsf(levels - 1.5, loc, scale))
    nodes, weights = np.polynomial.legendre.leggauss(150)
    return float(scipy.special.logsumexp(continuous.logpdf(k + nodes / 2, loc, scale), b=weights / 2))


@pytest.mark.parametrize("scale", [0.3, 2.0, 40.0, 1e4])
@pytest.mark.parametrize("loc", [-30.0, 0.0, 4.3, 15.5, 80.0])
def test_normal_agrees_with_quadrature(loc: float, scale: float) -> None:
    k = torch.arange(16.0, dtype=torch.float64)
    d = DiscretizedNormal(torch.tensor(loc, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64), 16)
    expected = [binned(scipy.stats.norm, float(level), 16, loc, scale) for level in k]
    np.testing.assert_allclose(d.log_prob(k).numpy(), expected, rtol=1e-13, atol=1e-13)
    single = DiscretizedNormal(torch.tensor(loc), torch.tensor(scale), 16).log_prob(k.float())
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("scale", [0.3, 5.0, 1e4])
def test_mixture_agrees_with_quadrature(scale: float, coupled: bool) -> None:
    torch.manual_seed(0)
    d = mixture((), 8, channels=3, side=2, coupled=coupled, dtype=torch.float64)
    couplings = d.coefficients if coupled else None
    d = DiscretizedLogisticMixture(d.logits, d.loc, scale * d.scale, 8, couplings)
    x = torch.randint(0, 8, (3, 2, 2)).double()
    x[:, 0, 0] = torch.tensor([0.0, 7.0, 0.0])
    expected = 0.0
    for row, column in np.ndindex(2, 2):
        pixel = x[:, row, column].tolist()
        by_component = d.logits[:, row, column].log_softmax(0).tolist()
        for k in range(3):
            loc, width = d.loc[k, :, row, column].tolist(), d.scale[k, :, row, column].tolist()
            if coupled:
                one, two, three = d.coefficients[k, :, row, column].tolist()
                loc[1] += one * (pixel[0] - 3.5)
                loc[2] += two * (pixel[0] - 3.5) + three * (pixel[1] - 3.5)
            by_component[k] += sum(binned(scipy.stats.logistic, pixel[c], 8, loc[c], width[c]) for c in range(3))
        expected += float(scipy.special.logsumexp(by_component))
    assert float(d.log_prob(x)) == pytest.approx(expected, rel=1e-11)
    couplings = None if couplings is None else couplings.float()
    single = DiscretizedLogisticMixture(d.logits.float(), d.loc.float(), d.scale.float(), 8, couplings)
    assert float(single.log_prob(x.float())) == pytest.approx(expected, rel=1e-5)


def test_categorical_agrees_with_softmax() -> None:
    logits = torch.randn(5, 7, dtype=torch.float64)
    x = torch.tensor([0.0, 6.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    expected = scipy.special.log_softmax(logits.numpy(), 1)[np.arange(5), x.long().numpy()]
    np.testing.assert_allclose(CategoricalLevels(logits).log_prob(x).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("pair", range(6))
def test_each_coefficient_couples_the_two_channels_that_it_is_documented_for(pair: int) -> None:
    later, earlier = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)][pair]
    coefficients = torch.zeros(1, 6, 1, 1)
    coefficients[0, pair] = 2.0
    loc = torch.tensor([6.0, 3.0, 8.0, 4.0]).reshape(1, 4, 1, 1)
    # So narrow that a draw is its location: that of the earlier channel, from the middle level 5, twice.
    d = DiscretizedLogisticMixture(torch.zeros(1, 1, 1), loc, torch.full_like(loc, 1e-3), 11, coefficients)
    expected = loc[0].clone()
    expected[later] += 2 * (expected[earlier] - 5)
    expected = expected.clamp(0, 10)
    assert torch.equal(d.sample(), expected)
    assert float(d.log_prob(expected)) == pytest.approx(0.0, abs=1e-6)


# ---- gradients ----


def in_many_digits(k: float, loc: float, scale: float, levels: int) -> tuple[mpmath.mpf, ...]:
    """log P(level k) of a rounded normal and its derivatives by loc and scale, in so many digits that none is missed."""
    with mpmath.workdps(200):
        low, high = ((mpmath.mpf(k) + half - loc) / mpmath.mpf(scale) for half in (-0.5, 0.5))
        ends = [low if k > 0 else -mpmath.inf, high if k < levels - 1 else mpmath.inf]
        mirrored = sum(ends) > 0
        a, b = (-ends[1], -ends[0]) if mirrored else ends
        gap = tail(b) - tail(a)
        log_p = tail(b) + mpmath.log(-mpmath.expm1(-gap))
        at = [0 if mpmath.isinf(x) else mpmath.exp(-(x**2) / 2 - log_p) / mpmath.sqrt(2 * mpmath.pi) for x in (a, b)]
        mean = (at[0] - at[1]) * (-1 if mirrored else 1)
        square = sum(0 if mpmath.isinf(x) else sign * x * p for x, p, sign in ((a, at[0], 1), (b, at[1], -1)))
        return log_p, mean / scale, square / scale


def tail(x: mpmath.mpf) -> mpmath.mpf:
    """log Φ(x) in the left tail, far out by its asymptotic series."""
    if mpmath.isinf(x):
        return x
    if x > -1e5:
        return mpmath.log(mpmath.erfc(-x / mpmath.sqrt(2)) / 2)
    series = sum(c / x ** (2 * i) for i, c in enumerate((1, -1, 3, -15, 105)))
    return -(x**2) / 2 - mpmath.log(-x) - mpmath.log(2 * mpmath.pi) / 2 + mpmath.log(series)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [-44, -38, -26, -20, -14, -11, -9, -6, -2, -1, 0, 1, 2, 4, 7, 20, 37])
def test_a_rounded_normal_is_right_at_every_scale(power: int, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max * 2.0**-20
    cases = [(k, loc) for loc in (-300.0, 0.0, 0.5, 3.3, 127.25, 255.5, 1e5) for k in (0.0, 1.0, 127.0, 254.0, 255.0)]
    k, loc = torch.tensor(cases, dtype=dtype).T
    loc = loc.clone().requires_grad_()
    scale = torch.full_like(k, 1.3 * 10.0**power).requires_grad_()
    log_p = DiscretizedNormal(loc, scale, 256).log_prob(k)
    log_p.sum().backward()
    expected = [
        in_many_digits(level, at, scale[0].item(), 256) for level, at in zip(k.tolist(), loc.tolist(), strict=True)
    ]
    roundings = 20 * torch.finfo(dtype).eps
    for found, column, unit in zip(
        (log_p, loc.grad, scale.grad), zip(*expected, strict=True), (1.0, scale[0].item(), scale[0].item()), strict=True
    ):
        assert found is not None
        for value, right in zip(found.tolist(), column, strict=True):
            right = max(min(right, largest), -largest)
            assert abs(value - right) <= roundings * (abs(right) + 1 / unit), (value, float(right))


def test_a_rounded_normal_has_second_derivatives() -> None:
    k = torch.tensor([0.0, 1.0, 5.0, 15.0], dtype=torch.float64)
    for scale in (0.05, 0.7, 5.0, 300.0):
        parameters = [torch.tensor([0.2, 3.1, 4.6, 9.0]).double(), torch.full((4,), scale).double()]
        assert torch.autograd.gradgradcheck(
            lambda loc, scale: DiscretizedNormal(loc, scale, 16).log_prob(k),
            [parameter.requires_grad_() for parameter in parameters],
        )


@pytest.mark.parametrize("power", [-12, -9, -1, 0, 4, 20, 29])
def test_a_rounded_logistic_is_right_at_every_scale_that_it_takes(power: int) -> None:
    k = torch.tensor([0.0, 1.0, 127.0, 254.0, 255.0]).repeat(6)
    loc = torch.tensor([-1e9, -300.0, 0.5, 127.25, 255.5, 1e9]).repeat_interleave(5).requires_grad_()
    scale = torch.full_like(k, 1.3 * 10.0**power).requires_grad_()
    shape = (30, 1, 1, 1, 1)
    d = DiscretizedLogisticMixture(torch.zeros(30, 1, 1, 1), loc.reshape(shape), scale.reshape(shape), 256)
    log_p = d.log_prob(k.reshape(30, 1, 1, 1))
    log_p.sum().backward()
    for row, (level, at) in enumerate(zip(k.tolist(), loc.tolist(), strict=True)):
        width = mpmath.mpf(scale[0].item())
        upper = (level + 0.5 - at) / width if level < 255 else mpmath.inf
        lower = (level - 0.5 - at) / width if level > 0 else -mpmath.inf
        with mpmath.workdps(100):
            right = -mpmath.log1p(mpmath.exp(-upper)) - mpmath.log1p(mpmath.exp(lower))
            right += mpmath.log(-mpmath.expm1(lower - upper))
        assert abs(log_p[row].item() - right) <= 1e-6 * (abs(right) + 1)
    assert loc.grad is not None
    assert scale.grad is not None
    # Far above, a unit of loc is worth 1 / scale; far below, likewise; and the derivative by the scale follows.
    far = 1 / scale[0].item() if power < 8 else 0.0
    if far:
        assert float(loc.grad[1]) == pytest.approx(far, rel=1e-5)
        assert float(loc.grad[-2]) == pytest.approx(-far, rel=1e-5)
        assert float(scale.grad[1]) == pytest.approx(1e9 * far**2, rel=1e-4)


@pytest.mark.parametrize("make", [categorical, normal, colour])
def test_gradients_agree_with_finite_differences(make: Callable[..., LevelsDistribution]) -> None:
    torch.manual_seed(1)
    d = make((2,), dtype=torch.float64)
    names = list(d.arg_constraints)
    x = d.sample((3,))
    kind, levels = type(d), d.levels

    def log_p(*parameters: Tensor) -> Tensor:
        extra = {} if kind is CategoricalLevels else {"levels": levels}
        return kind(**dict(zip(names, parameters, strict=True)), **extra, validate_args=False).log_prob(x)

    assert torch.autograd.gradcheck(log_p, [getattr(d, name).clone().requires_grad_() for name in names])


@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1e-12, 1e-4, 1.0, 1e4, 1e7, 1e20, 1e38])
@pytest.mark.parametrize("loc", [-1e9, -1e5, -0.5, 0.5, 100.0, 127.5, 255.5, 1e5])
@pytest.mark.parametrize("kind", [DiscretizedNormal, DiscretizedLogisticMixture])
def test_log_probabilities_and_gradients_stay_finite(kind: type, loc: float, scale: float) -> None:
    k = torch.arange(256.0)
    location, width = torch.full((256,), loc, requires_grad=True), torch.full((256,), scale, requires_grad=True)
    if kind is DiscretizedNormal:
        log_p = DiscretizedNormal(location, width, 256).log_prob(k)
    else:
        one = (256, 1, 1, 1, 1)
        d = DiscretizedLogisticMixture(torch.zeros(256, 1, 1, 1), location.reshape(one), width.reshape(one), 256)
        log_p = d.log_prob(k.reshape(256, 1, 1, 1))
    log_p.sum().backward()
    for value in (log_p, location.grad, width.grad):
        assert value is not None
        assert value.isfinite().all()


def test_scores_under_vmap_and_grad() -> None:
    def log_p(loc: Tensor) -> Tensor:
        return DiscretizedNormal(loc, loc.new_ones(()), 8, validate_args=False).log_prob(loc.new_ones(()))

    loc = torch.tensor([0.3, 5.0], dtype=torch.float64)
    each = torch.func.vmap(torch.func.grad(log_p))(loc)
    step = 1e-6
    expected = torch.stack([(log_p(value + step) - log_p(value - step)) / (2 * step) for value in loc])
    torch.testing.assert_close(each, expected, rtol=1e-7, atol=1e-9)


# ---- samples ----


@every
def test_frequencies_match_the_probabilities(make: Callable[..., LevelsDistribution]) -> None:
    # Hoeffding over all values: false alarm 1e-6. With 200,000 draws a probability that is off by 0.014 is caught
    # with the same certainty.
    torch.manual_seed(2)
    d, draws = make(), 200_000
    x = d.sample((draws,))
    values = every_value(d)
    allowed = sqrt(log(2 * len(values) / 1e-6) / (2 * draws))
    assert allowed < 0.007
    weights = d.levels ** torch.arange(d.event_shape.numel() - 1, -1, -1)
    code = (x.reshape(draws, -1).long() * weights).sum(1)
    frequency = code.bincount(minlength=len(values)) / draws
    assert float((frequency - d.log_prob(values).exp()).abs().max()) < allowed


@every
def test_draws_lie_in_the_support_and_have_the_shape(make: Callable[..., LevelsDistribution]) -> None:
    d = make((2, 3))
    x = d.sample((5,))
    assert x.shape == (5, 2, 3, *d.event_shape)
    assert x.dtype == torch.float32
    assert d.support.check(x).all()
    assert d.support.event_dim == d.event_dim
    assert d.log_prob(x).shape == (5, 2, 3)
    assert make((2,), dtype=torch.float64).sample().dtype == torch.float64


@pytest.mark.parametrize("make", [categorical, normal, mixture])
def test_mean_agrees_with_enumeration(make: Callable[..., LevelsDistribution]) -> None:
    torch.manual_seed(3)
    d = make((5,), levels=9, dtype=torch.float64)
    x = every_value(d)
    p = d.log_prob(x).exp()
    expected = (x * p.reshape(*p.shape, *[1] * d.event_dim)).sum(0)
    torch.testing.assert_close(d.mean, expected, rtol=1e-10, atol=1e-10)


def test_mean_of_coupled_channels_says_what_to_do() -> None:
    with pytest.raises(NotImplementedError, match="average draws"):
        _ = colour().mean


def test_repeated_draws_of_an_implicit_have_noise_of_their_own() -> None:
    torch.manual_seed(6)
    weight = torch.ones((), requires_grad=True)
    d = Implicit(lambda: weight * torch.randn(5, 2), (5,), (2,))
    drawn = d.rsample((3, 4))
    assert drawn.shape == (3, 4, 5, 2)
    assert len(drawn.flatten(0, 1)[:, 0, 0].unique()) == 12
    assert drawn.requires_grad
    assert not d.sample((2,)).requires_grad
    with pytest.raises(ValueError, match=r"expected its draw to have shape \(5, 2\), .* got \(5, 3\)"):
        Implicit(lambda: torch.randn(5, 3), (5,), (2,)).sample()
    with pytest.raises(ValueError, match=r"draws a batch of \(5,\), and its plates ask for \(4, 5\)"):
        d.expand((4, 5))


# ---- as Pyro distributions ----


@every
def test_expand_leaves_the_original_as_it_is(make: Callable[..., LevelsDistribution]) -> None:
    torch.manual_seed(4)
    d = make((1, 3))
    x = d.sample()
    before, score = d.batch_shape, d.log_prob(x)
    wide = d.expand((2, 4, 3))
    assert type(wide) is type(d)
    assert wide.batch_shape == (2, 4, 3)
    assert wide.sample().shape == (2, 4, 3, *d.event_shape)
    torch.testing.assert_close(wide.log_prob(x), score.expand(2, 4, 3))
    assert d.batch_shape == before
    torch.testing.assert_close(d.log_prob(x), score)
    assert wide.expand((5, 2, 4, 3)).batch_shape == (5, 2, 4, 3)


@every
def test_in_a_plate_with_to_event_and_mask(make: Callable[..., LevelsDistribution]) -> None:
    torch.manual_seed(5)
    d = make((6, 2))
    x = d.sample()
    keep = torch.tensor([True, False, True, True, False, True])

    def model() -> Tensor:
        with pyro.plate("data", 6):
            return pyro.sample("x", d.to_event(1).mask(keep), obs=x)

    site = pyro.poutine.trace(model).get_trace()
    site.compute_log_prob()
    torch.testing.assert_close(site.nodes["x"]["log_prob"], torch.where(keep, d.log_prob(x).sum(1), 0.0))

    def prior() -> Tensor:
        with pyro.plate("data", 7):
            return pyro.sample("x", make())

    assert prior().shape == (7, *d.event_shape)


@every
@pytest.mark.parametrize("wrong", [0.5, 4.0, -1.0, float("nan")])
def test_values_outside_the_support_are_refused(make: Callable[..., LevelsDistribution], wrong: float) -> None:
    d = make((2,), levels=4)
    x = d.sample()
    x.view(-1)[0] = wrong
    with pytest.raises(ValueError, match="support"):
        d.log_prob(x)
    unchecked = d.expand((2,))
    unchecked._validate_args = False
    assert unchecked.log_prob(d.sample()).isfinite().all()


@every
def test_runs_on_the_meta_device(make: Callable[..., LevelsDistribution]) -> None:
    with pyro.validation_enabled(False):
        d = make((2,), device="meta")
        parameters = [getattr(d, name).detach().requires_grad_() for name in d.arg_constraints]
        extra = {} if isinstance(d, CategoricalLevels) else {"levels": d.levels}
        d = type(d)(**dict(zip(d.arg_constraints, parameters, strict=True)), **extra)
        x = d.sample((3,))
        d.log_prob(x).sum().backward()
        if make is not colour:
            assert d.mean.device.type == "meta"
    assert x.device.type == "meta"
    assert all(p.grad is not None or not p.numel() for p in parameters)


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="at least 2 levels, got 1"):
        DiscretizedNormal(torch.zeros(2), torch.ones(2), 1)
    with pytest.raises(ValueError, match="parameter scale"):
        DiscretizedNormal(torch.zeros(2), torch.zeros(2), 4)
    loc = torch.zeros(2, 5, 3, 4, 4)
    with pytest.raises(ValueError, match=r"logits: expected \(5, 4, 4\)"):
        DiscretizedLogisticMixture(torch.zeros(2, 4, 4, 4), loc, loc + 1, 8)
    with pytest.raises(ValueError, match=r"coefficients: expected \(5, 3, 4, 4\)"):
        DiscretizedLogisticMixture(torch.zeros(2, 5, 4, 4), loc, loc + 1, 8, torch.zeros(2, 5, 2, 4, 4))


def test_parameters_broadcast() -> None:
    d = DiscretizedNormal(torch.zeros(3, 1), torch.ones(4), 8)
    assert d.batch_shape == (3, 4)
    assert isinstance(d.to_event(1), dist.Independent)
    assert d.to_event(1).log_prob(d.sample()).shape == (3,)
