"""Data simulated from a program, as a batch that the program takes, and the latents that made them."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from pyro.distributions import MaskedDistribution, Unit
from torch import Tensor

from inference.programs.entries import Examples, leaves, mapped, named, refilled
from inference.programs.execution import Latents, Run
from inference.programs.program import Batch, Program, ProgramError, as_batch, evaluating
from inference.programs.sites import Site, layers, random_sites
from inference.programs.traces import model_runs


class Simulated(NamedTuple):
    """A batch drawn from a program, and the latents that made it: an exact draw of their posterior."""

    batch: Examples
    latents: Latents
    """`(1, batch, ...)` of each latent site inside the batch plate, `(1, ...)` of others."""


def simulated(program: Program, batch: Batch) -> Simulated:
    """The batch with what the model observes drawn from the model, latents first; all else, such as covariates, is kept.

    What a mask hides, such as a missing label, is kept too.

    Raises:
        ProgramError: nothing is observed, the model has a factor, or what it observes is not an entry or part of one.
    """
    laid_out = mapped(partial(torch.clone, memory_format=torch.contiguous_format), as_batch(batch))
    with torch.no_grad(), evaluating(program):
        run = model_runs(program, laid_out, 1)[0]
    sites = random_sites(run.model)
    observed = {name: site for name, site in sites.items() if site["infer"].get("was_observed")}
    _refuse_what_is_not_drawn(observed)
    fresh = [*leaves(laid_out)]
    for name, site in observed.items():
        _place(run, name, site).fill(fresh, _visible(site))
    latents = {name: site for name, site in sites.items() if name not in observed}
    return Simulated(refilled(run.batch, fresh), run.values(latents))


class _Place(NamedTuple):
    """What part of which entry a site observes."""

    entry: int
    like: Tensor
    offset: int

    def fill(self, entries: list[Tensor], value: Tensor) -> None:
        part = entries[self.entry].as_strided(self.like.shape, self.like.stride(), self.offset)
        part.copy_(value.expand_as(part))


def _place(run: Run, name: str, site: Site) -> _Place:
    given = site["infer"]["obs"]
    for entry, tensor in enumerate(leaves(run.batch)):
        if given is tensor or (isinstance(given, Tensor) and given._base is tensor and not _repeats(given)):
            return _Place(entry, given, int(given.storage_offset() - tensor.storage_offset()))
    raise ProgramError(
        f"site {name!r} observes what is no entry of the batch ({', '.join(named(run.batch))}) but computed from it, "
        "so that simulated values cannot be given to the program. Make what is observed an entry: x / 255 outside of "
        "the model."
    )


def _repeats(view: Tensor) -> bool:
    """Whether one value stands in several places, as after `expand`."""
    return any(step == 0 and size > 1 for size, step in zip(view.shape, view.stride(), strict=True))


def _refuse_what_is_not_drawn(observed: dict[str, Site]) -> None:
    if not observed:
        raise ProgramError(
            "the batch observes nothing (an entry that is None?), so there is nothing to simulate. Give it what the model "
            "observes, of the shape that is wanted."
        )
    factors = [name for name, site in observed.items() if isinstance(site["fn"], Unit)]
    if factors:
        raise ProgramError(
            f"the model has the factors {sorted(factors)}, which count in its density and have no part in what it "
            "draws: data simulated from it would be of another density. Write them as observed sites."
        )


def _visible(site: Site) -> Tensor:
    """The drawn value, but what was given where a mask hides it."""
    value, given = site["value"], site["infer"]["obs"]
    for mask in _masks(site):
        value = torch.where(mask, value, given)
    return value


def _masks(site: Site) -> Iterator[Tensor]:
    """The masks of a site, of its own and of its distribution, laid out to hide values."""
    if isinstance(site["mask"], Tensor):
        yield site["mask"].reshape(site["mask"].shape + (1,) * site["fn"].event_dim)
    for layer in layers(site["fn"]):
        if isinstance(layer, MaskedDistribution) and isinstance(layer._mask, Tensor):
            yield layer._mask.reshape(layer._mask.shape + (1,) * layer.event_dim)
