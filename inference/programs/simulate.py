"""Data simulated from a program, as a batch that the program takes, and the latents that made them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions import Unit
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from inference.programs.entries import Examples, mapped, named
from inference.programs.execution import Latents, Run, executed, refuse_writes
from inference.programs.masks import where_seen
from inference.programs.program import Batch, Program, ProgramError, as_batch, evaluating
from inference.programs.sites import Site, is_implicit, random_sites
from inference.programs.traces import Unconditioned, joint_runs


class Simulated(NamedTuple):
    """A batch drawn from a program, and the latents that made it: an exact draw of their posterior."""

    batch: Examples
    latents: Latents
    """`(1, batch, ...)` of each latent site inside the batch plate, `(1, ...)` of others."""


def simulated(program: Program, batch: Batch) -> Simulated:
    """The batch with what the model observes drawn from the model, latents first; all else, such as covariates, is kept.

    A value stands in the batch as soon as it is drawn, so that a series may go on from it. What a mask hides, such as a
    missing label, is kept.

    Raises:
        ProgramError: nothing is observed, the model has a factor, what it observes is not an entry or part of one, or it
            reads there what it has not drawn yet.
    """
    with torch.no_grad(), evaluating(program):
        run = _simulation(program, batch, _DrawnIntoEntries)
        sites = random_sites(run.model)
        _refuse_nothing([name for name, site in sites.items() if _was_observed(site)])
        latents = simulated_latents(run)
        again = joint_runs(program, run.batch, latents)[0]
    refuse_writes(again.written)
    _refuse_other_densities(sites, again)
    return Simulated(run.batch, latents)


@torch.no_grad()
def simulation(program: Program, batch: Batch) -> Run:
    """The model's run that drew such a batch, without a check: for a training step, whose program `simulated` has passed."""
    with evaluating(program):
        return _simulation(program, batch, lambda _: _DrawnInto())


def simulated_latents(run: Run) -> dict[str, Tensor]:
    """The latents of a simulation."""
    return run.values({name: site for name, site in random_sites(run.model).items() if not _was_observed(site)})


def _simulation(program: Program, batch: Batch, drawing: Callable[[Examples], Unconditioned]) -> Run:
    def once(batch: Examples, copies: Examples, latents: Latents | None) -> tuple[Trace, Trace]:
        return Trace(), poutine.trace(drawing(copies)(program.model)).get_trace(*copies)

    laid_out = mapped(partial(torch.clone, memory_format=torch.contiguous_format), as_batch(batch))
    return executed(program, laid_out, 1, once, None)[0]


class _DrawnInto(Unconditioned):
    """Draws what is observed, and puts it where it was read."""

    def _pyro_post_sample(self, message: Any) -> None:
        if _was_observed(message):
            given = message["infer"]["obs"]
            given.copy_(where_seen(message, message["value"], given))


class _DrawnIntoEntries(_DrawnInto):
    """The same, where each value is known to stand in an entry of the batch, and to be all that is read there."""

    def __init__(self, batch: Examples) -> None:
        super().__init__()
        self.entries = named(batch)
        self.taken = {name: tensor.new_zeros(tensor.numel(), dtype=torch.bool) for name, tensor in self.entries.items()}

    def _pyro_post_sample(self, message: Any) -> None:
        if not _was_observed(message):
            return
        _refuse_factor(message)
        self._take(message)
        given, value = message["infer"]["obs"], where_seen(message, message["value"], message["infer"]["obs"])
        if torch.broadcast_shapes(value.shape, given.shape) != given.shape:
            raise ProgramError(
                f"site {message['name']!r} draws values of shape {tuple(value.shape)} and observes {tuple(given.shape)}. "
                "Give it one value for each that it draws."
            )
        super()._pyro_post_sample(message)
        if not given.is_floating_point() and bool((given != value).any()):
            raise ProgramError(
                f"site {message['name']!r} draws values that an entry of {given.dtype} can not hold. Give the entry as "
                f"{value.dtype}: x.to({value.dtype})."
            )

    def _take(self, site: Site) -> None:
        """Marks the part of an entry that a site observes as drawn."""
        given = site["infer"]["obs"]
        entry = next((name for name, tensor in self.entries.items() if _is_part(given, tensor)), None)
        if entry is None:
            raise ProgramError(
                f"site {site['name']!r} observes what is no entry of the batch ({', '.join(self.entries)}) but computed "
                "from it, so that simulated values cannot be given to the program. Make what is observed an entry: x / 255 "
                "outside of the model."
            )
        taken = self.taken[entry]
        before = taken.sum()
        taken.as_strided(given.shape, given.stride(), given.storage_offset()).fill_(True)
        if taken.sum() != before + given.numel():
            raise ProgramError(
                f"site {site['name']!r} observes values of {entry} that another site observes too, or that it repeats. "
                "Drawn twice, they would be other values each time. Observe them once."
            )


def _is_part(given: object, entry: Tensor) -> bool:
    """Whether a tensor is an entry or a view of it."""
    if not isinstance(given, Tensor) or given.dtype != entry.dtype:
        return False
    return given.untyped_storage().data_ptr() == entry.untyped_storage().data_ptr()


def _was_observed(site: Site) -> bool:
    return bool(site["infer"].get("was_observed"))


def _refuse_nothing(observed: list[str]) -> None:
    if not observed:
        raise ProgramError(
            "the batch observes nothing (an entry that is None?), so there is nothing to simulate. Give it what the model "
            "observes, of the shape that is wanted."
        )


def _refuse_factor(site: Site) -> None:
    if isinstance(site["fn"], Unit):
        raise ProgramError(
            f"the model has the factor {site['name']!r}, which counts in its density and has no part in what it draws: data "
            "simulated from it would be of another density. Write it as an observed site."
        )


def _refuse_other_densities(drawn: dict[str, Site], again: Run) -> None:
    """Raises a ProgramError where the model, given what it has drawn, has another density than when it drew."""
    for name, site in random_sites(again.model).items():
        if is_implicit(site["fn"]):
            continue
        value = drawn[name]["value"]
        first, second = drawn[name]["fn"].log_prob(value), site["fn"].log_prob(value)
        if not torch.allclose(first, second, rtol=1e-3, atol=1e-3, equal_nan=True):
            raise ProgramError(
                f"site {name!r} has another density given the simulated data than when it was drawn: the model reads the "
                "data before they are drawn, or is random by itself (dropout?). Observe one value after the other, x[:, t] "
                "given x[:, t - 1]; give what is no part of the model, such as the mean of the data, as an entry of its own."
            )
