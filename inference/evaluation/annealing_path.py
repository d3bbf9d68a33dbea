"""The path of densities from a start to a program's joint density, with gradients, built once a batch."""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Literal, NamedTuple

import pyro
import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from inference.evaluation.likelihood import is_point_estimate
from inference.programs.coordinates import (
    Coordinates,
    continuous_latents,
    coordinates_of,
    log_jacobian,
    runs_at,
)
from inference.programs.entries import rows_of
from inference.programs.enumeration import entangled, enumerated
from inference.programs.execution import Latents, Run
from inference.programs.graphs import graph_of, hoisted, part_of
from inference.programs.program import Batch, Program, ProgramError, as_batch
from inference.programs.sites import latents_in, random_sites
from inference.programs.terms import log_joint, terms_of
from inference.programs.traces import joint_runs, runs

Start = Literal["guide", "prior"]
Densities = Callable[[Tensor], tuple[Tensor, ...]]
_GRADIENTS = slice(2, 4)  # of what `_with_gradients` returns


class Point(NamedTuple):
    """Where chains are, and what the path is there: coordinates `(chains, units, size)`, densities `(chains, units)`.

    The densities are those of unconstrained coordinates, in nats.
    """

    rows: Tensor
    log_start: Tensor
    log_ratio: Tensor
    """log p(x, z) - log start(z), by which the density of the path grows from 0 to 1."""
    start_gradient: Tensor
    ratio_gradient: Tensor

    def log_density(self, inverse_temperature: Tensor) -> Tensor:
        """The density start^(1 - β) · p(x, z)^β, unnormalised."""
        return self.log_start + inverse_temperature * self.log_ratio

    def gradient(self, inverse_temperature: Tensor) -> Tensor:
        """The gradient of `log_density` by the rows."""
        return self.start_gradient + inverse_temperature * self.ratio_gradient

    def where(self, taken: Tensor, other: "Point") -> "Point":
        """The other point for the chains and units that are `taken`, this one for the rest."""
        return Point(
            *(
                torch.where(taken.unsqueeze(-1) if here.dim() > taken.dim() else taken, there, here)
                for here, there in zip(self, other, strict=True)
            )
        )


