"""Runs a program: its guide, and its model on the guide's draws, for any number of particles."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from inference.programs.program import Batch, Program, ProgramError, as_batch, localise, without_store
from inference.programs.sites import Frame, Site, batch_plate, plates, random_sites
from inference.programs.vectorized import NotVectorizable, VectorizedParticles

Latents = Mapping[str, Tensor]
"""Values of latent sites: `(particles, batch, ...)` inside the batch plate, `(particles, ...)` of shared sites."""


class Run(NamedTuple):
    """One execution of a program; its traces cover `particles` copies of the batch, one after the other."""

    guide: Trace
    model: Trace
    plate: Frame  # None where a guide run alone draws no site of the examples
    particles: int

    @property
    def examples(self) -> int:
        return self.plate.size // self.particles

    @property
    def dataset_size(self) -> int:
        """The number of examples in the dataset, of which the batch is a sample."""
        size: int = self.plate.full_size
        return size

    def is_local(self, site: Site) -> bool:
        return self.plate is not None and self.plate.name in plates(site)

    def values(self, sites: Mapping[str, Site]) -> dict[str, Tensor]:
        """The sites' values with particles and examples in front (see `Latents`)."""
        return {name: self._in_front(site) for name, site in sites.items()}

    def in_front(self, value: Tensor, event_dim: int) -> Tensor:
        """A value of the batch plate's sites as `(particles, batch, ...)`."""
        return value.movedim(self.plate.dim - event_dim, 0).unflatten(0, (self.particles, self.examples))

    def _in_front(self, site: Site) -> Tensor:
        value = site["value"]
        return self.in_front(value, site["fn"].event_dim) if self.is_local(site) else value.unsqueeze(0)


def runs(program: Program, batch: Batch, particles: int = 1, latents: Latents | None = None) -> list[Run]:
    """The guide's draws and the model replayed on them: one run for all particles, or one run each.

    Particles are laid along the batch axis, which every network accepts; where a program shares sites between examples,
    subsamples by itself, or was written for one batch length, it runs once per particle instead.

    Raises:
        ProgramError: no plate counts the examples, or `latents` are not those that the guide draws.
    """
    return _executed(program, batch, particles, partial(_guide_then_model, program), latents)


def guide_runs(program: Program, batch: Batch, particles: int = 1) -> list[Run]:
    """The guide's draws alone (the runs' model traces are empty)."""
    return _executed(program, batch, particles, partial(_guide_only, program), None)


def model_runs(program: Program, batch: Batch, particles: int, latents: Latents | None = None) -> list[Run]:
    """The model alone, its latents drawn from the prior or given, its observations drawn (the guide traces are empty)."""
    return _executed(program, batch, particles, partial(_unconditioned, program), latents)


Once = Callable[[tuple[Tensor, ...], int, Latents | None], tuple[Trace, Trace]]
"""Guide and model of a program, run for so many copies of the batch laid along its axis."""


def _executed(program: Program, batch: Batch, particles: int, once: Once, latents: Latents | None) -> list[Run]:
    examples = as_batch(batch)
    localise(program)
    if latents:
        particles = _common_particles(latents)
    if particles > 1 and getattr(program, "tiles", True):
        try:
            run = _run(once, examples, particles, latents)
            if run.plate and run.plate.size == particles * len(examples[0]) and all(map(run.is_local, _all_sites(run))):
                return [run]
        except (RuntimeError, ValueError, IndexError):
            pass  # written for one batch length; a real fault shows itself again below, in the batch's own shapes
    each = range(particles)
    return [
        _run(once, examples, 1, latents and {name: value[k : k + 1] for name, value in latents.items()}) for k in each
    ]


def _run(once: Once, batch: tuple[Tensor, ...], particles: int, latents: Latents | None) -> Run:
    with without_store():
        guide, model = once(batch, particles, latents)
    sites = [*random_sites(guide).values(), *random_sites(model).values()]
    rows = particles * len(batch[0])
    plate = batch_plate(sites, rows)
    if plate is None and model.nodes:  # a guide alone may draw shared sites only, or nothing
        found = {frame.name: frame.size for site in sites for frame in plates(site).values()}
        raise ProgramError(
            f"no plate counts the {rows} examples of the batch (plates found: {found or 'none'}). Draw the sites of "
            "each example inside `with pyro.plate('data', len(x)):`."
        )
    return Run(guide, model, plate, particles)


