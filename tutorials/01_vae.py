# %% [markdown]
# # From a generative story to a number one can trust
#
# A variational autoencoder (Kingma & Welling, 2014, arXiv 1312.6114) is a generative story: a code is drawn, $z \sim
# \mathcal N(0, I)$, and the image follows it, $x \sim p_\theta(x \mid z)$. We write this story as a program, check it,
# fit it, and score it in nats, with error bars and without claiming more than the numbers show. The data are
# scikit-learn's handwritten digits: 8 × 8 pixels, each one of 17 levels.

# %%
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from matplotlib.figure import Figure
from pyro.distributions import Normal
from torch import Tensor, nn
from torch.nn.functional import softplus

from inference import (
    SVI,
    Evaluation,
    Fitted,
    ImportanceWeighted,
    Objective,
    ProgramError,
    Step,
    Validation,
    adam,
    check,
    decode,
    elbo,
    evaluate,
    fit,
    importance,
    reconstruct,
    sample,
)
from ppmodels import VAE, CategoricalLevels, MLPDecoder, load, make_head
from ppmodels.app.plots import grid, losses, png
from ppmodels.data import InOrder, Shuffled

folder = Path(os.environ.get("TUTORIAL_OUT") or tempfile.mkdtemp(prefix="tutorial-vae-"))
folder.mkdir(parents=True, exist_ok=True)
print(f"pictures go to {folder}")


def save(name: str, figure: Figure) -> None:
    (folder / name).write_bytes(png(figure))


# %% [markdown]
# ## Data
#
# A dataset is three splits of whole levels. A batch is a tuple of tensors that share their first axis, here the one
# tensor $x$ of shape `(batch, channel, height, width)`, whose values are the levels $0, \dots, 16$ as floats.

# %%
digits = load("digits")
batches = Shuffled(digits, batch_size=64)
valid, test = InOrder(digits, "valid", 180), InOrder(digits, "test", 180)
(x,) = batches(0)
print(f"shape {digits.shape}, {digits.levels} levels; train {len(digits.train)}, valid {len(digits.valid)}")
print(f"one batch: {tuple(x.shape)}, values {x.min():.0f} to {x.max():.0f}")

# %% [markdown]
# ## The program, by hand
#
# A *program* is a pair of functions. `model` draws $z$ and observes $x$: it is the joint density
# $p_\theta(x, z) = p(z)\, p_\theta(x \mid z)$. `guide` draws the same $z$, knowing $x$: it is the approximate posterior
# $q_\phi(z \mid x)$. Both run in one plate over the batch, which says that examples are independent, and
# `to_event` says which axes belong to a single draw. Nothing here is derived from a class of ours; this is Pyro.


