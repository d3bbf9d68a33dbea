"""Every divergence on a few numbers, against the formula of its paper written out in floats."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch

from inference import (
    Divergence,
    hellinger,
    hinge,
    jensen_shannon,
    kl,
    least_squares,
    non_saturating,
    pearson,
    plug_in_kl,
    relativistic,
    reverse_kl,
    wasserstein,
)

Values = Sequence[float]
Formula = Callable[[Values, Values], float]

Q, P = (0.3, -2.0, 7.0, 0.9), (0.5, 4.0, -6.0, -0.8)
"""Below and above 0 and a margin of 1, and farther out than a critic's first values are."""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def _logistic(q: Values, p: Values) -> float:
    """- E_q log D - E_p log (1 - D), of D = 1 / (1 + exp -T)."""
    return _mean([-math.log(1 / (1 + math.exp(-t))) for t in q]) + _mean([-math.log(1 / (1 + math.exp(t))) for t in p])


def _kl(q: Values, p: Values) -> float:
    return _mean(q) - _mean([math.exp(t) for t in p]) + 1


def _reverse_kl(q: Values, p: Values) -> float:
    return -_mean(p) - _mean([math.exp(-t) for t in q]) + 1


def _hellinger(q: Values, p: Values) -> float:
    return 2 - _mean([math.exp(-t / 2) for t in q]) - _mean([math.exp(t / 2) for t in p])


def _pearson(q: Values, p: Values) -> float:
    return 2 * _mean(q) - _mean([t * t for t in p]) - 1


def _apart(q: Values, p: Values) -> float:
    return _mean(q) - _mean(p)


def _paired(q: Values, p: Values) -> float:
    return _mean([_softplus(a - b) for a, b in zip(q, p, strict=True)])


def _minus(formula: Formula) -> Formula:
    return lambda q, p: -formula(q, p)


FORMULAS: dict[str, tuple[Divergence, Formula, Formula]] = {
    "jensen_shannon": (jensen_shannon, _logistic, _minus(_logistic)),
    "non_saturating": (non_saturating, _logistic, lambda q, p: _logistic(p, q)),
    "plug_in_kl": (plug_in_kl, _logistic, lambda q, p: _mean(q)),
    "kl": (kl, _minus(_kl), _kl),
    "reverse_kl": (reverse_kl, _minus(_reverse_kl), _reverse_kl),
    "hellinger": (hellinger, _minus(_hellinger), _hellinger),
    "pearson": (pearson, _minus(_pearson), _pearson),
    "least_squares": (
        least_squares,
        lambda q, p: _mean([(t - 1) ** 2 for t in q]) + _mean([t**2 for t in p]),
        lambda q, p: _mean([t**2 for t in q]) + _mean([(t - 1) ** 2 for t in p]),
    ),
    "hinge": (
        hinge,
        lambda q, p: _mean([max(0.0, 1 - t) for t in q]) + _mean([max(0.0, 1 + t) for t in p]),
        _apart,
    ),
    "wasserstein": (wasserstein, _minus(_apart), _apart),
    "relativistic": (relativistic, lambda q, p: _paired(p, q), _paired),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_both_players_losses_are_those_of_the_paper(name: str) -> None:
    divergence, critic, program = FORMULAS[name]
    q, p = (torch.tensor(values, dtype=torch.float64) for values in (Q, P))
    assert float(divergence.critic(q, p)) == pytest.approx(critic(Q, P), rel=1e-12)
    assert float(divergence.program(q, p)) == pytest.approx(program(Q, P), rel=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_the_critic_separates_q_and_p_and_the_program_brings_them_together(name: str) -> None:
    """At a critic that is undecided, its loss falls where T rises on samples of q, and the program's where it falls."""
    divergence = FORMULAS[name][0]
    undecided = {"least_squares": 0.5, "pearson": 1.0}.get(name, 0.0)
    for loss, sign in ((divergence.critic, -1), (divergence.program, 1)):
        q, p = (torch.full((3,), undecided, requires_grad=True) for _ in range(2))
        by_q, by_p = torch.autograd.grad(loss(q, p), (q, p), allow_unused=True)
        assert (sign * by_q > 0).all()
        if by_p is None:
            assert (name, sign) == ("plug_in_kl", 1)
        else:
            assert (sign * by_p < 0).all()


@pytest.mark.parametrize("name", ["kl", "reverse_kl", "hellinger"])
def test_exponents_are_exact_up_to_twenty_and_then_go_on_as_a_line(name: str) -> None:
    divergence, critic, _ = FORMULAS[name]
    flip, factor = (-1 if name == "reverse_kl" else 1), (2 if name == "hellinger" else 1)
    zero = torch.zeros(1, dtype=torch.float64)

    def loss(exponent: float) -> tuple[torch.Tensor, torch.Tensor]:
        value = torch.tensor([flip * factor * exponent], dtype=torch.float64, requires_grad=True)
        q, p = (value, zero) if name == "reverse_kl" else (zero, value)
        return value, divergence.critic(q, p)

    values = {exponent: float(loss(exponent)[1].detach()) for exponent in (19.0, 20.0, 30.0, 1000.0)}
    at_zero = critic((0.0,), (0.0,)) - 1  # without the exponential's own 1
    for exponent in (19.0, 20.0):
        assert values[exponent] == pytest.approx(math.exp(exponent) + at_zero, rel=1e-9)
    assert values[30.0] == pytest.approx(math.exp(20) * 11 + at_zero, rel=1e-9)
    assert math.isfinite(values[1000.0])
    for exponent in (10.0, 30.0, 1000.0):
        value, found = loss(exponent)
        (gradient,) = torch.autograd.grad(found, value)
        assert float(gradient) == pytest.approx(flip / factor * math.exp(min(exponent, 20.0)), rel=1e-9)


def test_a_logistic_critic_has_a_gradient_however_sure_it_is() -> None:
    """The point of the non-saturating loss: the program learns where the critic is sure. By the minimax loss it does not."""
    for divergence, learns in ((non_saturating, True), (jensen_shannon, False), (relativistic, True)):
        p = torch.full((2,), -40.0, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(divergence.program(torch.full_like(p, 40.0), p), p)
        assert bool((gradient < -0.4).all()) == learns


def test_only_the_plug_in_loss_is_of_samples_of_q_alone() -> None:
    assert [name for name, (divergence, _, _) in FORMULAS.items() if divergence.q_alone] == ["plug_in_kl"]
    with torch.no_grad():
        assert plug_in_kl.q_alone
        assert not kl.q_alone
