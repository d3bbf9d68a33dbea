"""What a program draws and decodes, as the observed values of its examples."""

from typing import Any

import torch
from torch import Tensor

from inference import decode, sample
from inference.programs.entries import Examples, mapped
from inference.programs.execution import Run
from inference.programs.predict import NoMean, draw
from inference.programs.program import evaluating
from inference.programs.sites import random_sites
from inference.programs.traces import model_runs, runs
from ppmodels.app.experiment import Experiment
from ppmodels.distributions import Autoregressive

DRAWS = 32
"""How many stand in for a mean that has no closed form."""


class Impossible(Exception):
    """There is no such picture of this program; the message says why."""


def decoded(
    experiment: Experiment, batch: Examples, latents: dict[str, Tensor], draws: bool = False
) -> tuple[Tensor, str]:
    """Images given latents, or given draws from the prior, and what they are: means, or draws."""
    name, distribution = observed_site(experiment, batch)
    pixel_by_pixel = isinstance(distribution, Autoregressive)  # no mean in closed form, and draws are slow
    if draws or (pixel_by_pixel and not latents):
        return sample(experiment.program, batch)[name][0], "draws"
    if pixel_by_pixel:
        (run,) = _model_runs(experiment, batch, latents)
        return run.values(random_sites(run.model))[name][0], "draws"
    if not latents and any(not value.is_floating_point() for value in latents_given(experiment, batch).values()):
        latents = _from_the_prior(experiment, batch)  # left out, a finite one would be drawn given x
    try:
        return decode(experiment.program, batch, latents)[name][0], "means"
    except NoMean:
        given = latents or _from_the_prior(experiment, batch)
        if not given or not latents_given(experiment, batch):  # x is all noise, or a function of it
            (run,) = _model_runs(experiment, batch, given)
            return run.values(random_sites(run.model))[name][0], "draws"
    many = {site: value.expand(DRAWS, *value.shape[1:]) for site, value in given.items()}
    found = [run.values(random_sites(run.model))[name] for run in _model_runs(experiment, batch, many)]
    return torch.cat(found).mean(0), f"means (of {DRAWS} draws)"


def _model_runs(experiment: Experiment, batch: Examples, latents: dict[str, Tensor]) -> list[Run]:
    with torch.no_grad(), evaluating(experiment.program):
        return model_runs(experiment.program, batch, 1, latents)


def _from_the_prior(experiment: Experiment, batch: Examples) -> dict[str, Tensor]:
    names = latents_given(experiment, batch).keys()
    return {name: value for name, value in sample(experiment.program, batch).items() if name in names}


def observed_site(experiment: Experiment, batch: Examples) -> tuple[str, Any]:
    """The site that observes the examples: its name and its distribution."""
    with torch.no_grad(), evaluating(experiment.program):
        run = runs(experiment.program, mapped(lambda tensor: tensor[:2], batch))[0]
    sites = {name: site for name, site in random_sites(run.model).items() if site["is_observed"]}
    shapes = {name: tuple(value.shape[2:]) for name, value in run.values(sites).items()}
    fitting = [name for name, shape in shapes.items() if shape == experiment.data.shape]
    if len(fitting) != 1:
        raise Impossible(
            f"expected one observed site of the examples' shape {experiment.data.shape}, got {shapes or 'none'}"
        )
    return fitting[0], sites[fitting[0]]["fn"]


def latents_given(experiment: Experiment, batch: Examples, draws: int = 1) -> dict[str, Tensor]:
    """Draws of the latents alone, from the guide: no functions of them."""
    with torch.no_grad(), evaluating(experiment.program):
        return draw(experiment.program, batch, draws)


def completed(experiment: Experiment, batch: Examples, known: Tensor) -> Tensor:
    """Images with draws where they are not known, by the one Autoregressive site of a program; else Impossible."""
    if latents_given(experiment, batch):
        raise Impossible("the program has latent variables, and endings would need draws of them given a part of x")
    with torch.no_grad(), evaluating(experiment.program):
        run = runs(experiment.program, batch)[0]
        sites = [site for site in random_sites(run.model).values() if isinstance(site["fn"], Autoregressive)]
        if len(sites) != 1:
            raise Impossible("only a program with one Autoregressive site draws the rest of an image given a part")
        drawn: Tensor = sites[0]["fn"].complete(batch[0], known)
        return drawn


def taken(batch: Examples, index: Tensor) -> Examples:
    """These rows of a batch."""
    return mapped(lambda tensor: tensor[index], batch)


def in_own_units(experiment: Experiment, values: Tensor) -> Tensor:
    """Values that the program drew, as rows `(n, features)` in the units of the data."""
    return experiment.data.original(values).flatten(1).cpu()


def rows_drawn(experiment: Experiment, values: Tensor) -> Tensor:
    """Draws as rows in the units of the data; a column that is constant in training keeps its value."""
    drawn, data = in_own_units(experiment, values), experiment.data
    if (observed := data.train.observed) is None:
        known = in_own_units(experiment, data.train.values[:1])
    else:  # a column's first row may lack it
        rows = in_own_units(experiment, data.train.values).double()
        known = rows.masked_fill(~observed.cpu(), -torch.inf).amax(0, keepdim=True)
    drawn[:, data.constant] = known[:, data.constant].to(drawn.dtype)
    return drawn
