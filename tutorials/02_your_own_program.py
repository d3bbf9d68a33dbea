# %% [markdown]
# # Your own program
#
# A program is two Pyro functions and nothing else, so whatever can be written in Pyro can be fitted and scored here. We
# write two: a Gaussian mixture whose assignments are summed out, and a factor analysis whose loadings are a latent
# variable that all examples share. Each is set beside scikit-learn's maximum-likelihood fit of the same family, on
# scikit-learn's own tables. At the end a program of your own goes to the command line.

# %%
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib.figure import Figure
from pyro.infer import TraceEnum_ELBO, infer_discrete
from pyro.infer.autoguide import AutoNormal
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris, load_wine
from sklearn.decomposition import FactorAnalysis
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from inference import (
    SVI,
    Pair,
    ProgramError,
    Step,
    adam,
    check,
    elbo,
    evaluate,
    exact,
    fit,
    importance,
    posterior,
    terms,
)
from ppmodels import Dataset, load
from ppmodels.app import Recipe
from ppmodels.app.plots import png

folder = Path(os.environ.get("TUTORIAL_OUT") or tempfile.mkdtemp(prefix="tutorial-program-"))
folder.mkdir(parents=True, exist_ok=True)
print(f"pictures go to {folder}")


def save(name: str, figure: Figure) -> None:
    (folder / name).write_bytes(png(figure))


# %% [markdown]
# ## A Gaussian mixture: latents that are summed out
#
# The story: a component $k \sim \mathrm{Categorical}(\pi)$, then $x \mid k \sim \mathcal N(\mu_k, L_k L_k^\top)$. The
# parameters are `pyro.param` statements, each with a constraint. In plain Pyro they would land in a store that the whole
# process shares; `Pair` keeps them as parameters of its own, so that two programs share none.
#
# `infer={"enumerate": "parallel"}` says that $k$ is not drawn but summed over. There is then nothing left to infer, and
# the program needs no guide. The starting point is that of k-means, which is scikit-learn's starting point too.

# %%
COMPONENTS = 3
iris = load_iris()
flowers = StandardScaler().fit_transform(iris.data)
x = torch.tensor(flowers, dtype=torch.float32)
clusters = torch.tensor(KMeans(COMPONENTS, n_init=10, random_state=0).fit_predict(flowers))
centres = torch.stack([x[clusters == k].mean(0) for k in range(COMPONENTS)])
spreads = torch.linalg.cholesky(torch.stack([x[clusters == k].T.cov() for k in range(COMPONENTS)]))


def mixture(x: Tensor) -> Tensor:
    weights = pyro.param("weights", torch.full((COMPONENTS,), 1 / COMPONENTS), constraint=constraints.simplex)
    loc = pyro.param("loc", centres)
    tril = pyro.param("scale_tril", spreads, constraint=constraints.lower_cholesky)
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
        return pyro.sample("x", dist.MultivariateNormal(loc[k], scale_tril=tril[k]), obs=x)


program = Pair(mixture)

# %% [markdown]
# `check` finds nothing wrong with that. A bound made of draws refuses a site that is not drawn:

# %%
check(program, x)
try:
    terms(program, x)
except ProgramError as error:
    print(f"ProgramError: {error}")

# %% [markdown]
# With Pyro's `TraceEnum_ELBO` the loss *is* $-\log p(x) = -\log \sum_k \pi_k\, \mathcal N(x; \mu_k, L_k L_k^\top)$,
# without noise, and `exact()` computes the same sum as an estimator: it is of the kind "exact", and its own noise is 0.
# A table of real numbers has a density, so the unit is nats of a density of *these standardised* columns, and
# comparable with nothing else.

# %%
fit(Step(SVI(program, TraceEnum_ELBO(max_plate_nesting=1)), adam(0.02)), x, 400, progress=False)
score = evaluate(program, x, {"log p": exact()}, measured_on={"data": "iris, standardised", "split": "all"})
print(score.measured_on, score.kind)

em = GaussianMixture(COMPONENTS, tol=1e-8, max_iter=2000, random_state=0).fit(flowers)
ours, theirs = score.mean("log p"), float(em.score(flowers))
print(
    f"gradient ascent {ours:.4f}, scikit-learn's EM {theirs:.4f} nats per flower: they differ by {abs(ours - theirs):.1e}"
)
assert abs(ours - theirs) < 0.01

# %% [markdown]
# Both are in-sample maxima of one likelihood, reached by two algorithms from one start; they agree, and neither is a
# statement about new flowers. The mixture has other maxima: from another start either may end elsewhere.
#
# Pyro's own tools work on the program as it is. `infer_discrete` at temperature 0 gives the most probable component of
# every flower.

# %%
most_probable = infer_discrete(program.model, first_available_dim=-2, temperature=0)
k = pyro.poutine.trace(most_probable).get_trace(x).nodes["k"]["value"]
print(
    f"flowers assigned as by EM: {adjusted_rand_score(em.predict(flowers), k):.3f} (adjusted Rand index; 1: all alike)"
)
print(f"agreement with the species: {adjusted_rand_score(iris.target, k):.3f}")

