"""The paragraph on the three approaches as six claims, each with its numbers and a verdict by a written rule."""

from collections.abc import Sequence

from ppmodels.app.study.claims.claim import Claim
from ppmodels.app.study.claims.codes import codes
from ppmodels.app.study.claims.inference import inference
from ppmodels.app.study.claims.likelihood import likelihood
from ppmodels.app.study.claims.sampling import sampling
from ppmodels.app.study.claims.sharpness import sharpness
from ppmodels.app.study.claims.stability import stability
from ppmodels.app.study.groups import Group
from ppmodels.app.study.measurement import Samples

PARAGRAPH: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("VAEs learn and infer in graphical models with latents", ",", ("inference",)),
    ("but their samples are slightly blurry", ".", ("blurry-draws", "blurry-means")),
    ("GANs give the sharpest images", ",", ("sharpest-draws", "sharpest-means")),
    ("but they are hard to optimise, as their training is unstable", ".", ("stability",)),
    ("Autoregressive models train simply and stably", "", ("stability-autoregressive",)),
    ("and have the best log-likelihoods", ",", ("likelihood",)),
    ("but they are slow to sample from", "", ("sampling",)),
    ("and give no simple low-dimensional codes, as VAEs do", ".", ("codes-autoregressive", "codes-variational")),
)
"""What the account says, in short: phrase, what follows it, and the parts of claims that it makes."""
SOURCE = "In short, after OpenAI, Generative models, June 2016."


def claims(groups: Sequence[Group], real: Samples | None, classes: int | None) -> list[Claim]:
    """All six, from what has been measured so far; `classes` is the number of the labels' values, where there are any."""
    return [
        likelihood(groups),
        sharpness(groups, real),
        stability(groups),
        sampling(groups),
        codes(groups, classes),
        inference(groups),
    ]
