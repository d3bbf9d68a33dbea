"""An expectation over a finite site of the guide, taken exactly: a spike-and-slab vector, whose evidence is known."""

import math
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Bernoulli, Categorical, Normal
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from inference import (
    SVI,
    Gradient,
    ImportanceWeighted,
    Pair,
    ProgramError,
    Step,
    Traced,
    WakeSleep,
    adam,
    calibration,
    check,
    diagnose,
    elbo,
    evaluate,
    fit,
    importance,
    log_joint,
    posterior,
    sample,
    terms,
    to_arviz,
)
from inference.programs.densities import log_density
from inference.programs.sites import random_sites
from inference.programs.traces import runs
from inference.training.differentiate import backward

SLABS, SD = 3, 0.5
PRIOR = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


class Spikes(nn.Module):
    """The first n entries of x are slabs of variance 1, all others 0; noise of variance SD² on all.

    q(w_t | x) does not depend on n where the slab is there, so that the guide can be exact. `masked` is how the model says
    that a slab is absent: by its distribution, or by a handler.
    """

    def __init__(self, exact: bool = False, masked: str = "distribution") -> None:
        super().__init__()
        self.exact, self.masked = exact, masked
        self.shrink = nn.Parameter(torch.tensor(1 / (1 + SD**2) if exact else 0.6, dtype=torch.float64))
        scale = math.sqrt(SD**2 / (1 + SD**2)) if exact else 0.7
        self.log_scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64).log())
        self.stop = nn.Parameter(torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64))

    def model(self, x: Tensor) -> None:
        drawn = []
        with pyro.plate("data", len(x)):
            n = pyro.sample("n", Categorical(PRIOR.to(x)))
            for t in range(SLABS):
                slab = Normal(x.new_zeros(len(x)), 1.0)
                if self.masked == "distribution":
                    drawn.append(pyro.sample(f"w_{t}", slab.mask(n > t)))
                else:
                    with poutine.mask(mask=n > t):
                        drawn.append(pyro.sample(f"w_{t}", slab))
            mean = torch.stack([torch.where(n > t, w, 0.0) for t, w in enumerate(drawn)], -1)
            pyro.sample("x", Normal(mean, SD).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        before, more = x.new_zeros(len(x)), []
        with pyro.plate("data", len(x)):
            for t in range(SLABS):
                more.append(self.stop[t] * (1 + before))
                before = pyro.sample(f"w_{t}", Normal(self.shrink * x[:, t], self.log_scale.exp()))
            pyro.sample("n", Categorical(logits=self.log_q(x, more)), infer={"expectation": "exact"})

    def log_q(self, x: Tensor, more: list[Tensor]) -> Tensor:
        if self.exact:
            return log_of_counts(x)
        on = [nn.functional.logsigmoid(each) for each in more]
        off = [nn.functional.logsigmoid(-each) for each in more]
        return torch.stack(
            [sum(on[:n], x.new_zeros(len(x))) + (off[n] if n < SLABS else 0) for n in range(SLABS + 1)], -1
        )


def log_of_counts(x: Tensor) -> Tensor:
    """log p(x, n), by the normal densities of x: `(batch, SLABS + 1)`."""
    zeros = torch.zeros_like(x)
    slab, spike = Normal(zeros, math.sqrt(1 + SD**2)).log_prob(x), Normal(zeros, SD).log_prob(x)
    each = [slab[:, :n].sum(1) + spike[:, n:].sum(1) for n in range(SLABS + 1)]
    return torch.stack(each, -1) + PRIOR.log()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, SLABS, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1.5


both_masks = pytest.mark.parametrize("masked", ["distribution", "handler"])


@both_masks
def test_an_exact_guide_gives_the_evidence_at_every_draw(x: Tensor, masked: str) -> None:
    evidence = torch.logsumexp(log_of_counts(x), -1).expand(4, -1)
    found = terms(Spikes(exact=True, masked=masked), x, 4)
    torch.testing.assert_close(found.log_weights, evidence, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.log_weights_for(elbo), evidence, rtol=0, atol=1e-10)


@both_masks
def test_the_elbo_and_the_weight_are_sums_over_all_values_one_by_one(x: Tensor, masked: str) -> None:
    program = Spikes(masked=masked)
    latents = posterior(program, x, 2)
    log_p, log_q, of_n = [], [], []
    for n in range(SLABS + 1):
        at = {**latents, "n": torch.full((2, 5), n)}
        log_p.append(log_joint(program, x, at))
        run = runs(program, x, latents=at)[0]
        sites = random_sites(run.guide)
        densities = {name: log_density(name, site, run.plate).reshape(2, 5) for name, site in sites.items()}
        log_q.append(sum(densities[f"w_{t}"] for t in range(n)) + torch.zeros(2, 5).double())
        of_n.append(densities["n"])
    weight, share = torch.stack(log_p) - torch.stack(log_q), torch.stack(of_n)
    torch.testing.assert_close(share.exp().sum(0), torch.ones(2, 5, dtype=torch.float64))
    found = terms(program, x, latents=latents)
    expected = (share.exp() * (weight - share)).sum(0)
    torch.testing.assert_close(found.log_weights, weight.logsumexp(0), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.log_weights_for(elbo), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.log_scores, torch.zeros(2, 5, dtype=torch.float64))


def test_gradients_are_those_of_finite_differences(x: Tensor) -> None:
    program = Spikes()

    def loss() -> Tensor:
        torch.manual_seed(3)
        return SVI(program, particles=2).loss(x)

    loss().backward()
    for parameter in program.parameters():
        for place in range(parameter.numel()):
            values = []
            for shift in (1e-5, -1e-5):
                with torch.no_grad():
                    parameter.view(-1)[place] += shift
                    values.append(float(loss()))
                    parameter.view(-1)[place] -= shift
            assert parameter.grad is not None
            assert float(parameter.grad.view(-1)[place]) == pytest.approx(
                (values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-8
            )


class Drawn(Spikes):
    """The same, whose guide draws n by the score function, and masks what is absent itself."""

    def guide(self, x: Tensor) -> None:
        with poutine.block(), poutine.trace() as before:
            super().guide(x)
        sites = before.trace.nodes
        with pyro.plate("data", len(x)):
            n = pyro.sample("n", Categorical(logits=sites["n"]["fn"].logits))
            for t in range(SLABS):
                with poutine.mask(mask=n > t):
                    pyro.sample(f"w_{t}", _At(sites[f"w_{t}"]["fn"], sites[f"w_{t}"]["value"]))


class _At(Normal):
    """A normal that gives the draw that was made of it."""

    def __init__(self, base: Normal, value: Tensor) -> None:
        super().__init__(base.loc, base.scale)
        self.value = value

    def expand(self, batch_shape: torch.Size, _instance: object = None) -> "_At":
        return self

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008  # torch's own form
        return self.value


def test_the_score_function_has_the_same_mean(x: Tensor) -> None:
    """Of 100 times 400 draws; false alarms at 6 standard errors are below 1e-6."""
    summed, drawn = _gradients(Spikes(), x), _gradients(Drawn(masked="handler"), x)
    error = (summed.var(0) / len(summed) + drawn.var(0) / len(drawn)).sqrt()
    assert ((summed.mean(0) - drawn.mean(0)).abs() < 6 * error).all()
    assert (summed.var(0) < drawn.var(0)).all(), "what the sum buys"


def _gradients(program: nn.Module, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    found = []
    for _ in range(100):
        scored = terms(program, x.repeat_interleave(80, 0))
        weights = scored.log_weights_for(elbo)
        value = weights + (weights.detach() * scored.log_scores if scored.log_sum is None else 0)
        found.append(torch.cat([g.reshape(-1) for g in torch.autograd.grad(value.mean(), [*program.parameters()])]))
    return torch.stack(found)


def test_it_works_as_any_program(x: Tensor) -> None:
    program = Spikes()
    check(program, x)
    prior, found = sample(program, x, 3), posterior(program, x, 3)
    assert prior.keys() == {"x", *found}
    assert all(value.shape == (3, 5) for value in found.values())
    fit(Step(SVI(program), adam(3e-2)), x, 300, progress=False)
    bounds = evaluate(program, x, {"elbo": importance(200, elbo), "iwae": importance(200)})
    evidence = torch.logsumexp(log_of_counts(x), -1)
    assert bounds.log_prob["elbo"].mean() < bounds.log_prob["iwae"].mean() < evidence.mean() + 0.1
    assert (evidence - bounds.log_prob["iwae"]).abs().max() < 0.2
    assert diagnose(program, x).khat.max() < 0.7


def test_a_traced_step_is_the_same_step(x: Tensor) -> None:
    losses = []
    for differentiate in (backward, Traced()):
        step = Step(SVI(Spikes()), adam(1e-2), differentiate=differentiate)
        losses.append([float(step(x)["loss"]) for _ in range(3)])
    assert losses[0] == losses[1]


REFUSED: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "the importance-weighted bound": (
        lambda program: ImportanceWeighted(program),
        r"ImportanceWeighted\(.* does not know",
    ),
    "sticking the landing": (
        lambda program: ImportanceWeighted(program, elbo, 2, gradient=Gradient.STICKING_THE_LANDING),
        "STICKING_THE_LANDING.* does not know",
    ),
    "an estimator of Pyro's": (lambda program: SVI(program, Trace_ELBO()), "Trace_ELBO does not know"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_objectives_that_know_nothing_of_it_are_refused(x: Tensor, name: str) -> None:
    objective, message = REFUSED[name]
    with pytest.raises(ProgramError, match=message):
        Step(objective(Spikes()), adam(1e-2))(x)


@pytest.mark.parametrize("use", [calibration, to_arviz])
def test_draws_that_are_weighed_or_ranked_are_refused(x: Tensor, use: Callable[..., object]) -> None:
    """A weight of z is none of (z, n), and absent latents have no ranks."""
    with pytest.raises(ProgramError, match=f"{use.__name__} does not know"):
        use(Spikes(), x)


def _pair(mark: str = "exact", late: bool = False, values: int = 4, second: bool = False, events: bool = False) -> Pair:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            n = pyro.sample("n", Categorical(torch.ones(4)))
            b = pyro.sample("b", Bernoulli(torch.tensor(0.5)))
            slab = Normal(torch.zeros(len(x), 2), 1.0)
            there = n > 0
            w = pyro.sample("w", slab.mask(there.unsqueeze(-1)).to_event(1) if events else slab.to_event(1).mask(there))
            pyro.sample("x", Normal(w.sum(-1) * there + b, 1.0), obs=x)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            if late:
                pyro.sample("n", Categorical(torch.ones(4)), infer={"expectation": mark})
            infer = {"expectation": mark} if second else {}
            pyro.sample("b", Bernoulli(torch.tensor(0.5)), infer=infer)
            pyro.sample("w", Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
            if not late:
                pyro.sample("n", Categorical(torch.ones(values)), infer={"expectation": mark})

    return Pair(model, guide)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mark": "exakt"}, "the only such mark is 'exact'"),
        ({"late": True}, r"draws \['b', 'w'\] after it"),
        ({"second": True}, r"marks the sites \['b', 'n'\]"),
        ({"values": 3}, "has 4 values in the model"),
        ({"events": True}, "masked inside of its event"),
    ],
)
def test_marks_that_can_not_be_met_are_refused(options: dict[str, object], message: str) -> None:
    terms(_pair(), torch.zeros(6))
    with pytest.raises(ProgramError, match=message):
        terms(_pair(**options), torch.zeros(6))  # type: ignore[arg-type]  # one option each


def test_wake_sleep_and_baselines_have_nothing_to_do_with_an_exact_site() -> None:
    x = torch.zeros(2, SLABS, dtype=torch.float64)
    with pytest.raises(ProgramError, match="'n' is to be exact, which WakeSleep does not know"):
        Step(WakeSleep(Spikes(), 3)).prepare(x)
    with pytest.raises(ProgramError, match="the score function credits nothing"):
        Step(SVI(Spikes(), baseline=nn.Linear(1, 1))).prepare(x)


class Flipped(nn.Module):
    """A slab or a spike, the sign of the slab turned by a coin, which the guide draws by the score function."""

    def __init__(self) -> None:
        super().__init__()
        self.shrink, self.coin, self.there = (
            nn.Parameter(torch.tensor(a, dtype=torch.float64)) for a in (0.6, 0.4, 0.3)
        )

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            coin = pyro.sample("coin", Bernoulli(x.new_full((len(x),), 0.5)))
            n = pyro.sample("n", Categorical(PRIOR[:2].to(x)))
            slab = pyro.sample("w", Normal(x.new_zeros(len(x)), 1.0).mask(n > 0))
            pyro.sample("x", Normal(torch.where(n > 0, slab * (1 - 2 * coin), 0.0), SD), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            coin = pyro.sample("coin", Bernoulli(logits=self.coin.expand(len(x))))
            pyro.sample("w", Normal(self.shrink * x * (1 - 2 * coin), 0.7))
            logits = torch.stack([torch.zeros_like(x), self.there * x.square()], -1)
            pyro.sample("n", Categorical(logits=logits), infer={"expectation": "exact"})


def test_a_baseline_of_zero_for_another_site_changes_nothing(x: Tensor) -> None:
    """Neither the loss, which is minus the ELBO whatever is credited, nor a gradient, that of the exact site among them."""

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.new_zeros(len(x))

    losses, gradients = [], []
    for baseline in (None, Constant()):
        program, entries = Flipped(), x[:, 0]
        torch.manual_seed(3)
        loss = SVI(program, baseline=baseline).loss((entries,))
        losses.append(loss.detach())
        gradients.append(torch.autograd.grad(loss, [*program.parameters()]))
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