species = np.array([np.bincount(iris.target[k == component]).argmax() for component in range(COMPONENTS)])
panels = {"components, in the colour of their commonest species": species[k], "species": iris.target}
figure = Figure(figsize=(9, 4), layout="constrained")
for axes, (title, colour) in zip(figure.subplots(1, 2, sharey=True), panels.items(), strict=True):
    axes.scatter(flowers[:, 2], flowers[:, 3], c=colour, s=14, cmap="viridis")
    axes.set_xlabel(f"{iris.feature_names[2]}, standardised")
    axes.set_title(title, fontsize=10)
figure.axes[0].set_ylabel(f"{iris.feature_names[3]}, standardised")
save("mixture.png", figure)

# %% [markdown]
# ## Factor analysis: a latent that all examples share
#
# Each wine has factors $z_n \sim \mathcal N(0, I)$, and $x_n \mid z_n, W \sim \mathcal N(\mu + z_n W, \Psi)$ with a
# diagonal $\Psi$. In the usual reading the loadings $W$ are parameters. Here they are a latent variable with a prior,
# $W_{ij} \sim \mathcal N(0, 1)$; only $\mu$ and $\Psi$ are fitted as points. The guide draws both: $W$ once, $z_n$ for
# every wine, from a linear map of $x_n$.
#
# $W$ stands outside the plate. The plate says how many wines there are, and how many of them the batch holds: the local
# terms of a minibatch are then weighed up to the dataset's size, against the one prior of $W$.

# %%
FACTORS = 3
wine = load_wine()
wines = StandardScaler().fit_transform(wine.data)
x = torch.tensor(wines, dtype=torch.float32)
size, features = x.shape


class FactorAnalyser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.noise = nn.Parameter(torch.zeros(features)), nn.Parameter(torch.zeros(features))
        self.loc = nn.Parameter(0.1 * torch.randn(FACTORS, features))
        self.scale = nn.Parameter(torch.full((FACTORS, features), -2.0))
        self.encoder, self.spread = nn.Linear(features, FACTORS), nn.Parameter(torch.zeros(FACTORS))

    def model(self, x: Tensor) -> Tensor:
        loadings = pyro.sample("W", dist.Normal(x.new_zeros(FACTORS, features), 1.0).to_event(2))
        with pyro.plate("data", size, subsample_size=len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(len(x), FACTORS), 1.0).to_event(1))
            likelihood = dist.Normal(self.mean + z @ loadings, softplus(self.noise)).to_event(1)
            return pyro.sample("x", likelihood, obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.sample("W", dist.Normal(self.loc, softplus(self.scale)).to_event(2))
        with pyro.plate("data", size, subsample_size=len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), softplus(self.spread)).to_event(1))


def minibatch(step: int) -> Tensor:
    order = torch.randperm(size, generator=torch.Generator().manual_seed(step))
    return x[order[:60]]


def decreasing(step: int) -> float:
    return 1.0 if step < 600 else 0.1


torch.manual_seed(0)
by_hand = FactorAnalyser()
fit(Step(SVI(by_hand), adam(0.02), learning_rate=decreasing), minibatch, 800, progress=False)

# %% [markdown]
# No wine has a log-likelihood of its own now: given $W$ they are independent, but $W$ is integrated out. What can be had
# is one number for the whole dataset, $\log p(X) = \log \int p(W) \prod_n p(x_n \mid W)\, dW$, and a bound on it. The
# evaluation says so, and gives one number, whose error is its own noise alone.

# %%
ELBO = {"ELBO": importance(100, elbo)}
score = evaluate(by_hand, x, ELBO, measured_on={"data": "wine, standardised", "split": "all"})
bounds = {"by hand": score.mean("ELBO")}
print(f"per example: {score.per_example}; shape {tuple(score.log_prob['ELBO'].shape)}; {score.kind['ELBO']}")
print(
    f"guide by hand: ELBO {score.mean('ELBO'):.1f} ± {score.standard_error('ELBO'):.1f} nats of the {size} wines together"
)

# %% [markdown]
# The ELBO may be trained on minibatches because it is linear in the log-weights: a minibatch's estimate is unbiased. The
# importance-weighted bound is not linear, and `ImportanceWeighted` would refuse a part of the data here.
#
# ### The same model, the factors integrated out
#
# Given $W$ the factors can be had in closed form, $x_n \mid W \sim \mathcal N(\mu, W^\top W + \Psi)$. That leaves one
# latent site, and no need to write its guide: an AutoGuide is given as a class, which `Pair` builds on the model.


# %%
class Collapsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.noise = nn.Parameter(torch.zeros(features)), nn.Parameter(torch.zeros(features))

    def model(self, x: Tensor) -> Tensor:
        loadings = pyro.sample("W", dist.Normal(x.new_zeros(FACTORS, features), 1.0).to_event(2))
        with pyro.plate("data", size, subsample_size=len(x)):
            variance = softplus(self.noise).square()
            likelihood = dist.LowRankMultivariateNormal(self.mean, loadings.mT, variance)
            return pyro.sample("x", likelihood, obs=x)


