"""Simulation-based calibration: whether a guide's draws rank as the latents that made the data should."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.evaluation.rank_statistics import Uniformity, bands, uniformity
from inference.evaluation.stages import one_of
from inference.programs.dataset import scope
from inference.programs.entries import Examples, mapped, rows_of
from inference.programs.execution import Latents
from inference.programs.expectation import refuse_exact
from inference.programs.noise import own_noise
from inference.programs.numbers import refuse_below, refuse_outside
from inference.programs.pair import Pair
from inference.programs.predict import posterior
from inference.programs.program import Batch, Program, ProgramError, as_batch, evaluating
from inference.programs.simulate import simulated
from inference.programs.sites import random_sites
from inference.programs.terms import log_joint, terms
from inference.programs.traces import guide_runs, runs

Refit = Callable[[Batch], Program]
"""Fits a program anew, to simulated data."""

_MOST_COORDINATES, _PROJECTIONS, _ROWS = 10, 10, 20_000


@dataclass(frozen=True)
class Calibration:
    """Ranks of the latents that made simulated data among draws of the guide, quantity by quantity."""

    ranks: dict[str, Tensor]
    """By quantity: `(simulations,)` integers 0 … draws, uniform where the guide is the posterior."""
    draws: int
    level: float
    """The rate of false alarms, of all quantities together."""

    @cached_property
    def tests(self) -> dict[str, Uniformity]:
        """By quantity, whether its ranks are uniform."""
        return {name: uniformity(ranks, self.draws) for name, ranks in self.ranks.items()}

    @property
    def flagged(self) -> list[str]:
        """The quantities whose ranks are not uniform, at the level shared among all of them (Bonferroni)."""
        return [name for name, test in self.tests.items() if test.p_value <= self.level / len(self.ranks)]

    def ecdf_difference(self, name: str) -> NDArray[np.float64]:
        """The empirical distribution of a quantity's ranks less the uniform one, at ranks 0 … draws - 1."""
        counts = torch.bincount(self.ranks[name], minlength=self.draws + 1).numpy()
        found: NDArray[np.float64] = counts.cumsum()[:-1] / counts.sum() - np.arange(1, self.draws + 1) / (
            self.draws + 1
        )
        return found

    def bands(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Between which `ecdf_difference` lies at all ranks at once, but for the level of false alarms."""
        simulations = len(next(iter(self.ranks.values())))
        low, high = bands(simulations, self.draws, self.level / len(self.ranks))
        uniform = np.arange(1, self.draws + 1) / (self.draws + 1)
        return low - uniform, high - uniform

    def table(self) -> str:
        """One line of text for each quantity."""
        flagged, tests = self.flagged, self.tests
        width = max(map(len, tests))
        lines = [f"{'quantity':<{width}}  mean rank  p-value"]
        for name, test in tests.items():
            mean = float(self.ranks[name].double().mean()) / self.draws
            lines.append(
                f"{name:<{width}}  {mean:9.3f}  {test.p_value:7.4f}{'  not uniform' if name in flagged else ''}"
            )
        found = (
            f"{len(flagged)} of {len(tests)} quantities are not uniform" if flagged else "no quantity is out of place"
        )
        return "\n".join([*lines, f"{found}, at a rate of false alarms of {self.level:g} for all together"])

    def summary(self) -> dict[str, Any]:
        """The verdict as plain values."""
        return {
            "draws": self.draws,
            "level": self.level,
            "flagged": self.flagged,
            "p_values": {name: test.p_value for name, test in self.tests.items()},
        }


def calibration(
    program: Program,
    batch: Batch,
    simulations: int = 1000,
    draws: int = 99,
    refit: Refit | None = None,
    level: float = 0.01,
    seed: int = 0,
) -> Calibration:
    """Simulation-based calibration (Talts et al. 2018, arXiv 1804.06788) of a program's guide.

    Latents and data are drawn from the program, and the latents ranked among `draws` of the guide for these data. Ranked are
    the coordinates of every latent site, or random projections where it is wide; log p(x | z), log p(x, z), without which a
    guide that returns the prior would pass, and log q(z | x) (Modrák et al. 2023, arXiv 2211.02383). Equal values are ranked
    at random. Finite latents that the guide leaves out are drawn from p(k | x, z).

    Args:
        program: the model and its guide.
        batch: gives shapes and covariates; where the guide is amortised its rows are repeated, one for each simulation.
        simulations: of examples; of whole datasets, with a refit each, where the program shares sites between examples.
        draws: of the guide, for each simulation.
        refit: fits a new program to a simulated dataset and returns it, `program` staying as it is; needed where sites are
            shared or no plate counts examples, and where the guide has values of its own for each row.
        level: the rate of false alarms, of all quantities together.
        seed: of all noise; the caller's generators are left as they were.

    Raises:
        ProgramError: there are no latents, the guide leaves one out that has no finite support, it is not amortised and
            there is no `refit`, or the data cannot be simulated.
        ValueError: a number is too small, or the level not between 0 and 1.
    """
    refuse_below("simulations", simulations, 20)
    refuse_below("draws", draws, 1)
    refuse_outside("level", level, 0.0, 1.0)
    if refit is not None and not callable(refit):
        raise ProgramError(f"refit: expected a function that returns a program fitted to its data, got {refit!r}.")
    with torch.no_grad(), evaluating(program), own_noise(seed):
        examples = as_batch(batch)
        if refit is None:
            parts = _parts(examples, simulations, max(1, _ROWS // draws))
            _refuse_not_amortised(program, examples if rows_of(examples) <= rows_of(parts[0]) else parts[0])
        else:
            parts = [examples] * simulations
        found = []
        for number, part in enumerate(parts):
            with one_of(number, len(parts), "simulation" if refit else "part"):
                found.append(
                    _simulation(program, refit or (lambda _: program), part, draws, 1 if refit else rows_of(part))
                )
        ranks = {name: torch.cat([_ranks(each[name]) for each in found]) for name in found[0]}
    return Calibration(ranks, draws, level)


class _Compared(NamedTuple):
    """A quantity at the latents that made the data, `(1, simulations)`, and at the guide's draws, `(draws, simulations)`."""

    truth: Tensor
    draws: Tensor


def _simulation(program: Program, fit: Refit, batch: Examples, draws: int, units: int) -> dict[str, _Compared]:
    """All quantities of so many simulated examples, or of one simulated dataset."""
    data, truth = simulated(program, batch)
    if not truth:
        raise ProgramError("the model has no latent sites, so there is no guide to calibrate: its log p(x) is exact().")
    with torch.enable_grad():
        fitted = fit(data)
    if not callable(getattr(fitted, "guide", None)):
        raise ProgramError(f"refit: expected the program that it has fitted, got {type(fitted).__name__}. Return that.")
    with torch.no_grad(), evaluating(fitted):
        drawn = posterior(fitted, data, draws)
        _refuse_missing(truth, drawn)
        drawn = {name: drawn[name] for name in truth}
        sides = [
            _coordinates(latents, units) | _log_densities(fitted, data, latents, units) for latents in (truth, drawn)
        ]
    return {name: _Compared(sides[0][name], sides[1][name]) for name in sides[0]}


def _coordinates(latents: Latents, units: int) -> dict[str, Tensor]:
    """The coordinates of each site, or random projections of many: `(particles, units)` each."""
    found: dict[str, Tensor] = {}
    for name, value in latents.items():
        flat = value.double().reshape(len(value), units, -1)
        size = flat.shape[-1]
        if size > _MOST_COORDINATES:
            directions = torch.randn(size, _PROJECTIONS, generator=torch.Generator().manual_seed(0), dtype=flat.dtype)
            projected = flat @ directions.to(flat.device)
            found |= {f"{name}, projection {place}": projected[..., place] for place in range(_PROJECTIONS)}
        else:
            found |= {f"{name}[{place}]" if size > 1 else name: flat[..., place] for place in range(size)}
    return found


def _log_densities(program: Program, data: Examples, latents: Latents, units: int) -> dict[str, Tensor]:
    """log p(x | z), log p(x, z) and log q(z | x) as far as they can be had: `(particles, units)` each."""
    guided = random_sites(guide_runs(program, data)[0].guide)
    if any(site["infer"].get("is_auxiliary") for site in guided.values()):
        return {"log p(x, z)": log_joint(program, data, latents)}
    scored = terms(program, data, latents={name: value for name, value in latents.items() if name in guided})
    likelihood = scored.likelihood.reshape(len(scored.likelihood), units, -1).sum(2)
    if scored.implicit:
        return {"log p(x | z)": likelihood}
    joint = scored.log_weights + scored.log_guide
    return {"log p(x | z)": likelihood, "log p(x, z)": joint, "log q(z | x)": scored.log_guide}


def _ranks(compared: _Compared) -> Tensor:
    """The ranks of the truth among the draws, those of equal values at random."""
    below = (compared.draws < compared.truth).sum(0)
    equal = (compared.draws == compared.truth).sum(0)
    return (below + (torch.rand(below.shape, dtype=torch.float64, device=below.device) * (equal + 1)).long()).cpu()


def _parts(batch: Examples, simulations: int, chunk: int) -> list[Examples]:
    """The batch's rows, repeated to one for each simulation, in parts."""
    index = torch.arange(simulations) % rows_of(batch)
    return [mapped(partial(_taken, part), batch) for part in index.split(chunk)]


def _taken(rows: Tensor, tensor: Tensor) -> Tensor:
    return tensor[rows.to(tensor.device)]


def _refuse_missing(truth: Latents, drawn: Latents) -> None:
    missing = sorted(truth.keys() - drawn.keys())
    if missing:
        raise ProgramError(
            f"the guide does not draw the latent sites {missing} (it draws {sorted(drawn) or 'nothing'}), so that there is "
            "nothing to rank them among. Draw them in the guide under the same names."
        )


def _refuse_not_amortised(program: Program, batch: Examples) -> None:
    own_rows = isinstance(program, Pair) and program.rows is not None
    refuse_exact(guide_runs(program, batch)[0], "calibration")
    if own_rows or not runs(program, batch)[0].per_example or _by_place(program, batch):
        raise ProgramError(
            "the guide was fitted to the rows of one dataset (shared sites, values for each row, or no plate that counts "
            "examples), so that simulated data need a fit of their own. Give refit=…, a function that fits the program to a "
            "batch and returns it."
        )


def _by_place(program: Program, batch: Examples) -> bool:
    with torch.enable_grad():
        return bool(scope(program, batch).by_place)
