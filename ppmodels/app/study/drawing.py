"""Samples of a run, on the data's own levels, and the means of x given the latents that are drawn for them."""

from typing import NamedTuple

import torch
from torch import Tensor

from inference import sample
from inference.programs.noise import mix, own_noise
from inference.programs.sites import is_implicit
from ppmodels.app.drawn import decoded, observed_site
from ppmodels.app.experiment import Experiment
from ppmodels.app.study.measurement import Missing
from ppmodels.app.study.missing import found_or_missing

AT_ONCE = 250


class Drawn(NamedTuple):
    """Draws of a program and what they are."""

    samples: Tensor
    """`(n, *shape)` as the splits hold them, whole where these are levels."""
    means: Tensor | Missing
    """Of x given other draws of the latents, `(n, *shape)`; of a generator its outputs."""
    notes: list[str]


def drawn(experiment: Experiment, count: int, seed: int = 0) -> Drawn:
    """So many draws of x. Raises ValueError where the program has none of its own.

    Labels, where the program takes them, are those of as many training examples.
    """
    if not experiment.likelihood.per_example:
        raise ValueError("all examples share latents, and draws from their prior are none of what was fitted")
    batches = context(experiment, count).split(AT_ONCE)
    name, distribution = observed_site(experiment, context(experiment, 2).rows)
    with own_noise(mix(seed, 5)):
        raw = torch.cat([sample(experiment.program, batch)[name][0] for batch in batches])
    samples, notes = on_levels(experiment, raw)
    if is_implicit(distribution):
        return Drawn(samples, raw.float().cpu(), notes)
    means = found_or_missing(lambda: _means(experiment, batches, seed))
    return Drawn(samples, means, notes)


class Context(NamedTuple):
    """What a program is given to draw: a batch of training examples, of which it reads the shape, and labels if any."""

    rows: tuple[Tensor, ...]

    def split(self, size: int) -> list[tuple[Tensor, ...]]:
        """In batches of a size."""
        return list(zip(*(tensor.split(size) for tensor in self.rows), strict=True))


def context(experiment: Experiment, count: int) -> Context:
    """A fixed choice of training examples, some of them twice where there are fewer."""
    split, size = experiment.data.train, len(experiment.data.train)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(1))
    part = split.take(order[torch.arange(count) % size].to(split.values.device))
    x = part.values.float()
    return Context((x, part.labels) if experiment.recipe.labelled and part.labels is not None else (x,))


def on_levels(experiment: Experiment, raw: Tensor) -> tuple[Tensor, list[str]]:
    """Draws on the data's levels, to the nearest where they lie between, with a note; constant columns keep their value."""
    data = experiment.data
    found, notes = raw.float(), list[str]()
    if data.levels is not None and bool((found != found.round()).any()):
        whole = found.round().clamp(0, data.levels - 1)
        off = float((found - whole).abs().mean())
        found = whole
        notes.append(f"draws were rounded to the nearest of {data.levels} levels, which were {off:.3f} off in the mean")
    if data.constant:
        found = found.clone()
        found[:, data.constant] = data.train.values[:1, data.constant].float()
    return found.cpu(), notes


def _means(experiment: Experiment, batches: list[tuple[Tensor, ...]], seed: int) -> Tensor:
    with own_noise(mix(seed, 6)):
        found, what = zip(*(decoded(experiment, batch, {}) for batch in batches), strict=True)
    if what[0] == "draws":
        raise ValueError("there is no mean of x given latents: the program has none, or draws x value by value")
    return torch.cat(found).float().cpu()