torch.manual_seed(0)
collapsed = Pair(Collapsed().model, partial(AutoNormal, init_scale=0.1))
fit(Step(SVI(collapsed), adam(0.02), learning_rate=decreasing), minibatch, 800, progress=False)
score = evaluate(collapsed, x, ELBO, measured_on=score.measured_on)
bounds["collapsed"] = score.mean("ELBO")
print(
    f"collapsed, AutoNormal: ELBO {score.mean('ELBO'):.1f} ± {score.standard_error('ELBO'):.1f} nats of the {size} wines"
)

# %% [markdown]
# ### Beside maximum likelihood
#
# scikit-learn's `FactorAnalysis` maximises $\log p(X \mid W, \mu, \Psi)$ over the loadings too. It is another number:
# an average of the likelihood over $W$ never exceeds its maximum over $W$, so
#
# $$\mathbb E[\mathrm{ELBO}] \le \log p(X \mid \mu, \Psi) \le \max_{W, \mu, \Psi} \log p(X \mid W, \mu, \Psi).$$
#
# The order of the two numbers is therefore known beforehand and says nothing about which fit is better. The distance is
# the cost of integrating over $W$ under its prior, plus the gap of the guide.

# %%
ml = FactorAnalysis(FACTORS, tol=1e-8, max_iter=5000).fit(wines)
maximum = float(ml.score(wines)) * size
for name, value in bounds.items():
    print(f"{name:9} log p(X) ≥ {value:9.1f} nats in expectation, {maximum - value:.1f} below the maximum")
print(f"maximum   log p(X | W) = {maximum:.1f} nats, at the fitted loadings")
assert max(bounds.values()) < maximum

# %% [markdown]
# Loadings are known only up to a rotation of the factors, so two fits are compared by the covariance that they imply,
# $W^\top W + \Psi$: averaged over draws of $W$ from the guide for ours, at the fitted point for scikit-learn's.

# %%
with torch.no_grad():
    loadings = posterior(by_hand, x, draws=200)["W"]
    implied = (loadings.mT @ loadings).mean(0) + softplus(by_hand.noise).square().diag()
print(f"draws of W: {tuple(loadings.shape)}")
covariances = {"data": np.cov(wines.T), "maximum likelihood": ml.get_covariance(), "guide by hand": implied.numpy()}
figure = Figure(figsize=(10, 3.6), layout="constrained")
for axes, (name, covariance) in zip(figure.subplots(1, 3), covariances.items(), strict=True):
    image = axes.imshow(covariance, vmin=-1, vmax=1, cmap="RdBu_r")
    axes.set(title=name, xticks=[], yticks=[])
figure.colorbar(image, ax=figure.axes, label="covariance of the standardised columns", shrink=0.9)
save("covariance.png", figure)
distance = {name: float(np.abs(value - covariances["data"]).mean()) for name, value in covariances.items()}
print("mean absolute distance to the covariance of the data:", {name: round(far, 3) for name, far in distance.items()})

# %% [markdown]
# ## To the command line
#
# A `Recipe` is a program with its objective, its estimators and its default data. A file that defines
# `recipe = Recipe(...)` can be trained, scored and sampled from the command line. The program is made from a `Dataset`,
# so that its shapes and starting values come from the data. Below is all that the file `my_mixture.py` needs, apart from
# its imports.


# %%
def my_mixture(data: Dataset, components: int = 3) -> Pair:
    values = data.train.values
    columns = values.shape[1]

    def model(x: Tensor) -> Tensor:
        start = values[: components * (len(values) // components) : len(values) // components]
        weights = pyro.param("weights", torch.full((components,), 1 / components), constraint=constraints.simplex)
        loc = pyro.param("loc", start)
        scale = pyro.param("scale", values.std(0).expand(components, columns), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            return pyro.sample("x", dist.Normal(loc[k], scale[k]).to_event(1), obs=x)

    return Pair(model)


recipe = Recipe(
    program=my_mixture,
    summary="a mixture of diagonal normals, its assignments summed out",
    data="wine.csv",
    objective=partial(SVI, estimator=TraceEnum_ELBO(max_plate_nesting=1)),
    steps=1000,
    learning_rate=0.02,
    estimators={"log p": exact()},
)

# %% [markdown]
# ```
# ppmodels train my_mixture.py --folder tables --out runs/mixture
# ppmodels evaluate runs/mixture
# ppmodels sample runs/mixture
# ```
#
# `--folder` is where the data are, here a folder `tables` with a `wine.csv`; `--data other.csv` trains the same program
# on another table. The first of the estimators also scores the validation split while the recipe is trained. `train` has
# the program checked by its objective on the first batch; that can be asked for beforehand:

# %%
np.savetxt(folder / "wine.csv", wines, delimiter=",", header=",".join(wine.feature_names), comments="", fmt="%.6f")
table = load(recipe.data, folder)
print(f"{table.name}: {len(table.train)} train, {len(table.test)} test, shape {table.shape}, levels {table.levels}")
objective = recipe.objective(recipe.program(table))
objective.prepare(table.train.values)
objective.check(table.train.values)
print("the recipe's program and objective fit its data")
print("pictures:", ", ".join(sorted(path.name for path in folder.glob("*.png"))))
