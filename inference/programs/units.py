"""Numbers in the units of the data: batches of rescaled values carry the Jacobian of the rescaling."""

from collections.abc import Iterable

import torch
from torch import Tensor

from inference.programs.entries import Examples, leaves, rows_of
from inference.programs.masks import where_seen
from inference.programs.program import Batch, Program, ProgramError, as_batch
from inference.programs.sites import Site, hides_values, is_discrete, is_implicit, random_sites
from inference.programs.traces import runs

LogJacobian = float | Tensor
"""What to add to a log density of an example for that in the data's own units, in nats; or, of the shape of an example, to
that of each value, of which those count that a batch observes, as its last entry says."""


def log_jacobian_of(batches: object) -> LogJacobian | None:
    """The `log_jacobian` that batches carry; None where their values are in the data's own units."""
    found = getattr(batches, "log_jacobian", 0.0)
    return found if isinstance(found, Tensor) else float(found) or None


def added_to(log_jacobian: LogJacobian, batch: Examples, numbers: int) -> float | Tensor:
    """What to add to each of so many log densities of a batch: one for each example, or one of them all.

    Raises:
        ProgramError: the batch does not end with what it observes, where that decides.
    """
    rows = rows_of(batch)
    if not isinstance(log_jacobian, Tensor):
        return rows // numbers * log_jacobian
    of_rows = (_observed_in(batch) * log_jacobian).flatten(1).sum(1)
    return of_rows if numbers == rows else of_rows.sum()


def refuse_partial_observation(program: Program, batch: Batch, log_jacobian: LogJacobian) -> None:
    """Raises a ProgramError unless each value that the Jacobian counts is observed, once and under a density.

    These are the values of the first tensor of a batch; in a regression it would count covariates, which have no density.
    """
    examples = as_batch(batch)
    x = leaves(examples)[0]
    run = runs(program, examples)[0]
    some = isinstance(log_jacobian, Tensor)
    values = x.numel() if run.plate is None else x[0].numel()
    observed = [site for site in random_sites(run.model).values() if site["is_observed"]]
    densities = [site for site in observed if _is_density(site) and (some or not hides_values(site))]
    count = sum(site["value"].numel() for site in densities) // run.examples
    if len(densities) != len(observed) or count != values:
        raise ProgramError(
            f"the data were rescaled, and their {values} values an example are not what the program observes: {count} under "
            f"a density{'' if some else ' and without a mask'}. So it is not known by how much its numbers change with the "
            "units. Give the data in their own units: load(…, standardise=False), Recipe(standardise=False)."
        )
    if some and not (len(densities) == 1 and torch.equal(_seen(densities[0]).reshape(x.shape), _observed_in(examples))):
        raise ProgramError(
            "the data were rescaled, and what the program observes of them is not what the batch says is observed. Mask the "
            "likelihood by the batch's last entry; or give the data in their own units: load(…, standardise=False), "
            "Recipe(standardise=False)."
        )


def in_units(values: dict[str, Tensor], names: Iterable[str], added: float | Tensor) -> dict[str, Tensor]:
    """The metrics of a step in the units of the data: those named are means of minus log-densities."""
    mean = added.mean() if isinstance(added, Tensor) else added
    return values | {name: values[name] - mean for name in names}


def _observed_in(batch: Examples) -> Tensor:
    """What a batch says of each value of its first entry: whether it is observed."""
    tensors = leaves(batch)
    if tensors[-1].dtype != torch.bool or tensors[-1].shape != tensors[0].shape:
        raise ProgramError(
            "the data were rescaled value by value, and this batch does not say which of them it observes: expected a last "
            f"entry of bool and of shape {tuple(tensors[0].shape)}, got {tensors[-1].dtype} of {tuple(tensors[-1].shape)}."
        )
    return tensors[-1]


def _is_density(site: Site) -> bool:
    return not (is_discrete(site) or is_implicit(site["fn"]))


def _seen(site: Site) -> Tensor:
    """Which values of a site no mask hides."""
    ones = torch.ones_like(site["value"], dtype=torch.bool)
    return where_seen(site, ones, ~ones)
