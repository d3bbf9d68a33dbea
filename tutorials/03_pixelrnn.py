# %% [markdown]
# # One pixel after the other
#
# An autoregressive model of images has no latent variable: it gives, for every pixel, the probability of each level
# given the pixels before it. The product of these probabilities is $p(x)$ itself, so there is no bound to tighten and no
# posterior to approximate. As a program the whole image is *one* `pyro.sample` site. We train five networks for that
# site, look at their receptive fields, compute their exact log-likelihoods, draw images, complete images, and in the end
# use such a network as the decoder of a variational autoencoder. The data are the 8 × 8 digits in their 17 levels.

# %%
import inspect
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pyro
import torch
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pyro.distributions import Categorical, Normal
from torch import Tensor, nn
from torch.distributions import kl_divergence

from inference import (
    SVI,
    Fitted,
    ImportanceWeighted,
    Objective,
    Program,
    ProgramError,
    Step,
    adam,
    elbo,
    evaluate,
    exact,
    fit,
    importance,
    sample,
)
from ppmodels import VAE, CharRNN, DiagonalBiLSTM, GatedPixelCNN, PixelCNN, RowLSTM, load
from ppmodels.app.plots import grid, png
from ppmodels.data import InOrder, Shuffled
from ppmodels.nn.causal import AutoregressiveModel

folder = Path(os.environ.get("TUTORIAL_OUT") or tempfile.mkdtemp(prefix="tutorial-pixels-"))
folder.mkdir(parents=True, exist_ok=True)
print(f"pictures go to {folder}")


def save(name: str, figure: Figure) -> None:
    (folder / name).write_bytes(png(figure))


digits = load("digits")
shape, levels, top = digits.shape, digits.levels, digits.levels - 1
batches, test = Shuffled(digits, batch_size=32), InOrder(digits, "test", 180)
(x,) = next(iter(test))
print(f"shape {shape}, {levels} levels; train {len(digits.train)}, test {len(digits.test)}")

# %% [markdown]
# ## The chain rule
#
# Put the $D$ pixels in an order, here row by row from the upper left, as one reads. Every distribution over images is
#
# $$p(x) = \prod_{i=1}^{D} p(x_i \mid x_1, \dots, x_{i-1}) = \prod_{i=1}^{D} p(x_i \mid x_{<i}).$$
#
# This is no assumption. The model begins where one network has to give all the factors. An image is then a sequence like
# a text, its levels are the letters, and the simplest model is the one that is used for texts: a recurrent network that
# reads letter by letter and says how likely each next one is. `CharRNN` is an LSTM over the 64 pixels.
#
# Each factor is a categorical distribution over 17 levels, so it sums to 1 by construction. Then the product does too,
# *provided that* no factor looks at its own pixel or at a later one. One mistake in a mask and the "likelihood" would
# be too good to be true. It can be put to the test: on an image so small that all images can be listed, their
# probabilities must sum to 1, whatever the weights.

# %%
KINDS: dict[str, Callable[..., AutoregressiveModel]] = {
    kind.__name__: kind for kind in (CharRNN, RowLSTM, DiagonalBiLSTM, PixelCNN, GatedPixelCNN)
}
every_image = torch.tensor(list(product([0.0, 1.0], repeat=6))).view(-1, 1, 2, 3)
torch.manual_seed(0)
for name, kind in KINDS.items():
    with torch.no_grad():
        total = kind((1, 2, 3), levels=2)().log_prob(every_image).double().exp().sum()
    print(f"{name:15} probabilities of all {len(every_image)} binary images of 2 × 3 pixels: sum {total:.6f}")
    assert abs(total - 1) < 1e-5

# %% [markdown]
# ## A program with nothing to infer
#
# `CharRNN(shape, levels)()` is that distribution. The program observes it, and its guide is empty:

# %%
print(inspect.getsource(AutoregressiveModel.model), inspect.getsource(AutoregressiveModel.guide), sep="\n")

# %% [markdown]
# The ELBO is $\mathbb E_q[\log p(x, z) - \log q(z \mid x)]$. Without a $z$ nothing is left in it but $\log p(x)$: SVI is
# maximum likelihood here, and its loss has no noise but that of the minibatch.
#
# One recipe serves all five networks: few steps, a small network, a learning rate that goes down to 0. Such budgets are
# tiny. They show how things work, and are far from what any of these networks can do.

