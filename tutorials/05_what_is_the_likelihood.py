# %% [markdown]
# # What is the likelihood?
#
# Everyone who fits a latent-variable model asks two questions: how good is the model, and is the guide any good? Both are
# about $\log p(x) = \log \int p(x, z)\, dz$, which has no closed form for most models, so that what is reported is a bound.
# Here is a model where the answer is known, and one number after the other is set beside it: the ELBO, the
# importance-weighted bound, the best that the guide's family can do, annealed importance sampling, and bounds from both
# sides. Then the guide is put to the test, and ArviZ draws its posterior.

# %%
import math
import os
import tempfile
import warnings
from pathlib import Path

import arviz as az
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import Tensor, nn

from inference import (
    annealed,
    calibration,
    diagnose,
    elbo,
    evaluate,
    importance,
    inference_gap,
    refined,
    sandwich,
    to_arviz,
)
from ppmodels.app.plots import bounds, png
from ppmodels.app.plots import calibration as calibration_figure

folder = Path(os.environ.get("TUTORIAL_OUT") or tempfile.mkdtemp(prefix="tutorial-likelihood-"))
folder.mkdir(parents=True, exist_ok=True)
print(f"pictures go to {folder}")
torch.manual_seed(0)


def save(name: str, figure: Figure) -> None:
    (folder / name).write_bytes(png(figure))


# %% [markdown]
# ## A model whose likelihood is known
#
# Probabilistic PCA (Tipping and Bishop, 1999) of scikit-learn's digits, as real numbers:
#
# $$z \sim \mathcal N(0, I_8), \qquad x \mid z \sim \mathcal N(W z + b, \sigma^2 I_{64}), \qquad
# x \sim \mathcal N(b, W W^\top + \sigma^2 I).$$
#
# Its maximum-likelihood fit is a singular value decomposition, and the posterior is normal. We turn $W$ by a rotation,
# which changes nothing of $p(x)$, but the coordinates of $z$ are no longer independent given $x$. The guide is a
# careless one: its mean is right, its standard deviations are 0.6 of what they should be, and it knows of no
# correlations.

# %%
pixels = torch.as_tensor(load_digits().data) + torch.rand(1797, 64, dtype=torch.float64)
order = torch.randperm(1797)
train, test = pixels[order[:1500]], pixels[order[1500:1600]]

LATENTS = 8
pca = PCA(LATENTS).fit(train.numpy())
SIGMA = math.sqrt(pca.noise_variance_)
scales = torch.as_tensor(np.sqrt(pca.explained_variance_ - pca.noise_variance_))
rotation = torch.linalg.qr(torch.randn(LATENTS, LATENTS, dtype=torch.float64)).Q
W = torch.as_tensor(pca.components_).T * scales @ rotation
b = torch.as_tensor(pca.mean_)
precision = torch.eye(LATENTS, dtype=torch.float64) + W.T @ W / SIGMA**2


class ProbabilisticPCA(nn.Module):
    """The model, and a guide that is too narrow by a factor."""

    def __init__(self, width: float) -> None:
        super().__init__()
        self.width = width

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENTS), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T + b, SIGMA).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        mean = (x - b) @ W @ torch.linalg.inv(precision) / SIGMA**2
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(mean, self.width * precision.diagonal().rsqrt()).to_event(1))


program = ProbabilisticPCA(width=0.6)
covariance = W @ W.T + SIGMA**2 * torch.eye(64, dtype=torch.float64)
log_evidence = torch.distributions.MultivariateNormal(b, covariance).log_prob(test)
print(f"exactly: {float(log_evidence.mean()):.3f} nats")

# %% [markdown]
# ## From the ELBO to the answer
#
# The *ELBO* is below $\log p(x)$ by $KL(q \| p(z \mid x))$. The *importance-weighted bound* (Burda et al., 2016)
# averages $K$ weights before the logarithm, and closes the gap as $1/K$ where the weights have a variance. *Refined*
# frees the guide's parameters for each example: what remains is the fault of its family. *Annealed importance sampling*
# (Neal, 2001) walks from the guide to the posterior by Hamiltonian transitions, and its gap falls as one over the
# number of temperatures, however bad the guide is. On data that the model itself has made we know an exact draw of the
# posterior, the $z$ that was drawn: a chain from there back to the start bounds $\log p(x)$ from above. The gap between
# both sides, the *sandwich* (Grosse et al., 2015), tells how far to trust the number on real data, where there is no
# such draw.

# %%
estimators = {
    "elbo": importance(500, elbo),
    "iwae:10": importance(10),
    "iwae:1000": importance(1000),
    "refined": refined(400, draws=1000),
    "annealed:10": annealed(10),
    "annealed:200": annealed(200),
    "sandwich": sandwich(200),
}
found = evaluate(program, test, estimators)
for name in estimators:
    off = found.log_prob[name] - log_evidence
    print(f"{name:13} {found.mean(name):9.3f}, off by {float(off.mean()):7.3f}   {found.kind[name]}")
width = found.details["sandwich"]["simulated gap"]
print(f"bounds from both sides are {float(width.mean()):.3f} nats apart on data simulated from the model")
assert abs(found.mean("annealed:200") - float(log_evidence.mean())) < 0.05
assert found.mean("elbo") < found.mean("refined") < found.mean("annealed:200") + 0.05

figure = bounds(found)
figure.axes[0].axhline(float(log_evidence.mean()), color="black", linewidth=0.8, linestyle="--")
save("bounds.png", figure)