def _guide_then_model(
    program: Program, batch: tuple[Tensor, ...], particles: int, latents: Latents | None
) -> tuple[Trace, Trace]:
    guide_trace = _guide_trace(program, batch, particles, latents)
    for name, site in random_sites(guide_trace).items():
        if site["is_observed"]:
            raise ProgramError(
                f"the guide observes site {name!r} (a `pyro.factor` counts as one): a guide only draws latent sites. "
                "Move it into the model."
            )
    if latents is not None:
        _refuse_other_names(latents, guide_trace)
    # The whole guide trace is replayed, subsample indices too, or model and guide would index different rows.
    model = poutine.replay(program.model, trace=guide_trace)
    return guide_trace, poutine.trace(model).get_trace(*_tiled(batch, particles))


def _guide_only(
    program: Program, batch: tuple[Tensor, ...], particles: int, latents: Latents | None
) -> tuple[Trace, Trace]:
    return _guide_trace(program, batch, particles, latents), Trace()


def _unconditioned(
    program: Program, batch: tuple[Tensor, ...], particles: int, latents: Latents | None
) -> tuple[Trace, Trace]:
    model = poutine.uncondition(program.model)
    if latents is not None:
        model = _Given(latents, particles * len(batch[0]))(model)
    return Trace(), poutine.trace(model).get_trace(*_tiled(batch, particles))


def _guide_trace(program: Program, batch: tuple[Tensor, ...], particles: int, latents: Latents | None) -> Trace:
    """The guide's draws for all particles: by one run on the batch where it has one site, else on the tiled batch."""
    rows = len(batch[0])
    if particles > 1:
        guide = program.guide if latents is None else _Given(latents, rows)(program.guide)
        with suppress(NotVectorizable):
            trace = poutine.trace(VectorizedParticles(particles, rows)(guide)).get_trace(*batch)
            return prune_subsample_sites(trace)  # the model's plate is longer, and takes all its rows
    guide = program.guide if latents is None else _Given(latents, particles * rows)(program.guide)
    return poutine.trace(guide).get_trace(*_tiled(batch, particles))


def _tiled(batch: tuple[Tensor, ...], particles: int) -> tuple[Tensor, ...]:
    if particles == 1:
        return batch
    return tuple(tensor.expand(particles, *tensor.shape).flatten(0, 1) for tensor in batch)


class _Given(Messenger):
    """Gives latent sites their values, from `(particles, batch, ...)` to where the site's plates lie."""

    def __init__(self, latents: Latents, rows: int) -> None:
        super().__init__()
        self.latents, self.rows = latents, rows

    def _pyro_sample(self, message: Any) -> None:
        name = message["name"]
        if name not in self.latents or message["is_observed"]:
            return
        value = self.latents[name]
        plate = batch_plate([message], self.rows)
        if plate is None:
            message["value"] = value.squeeze(0)
        else:
            axis = plate.dim - message["fn"].event_dim
            message["value"] = value.flatten(0, 1).movedim(0, axis)


def _refuse_other_names(latents: Latents, guide: Trace) -> None:
    drawn = random_sites(guide)
    auxiliary = sorted(name for name, site in drawn.items() if site["infer"].get("is_auxiliary"))
    if auxiliary:
        raise ProgramError(
            f"the guide draws the auxiliary sites {auxiliary}, so its log density at given latents is not available. "
            "Write a guide that draws the latent sites themselves; to train, Gradient.PATH needs no such scores."
        )
    if drawn.keys() != latents.keys():
        raise ProgramError(
            f"latents were given for {sorted(latents)}; the guide draws {sorted(drawn)}. Give all of them."
        )


def _common_particles(latents: Latents) -> int:
    counts = {name: value.shape[0] if value.dim() else 0 for name, value in latents.items()}
    if len(set(counts.values())) != 1:
        raise ProgramError(f"latents must share their first axis, the particles; they have {counts}.")
    return next(iter(counts.values()))


def _all_sites(run: Run) -> list[Site]:
    return [*random_sites(run.guide).values(), *random_sites(run.model).values()]