# %%
STEPS = 200


def fitted(
    program: Program,
    batches: Shuffled = batches,
    steps: int = STEPS,
    rate: float = 0.015,
    objective: Callable[[Program], Objective] = SVI,
) -> Fitted:
    def decreasing(step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * step / steps))

    step = Step(objective(program), adam(rate), clip=200.0, learning_rate=decreasing)
    return fit(step, batches, steps, record_every=10, progress=False)


torch.manual_seed(0)
programs: dict[str, AutoregressiveModel] = {"CharRNN": CharRNN(shape, levels, hidden=64)}
runs = {"CharRNN": fitted(programs["CharRNN"])}
ESTIMATORS = {"exact": exact(), "ELBO": importance(4, elbo), "IWAE 16": importance(16)}
scores = {"CharRNN": evaluate(programs["CharRNN"], test, ESTIMATORS)}
for name, kind in scores["CharRNN"].kind.items():
    value, noise = scores["CharRNN"].mean(name), scores["CharRNN"].noise(name)
    print(f"{name:8} {value:8.3f} nats, own noise {noise:.1e} ({kind})")
apart = max(
    float((scores["CharRNN"].log_prob[name] - scores["CharRNN"].log_prob["exact"]).abs().max()) for name in ESTIMATORS
)
print(f"farthest that two of the three are apart on one of {len(x)} test images: {apart:.1e} nats")
assert apart < 1e-2

# %% [markdown]
# The three estimators of the first tutorial agree up to rounding, because all weights of an image are the same number.
# Only the first is of the kind "exact"; an importance-weighted estimate is called a bound because for most programs it
# is one.
#
# ## From one dimension to two
#
# To an LSTM over the raster, the pixel above is as far away as a row is long. Four networks know that an image has two
# dimensions. The first three are of van den Oord et al. (2016, arXiv 1601.06759), the last is of van den Oord et al.
# (2016, arXiv 1606.05328):
#
# - the **Row LSTM** goes down the image a row at a time; a cell is given the states of the three cells above it;
# - the **Diagonal BiLSTM** goes along the diagonals, once from each upper corner; a cell is given the states above and
# - the **PixelCNN** is made of convolutions whose kernels are 0 at the pixels that are not before;
# - the **gated PixelCNN** has two stacks of convolutions, one over the rows above in their whole width, and one along the
#
# What a network *can* see, trained or not, is seen in its derivatives. The networks take the levels as real numbers, so
# $\partial \ell_i / \partial x_j$ exists, where $\ell_i$ is the logit of pixel $i$ of a binary image. We average its
# absolute value over random weights and random images. Where it is exactly 0, $x_j$ has no influence on $p(x_i \mid
# x_{<i})$.

# %%
SIDE, ROW, COLUMN = 15, 10, 7
BUILT: dict[str, Callable[[], AutoregressiveModel]] = {
    "CharRNN": lambda: CharRNN((1, SIDE, SIDE), hidden=32),
    "RowLSTM": lambda: RowLSTM((1, SIDE, SIDE), hidden=16, layers=1),
    "DiagonalBiLSTM": lambda: DiagonalBiLSTM((1, SIDE, SIDE), hidden=16, layers=1),
    "PixelCNN": lambda: PixelCNN((1, SIDE, SIDE), features=16, layers=7),
    "GatedPixelCNN": lambda: GatedPixelCNN((1, SIDE, SIDE), features=16, layers=7),
}


def influence(build: Callable[[], AutoregressiveModel], weights: int = 10, images: int = 8) -> Tensor:
    total = torch.zeros(SIDE, SIDE, dtype=torch.float64)
    for seed in range(weights):
        torch.manual_seed(seed)
        model = build().double()  # in double precision what is small is not lost
        noise = torch.randint(2, (images, 1, SIDE, SIDE)).double().requires_grad_()
        logit = model().conditionals(noise).base_dist.logits[:, 0, ROW, COLUMN]
        (gradient,) = torch.autograd.grad(logit.sum(), noise)
        total += gradient[:, 0].abs().mean(0)
    return total / weights