# %% [markdown]
# ## The gap taken apart
#
# Cremer et al. (2018) split the inference gap in two: what the family of $q$ cannot do (here, correlations), and what
# it costs that one network serves all examples (here, the careless width). We know both: the best factorised normal has
# variances $1 / \Lambda_{ii}$, where $\Lambda$ is the posterior's precision, and misses $\frac12 (\sum_i \log
# \Lambda_{ii} - \log |\Lambda|)$ nats.

# %%
gap = inference_gap(found)
print(gap.table())
family = 0.5 * float(precision.diagonal().log().sum() - torch.logdet(precision))
careless = LATENTS * (0.5 * 0.6**2 - 0.5 - math.log(0.6))
print(f"exactly: approximation gap {family:.2f}, amortisation gap {careless:.2f} nats")
assert abs(gap.approximation.mean - family) < 0.1
assert abs(gap.amortisation.mean - careless) < 0.2

# %% [markdown]
# ## Why a kernel density estimate misleads
#
# Before there were such bounds, generators were scored by a kernel density estimate of their samples (a Parzen window).
# Theis et al. (2016) show what it is worth: with as many samples as one can afford it is far from the truth, and it
# prefers a "model" that only returns the centres of k-means to the model that is right.


# %%
def parzen(samples: Tensor, x: Tensor) -> float:
    """The mean log density under normal kernels, at the width that is best for half of x, of the other half."""
    valid, rest = x[::2], x[1::2]

    def score(width: float, values: Tensor) -> float:
        kernels = -0.5 * (torch.cdist(values, samples) / width) ** 2 - 64 * math.log(width * math.sqrt(2 * math.pi))
        return float((torch.logsumexp(kernels, 1) - math.log(len(samples))).mean())

    best = max(np.geomspace(1, 20, 30), key=lambda width: score(float(width), valid))
    return score(float(best), rest)


samples = torch.distributions.MultivariateNormal(b, covariance).sample((10_000,))
centres = torch.as_tensor(KMeans(500, n_init=1, random_state=0).fit(train.numpy()).cluster_centers_)
of_samples, of_centres, truth = parzen(samples, test), parzen(centres, test), float(log_evidence[1::2].mean())
print(
    f"Parzen window: {of_samples:.1f} nats of 10,000 samples of the model, {of_centres:.1f} of 500 centres; "
    f"exactly {truth:.1f}"
)
assert of_samples < truth - 3, "even 10,000 samples are far off"
assert of_centres > of_samples, "and what is no model at all wins"

# %% [markdown]
# ## Is the guide any good?
#
# *Simulation-based calibration* (Talts et al., 2018) draws $z$ and $x$ from the program, and asks where that $z$ ranks
# among draws of the guide given that $x$. Under the posterior all ranks are equally likely. Ranked too are $\log p(x
# \mid z)$ and other densities (Modrák et al., 2023), without which a guide that returns the prior would pass. The bands
# hold at all ranks at once. A guide that is too narrow has too many ranks at both ends.

# %%
narrow = calibration(program, test, simulations=2000)
print(narrow.table())
correlated = ProbabilisticPCA(width=1.0)
print(f"of the width that is best for the ELBO: {calibration(correlated, test, simulations=2000).flagged}")
assert "z[0]" in narrow.flagged
save("calibration.png", calibration_figure(narrow))

# %% [markdown]
# ## The same in ArviZ
#
# Weighted draws say more than a verdict. *Pareto* $\hat k$ is the shape of the tail of an example's weights: up to a
# threshold the weights can be trusted, and draws resampled by them are draws of the posterior. `diagnose` gives
# $\hat k$, the effective sample size and more; `to_arviz` hands the resampled draws to ArviZ, whose summaries are then
# of the posterior and not of the guide. The posterior predictive draws say at a glance what no bound has told: pixels
# are not normal.

# %%
narrow_tails, wide_tails = diagnose(program, test), diagnose(correlated, test)
print(f"too narrow:\n{narrow_tails}\n\nof the best width:\n{wide_tails}")
assert wide_tails.khat.median() < narrow_tails.khat.median()
assert wide_tails.ess.median() > narrow_tails.ess.median()

# %%
one = test[:1]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # k̂ is told above
    in_arviz = to_arviz(correlated, one, draws=2000)
exact_mean = ((one - b) @ W @ torch.linalg.inv(precision) / SIGMA**2)[0]
exact_sd = torch.linalg.inv(precision).diagonal().sqrt()
summary = az.summary(in_arviz, var_names=["z"], kind="stats", round_to=3)
print(summary)
of_guide = torch.as_tensor(in_arviz.guide["z"].values).reshape(-1, LATENTS).std(0)
of_posterior = torch.as_tensor(in_arviz.posterior["z"].values).reshape(-1, LATENTS).std(0)
print("standard deviations, exactly   ", [f"{value:.2f}" for value in exact_sd.tolist()])
print("of the guide's draws           ", [f"{value:.2f}" for value in of_guide.tolist()])
print("of the draws that ArviZ is given", [f"{value:.2f}" for value in of_posterior.tolist()])
assert (of_posterior - exact_sd).abs().mean() < (of_guide - exact_sd).abs().mean()

axes = az.plot_forest(in_arviz, var_names=["z"], combined=True, figsize=(6, 3.6))
axes[0].plot(exact_mean.flip(0), axes[0].get_yticks()[:LATENTS], "kx", label="exactly")
axes[0].legend(frameon=False)
axes[0].figure.savefig(folder / "forest.png", dpi=130, bbox_inches="tight")
axes = az.plot_ppc(in_arviz, num_pp_samples=50, random_seed=0, figsize=(6, 3.6))
axes.figure.savefig(folder / "predictive.png", dpi=130, bbox_inches="tight")