class AnnealingPath:
    """start(z)^(1 - β) · p(x, z)^β over β in [0, 1], for so many chains of each example of one batch.

    The start is the guide, completed by the prior of the latents that the guide does not draw; or the prior. Finite latents
    that are left out are summed as `terms` sums them. What the densities have to compute at every place is traced once; a
    program that no graph can follow is run as it is.
    """

    def __init__(self, program: Program, batch: Batch, start: Start) -> None:
        self.program, self.batch, self.begins = program, as_batch(batch), start
        first = self._drawn(1)[0]
        self.guided = self._guided(first)
        self.names = continuous_latents(first, self.guided)
        if not self.names:
            raise ProgramError(
                "the program has no continuous latents, so there is nothing to anneal: exact() gives its log p(x)."
            )
        if not first.per_example and first.plate is not None:
            _refuse_part(first.dataset_size, rows_of(self.batch))
        self.coordinates: Coordinates = coordinates_of(first, self.names)
        log_joint(
            program, self.batch, first.values({name: first.model.nodes[name] for name in self.names})
        )  # judges them
        self.marginal = self._depend_on_summed(first)
        self._functions: dict[int, tuple[Densities, Densities]] = {}

    def draw(self, chains: int) -> Point:
        """Independent draws from the start."""
        found = self.at(self.coordinates.rows(self._drawn(chains)))
        if not bool(found.log_start.isfinite().all()) or bool(found.log_ratio.isnan().any()):
            raise ProgramError(
                "the density of the start or of the joint is not finite at draws from the start: NaN or Inf comes out "
                "of the guide, the prior or the likelihood. Look at terms(program, batch) for these examples."
            )
        return found

    def place(self, latents: Latents) -> Tensor:
        """Given latents as rows of coordinates; those that do not move are left out."""
        moving = {name: latents[name] for name in self.names}
        return self.coordinates.rows(joint_runs(self.program, self.batch, moving))

    def at(self, rows: Tensor) -> Point:
        """The path at these rows of coordinates."""
        densities, _ = self._of(rows)
        return Point(rows, *self._values(densities, rows))

    def gradient(self, rows: Tensor, inverse_temperature: Tensor) -> Tensor:
        """`at(rows).gradient(inverse_temperature)`, for the price of the gradient."""
        start, ratio = self._values(self._of(rows)[1], rows, _GRADIENTS)
        return start + inverse_temperature * ratio

    def _values(self, function: Densities, rows: Tensor, part: slice = slice(None)) -> tuple[Tensor, ...]:
        """A function's values; where a factorisation fails at one chain, for all are the program's own, of each alone."""
        try:
            return function(rows)
        except torch.linalg.LinAlgError:
            return self._eager(rows)[part]

    def _eager(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The program run as it is: NaN, which is rejected, of a chain at which a factorisation fails."""
        try:
            return _with_gradients(self._densities, rows)
        except torch.linalg.LinAlgError:
            if len(rows) > 1:
                return tuple(map(torch.cat, zip(*map(self._eager, rows.split(1)), strict=True)))
            undefined = torch.full_like(rows, math.nan)
            return undefined[..., 0], undefined[..., 0], undefined, undefined

    def _of(self, rows: Tensor) -> tuple[Densities, Densities]:
        """Densities with gradients, and gradients alone, for so many chains."""
        chains = len(rows)
        if chains not in self._functions:
            self._functions[chains] = self._built(rows)
        return self._functions[chains]

    def _built(self, rows: Tensor) -> tuple[Densities, Densities]:
        """Graphs where there can be one, seen to give the program's numbers."""
        expected = self._eager(rows)
        _refuse_noise(expected, self._eager(rows))
        moved = rows + 0.1 * torch.randn_like(rows)
        pairs = [(rows, expected), (moved, self._eager(moved))]
        for densities in self._traceable():
            with suppress(ProgramError, RuntimeError, ValueError):
                graph = hoisted(graph_of(partial(_with_gradients, densities), (rows,)))
                if all(_agree(self._values(graph, each), of_each) for each, of_each in pairs):
                    return graph, part_of(graph, _GRADIENTS)
        return self._eager, lambda rows: self._eager(rows)[_GRADIENTS]

    def _traceable(self) -> list[Densities]:
        """What can be traced: all chains at once, mapped over single ones where the program runs one by one."""
        if self.coordinates.leading == 2:
            return [self._densities]
        return [torch.func.vmap(self._of_one_chain, randomness="different"), self._densities]

    def _of_one_chain(self, row: Tensor) -> tuple[Tensor, ...]:
        return tuple(density.squeeze(0) for density in self._densities(row.unsqueeze(0)))

    def _densities(self, rows: Tensor) -> tuple[Tensor, ...]:
        """log start(z) in unconstrained coordinates, and log p(x, z) - log start(z): `(chains, units)` each."""
        with pyro.validation_enabled(False):  # where a trajectory diverges its proposal is rejected: that is no error
            found = runs_at(self.program, self.batch, self.coordinates.latents(rows), self.guided)
            scored = terms_of(self.program, [self._completed(run) for run in found])
            jacobian = torch.cat([log_jacobian(run) for run in found])
        if self.marginal:
            return scored.prior + jacobian, scored.likelihood
        return scored.log_guide + jacobian, scored.log_weights

    def _drawn(self, chains: int) -> list[Run]:
        if self.begins == "guide":
            return runs(self.program, self.batch, chains)
        return joint_runs(self.program, self.batch, {}, chains)

    def _guided(self, run: Run) -> frozenset[str]:
        drawn = {name for name, site in random_sites(run.guide).items() if not site["infer"].get("is_auxiliary")}
        if drawn and is_point_estimate(self.program, self.batch, run):
            raise ProgramError(
                f"the guide has its mass at one value (of the sites {sorted(drawn)}), from which no chain can start. "
                "Start from the prior: start='prior'."
            )
        return frozenset(drawn)

    def _depend_on_summed(self, run: Run) -> list[str]:
        """The sites that start from the prior, and have it only by a sum over finite latents.

        Raises:
            ProgramError: the guide draws other sites, or sites are shared, so that the sum is not that of `Terms.prior`.
        """
        summed = latents_in(run.model).keys() - {*self.names}
        depend = entangled(enumerated(self.program, run, summed)).keys() & {*self.names} - self.guided if summed else ()
        if depend and (self.guided or not run.per_example):
            raise ProgramError(
                f"the prior of the sites {sorted(depend)} is a sum over the finite latents {sorted(summed)}, and no "
                "start for single sites. Draw these sites in the guide, and start from there."
            )
        return sorted(depend)

    def _completed(self, run: Run) -> Run:
        """The run, its guide completed by the prior of the moving sites that the guide does not draw."""
        guide: Trace = run.guide.copy()
        for name in self.names:
            if name not in self.guided:
                guide.add_node(name, **run.model.nodes[name])
        return run._replace(guide=guide)


def _with_gradients(densities: Densities, rows: Tensor) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        rows = rows.detach().requires_grad_()
        values = densities(rows)
        gradients = [_gradient(value, rows) for value in values]
    return *(value.detach() for value in values), *gradients


def _gradient(density: Tensor, rows: Tensor) -> Tensor:
    if not density.requires_grad:
        return torch.zeros_like(rows)
    ones = torch.ones(
        density.shape, dtype=density.dtype, device=density.device
    )  # of no input: computed once in a graph
    (found,) = torch.autograd.grad(density, rows, ones, retain_graph=True, allow_unused=True)
    return torch.zeros_like(rows) if found is None else found


def _agree(found: Iterable[Tensor], expected: Iterable[Tensor]) -> bool:
    return all(
        torch.allclose(one, other, rtol=1e-3, atol=1e-4, equal_nan=True)
        for one, other in zip(found, expected, strict=True)
    )


def _refuse_noise(once: tuple[Tensor, ...], again: tuple[Tensor, ...]) -> None:
    if not _agree(once[:2], again[:2]):
        raise ProgramError(
            "the program's density changes from one run to the next at the same latents: it has noise of its own when it is "
            "scored (dropout?), so that there is no density to anneal. Make the noise a latent site, or switch it off "
            "in eval mode."
        )


def _refuse_part(size: int, rows: int) -> None:
    if size != rows:
        raise ProgramError(
            f"the program shares sites between the {size} examples of its dataset, and the batch holds {rows}. Give "
            "the whole dataset as one batch."
        )
