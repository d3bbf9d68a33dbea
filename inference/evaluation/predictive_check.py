"""Posterior predictive checks: statistics of the data against those of data replicated from the program."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions import Unit
from torch import Tensor

from inference.programs.entries import rows_of
from inference.programs.execution import Run
from inference.programs.masks import where_seen
from inference.programs.noise import own_noise
from inference.programs.numbers import refuse_below
from inference.programs.predict import reconstruct
from inference.programs.program import Batch, Program, ProgramError, as_batch, evaluating
from inference.programs.sites import Site, random_sites
from inference.programs.traces import runs

Statistic = Callable[[Any], Tensor | float]
"""A number of the observed values, `(batch, ...)`; of a dict of these by site, where several sites are observed."""

_ROWS = 20_000
"""How many draws × examples are replicated at once."""


@dataclass(frozen=True)
class PredictiveCheck:
    """Statistics of the data, and of replicated data."""

    observed: dict[str, float]
    replicated: dict[str, Tensor]
    """By statistic: `(draws,)` float64."""

    def p_value(self, name: str) -> float:
        """How often replicated data are as far out as the data, on the side where these lie, twice; ties count half."""
        values, own = self.replicated[name], self.observed[name]
        above = float((values > own).double().mean() + 0.5 * (values == own).double().mean())
        return min(1.0, 2.0 * min(above, 1.0 - above))

    def table(self) -> str:
        """One line of text for each statistic."""
        width = max(len("statistic"), *map(len, self.observed))
        lines = [f"{'statistic':<{width}}  {'data':>10}  {'replicated (5 % to 95 %)':>26}  p-value"]
        for name, own in self.observed.items():
            low, high = self.replicated[name].quantile(torch.tensor([0.05, 0.95], dtype=torch.float64)).tolist()
            lines.append(f"{name:<{width}}  {own:10.4g}  {f'{low:.4g} to {high:.4g}':>26}  {self.p_value(name):7.3f}")
        return "\n".join(lines)


def posterior_predictive_check(
    program: Program, batch: Batch, statistics: Mapping[str, Statistic], draws: int = 500, seed: int = 0
) -> PredictiveCheck:
    """Where statistics of the data lie among those of data replicated given the guide's latents (Gelman et al. 1996).

    The data are used twice, to fit and to check: p-values lie closer to 1 than uniform ones, and a small one tells more than
    a large one. What a mask hides, such as a missing label, stands in replicated data as it does in the data.

    Args:
        program: the model and its guide.
        batch: the data.
        statistics: by name, functions of what is observed that give one number, such as `{"max": torch.max}`.
        draws: how many times the data are replicated.
        seed: of the noise; the caller's generators are left as they were.

    Raises:
        ProgramError: a statistic gives no single number, or the batch observes nothing.
        ValueError: fewer than two draws, or no statistic.
    """
    refuse_below("draws", draws, 2)
    if not isinstance(statistics, Mapping) or not statistics or not all(map(callable, statistics.values())):
        raise ValueError(
            "statistics: expected functions of what is observed by name, such as {'max': torch.max}, got "
            f"{statistics or 'none'}."
        )
    with torch.no_grad(), evaluating(program), own_noise(seed):
        run = runs(program, batch)[0]
        sites = {
            name: site
            for name, site in random_sites(run.model).items()
            if site["is_observed"] and not isinstance(site["fn"], Unit)
        }
        data = {name: value[0] for name, value in run.values(sites).items()}
        seen = {name: _seen(run, name, site) for name, site in sites.items()}
        observed = {name: _number(name, of, _given(data)) for name, of in statistics.items()}
        found: dict[str, list[float]] = {name: [] for name in statistics}
        chunk = max(1, _ROWS // rows_of(as_batch(batch)))
        for start in range(0, draws, chunk):
            replicated = reconstruct(program, batch, min(chunk, draws - start))
            values = {site: torch.where(seen[site], replicated[site], data[site]) for site in data}
            for k in range(min(chunk, draws - start)):
                given = _given({site: value[k] for site, value in values.items()})
                for name, of in statistics.items():
                    found[name].append(_number(name, of, given))
    return PredictiveCheck(
        observed, {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}
    )


def _seen(run: Run, name: str, site: Site) -> Tensor:
    """Which of a site's values no mask hides, `(batch, ...)` as they are."""
    all_seen = torch.ones_like(site["value"], dtype=torch.bool)
    return run.values({name: {**site, "value": where_seen(site, all_seen, ~all_seen)}})[name][0]


def _given(values: dict[str, Tensor]) -> Any:
    """What a statistic is given: the one site's values, or all by name."""
    return next(iter(values.values())) if len(values) == 1 else values


def _number(name: str, statistic: Statistic, values: Any) -> float:
    given = statistic(values)
    try:
        found = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(0)
    if found.numel() != 1 or found.isnan():
        came = f"a tensor of shape {tuple(given.shape)}" if isinstance(given, Tensor) else f"a {type(given).__name__}"
        raise ProgramError(
            f"the statistic {name!r} gave {'NaN' if found.numel() == 1 else came}; expected one number of all observed "
            "values, such as x.max()."
        )
    return float(found)