before = torch.arange(SIDE * SIDE).view(SIDE, SIDE) < ROW * SIDE + COLUMN
figure = Figure(figsize=(13, 3.1), layout="constrained")
for axes, (name, build) in zip(figure.subplots(1, 5), BUILT.items(), strict=True):
    seen = influence(build)
    assert not seen[~before].any(), f"{name} looks ahead"
    print(f"{name:15} sees {int((seen > 0).sum()):3} of the {int(before.sum())} pixels before")
    relative = torch.where(seen > 0, (seen / seen.max()).clamp_min(1e-8), torch.nan)
    picture = axes.imshow(relative, norm=LogNorm(1e-8, 1), cmap="viridis")
    axes.add_patch(Rectangle((COLUMN - 0.5, ROW - 0.5), 1, 1, color="crimson"))
    axes.plot(
        [-0.5, COLUMN - 0.5, COLUMN - 0.5, SIDE - 0.5],
        [ROW + 0.5, ROW + 0.5, ROW - 0.5, ROW - 0.5],
        color="0.6",
        lw=0.8,
    )
    axes.set(title=name, xticks=[], yticks=[])
figure.colorbar(picture, ax=figure.axes, label="influence (the largest: 1)", shrink=0.85, pad=0.01, extend="min")
save("receptive_fields.png", figure)

# %% [markdown]
# The red pixel is the one in question, the grey line the end of the pixels before it; white is an influence of
# exactly 0, and the colours are logarithmic. No network sees anything beyond the line, which the code asserts.
#
# - **CharRNN** sees all that is before, but along one line: untrained, the influence fades from pixel to pixel *of the
# - **RowLSTM** (one layer) sees a triangle, widened by the 7 × 7 convolution that comes before the LSTM. With each row up
# - **DiagonalBiLSTM** (one layer) sees what is near in the image at little loss, to the left and to the right, and every
# - **PixelCNN** has the *blind spot* on the right: a masked kernel of 3 × 3 reaches a column to the right only by going
# - **GatedPixelCNN** has none: all that its vertical stack sees lies in the rows above, so there is nothing to hide in
#
# ## Log-likelihoods
#
# The same recipe for all. The networks differ in size and a step of theirs in cost, so this is a comparison of five fits.
# Beside them a VAE, with a learning rate of its own and three times as many steps, each being cheaper. Both learning rates
# were picked among a few by the validation split.

# %%
VAE_STEPS = 3 * STEPS
SMALL: dict[str, Callable[[], AutoregressiveModel]] = {
    "RowLSTM": lambda: RowLSTM(shape, levels, hidden=16, layers=1),
    "DiagonalBiLSTM": lambda: DiagonalBiLSTM(shape, levels, hidden=16, layers=1),
    "PixelCNN": lambda: PixelCNN(shape, levels, features=32, layers=3),
    "GatedPixelCNN": lambda: GatedPixelCNN(shape, levels, features=16, layers=2),
}
for name, build in SMALL.items():
    torch.manual_seed(0)
    programs[name] = build()
    runs[name] = fitted(programs[name])
    scores[name] = evaluate(programs[name], test, {"exact": exact(), "IWAE 16": importance(16)})

torch.manual_seed(0)
vae = VAE(shape, levels, latent=10)
runs["VAE"] = fitted(vae, steps=VAE_STEPS, rate=0.003)
scores["VAE"] = evaluate(vae, test, {"IWAE 16": importance(16), "IWAE 256": importance(256)})

figure = Figure(figsize=(7, 3.8), layout="constrained")
axes = figure.add_subplot()
for name, run in runs.items():
    label = f"{name} (minus the ELBO)" if name == "VAE" else name
    axes.plot([row["step"] for row in run.history], [row["loss"] for row in run.history], lw=1, label=label)
axes.set(xlabel="step", ylabel="loss on a batch (nats per image)", ylim=(75, 160))
axes.legend(frameon=False)
save("training.png", figure)


def line(name: str, estimator: str) -> str:
    score, program = scores[name], programs.get(name, vae)
    return (
        f"{name:15} {sum(weights.numel() for weights in program.parameters()):7,} parameters, {runs[name].seconds:4.1f} s: "
        f"{score.mean(estimator):7.2f} ± {score.standard_error(estimator):.2f} nats, "
        f"{score.bits_per_dim(estimator):.3f} bits/dim ({score.kind[estimator]})"
    )


print(scores["CharRNN"].measured_on)
for name in programs:
    print(line(name, "exact"))
print(line("VAE", "IWAE 256"))

