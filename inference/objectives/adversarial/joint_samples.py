"""Joint samples that a critic compares, of q (data and guide) and of p (model); and the terms that stay exact."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from inference.objectives.adversarial.comparison import Comparison
from inference.programs.densities import log_density, site_log_prob
from inference.programs.entries import Examples, leaves, rows_of
from inference.programs.execution import Run, executing
from inference.programs.pair import arguments
from inference.programs.program import Program
from inference.programs.sites import Site, batch_plate, random_sites
from inference.programs.traces import guide_runs


def q_samples(program: Program, batch: Examples, found: Comparison) -> tuple[Trace, dict[str, Tensor]]:
    """The guide's trace, and the values of data and guide by name, examples first."""
    guide = guide_runs(program, batch)[0].guide
    values = _values(random_sites(guide), batch)
    tensors = leaves(batch)
    values |= {name: tensors[index] for name, index in found.data.items()}
    if not values.keys() >= set(found.observed):  # the model reshapes what it observes
        sites = random_sites(_replayed(program, batch, guide))
        values |= _values({name: sites[name] for name in found.observed}, batch)
    return guide, arguments(program, batch) | values


def p_samples(
    program: Program, batch: Examples, found: Comparison, guide: Trace, q: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The values of q, but those of the compared sites drawn from the model; what comes after these is not run."""
    kept = {name: site["value"] for name, site in random_sites(guide).items() if name not in found.compared}
    drawing = _Draws(set(found.compared), kept)
    with executing(program), suppress(_AllDrawn), drawing:
        program.model(*batch)
    return {**q, **_values(drawing.drawn, batch)}


def exact_terms(
    program: Program, batch: Examples, found: Comparison, guide: Trace, size: int | None, prior: Sequence[str]
) -> Tensor:
    """Σ log p - log q of the sites that are not compared, and log p of those in `prior`: nats per example, a scalar.

    Local sites are averaged over the batch, shared ones divided by the size of the dataset (the plate's, if None). The
    auxiliary sites of an AutoGuide carry its log q; the points beside them have none.
    """
    model, drawn = random_sites(_replayed(program, batch, guide)), random_sites(guide)
    plate = batch_plate([*model.values(), *drawn.values()], rows_of(batch))
    assert plate is not None  # or `comparison` would have raised
    total = torch.zeros((), device=leaves(batch)[0].device)
    of_guide = [name for name in drawn if name not in found.compared]
    for sign, sites, names in ((1, model, (*found.exact, *prior)), (-1, drawn, of_guide)):
        for name in names:
            if name in found.shared:
                total = total + sign * site_log_prob(name, sites[name]).sum() / (size or plate.full_size)
            else:
                total = total + sign * log_density(name, sites[name], plate).mean()
    return total


def log_prior(program: Program, batch: Examples, guide: Trace, site: str) -> Tensor:
    """log p of the guide's draws of a local site: `(batch,)` nats."""
    model = random_sites(_replayed(program, batch, guide))
    plate = batch_plate(model.values(), rows_of(batch))
    assert plate is not None
    return log_density(site, model[site], plate)


def _values(sites: Mapping[str, Site], batch: Examples) -> dict[str, Tensor]:
    """Values with the examples in front, wherever the sites' plates have them; those of shared sites as they are."""
    run = Run(Trace(), Trace(), batch_plate(sites.values(), rows_of(batch)), 1)
    return {name: value.squeeze(0) for name, value in run.values(sites).items()}


def _replayed(program: Program, batch: Examples, guide: Trace) -> Trace:
    with executing(program):
        return poutine.trace(poutine.replay(program.model, trace=guide)).get_trace(*batch)


class _AllDrawn(Exception):
    """All compared sites have been drawn."""


class _Draws(Messenger):
    """Draws the compared sites from the model, observed ones too; gives others their values; stops after the last one."""

    def __init__(self, compared: set[str], given: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.compared, self.given = compared, given
        self.drawn: dict[str, Site] = {}

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.compared:
            message["is_observed"], message["value"] = False, None
        elif message["name"] in self.given and not message["is_observed"]:
            message["value"] = self.given[message["name"]]

    def _pyro_post_sample(self, message: Any) -> None:
        if message["name"] in self.compared:
            self.drawn[message["name"]] = message.copy()
            if self.drawn.keys() == self.compared:
                raise _AllDrawn
