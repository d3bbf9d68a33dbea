"""How a program relates a batch to its dataset: a part, the whole, or the rows for which its guide has parameters."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from inference.programs.densities import unmasked_log_prob
from inference.programs.entries import Examples, mapped, rows_of
from inference.programs.execution import Run
from inference.programs.noise import own_noise
from inference.programs.pair import Pair
from inference.programs.program import Program, buffers_kept
from inference.programs.sites import Site, is_implicit, random_sites
from inference.programs.traces import runs

_ROWS = 4
"""Examples whose parameters are compared: enough that no network of a few units passes for a table by chance."""


class Scope(NamedTuple):
    """How a program relates a batch to its dataset."""

    shared: tuple[str, ...]
    """The sites that all examples of the dataset share."""
    size: int
    """The number of examples in the dataset, as the batch plate says."""
    by_place: tuple[str, ...]
    """Parameters or joint draws that belong to positions in the batch, whatever example stands there."""
    plate: str | None
    """The name of the batch plate; None where there is none, and every batch counts as a whole dataset."""


def scope(program: Program, batch: Examples) -> Scope:
    """Runs the program on a batch, which changes nothing in it, to see how it relates the batch to its dataset."""
    with buffers_kept(program), own_noise(0):
        with torch.no_grad():
            run = runs(program, batch)[0]
        if run.plate is None:
            return Scope((), run.dataset_size, (), None)
        sites = (random_sites(run.model) | random_sites(run.guide)).items()
        shared = tuple(name for name, site in sites if not (run.is_local(site) or site["infer"].get("is_auxiliary")))
        return Scope(shared, run.dataset_size, _by_place(program, batch), run.plate.name)


def _by_place(program: Program, batch: Examples) -> tuple[str, ...]:
    """The tensors of guide and model in which each row has entries of its own, the same ones after the rows have moved.

    A network's weights serve all rows, and a table that is indexed by the data is read elsewhere after the move.
    """
    if rows_of(batch) < 2:
        return _of_autoguide(program, batch)
    before = {name: entries for name, entries in _entries(program, batch).items() if _disjoint(entries)}
    if not before:
        return ()
    after = _entries(program, mapped(lambda tensor: tensor.roll(1, 0), batch))
    return tuple(name for name, entries in before.items() if name in after and entries.equal(after[name]))


@torch.no_grad()
def _of_autoguide(program: Program, batch: Examples) -> tuple[str, ...]:
    """The local latents of an AutoGuide, which has values for each; one row alone can not be moved."""
    if not isinstance(program, Pair) or program.autoguide is None:
        return ()
    run = runs(program, batch)[0]
    return tuple(name for name, site in random_sites(run.guide).items() if run.is_local(site))


def _disjoint(entries: Tensor) -> bool:
    return bool(entries.any(1).all() and (entries.sum(0) <= 1).all())


@torch.enable_grad()
def _entries(program: Program, batch: Examples) -> dict[str, Tensor]:
    """For each parameter or shared draw of the guide, its entries that each of the first rows needs: `(rows, entries)`."""
    with own_noise(0):
        run = runs(program, batch)[0]
    sites = random_sites(run.guide)
    everything = [*sites.values(), *random_sites(run.model).values()]
    rows = [_by_row(run, site) for site in everything if run.is_local(site)]
    totals = torch.stack(rows).sum(0) if rows else torch.zeros(())
    if not totals.requires_grad:
        return {}
    held = dict(program.named_parameters()) if isinstance(program, nn.Module) else {}
    held |= {name: site["value"] for name, site in sites.items() if not run.is_local(site)}
    held = {name: tensor for name, tensor in held.items() if tensor.requires_grad}
    found: dict[str, list[Tensor]] = {name: [] for name in held}
    for total in totals[:_ROWS]:
        gradients = torch.autograd.grad(total, [*held.values()], retain_graph=True, allow_unused=True)
        for name, gradient in zip(held, gradients, strict=True):
            if gradient is not None:
                found[name].append(gradient.flatten() != 0)
    return {name: torch.stack(each) for name, each in found.items() if len(each) == min(len(totals), _ROWS)}


def _by_row(run: Run, site: Site) -> Tensor:
    """A number for each row that depends on the site's value and density there: `(batch,)`."""
    distribution, value = site["fn"], site["value"]
    parts = [(value, distribution.event_dim)] if value.is_floating_point() else []
    if not is_implicit(distribution):
        parts.append((unmasked_log_prob(site["name"], site).broadcast_to(distribution.batch_shape), 0))
    if not parts:
        return value.new_zeros(run.examples, dtype=torch.float64)
    return torch.stack(
        [run.in_front(part, dims)[0].reshape(run.examples, -1).sum(1).double() for part, dims in parts]
    ).sum(0)
