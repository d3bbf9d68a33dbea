"""Numbers in the units of the data: batches of rescaled values carry the Jacobian of the rescaling."""

from collections.abc import Mapping

from torch import Tensor

from inference.programs.entries import leaves
from inference.programs.program import Batch, Program, ProgramError, as_batch
from inference.programs.sites import Site, hides_values, is_discrete, is_implicit, random_sites
from inference.programs.traces import runs


def log_jacobian_of(batches: object) -> float:
    """What to add to a log density of the batches' values to have it in the data's own units, in nats per example.

    Read from a `log_jacobian` that they carry; 0 where they carry none.
    """
    return float(getattr(batches, "log_jacobian", 0.0))


def refuse_partial_observation(program: Program, batch: Batch) -> None:
    """Raises a ProgramError unless each value of the first tensor of a batch is observed, once and under a density.

    The Jacobian of all values counts only there; in a regression it would count covariates, which have no density.
    """
    x = leaves(as_batch(batch))[0]
    run = runs(program, batch)[0]
    values = x.numel() if run.plate is None else x[0].numel()
    observed = [site for site in random_sites(run.model).values() if site["is_observed"]]
    densities = [site["value"].numel() for site in observed if _is_whole_density(site)]
    if len(densities) != len(observed) or sum(densities) // run.examples != values:
        raise ProgramError(
            f"the data were rescaled, and their {values} values an example are not what the program observes: "
            f"{sum(densities) // run.examples} under a density and without a mask. So it is not known by how much "
            "its numbers change with the units. Give the data in their own units: load(…, standardise=False), "
            "Recipe(standardise=False)."
        )


def in_units(values: dict[str, Tensor], jacobians: Mapping[str, float]) -> dict[str, Tensor]:
    """The metrics of a step in the units of the data: of minus log-densities, by name, the Jacobian is taken off."""
    return values | {name: values[name] - log_jacobian for name, log_jacobian in jacobians.items()}


def _is_whole_density(site: Site) -> bool:
    return not (is_discrete(site) or hides_values(site) or is_implicit(site["fn"]))