# %% [markdown]
# The standard error is that of the choice of test images, and most of it is common to all rows: an image with much ink
# is hard for every model. On the same images differences are known far better. `difference` pairs them, and refuses to
# pair numbers that are not of one kind:

# %%
for name in SMALL:
    gain, error = scores[name].difference(scores["CharRNN"], "exact")
    print(f"{name:15} - CharRNN: {gain:+6.2f} ± {error:.2f} nats per image, exact")
try:
    scores["CharRNN"].difference(scores["VAE"], "exact")
except ProgramError as error:
    print(f"ProgramError: {error}")

# %% [markdown]
# For the VAE there is no exact number, only a bound. So both are scored by importance-weighted estimates of the same
# $K$: for an autoregressive model that *is* $\log p(x)$, for the VAE it lies below it in expectation. The difference
# favours the autoregressive model, by the gap of the bound. A part of the gap is known: what the VAE gains from $K =
# 16$ to $256$. The last column subtracts it.

# %%
slack, slack_error = scores["VAE"].gap("IWAE 256", "IWAE 16")
print(f"the VAE's IWAE 256 - IWAE 16: {slack:.2f} ± {slack_error:.2f} nats per image")
for name in programs:
    gain, error = scores[name].difference(scores["VAE"], "IWAE 16")
    print(
        f"{name:15} - VAE: at most {gain:+6.2f} ± {error:.2f} nats per image in expectation, {gain - slack:+6.2f} by K = 256"
    )

# %% [markdown]
# Neither is a verdict on a kind of model. The fits are short, and the VAE's is the farthest from done: it learns more
# slowly than a network that is shown every pixel's neighbours, and the longer fits of the first tutorial score better. And
# the error bars hold the choice of test images, not the luck of the training.
#
# ## Samples
#
# Ancestral sampling follows the chain rule: $x_1 \sim p(x_1)$, then $x_2 \sim p(x_2 \mid x_1)$, and so on. `sample`
# lifts the observation, as of any program. These are draws of $x$ and not means: an autoregressive model has no mean
# image in closed form.

# %%
torch.manual_seed(1)
drawn = {name: sample(program, x[:16])["x"][0] for name, program in {**programs, "VAE": vae}.items()}
rows = torch.cat([x[:16], *drawn.values()]) / top
save("samples.png", grid(rows, 16, "Draws from p(x), one row a program", ["test images", *drawn]))

# %% [markdown]
# ## Where the nats go
#
# $-\log p(x) = \sum_i -\log p(x_i \mid x_{<i})$, so every pixel has its share: how surprising it was, given those before.
# `conditionals(x)` is the product before it is taken, and its `base_dist` has a distribution for each pixel.