# %%
class ByHand(nn.Module):
    def __init__(self, latent: int = 10) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 2 * latent))
        self.decoder = nn.Sequential(nn.Linear(latent, 200), nn.ReLU(), nn.Linear(200, 64 * 17))

    def model(self, x: Tensor) -> Tensor:
        zeros = x.new_zeros(len(x), self.latent)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(zeros, 1.0).to_event(1))
            logits = self.decoder(z).unflatten(1, (1, 8, 8, 17))
            return pyro.sample("x", CategoricalLevels(logits).to_event(3), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, scale = self.encoder(x / 8 - 1).chunk(2, dim=1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", Normal(loc, softplus(scale)).to_event(1))


check(ByHand(), x)
print("check found nothing wrong")

# %% [markdown]
# `check` runs the program on one batch and is silent where nothing is wrong. It is for faults that do *not* stop a
# program. Here the guide calls its site `Z`. Pyro would warn, draw the model's `z` from the prior, and go on: the loss
# would still fall, and it would be no bound on anything.


# %%
class Misspelt(ByHand):
    def guide(self, x: Tensor) -> None:
        loc, scale = self.encoder(x / 8 - 1).chunk(2, dim=1)
        with pyro.plate("data", len(x)):
            pyro.sample("Z", Normal(loc, softplus(scale)).to_event(1))


try:
    check(Misspelt(), x)
except ProgramError as error:
    print(f"ProgramError: {error}")

# %% [markdown]
# `ppmodels.VAE` is the same pair of functions with the two networks as arguments: an encoder that returns $q(z \mid x)$
# and a decoder that returns $p(x \mid z)$, as distributions. The rest of this page uses it.


# %%
def vae(likelihood: str = "categorical") -> VAE:
    torch.manual_seed(0)
    decoder = MLPDecoder(10, digits.shape, make_head(digits.levels, likelihood))
    return VAE(digits.shape, digits.levels, latent=10, decoder=decoder)


check(vae(), x)
print(f"parameters: {sum(parameter.numel() for parameter in vae().parameters()):,}")

# %% [markdown]
# ## Fitting
#
# Stochastic variational inference ascends the evidence lower bound
#
# $$\mathrm{ELBO}(x) = \mathbb E_{q_\phi(z \mid x)}\!\left[\log p_\theta(x, z) - \log q_\phi(z \mid x)\right]
#
# The *objective* says what is ascended, a `Step` owns the optimizer, and `fit` is the loop. The digits are few and a
# long run overfits, so every 100 steps the program is scored on the validation split and its best weights are kept. The
# score is the same for every objective below, so that none is favoured by it. The run is kept short; where it ended
# while the score still rose, it says so.


# %%
def fitted(program: VAE, objective: Callable[[VAE], Objective] = SVI, steps: int = 1000) -> Fitted:
    step = Step(objective(program), adam(3e-3), clip=200.0, average=0.99)
    validation = Validation(valid, every=100, estimator=importance(8))
    run = fit(step, batches, steps, validation=validation, progress=False)
    assert run.best is not None
    still = ", still rising when the run ended" if run.best["step"] == steps else ""
    print(f"best validation score {run.best['score']:.2f} nats, at step {run.best['step']:.0f} of {steps}{still}")
    return run


by_elbo = vae()
run = fitted(by_elbo)
save("training.png", losses(run.history, run.best))

# %% [markdown]
# ## What the numbers are
#
# `evaluate` scores every test example by every estimator that it is given:
#
# - the **ELBO**, the mean log-weight $\log w$ of draws $z \sim q(z \mid x)$, with $w = p(x, z) / q(z \mid x)$;
# - the **importance-weighted bound** $\mathrm{IWAE}_K = \log \frac1K \sum_{k=1}^K w_k$ (Burda et al., 2016,
#
# $$\mathbb E[\mathrm{ELBO}] \le \mathbb E[\mathrm{IWAE}_K] \le \mathbb E[\mathrm{IWAE}_{K+1}] \le \log p_\theta(x).$$
#
# Both are lower bounds *in expectation*: a single draw of one may lie above. Every number has two errors. Its
# **standard error** says how far the mean over these test images may be from the mean over all images of their kind.
# Its **own noise** is what another seed of the estimator would change, and is kept per example in `error`.

# %%
ESTIMATORS = {"ELBO": importance(32, elbo), "IWAE 64": importance(64), "IWAE 256": importance(256)}


def table(score: Evaluation) -> None:
    for name in score.log_prob:
        print(
            f"{name:8} {score.mean(name):8.2f} ± {score.standard_error(name):.2f} nats, own noise "
            f"{score.noise(name):.3f}, {score.bits_per_dim(name):.3f} bits/dim ({score.kind[name]})"
        )


scores = {"ELBO fit": evaluate(by_elbo, test, ESTIMATORS)}
print(scores["ELBO fit"].measured_on)
table(scores["ELBO fit"])

# %% [markdown]
# Bits per dimension are $-\log p(x) / (D \ln 2)$, with $D = 64$ pixels here. They can be had because the likelihood is a
# *probability* of the levels; of a density they would be undefined, and `bits_per_dim` would refuse.
#
# The two bounds were computed on the same images, so their difference is far better known than either. Since
# $\log p - \mathrm{ELBO}$ is a KL divergence, the difference bounds from below what the guide costs.

# %%
cost, cost_error = scores["ELBO fit"].gap("IWAE 256", "ELBO")
print(f"KL(q || p(z | x)) is at least {cost:.2f} ± {cost_error:.2f} nats, in expectation")

# %% [markdown]
# ### The effect of $K$
#
# How much is left between $\mathrm{IWAE}_K$ and $\log p(x)$? Where the weights have a finite variance and $K$ is large,
# the gap is $\mathrm{Var}(w) / (2 K\, p(x)^2)$ (Domke & Sheldon, 2018, arXiv 1808.09034), which is half the square of an
# example's own noise. We can put that prediction to the test: what it says is left at $K$ must not be less than what a
# larger $K$ then finds.


# %%
def predicted(score: Evaluation, name: str) -> float:
    return float((0.5 * score.error[name].square()).mean())


most = scores["ELBO fit"]
ladder = evaluate(by_elbo, test, {"IWAE 4": importance(4), "IWAE 16": importance(16)})
rungs = [(4, ladder, "IWAE 4"), (16, ladder, "IWAE 16"), (64, most, "IWAE 64"), (256, most, "IWAE 256")]
for k, score, name in rungs:
    found = most.mean("IWAE 256") - score.mean(name)
    gap = predicted(score, name)
    print(f"K = {k:3}: {score.mean(name):.2f} nats, predicted gap {gap:.2f}, found by K = 256 {found:.2f}")
short = [k for k, score, name in rungs if predicted(score, name) < most.mean("IWAE 256") - score.mean(name)]
print(f"the prediction fell short at K = {short}" if short else "the prediction was never short")

figure = Figure(figsize=(6, 3.6), layout="constrained")
axes = figure.add_subplot()
points = [(1, most, "ELBO"), *rungs]  # with one draw the two bounds are the same in expectation
heights, noises = [s.mean(name) for _, s, name in points], [s.noise(name) for _, s, name in points]
axes.errorbar([k for k, *_ in points], heights, noises, fmt="o-", capsize=4)
axes.set(
    xscale="log", xlabel="K (1: the ELBO)", ylabel="nats per image", title="A bound that tightens (bars: own noise)"
)
save("bounds.png", figure)

# %% [markdown]
# A prediction that falls short means weights with heavy tails: the few draws that would matter most have not been drawn,
# neither for the bound nor for its error. A more robust measure is the last gain, from $K = 64$ to $256$. If the
# gap shrinks at least like $K^{-1/2}$, then what is left is at most what those four times as many draws have found.


# %%
def left(score: Evaluation) -> float:
    return max(score.mean("IWAE 256") - score.mean("IWAE 64"), predicted(score, "IWAE 256"))


print(f"left at K = 256, by that yardstick: {left(most):.2f} nats")

# %% [markdown]
# ## Swap the inference
#
# The program does not know what fits it. `ImportanceWeighted` ascends $\mathrm{IWAE}_5$ instead of the ELBO, on the same
# model, from the same initial weights. Five draws an image make a step slower, so it takes fewer steps.

# %%
by_iwae = vae()
fitted(by_iwae, lambda program: ImportanceWeighted(program, particles=5), steps=400)
scores["IWAE fit"] = evaluate(by_iwae, test, ESTIMATORS)
table(scores["IWAE fit"])

# %% [markdown]
# Which fit gave the better *model*, by $\log p(x)$? Both were scored on the same images, so the difference is paired:
# the standard error is that of the per-image differences. `difference` refuses numbers that were measured on other data
# or by other settings. A difference of two lower bounds is itself no bound, so we call it decided only if it exceeds
# $1.96$ standard errors *and* what either bound may have left.


# %%
def verdict(first: str, second: str) -> str:
    gain, error = scores[first].difference(scores[second], "IWAE 256")
    slack = max(left(scores[first]), left(scores[second]))
    measured = f"{first} - {second}: {gain:+.2f} ± {error:.2f} nats per image, {slack:.2f} left open by the bounds"
    if abs(gain) <= 1.96 * error + slack:
        return f"{measured}: undecided on these {len(digits.test)} images."
    return f"{measured}: the {first if gain > 0 else second} gives these images the higher likelihood."


print(verdict("IWAE fit", "ELBO fit"))
gain, error = scores["IWAE fit"].difference(scores["ELBO fit"], "ELBO")
print(f"the same difference by ELBO: {gain:+.2f} ± {error:.2f} nats")
slopes = {name: score.mean("IWAE 256") - score.mean("ELBO") for name, score in scores.items()}
print("IWAE 256 - ELBO:", {name: f"{slope:.2f} nats" for name, slope in slopes.items()})

# %% [markdown]
# These lines answer different questions. By IWAE one asks about the model; by ELBO about model and guide together. The
# importance-weighted objective lets the guide be a proposal rather than a posterior, and the distance between the two
# bounds, in the last line, shows what that costs in KL.
#
# This compares two *fits*. To compare two *methods*, let both converge and repeat them over several seeds: the error bars
# here hold the choice of test images, not the luck of training, and not that a run was cut short.
#
# ## Swap the likelihood
#
# A categorical likelihood gives each of the 17 levels of a pixel a probability of its own and ignores that levels are
# ordered. A discretised mixture of logistics (Salimans et al., 2017, arXiv 1701.05517) does not ignore it. It is one
# argument of the decoder, and both are probabilities of the same levels, so their numbers are on one scale.

# %%
by_mixture = vae("logistic-mixture")
fitted(by_mixture)
scores["mixture fit"] = evaluate(by_mixture, test, ESTIMATORS)
table(scores["mixture fit"])
print(verdict("mixture fit", "ELBO fit"))

# %% [markdown]
# ## Samples and reconstructions
#
# `sample` runs the model with the observation lifted: $z$ from the prior, $x$ from $p(x \mid z)$. `decode` gives the mean
# of $p(x \mid z)$ at latents of our choice. A draw has the noise of every pixel on top of the mean; only the draws are
# samples of the model.

# %%
program, (x,) = by_mixture, next(iter(test))
top = digits.levels - 1
drawn = sample(program, x[:16])
means = decode(program, x[:16], {"z": drawn["z"]})["x"]
pictures = torch.cat([means[0], drawn["x"][0]]) / top
save("samples.png", grid(pictures, 16, "From the prior", ["E[x | z]", "draw of x"]))

# %% [markdown]
# A reconstruction goes through the guide: $z \sim q(z \mid x)$, then $x' \sim p(x \mid z)$.

# %%
with torch.no_grad():
    codes = program.encoder(x).mean
means = decode(program, x[:16], {"z": codes[None, :16]})["x"][0]
again = reconstruct(program, x[:16])["x"][0]
rows = ["test image", "mean at E[z | x]", "draw of x'"]
save("reconstructions.png", grid(torch.cat([x[:16], means, again]) / top, 16, "Reconstructions", rows))

# %% [markdown]
# Between the codes of two images lies a line, and the decoder turns it into a path of images. Latents have shape
# `(particles, batch, latent)`; here the particles are the points of the line and the batch is the pair at its ends.

# %%
start, end = x[:6], x[6:12]
weight = torch.linspace(0, 1, 11)[:, None, None]
path = (1 - weight) * codes[:6] + weight * codes[6:12]
images = decode(program, start, {"z": path})["x"]
rows = torch.cat([start[None], images, end[None]]).transpose(0, 1).flatten(0, 1) / top
save("interpolation.png", grid(rows, 13, "Between two test images (the outer columns)"))

# %% [markdown]
# ## What we may say
#
# For each fit: a lower bound on its test log-likelihood, its standard error, and about how large the bound's gap is.

# %%
for name, score in scores.items():
    value, error = score.mean("IWAE 256"), score.standard_error("IWAE 256")
    print(
        f"{name:11} E[log p(x)] ≥ {value:.2f} ± {error:.2f} nats per image ({score.bits_per_dim('IWAE 256'):.3f} bits/dim), "
        f"about {left(score):.2f} nats left open"
    )
print("pictures:", ", ".join(sorted(path.name for path in folder.glob("*.png"))))
