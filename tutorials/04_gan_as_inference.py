# %% [markdown]
# # A GAN is inference in a model without a density
#
# A generator is a simulator: it draws $x$, and there is no formula for how likely a given $x$ was. Variational inference
# and maximum likelihood both ask for $\log p(x)$ and are stuck. The way out is one idea: *a ratio of two densities can be
# learned by classifying their samples*. A network that does so, the critic, then stands in wherever an objective lacks a
# density. If the observation lacks one, the result is a GAN. If the guide lacks one, it is adversarial variational Bayes.
# If a scientific simulator lacks one, it is inference without a likelihood. We do all three, each where the answer can be
# checked.

# %%
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from matplotlib.figure import Figure
from pyro.distributions import Normal
from torch import Tensor, nn

from inference import (
    SVI,
    Adversarial,
    Divergence,
    ProgramError,
    Step,
    Traced,
    adam,
    both,
    elbo,
    evaluate,
    fit,
    importance,
    jensen_shannon,
    kl,
    least_squares,
    posterior,
    r1,
    r2,
    relativistic,
    sample,
)
from ppmodels import (
    AVB,
    GAN,
    VAE,
    Critic,
    HierarchicalImplicitModel,
    Implicit,
    JointCritic,
    MLPEncoder,
    MLPFeatures,
    NoiseEncoder,
    NoisyGenerator,
    NormalPosterior,
    NormalPrior,
    load,
)
from ppmodels.app.plots import grid, png
from ppmodels.data import Shuffled

folder = Path(os.environ.get("TUTORIAL_OUT") or tempfile.mkdtemp(prefix="tutorial-gan-"))
folder.mkdir(parents=True, exist_ok=True)
print(f"pictures go to {folder}")


def save(name: str, figure: Figure) -> None:
    (folder / name).write_bytes(png(figure))


def falling(steps: int) -> Callable[[int], float]:
    """Half a cosine: adversarial training converges only if its last steps are small."""
    return lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))


# %% [markdown]
# ## A density ratio, by classification
#
# Let $q = \mathcal N(1, 0.8^2)$ and $p = \mathcal N(0, 1)$, and forget the formulas: there are only samples. A classifier
# with logit $T(x)$ that is trained to separate samples of the two minimises
#
# $$\mathbb E_q[\log(1 + e^{-T})] + \mathbb E_p[\log(1 + e^{T})],$$
#
# and the best one is $T(x) = \log \frac{q(x)}{p(x)}$. Other losses have other best critics: least squares
# estimates $q / (q + p)$, the bound of Nguyen, Wainwright and Jordan on the Kullback–Leibler divergence the log ratio. A
# `Divergence` has three parts: the critic's loss, the program's loss, and how to read a log ratio from the critic.


# %%
def draw_q(count: int) -> Tensor:
    return 1 + 0.8 * torch.randn(count, 1)


