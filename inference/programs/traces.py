"""The traces of a program: its guide, and its model on the guide's draws, on given latents, or by itself."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from inference.programs.autoguides import auxiliary_values
from inference.programs.entries import Examples, rows_of
from inference.programs.execution import Latents, Run, executed, executing, may_be_of_tiling
from inference.programs.pair import Pair
from inference.programs.program import Batch, Program, ProgramError
from inference.programs.sites import Frame, Site, batch_plate, deterministic_sites, plates, random_sites
from inference.programs.vectorized import NotVectorizable, VectorizedParticles


def runs(program: Program, batch: Batch, particles: int = 1, latents: Latents | None = None) -> list[Run]:
    """The guide's draws and the model replayed on them: one run for all particles, or one run each.

    Particles are laid along the batch axis, which every network accepts; where a program shares sites between examples,
    subsamples by itself, or was written for one batch length, it runs once per particle instead.

    Raises:
        ProgramError: a site has rows that no plate counts, or `latents` are not those that the guide draws.
    """
    return executed(program, batch, particles, partial(_guide_then_model, program), latents, _tiles(program))


def guide_runs(program: Program, batch: Batch, particles: int = 1, latents: Latents | None = None) -> list[Run]:
    """The guide alone, its latents drawn or given (the runs' model traces are empty)."""
    return executed(program, batch, particles, partial(_guide_only, program), latents, _tiles(program))


def model_runs(program: Program, batch: Batch, particles: int, latents: Latents | None = None) -> list[Run]:
    """The model alone, its latents drawn from the prior or given, its observations drawn (the guide traces are empty)."""
    return executed(program, batch, particles, partial(_unconditioned, program), latents)


def joint_runs(program: Program, batch: Batch, latents: Latents, particles: int = 1) -> list[Run]:
    """The model alone, its latents given, its observations the batch's (the guide traces are empty).

    Latents that are not given are drawn from the prior, `particles` of each where none is given.
    """
    return executed(program, batch, particles, partial(_given, program), latents)


def replayed(program: Program, run: Run) -> Trace:
    """The model of a run once more, every latent site at the run's value."""
    with executing(program):
        return poutine.trace(poutine.replay(program.model, trace=run.model)).get_trace(*run.batch)


def guide_at(program: Program, batch: Examples, copies: Examples, model: Trace, names: Collection[str]) -> Trace:
    """The guide's trace of a run whose model has been run already, at the values that these sites have there."""
    rows, copied = rows_of(batch), rows_of(copies)
    particles = copied // rows
    sites = random_sites(model)
    run = Run(Trace(), model, batch_plate(sites.values(), copied), particles, copies)
    return _guide_trace(program, batch, copies, run.values({name: sites[name] for name in names}))


def _tiles(program: Program) -> bool:
    """Whether a guide may be run on several copies of the batch, concatenated along its axis."""
    return getattr(program, "tiles", True)


def _guide_then_model(
    program: Program, batch: Examples, copies: Examples, latents: Latents | None
) -> tuple[Trace, Trace]:
    guide_trace = _guide_trace(program, batch, copies, latents)
    for name, site in random_sites(guide_trace).items():
        if site["is_observed"]:
            raise ProgramError(
                f"the guide observes site {name!r} (a `pyro.factor` counts as one): a guide only draws latent sites. "
                "Move it into the model."
            )
    # The whole guide trace is replayed, subsample indices too, or model and guide would index different rows.
    model = poutine.replay(program.model, trace=guide_trace)
    if latents is not None:
        model = _Given(latents, rows_of(copies))(model)
    if isinstance(program, Pair) and program.rows not in (None, rows_of(copies)):
        alone = poutine.trace(program.model).get_trace(*copies)
        refuse_other_rows(guide_trace, batch_plate(random_sites(alone).values(), rows_of(copies)))
    model_trace = poutine.trace(model).get_trace(*copies)
    if latents is not None:
        _refuse_other_names(
            latents.keys() - deterministic_sites(model_trace), guide_trace, _autoguide(program) is not None
        )
    return guide_trace, model_trace


def refuse_other_rows(guide: Trace, plate: Frame | None) -> None:
    """Raises a ProgramError where a guide has values for so many examples, and the model's batch plate other ones."""
    if plate is None:  # all the data are one example, whose values may be of any number
        return
    framed = {
        name: plates(site)[plate.name].size for name, site in random_sites(guide).items() if plate.name in plates(site)
    }
    others = {name: size for name, size in framed.items() if size != plate.size}
    if others:
        raise ProgramError(
            f"the guide has values for the {next(iter(others.values()))} examples it was fitted to ({sorted(others)}), and "
            f"none for the {plate.size} of this batch. Amortise the guide: a network of x; or let it have shared sites only."
        )


def _guide_only(program: Program, batch: Examples, copies: Examples, latents: Latents | None) -> tuple[Trace, Trace]:
    return _guide_trace(program, batch, copies, latents), Trace()


def _unconditioned(program: Program, batch: Examples, copies: Examples, latents: Latents | None) -> tuple[Trace, Trace]:
    model: Callable[..., Any] = Unconditioned()(program.model)
    if latents is not None:
        model = _Given(latents, rows_of(copies))(model)
    return Trace(), poutine.trace(model).get_trace(*copies)


def _given(program: Program, batch: Examples, copies: Examples, latents: Latents | None) -> tuple[Trace, Trace]:
    model = given_latents(program, latents or {}, rows_of(copies))
    return Trace(), poutine.trace(model).get_trace(*copies)


def given_latents(program: Program, latents: Latents, rows: int) -> Callable[..., Any]:
    """The model of so many rows, with the values of these latents given."""
    model: Callable[..., Any] = _Given(latents, rows)(program.model)
    return model


def _guide_trace(program: Program, batch: Examples, copies: Examples, latents: Latents | None) -> Trace:
    """The guide's draws for all particles: by one run on the batch where it has one site, else on the tiled batch."""
    rows = rows_of(batch)
    particles = rows_of(copies) // rows
    autoguide = _autoguide(program)
    if latents is not None and autoguide is not None:
        if autoguide.prototype_trace is None:
            program.guide(*batch)
        drawn = auxiliary_values(autoguide, lambda name, site: placed(latents[name], site, rows))
        return poutine.trace(Drawn(drawn)(program.guide)).get_trace(*batch)
    if particles > 1:
        guide = program.guide if latents is None else _Given(latents, rows)(program.guide)
        try:
            trace = poutine.trace(VectorizedParticles(particles, rows)(guide)).get_trace(*batch)
            return prune_subsample_sites(trace)  # the model's plate is longer, and takes all its rows
        except Exception as error:
            # What comes after the site has rows for all particles, and may be written for those of the batch.
            if not isinstance(error, NotVectorizable) and not may_be_of_tiling(error):
                raise
    guide = program.guide if latents is None else _Given(latents, rows_of(copies))(program.guide)
    return poutine.trace(guide).get_trace(*copies)


class Unconditioned(UnconditionMessenger):
    """Draws what is observed; what follows from the draws stays as it is computed, as a plate would give it further axes."""

    def _pyro_sample(self, message: Any) -> None:
        if not message["infer"].get("_deterministic"):
            super()._pyro_sample(message)


class _Given(Messenger):
    """Gives latent sites their values `(particles, batch, ...)`, laid out as the site's plates are."""

    def __init__(self, latents: Latents, rows: int) -> None:
        super().__init__()
        self.latents, self.rows = latents, rows

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.latents and not message["is_observed"]:
            value = placed(self.latents[message["name"]], message, self.rows)
            event = tuple(message["fn"].event_shape)
            if tuple(value.shape[value.dim() - len(event) :]) != event:
                raise ProgramError(
                    f"latents: site {message['name']!r} has events of shape {event}, and the values given for it are of "
                    f"shape {tuple(value.shape)}. Give them as (particles, batch, *event)."
                )
            message["value"] = value


class Drawn(Messenger):
    """Gives sites their values, laid out as the sites' plates are."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.values:
            message["value"] = self.values[message["name"]]


def placed(value: Tensor, site: Site, rows: int, event_dim: int | None = None) -> Tensor:
    """A value `(particles, batch, ...)`, or `(1, ...)` of a shared site, laid out as the site's plates are.

    `event_dim` counts the axes of an event, where these are not those of the site's distribution.
    """
    plate = batch_plate([site], rows)
    if plate is None:
        return value.squeeze(0)
    return value.flatten(0, 1).movedim(0, plate.dim - (site["fn"].event_dim if event_dim is None else event_dim))


def _autoguide(program: Program) -> AutoGuide | None:
    return program.autoguide if isinstance(program, Pair) else None


def _refuse_other_names(given: set[str], guide: Trace, is_autoguide: bool) -> None:
    drawn = random_sites(guide)
    auxiliary = sorted(name for name, site in drawn.items() if site["infer"].get("is_auxiliary"))
    if auxiliary and not is_autoguide:
        raise ProgramError(
            f"the guide draws the auxiliary sites {auxiliary}, so its log density at given latents is not available. For "
            "log p(x, z) alone use log_joint; for log q write a guide that draws the latent sites themselves."
        )
    expected = drawn.keys() - set(auxiliary)
    if expected != given:
        raise ProgramError(
            f"latents were given for {sorted(given)}; the guide draws {sorted(expected)}. Give all of them."
        )