# %%
def shares(program: AutoregressiveModel, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = -program().conditionals(x).base_dist.log_prob(x)
    return found


CHOSEN = "GatedPixelCNN"
nats = {name: shares(programs[name], x) for name in ("CharRNN", CHOSEN)}
rest = (nats[CHOSEN].sum((1, 2, 3)) + scores[CHOSEN].log_prob["exact"]).abs().max()
print(f"{CHOSEN}: the shares of an image sum to -log p(x), up to {rest:.1e} nats")

figure = Figure(figsize=(11, 3.2), layout="constrained")
panels = figure.subplots(2, 8)
for column in range(8):
    panels[0, column].imshow(x[column, 0], cmap="gray", vmin=0, vmax=top)
    heat = panels[1, column].imshow(nats[CHOSEN][column, 0], cmap="magma", vmin=0, vmax=6)
    panels[0, column].set_title(f"{float(nats[CHOSEN][column].sum()):.0f} nats", fontsize=10)
for axes in panels.flat:
    axes.set(xticks=[], yticks=[])
figure.colorbar(heat, ax=panels[1], label="nats", extend="max")
figure.suptitle(f"Test images, and the surprise at each pixel under {CHOSEN}", fontsize=11)
save("surprise.png", figure)

# %% [markdown]
# Pixels that those before do not predict are costly: where a stroke begins and where it ends. Black at the margins is
# nearly free. Inside a stroke a pixel still costs its exact level. Averaged over the test images the map says where a
# dataset's uncertainty lies, and the difference of two such maps says where one network knows more than another.

# %%
mean = {name: found.mean(0)[0] for name, found in nats.items()}
gained = mean["CharRNN"] - mean[CHOSEN]
highest, limit = float(torch.stack([*mean.values()]).max()), float(gained.abs().max())
figure = Figure(figsize=(10.5, 2.7), layout="constrained")
maps = [(x.mean(0)[0], "mean test image", "gray", 0.0, float(top), "level")]
maps += [(found, f"−log p, {name}", "magma", 0.0, highest, "nats") for name, found in mean.items()]
maps += [(gained, "the difference", "RdBu", -limit, limit, "nats")]
for axes, (values, title, colours, low, high, unit) in zip(figure.subplots(1, 4), maps, strict=True):
    picture = axes.imshow(values, cmap=colours, vmin=low, vmax=high)
    axes.set_title(title, fontsize=10)
    axes.set(xticks=[], yticks=[])
    figure.colorbar(picture, ax=axes, label=unit, shrink=0.85)
save("nats.png", figure)
by_row = ", ".join(f"{float(row):+.2f}" for row in gained.sum(1))
print(f"{CHOSEN} saves, row by row from the top: {by_row} nats per image")

# %% [markdown]
# ## Completing images
#
# Let the first $m$ pixels be known. By the chain rule the others are distributed as
#
# $$p(x_{m+1}, \dots, x_D \mid x_1, \dots, x_m) = \prod_{i > m} p(x_i \mid x_{<i}),$$
#
# which are factors that the model has: go on drawing where the known pixels end. This is exact conditional sampling from
# the model as it is; nothing was trained for it. A VAE can not do this: it would need $p(z \mid x_1, \dots, x_m)$, and
# its guide takes whole images only.

# %%
program = programs[CHOSEN]
known = torch.zeros(shape, dtype=torch.bool)
known[:, :4] = True
torch.manual_seed(2)
begun = x[:12]
endings = program().complete(begun.expand(6, -1, -1, -1, -1), known)
assert torch.equal(endings[..., :4, :], begun[..., :4, :].expand(6, -1, -1, -1, -1))
shown = torch.cat([begun, torch.where(known, begun, 0.4 * top), *endings]) / top
labels = ["test image", "what is given", *(f"ending {index}" for index in range(1, 7))]
save("completions.png", grid(shown, 12, f"Six endings of each upper half, by {CHOSEN}", labels))

# %% [markdown]
# Where the known pixels come *last* the same procedure is not that. The upper half would be drawn from
# $p(x_{\text{upper}})$, without knowing how the image goes on, and then the given lower half would be set below it.
# `complete` does so, and warns:

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    guesses = program().complete(x[:1].expand(1000, -1, -1, -1), ~known)
for warning in caught:
    print(f"{warning.category.__name__}: {warning.message}")
assert len(caught) == 1

# %% [markdown]
# How wrong is that? The exact conditional is $p(x_{\text{upper}} \mid x_{\text{lower}}) \propto p(x_{\text{upper}})\,
# p(x_{\text{lower}} \mid x_{\text{upper}})$, so each draw would have to be weighed by $w = p(x_{\text{lower}} \mid
# x_{\text{upper}})$, the exponential of minus the lower half's shares. How many equally good draws the 1,000 are worth is
# then about $(\sum w)^2 / \sum w^2$, and fewer where the draws that matter are missing.

# %%
log_weight = -shares(program, guesses)[:, :, 4:].sum((1, 2, 3))
effective = (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()
print(f"{len(guesses)} draws of the upper half are worth about {effective:.0f}")

# %% [markdown]
# ## Incremental sampling
#
# For $\log p(x)$ of a given image one pass is enough: all factors are known at once. A draw needs $D$ rounds, one a
# pixel, and the obvious way spends a whole pass on each, of which all but one pixel's outputs are thrown away. The
# networks here sample *incrementally* (after Ramachandran et al., 2017, arXiv 1704.06001): a layer caches what it needs of
# the pixels before, an LSTM its states and a convolution the rows that its kernel still reaches, and computes one pixel's
# outputs from that. Counted in multiplications a pass costs about $D$ such steps, so sampling by passes grows like $D^2$
# and incremental sampling like $D$.
#
# Both ways must give the same conditionals. The obvious way is five lines:


# %%
@torch.no_grad()
def by_passes(program: AutoregressiveModel, n: int) -> Tensor:
    drawn = program.blank(n)
    for row, column in product(range(shape[1]), range(shape[2])):
        logits = program().conditionals(drawn).base_dist.logits[:, :, row, column]
        drawn[:, :, row, column] = Categorical(logits=logits).sample().float()
    return drawn


@torch.no_grad()
def disagreement(program: AutoregressiveModel, x: Tensor) -> float:
    """The largest difference between the log-probabilities of incremental sampling at x and those of one pass."""
    one_pass = program().conditionals(x).base_dist.logits.log_softmax(-1)
    return max(
        float((parameters.log_softmax(1) - one_pass[:, 0, row, column]).abs().max())
        for (_, _, row, column), parameters in program.incremental(x, None)
    )


def seconds(draw: Callable[[], Tensor]) -> float:
    """The time of the faster of two draws: the other may have had to wait."""
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        draw()
        taken.append(time.perf_counter() - began)
    return min(taken)


for name, program in programs.items():
    apart = disagreement(program, x)
    incremental = seconds(lambda program=program: program().sample((16,)))
    passed = seconds(lambda program=program: by_passes(program, 16))
    print(
        f"{name:15} log-probabilities differ by at most {apart:.1e}; 16 images by passes {passed:5.2f} s, "
        f"incrementally {incremental:.2f} s: ratio {passed / incremental:4.1f}"
    )
    assert apart < 1e-3

# %% [markdown]
# On images of 64 pixels much of a step is Python, and the ratio is far from $D = 64$. It grows with the image.
#
# ## Conditioning on a label
#
# The layers can be given more than the pixels before: $p(x \mid c) = \prod_i p(x_i \mid x_{<i}, c)$. With `classes=10`
# the context $c$ is a label, and the program is called with `(x, y)`.

# %%
torch.manual_seed(0)
conditional = GatedPixelCNN(shape, levels, features=16, layers=2, classes=10)
fitted(conditional, Shuffled(digits, batch_size=32, labelled=True), steps=250)
labelled = InOrder(digits, "test", 180, labelled=True)
given = evaluate(conditional, labelled, {"exact": exact()})
print(
    f"log p(x | y): {given.mean('exact'):.2f} ± {given.standard_error('exact'):.2f} nats per image, {given.kind['exact']}"
)

torch.manual_seed(3)
by_class = conditional(torch.arange(10)).sample((6,)).flatten(0, 1) / top
save("classes.png", grid(by_class, 10, "Draws from p(x | y), a column each for y = 0 to 9"))

# %% [markdown]
# $\log p(x \mid y)$ does not compare with $\log p(x)$: it is given the label. The label becomes part of the model when
# it is given a probability, and then it is a discrete latent variable that can be summed out,
#
# $$p(x) = \sum_y p(y)\, p(x \mid y), \qquad p(y \mid x) = \frac{p(y)\, p(x \mid y)}{p(x)}.$$
#
# This is a program of a few lines around the fitted network. `exact()` does the sum, the result is again of the kind
# "exact", and it may be compared with the fit without labels. Bayes' rule makes a classifier of it.


# %%
class Labelled(nn.Module):
    def __init__(self, image: AutoregressiveModel) -> None:
        super().__init__()
        self.image = image

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", Categorical(torch.full((10,), 0.1)), infer={"enumerate": "parallel"})
            return pyro.sample("x", self.image(y), obs=x)

    def guide(self, x: Tensor) -> None:
        pass


summed = evaluate(Labelled(conditional), test, {"exact": exact()})
gain, error = summed.difference(scores["GatedPixelCNN"], "exact")
print(f"log p(x), the label summed out: {summed.mean('exact'):.2f} nats per image, {summed.kind['exact']}")
print(f"minus that of the unconditional fit, which took fewer steps: {gain:+.2f} ± {error:.2f} nats per image")

y = next(iter(labelled))[1]
with torch.no_grad():
    by_label = conditional(torch.arange(10)[:, None]).log_prob(x)  # labels (10, 1) and images (180,): (10, 180)
by_hand = by_label.logsumexp(0) - math.log(10)
print(f"the sum by hand differs by at most {float((by_hand - summed.log_prob['exact']).abs().max()):.1e} nats")
correct = (by_label.argmax(0) == y).double()
print(
    f"test images whose most probable label is theirs: {correct.mean():.1%} ± {correct.std() / math.sqrt(len(x)):.1%}"
)

# %% [markdown]
# ## Conditioning on a code: PixelVAE
#
# An autoregressive model with a context is a distribution of images given that context, and so can be a decoder. A VAE
# with such a decoder is the PixelVAE (Gulrajani et al., 2017, arXiv 1611.05013), here with one level of codes, in one
# line. It has latents again, so its numbers are bounds again.

# %%
LATENT = 10


def pixel_vae() -> VAE:
    torch.manual_seed(0)
    return VAE(shape, levels, LATENT, decoder=GatedPixelCNN(shape, levels, features=16, layers=1, context=LATENT))


def information(program: VAE) -> float:
    """The mean KL(q(z | x) || p(z)) of the test images, in nats."""
    prior = Normal(torch.zeros(LATENT), 1.0).to_event(1)
    with torch.no_grad():
        return float(kl_divergence(program.encoder(x), prior).mean())


def report(name: str, program: VAE) -> None:
    scores[name] = evaluate(program, test, {"ELBO": importance(4, elbo), "IWAE 16": importance(16)})
    for estimator, kind in scores[name].kind.items():
        value, error = scores[name].mean(estimator), scores[name].standard_error(estimator)
        print(f"{name}: {estimator:7} {value:7.2f} ± {error:.2f} nats per image ({kind})")
    gain, error = scores[name].difference(scores["VAE"], "IWAE 16")
    print(f"{name} - VAE by IWAE 16: {gain:+.2f} ± {error:.2f} nats per image, a difference of two bounds")
    print(f"{name}: KL(q(z | x) || p(z)) = {information(program):.2f} nats per image (VAE: {information(vae):.2f})")


plain = pixel_vae()
fitted(plain, rate=0.01)
report("PixelVAE", plain)

# %% [markdown]
# The last line shows the limit. The average of $\mathrm{KL}(q(z \mid x) \| p(z))$ over images bounds from above the
# information about the image that a code drawn from the guide holds. The VAE must put there whatever its pixels have in
# common. An autoregressive decoder can model that without a code, and to use one costs KL: where it gains nothing by it,
# the guide falls back on the prior (posterior collapse; Chen et al., 2017, arXiv 1611.02731). Here little is left to be
# gained: this decoder sees four rows up, which is half an image.
#
# The result also depends on the course of training. If the KL costs little at first, the decoder learns to use the code
# before it has learned to do without (warm-up; Bowman et al., 2016, arXiv 1511.06349). `beta` is the weight of the KL, in
# training alone: evaluation does not use it.


# %%
def price(step: int) -> float:
    return min(1.0, max(0.05, 2.5 * step / STEPS - 1.2))


warmed = pixel_vae()
fitted(warmed, rate=0.01, objective=lambda program: ImportanceWeighted(program, particles=1, beta=price))
report("warmed up", warmed)

torch.manual_seed(4)
with torch.no_grad():
    codes = warmed.encoder(x[:12]).mean
    by_code = warmed.decoder(codes).sample((200,))
rows = torch.cat([x[:12], by_code.mean(0), *by_code[:3]]) / top
labels = ["test image", "mean of 200 draws", "draw 1", "draw 2", "draw 3"]
save("pixelvae.png", grid(rows, 12, "Draws from p(x | z) of the warmed-up PixelVAE, each column's z fixed", labels))
gain, error = scores["warmed up"].difference(scores["PixelVAE"], "IWAE 16")
print(f"warmed up - PixelVAE by IWAE 16: {gain:+.2f} ± {error:.2f} nats per image, a difference of two bounds")

# %% [markdown]
# In each column of the picture the code is fixed at the mean of $q(z \mid x)$ of the test image above. The mean of many
# draws is what the code says, and what varies from draw to draw is left to the pixels. To have more information in the
# code and to have a higher likelihood are two aims, and a fit may have more of the one and less of the other.
#
# ## What we may say
#
# For the autoregressive models we have their exact log-likelihood on these images, with the standard error of the choice
# of images. For models with a continuous code we have a lower bound in expectation. About the methods, fits as short as
# these say nothing.

# %%
for name, score in scores.items():
    estimator = "exact" if "exact" in score.kind else list(score.kind)[-1]
    print(
        f"{name:15} {'=' if estimator == 'exact' else '≥'} {score.mean(estimator):7.2f} "
        f"± {score.standard_error(estimator):.2f} nats per image ({score.kind[estimator]}, {estimator})"
    )
print("pictures:", ", ".join(sorted(path.name for path in folder.glob("*.png"))))