def ratio_critic(divergence: Divergence, steps: int = 800) -> nn.Module:
    torch.manual_seed(0)
    critic = Critic(MLPFeatures((1,), None, (32, 32), nn.SiLU))
    optimizer = adam(5e-3)(list(critic.parameters()))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, falling(steps))
    for _ in range(steps):
        loss = divergence.critic(critic(draw_q(512)), critic(torch.randn(512, 1)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return critic


def known(x: Tensor) -> Tensor:
    return (Normal(1.0, 0.8).log_prob(x) - Normal(0.0, 1.0).log_prob(x)).squeeze(1)


exact_kl = 0.5 * (0.8**2 + 1 - 1) - math.log(0.8)
x, line = draw_q(200_000), torch.linspace(-3, 4, 200).unsqueeze(1)

figure = Figure(figsize=(7, 4), layout="constrained")
axes = figure.subplots()
axes.plot(line, known(line), "k", linewidth=3, alpha=0.3, label="the truth, from the formulas")
for name, divergence in {"logistic": jensen_shannon, "KL bound": kl, "least squares": least_squares}.items():
    assert divergence.log_ratio is not None
    critic = ratio_critic(divergence)
    with torch.no_grad():
        estimated, curve = divergence.log_ratio(critic(x)), divergence.log_ratio(critic(line))
    axes.plot(line, curve, linewidth=1, label=name)
    error = float((estimated - known(x)).square().mean().sqrt())
    print(f"{name}: rms error {error:.3f} nats under q; KL(q‖p) {float(estimated.mean()):.3f}, exactly {exact_kl:.3f}")
    assert error < 0.2
axes.set_xlabel("x")
axes.set_ylabel("log q(x) / p(x), nats")
axes.set_ylim(-8, 4)
axes.legend(frameon=False)
save("ratio.png", figure)

# %% [markdown]
# Where $q$ has samples the three agree with the truth. Far to the left, where no sample of $q$ ever falls, each gives
# some number, and none can be trusted: the loss does not depend on the critic there. This is why adversarial training is
# harder than a bound: *the critic is right only where samples of both $q$ and $p$ fall*.
#
# ## The GAN
#
# Now let $p$ be a program: $z \sim \mathcal N(0, I)$, $x = G(z)$. As a `pyro.sample` site, $x$ has an `Implicit`
# distribution, which can be drawn from and whose `log_prob` raises. The guide is empty, as nothing asks for the noise.
# `Adversarial` finds that $x$ is the site to compare. It is an objective of two players, the critic and the program,
# for the same `Step` and `fit` as everything else here.
#
# The GAN of 2014 may fail to converge, or lose modes. Below is R3GAN: every image is compared with a generated one
# (relativistic), and the critic's gradient is penalised at both (R1 and R2).

# %%
digits = load("digits")
assert digits.levels is not None
torch.manual_seed(0)
gan = GAN(digits.shape, digits.levels, latent=16)
objective = Adversarial(
    gan, Critic(MLPFeatures(digits.shape, digits.levels)), relativistic, penalty=both(r1(64.0), r2(64.0))
)
quick = adam(1e-3, betas=(0.0, 0.99))
step = Step(objective, {"critic": quick, "program": quick}, average=0.995, differentiate=Traced())
# Samples by the same noise, one row for each time.
rows: dict[int, Tensor] = {}


def look(step: Step, metrics: dict[str, Tensor]) -> None:
    if step.count in (1, 50, 150, 500, 1500):
        torch.manual_seed(1)
        with step.averaged():
            rows[step.count] = sample(gan, torch.zeros(12, *digits.shape))["x"][0]


fitted = fit(step, Shuffled(digits, batch_size=64), 1500, callbacks=[look], progress=False)
images = torch.cat(list(rows.values())) / (digits.levels - 1)
save("gan.png", grid(images, 12, "the same noise after more and more steps", [f"{count:,}" for count in rows]))

# %% [markdown]
# There is no validation score. `fit` records other metrics: how often the critic is right about a pair (½ for a perfect
# generator), how much of the data has a sample near it (coverage), and how many
# samples have data near them (precision). It warns where precision stays high and coverage low, which is what a mode
# collapse looks like.

# %%
figure = Figure(figsize=(7, 3.5), layout="constrained")
axes = figure.subplots()
for name in ("critic/accuracy", "program/coverage", "program/precision"):
    axes.plot([row["step"] for row in fitted.history], [row[name] for row in fitted.history], linewidth=1, label=name)
axes.set_xlabel("step")
axes.set_ylim(0, 1)
axes.legend(frameon=False)
save("monitor.png", figure)
last = fitted.history[-1]
print(f"coverage {last['program/coverage']:.2f}, precision {last['program/precision']:.2f} of a batch")

# %% [markdown]
# How likely are the test images under it? The program has no density, and raises. With normal noise on the
# generator's output there is a density, of *another* model, with that noise. Its bound below, by draws from the prior, is
# very loose: a GAN has no guide that finds the codes of an image.

# %%
test = digits.test.values.float()
try:
    evaluate(gan, test, {"elbo": importance(1, elbo)})
except ProgramError as error:
    print(f"ProgramError: {error}")
with step.averaged():
    noisy = evaluate(NoisyGenerator(gan.generator, scale=2.0), test, {"iwae": importance(2000)})
print(
    f"with noise of 2 levels: {noisy.mean('iwae'):.1f} ± {noisy.standard_error('iwae'):.1f} nats, {noisy.kind['iwae']}"
)

# %% [markdown]
# ## A posterior that is not Gaussian
#
# Take a model with densities: $z \sim \mathcal N(0, 1)$ and $x \mid z \sim \mathcal N(z^2 + z / 5, 0.7^2)$. Someone
# reports $x = 2$. Then $z$ was about $1.2$ or about $-1.4$, and the two are not equally likely. In one dimension the
# posterior can be had by summing over a grid. A normal guide must choose one mode, or cover both and the space between.
#
# A guide that is a network of $x$ *and noise* can have any shape, and has no density. The ELBO wants
# $\mathbb E_q[\log p(x, z) - \log q(z \mid x)]$; all but the last term is known, and the critic stands in for that one:
# $T \approx \log q(z \mid x) / p(z)$. This is adversarial variational Bayes. The prior is far from the posterior, where a
# critic is inaccurate, so the critic compares the guide with a normal $r(z \mid x)$ that is fitted along: *adaptive
# contrast*. The rest, $\log r - \log p$, is exact.


# %%
class Hills(nn.Module):
    """p(x | z), as a decoder: two values of z explain one x."""

    def forward(self, z: Tensor) -> Normal:
        return Normal(z.square() + 0.2 * z, 0.7).to_event(1)


seen = torch.full((512, 1), 2.0)
gaussian = VAE((1,), None, 1, encoder=MLPEncoder((1,), None, 1, (32,)), decoder=Hills())
fit(Step(SVI(gaussian), adam(1e-2), learning_rate=falling(500)), seen, 500, progress=False)

torch.manual_seed(0)
free = AVB((1,), None, 1, encoder=NoiseEncoder((1,), None, 1, noise=4, hidden=(64, 64)), decoder=Hills())
critic = JointCritic(MLPFeatures((1,), None, (64,)), 1, (64, 64), nn.SiLU)
objective = Adversarial(free, critic, contrast=MLPEncoder((1,), None, 1, (32,)), turns=2)
steps = 1500
step = Step(
    objective,
    {"critic": adam(5e-3), "program": adam(3e-3)},
    average=0.998,
    learning_rate=falling(steps),
    differentiate=Traced(),
)
fit(step, seen, steps, progress=False)

# %%
z = torch.linspace(-3, 3, 1201)
log_joint = Normal(0.0, 1.0).log_prob(z) + Hills()(z.unsqueeze(1)).log_prob(torch.tensor([2.0]))
density = log_joint.softmax(0) / (z[1] - z[0])
many = torch.full((20_000, 1), 2.0)
with step.averaged(), torch.no_grad():
    drawn = posterior(free, many)["z"][0].flatten()
narrow = posterior(gaussian, many)["z"][0].flatten().detach()
above = float(density[z > 0].sum() * (z[1] - z[0]))
print(f"mass above 0: exactly {above:.3f}, AVB {float((drawn > 0).float().mean()):.3f}, ", end="")
print(f"a normal guide {float((narrow > 0).float().mean()):.3f}")
assert abs(float((drawn > 0).float().mean()) - above) < 0.15

figure = Figure(figsize=(7, 4), layout="constrained")
axes = figure.subplots()
axes.plot(z, density, "k", label="the posterior, on a grid")
for values, label in ((drawn, "AVB"), (narrow, "a normal guide, by SVI")):
    axes.hist(values.numpy(), 80, range=(-3, 3), density=True, alpha=0.5, label=label)
axes.set_xlabel("z given x = 2")
axes.legend(frameon=False)
save("posterior.png", figure)

# %% [markdown]
# The normal guide has one mode and misses the other, and its ELBO does not show it. The implicit guide has both. It is not
# exact: some of its draws lie between the modes, as a continuous map of noise has to cross it.
#
# ## A simulator
#
# Many scientific models are simulators: they can be drawn from, and have no density. Here is a small one, the g-and-k
# distribution: a normal number bent by $x = a + b\,(1 + 0.8 \tanh(z))\,(1 + z^2)^{0.2}\,z$, of which $a$ and $\log b$
# are unknown, with normal priors. Fifty numbers are observed. Now the *parameters* are the latent variable, shared by
# all examples, and they have a density in model and guide, which stays exact. Only $\log p(x_n \mid a, b)$ is missing.
# The critic takes $x$ and the parameters, learns $\log q(x) / p(x \mid a, b)$ from simulations, and the guide descends
# its gradient (likelihood-free variational inference).
#
# `size` is the number of observations, 50, though a batch repeats them: each repetition has a simulation of its own, from
# which the critic learns.


# %%
def bent(z: Tensor, a: Tensor, log_b: Tensor) -> Tensor:
    return a + log_b.exp() * (1 + 0.8 * z.tanh()) * (1 + z.square()) ** 0.2 * z


class Simulator(nn.Module):
    """forward(theta, n): n draws, given what all of them share."""

    def forward(self, theta: Tensor, n: int) -> Implicit:
        return Implicit(lambda: bent(torch.randn(n, 1), *theta), (n,), (1,))


class GivenTheta(nn.Module):
    """T(x, theta), x on a scale on which its tails are tame."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(*(nn.Linear(3, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 1)))

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        return self.network(torch.cat((x.asinh(), theta.expand(len(x), 2)), 1)).squeeze(1)


torch.manual_seed(0)
observed = bent(torch.randn(50, 1), torch.tensor(1.0), torch.tensor(-0.3))
model = HierarchicalImplicitModel(Simulator(), NormalPrior([0.0, 0.0], 1.0), NormalPosterior([0.0, 0.0], 0.5))
objective, steps = Adversarial(model, GivenTheta(), size=len(observed)), 3000
step = Step(objective, adam(5e-3), average=0.998, learning_rate=falling(steps), differentiate=Traced())
fit(step, observed.repeat(10, 1), steps, progress=False)

# %% [markdown]
# This simulator is simple enough for the truth. The density of $x = Q(z)$ is $\mathcal N(z; 0, 1) / Q'(z)$, and with $Q$
# inverted by a table, the posterior is a sum over a grid of the two parameters.

# %%
table = torch.linspace(-6, 6, 20_001, dtype=torch.float64, requires_grad=True)
levels = bent(table, torch.zeros(()), torch.zeros(()))
(slope,) = torch.autograd.grad(levels.sum(), table)
log_density = (Normal(0.0, 1.0).log_prob(table) - slope.log()).detach()
a, log_b = torch.linspace(0.6, 1.5, 121), torch.linspace(-1.0, 0.6, 121)
standard = (observed.double().flatten() - a.view(-1, 1, 1)) / log_b.exp().view(-1, 1)
place = torch.searchsorted(levels.detach(), standard).clamp(max=len(levels) - 1)
likelihood = log_density[place].sum(2) - len(observed) * log_b
log_posterior = likelihood + Normal(0.0, 1.0).log_prob(a).unsqueeze(1) + Normal(0.0, 1.0).log_prob(log_b)
exact = log_posterior.flatten().softmax(0).view_as(log_posterior)
with step.averaged(), torch.no_grad():
    draws = posterior(model, observed, 2000)["theta"]
for index, (name, axis, values) in enumerate((("a", 1, a), ("log b", 0, log_b))):
    weights = exact.sum(axis)
    mean = float((weights * values).sum())
    deviation = float((weights * (values - mean).square()).sum().sqrt())
    print(
        f"{name}: exactly {mean:.3f} ± {deviation:.3f}; by the critic {float(draws[:, index].mean()):.3f} ± "
        f"{float(draws[:, index].std()):.3f}"
    )
    assert abs(float(draws[:, index].mean()) - mean) < 2 * deviation

figure = Figure(figsize=(5.5, 4.5), layout="constrained")
axes = figure.subplots()
axes.contour(a, log_b, exact.T, 6, cmap="viridis")
axes.plot(draws[:, 0], draws[:, 1], ".", markersize=2, alpha=0.5, label="draws of the guide")
axes.plot([1.0], [-0.3], "r*", markersize=12, label="what the numbers were made with")
axes.set_xlabel("a")
axes.set_ylabel("log b")
axes.set_title("contours: the posterior, on a grid", fontsize=10)
axes.legend(frameon=False)
save("simulator.png", figure)

# %% [markdown]
# The guide is near, and not exact: it errs by a part of a posterior standard deviation, which is as well as the critic
# knows the slope of the likelihood after so many simulations. No number printed here is a bound, as a critic's estimate
# of a divergence is none; adversarial fits are therefore checked by samples, and on problems whose answer is known.
#
# Where next: `ppmodels train gan`, `ppmodels train r3gan --data ring-8` or `ppmodels train avb` on the command line, `ALI`
# for a GAN with an encoder, and your own implicit site, `Implicit(draw, batch_shape, event_shape)` in any Pyro program.
