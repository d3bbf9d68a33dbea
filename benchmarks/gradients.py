"""Bias and spread of every gradient of discrete latents beside the others, by sums over all that can be drawn."""

import torch
from torch import Tensor, nn

from benchmarks.two_bits import (
    BITS,
    PIXELS,
    Bits,
    Weighed,
    bound,
    by_draws_of_the_guide,
    by_draws_of_the_model,
    dreams,
    gradient,
    mean_and_spread,
)
from inference import SVI, ImportanceWeighted, Objective, Step, Traced, WakeSleep, adam, fit, sample

STEPS = 300


class Fitted(nn.Module):
    """The baseline of x alone at its best: E[log w | x], of one example."""

    def __init__(self, program: Bits, x: Tensor) -> None:
        super().__init__()
        joint, guide = (each.detach() for each in program.log_densities(x))
        self.value = (guide.exp() * (joint - guide)).sum()

    def forward(self, x: Tensor) -> Tensor:
        return self.value.expand(len(x))


class FittedGivenSecond(nn.Module):
    """The baseline of x and the bit that is drawn first at its best: E[log w | x, second], of one example."""

    def __init__(self, program: Bits, x: Tensor) -> None:
        super().__init__()
        joint, guide = (each.detach() for each in program.log_densities(x))
        second = torch.tensor(BITS, dtype=torch.float64)[:, 1]
        shares = [torch.where(second == bit, guide, -torch.inf).softmax(0) for bit in (0.0, 1.0)]
        self.values = torch.stack([(share * (joint - guide)).sum() for share in shares])

    def forward(self, second: Tensor) -> Tensor:
        return self.values[second.long()]


def report() -> None:
    """Prints a table for the program as it starts, and for the same fitted."""
    program = Bits(seed=1)
    batch = torch.zeros(200, PIXELS, dtype=torch.float64)
    torch.manual_seed(2)
    data = sample(Bits(seed=3), batch)["x"][0]
    print(f"Gradients of two Bernoulli latents, {PIXELS} pixels, one example, exact: |target|, |bias|, spread")
    table("as it starts", program, data[:1])
    step = Step(SVI(program, particles=8), adam(1e-2), differentiate=Traced())
    fit(step, data, STEPS)
    table(f"after {STEPS} steps of SVI(particles=8) on 200 examples", program, data[:1])


def table(title: str, program: Bits, x: Tensor) -> None:
    print(f"  {title}")
    joint, guide = program.log_densities(x)
    of_guide, of_model = program.of_guide, program.of_model
    towards_elbo = gradient(-(guide.exp() * (joint - guide)).sum(), of_guide)
    posterior = joint.softmax(0).detach()
    towards_posterior = gradient(-(posterior * guide).sum(), of_guide)
    towards_likelihood = gradient(-joint.logsumexp(0), of_model)
    baseline = Fitted(program, x)
    by_site = nn.ModuleDict({"second": baseline, "first": FittedGivenSecond(program, x)})
    of_elbo: list[tuple[str, Objective, int]] = [
        ("score function", SVI(program), 1),
        ("  less a baseline of x", SVI(program, baseline=baseline), 1),
        ("  less a baseline by site", SVI(program, baseline=by_site), 1),
        *[(f"  leave-one-out, K={K}", SVI(program, particles=K), K) for K in (2, 4, 8)],
        ("  less a baseline by site, K=2", SVI(program, particles=2, baseline=by_site), 2),
    ]
    print("    guide, towards the gradient of the ELBO")
    for name, objective, K in of_elbo:
        line(name, towards_elbo, by_draws_of_the_guide(program, x, objective.players()["loss"].loss, K, of_guide))
    print("    guide, towards the gradient of the importance-weighted bound of K particles")
    for K in (2, 4):
        target = gradient(-bound(program, x, K), of_guide)
        loss = ImportanceWeighted(program, particles=K).loss
        line(f"  leave-one-out, K={K}", target, by_draws_of_the_guide(program, x, loss, K, of_guide))
    print("    guide, towards the gradient of the posterior's cross-entropy")
    for K in (2, 4, 8):
        loss = WakeSleep(program, K).guide_loss
        line(f"wake-phi, K={K}", towards_posterior, by_draws_of_the_guide(program, x, loss, K, of_guide))
    print("    guide, towards the gradient of its cross-entropy under the model")
    asleep = WakeSleep(program, 1, sleep=1.0).guide_loss
    line("sleep-phi", dreams(program, of_guide), by_draws_of_the_model(program, x, asleep, of_guide))
    print("    model, towards the gradient of log p(x)")
    line("ELBO, K=1", towards_likelihood, by_draws_of_the_guide(program, x, SVI(program).loss, 1, of_model))
    for K in (2, 4, 8):
        loss = WakeSleep(program, K).model_loss
        line(f"wake-theta, K={K}", towards_likelihood, by_draws_of_the_guide(program, x, loss, K, of_model))


def line(name: str, target: Tensor, weighed: Weighed) -> None:
    mean, spread = mean_and_spread(weighed)
    print(f"      {name:28} {float(target.norm()):8.4f} {float((mean - target).norm()):9.1e} {spread:8.4f}")
