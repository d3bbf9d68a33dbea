"""Many draws of a program, so many at once: what memory holds is the draws, not what they were computed with."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from pyro.distributions import Unit
from torch import Tensor

from inference.evaluation.stages import reached
from inference.programs.entries import Examples
from inference.programs.execution import Latents, Run, is_out_of_memory
from inference.programs.predict import completed, observations, sample
from inference.programs.program import Program
from inference.programs.sites import deterministic_sites, latents_in, random_sites

Found = TypeVar("Found")

Draws = dict[str, Tensor]
"""`(draws, batch, ...)` per site inside the batch plate, `(draws, ...)` per other site."""


class Chunks(NamedTuple):
    """Draws of a program's model, in chunks."""

    program: Program
    batch: Examples
    run: Run
    """One run of guide and model, which shows the sites."""
    draws: int
    size: int
    """How many draws are made at once."""

    @property
    def observed(self) -> list[str]:
        """The observed sites; factors have no values."""
        sites = random_sites(self.run.model).items()
        return [name for name, site in sites if site["is_observed"] and not isinstance(site["fn"], Unit)]

    @property
    def unobserved(self) -> list[str]:
        """The latent sites, and the `pyro.deterministic` ones."""
        return [*latents_in(self.run.model), *deterministic_sites(self.run.model)]

    def completed(self, latents: Latents) -> Draws:
        """The latents, finite ones drawn from p(k | x, z), and the `pyro.deterministic` sites that follow from latents."""
        if not latents_in(self.run.model) or {*self.unobserved} <= latents.keys():
            return dict(latents)
        return self._each(latents, lambda part, draws: completed(self.program, self.batch, part, draws))

    def observations(self, latents: Latents) -> Draws:
        """The observed sites, drawn given the latents."""
        return self._each(latents, lambda part, draws: observations(self.program, self.batch, part, draws))

    def prior(self) -> Draws:
        """All sites, drawn from the model alone."""
        drawn = self._each({}, lambda _, draws: sample(self.program, self.batch, draws))
        latents = {name: drawn[name] for name in latents_in(self.run.model)}
        return {name: drawn[name] for name in self.observed} | self.completed(latents)

    def _each(self, latents: Latents, of: Callable[[Latents, int], Draws]) -> Draws:
        pieces = []
        for start in range(0, self.draws, self.size):
            end = min(start + self.size, self.draws)
            pieces.append(of({name: value[start:end] for name, value in latents.items()}, end - start))
            reached(end / self.draws)
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


def as_memory_allows(function: Callable[[int], Found], rows: int) -> Found:
    """The function of a number of rows; of half as many, as often as memory runs out."""
    while True:
        try:
            return function(rows)
        except Exception as error:
            if rows == 1 or not is_out_of_memory(error):
                raise
        rows //= 2
