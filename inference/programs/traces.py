"""Runs a program: its guide, and its model on the guide's draws, for any number of particles."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from inference.programs.autoguides import auxiliary_values
from inference.programs.caches import FreshTransforms
from inference.programs.program import Batch, Pair, Program, ProgramError, as_batch, localise, without_store
from inference.programs.sites import Frame, Site, batch_plate, deterministic_sites, plates, random_sites
from inference.programs.subsampling import GivenSubsamples
from inference.programs.vectorized import NotVectorizable, VectorizedParticles

Latents = Mapping[str, Tensor]
"""Values of latent sites: `(particles, batch, ...)` inside the batch plate, `(particles, ...)` of shared sites."""


class Run(NamedTuple):
    """One execution of a program; its traces cover `particles` copies of the batch, concatenated along its axis."""

    guide: Trace
    model: Trace
    plate: Frame  # None where a guide run alone draws no site of the examples
    particles: int
    batch: tuple[Tensor, ...] = ()
    """What the model was called with."""
    written: tuple[int, ...] = ()
    """The indices of the tensors in the batch that the program wrote into."""

    @property
    def examples(self) -> int:
        return self.plate.size // self.particles

    def first_copy(self, site: Site) -> Tensor | None:
        """A site's values on the first particle's copy of the batch, where all others are copies of them; else None."""
        value = site["value"]
        copied = any(value is tensor or value._base is tensor for tensor in self.batch)
        if self.particles == 1 or not copied or not self.is_local(site):
            return None
        axis: int = self.plate.dim - site["fn"].event_dim
        return value.narrow(axis, 0, self.examples)

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
    return executed(program, batch, particles, partial(_guide_then_model, program), latents, _tiles(program))


def guide_runs(program: Program, batch: Batch, particles: int = 1) -> list[Run]:
    """The guide's draws alone (the runs' model traces are empty)."""
    return executed(program, batch, particles, partial(_guide_only, program), None, _tiles(program))


def model_runs(program: Program, batch: Batch, particles: int, latents: Latents | None = None) -> list[Run]:
    """The model alone, its latents drawn from the prior or given, its observations drawn (the guide traces are empty)."""
    return executed(program, batch, particles, partial(_unconditioned, program), latents)


def joint_runs(program: Program, batch: Batch, latents: Latents) -> list[Run]:
    """The model alone, its latents given, its observations the batch's (the guide traces are empty)."""
    return executed(program, batch, 1, partial(_given, program), latents)


@contextmanager
def executing(program: object) -> Iterator[None]:
    """A block that runs a program with fresh transforms, rows indexed by its own subsample, and without Pyro's store."""
    with without_store(), FreshTransforms(program), GivenSubsamples():
        yield


Once = Callable[[tuple[Tensor, ...], tuple[Tensor, ...], Latents | None], tuple[Trace, Trace]]
"""Runs guide and model of a program, given a batch and its copies concatenated along the batch axis."""


def _tiles(program: Program) -> bool:
    """Whether a guide may be run on several copies of the batch, concatenated along its axis."""
    return getattr(program, "tiles", True)


def executed(
    program: Program, batch: Batch, particles: int, once: Once, latents: Latents | None, tiles: bool = True
) -> list[Run]:
    """Runs of a program by `once`: one for all particles where it can be, or one run each."""
    examples = as_batch(batch)
    localise(program)
    if latents:
        particles = _common_particles(latents)
    if particles < 1:
        raise ProgramError(f"expected at least one particle, got {particles}.")
    if particles > 1 and tiles:
        try:
            run = _run(program, once, examples, particles, latents)
            if run.plate and run.plate.size == particles * len(examples[0]) and all(map(run.is_local, _all_sites(run))):
                return [run]
        except Exception as error:
            if _is_out_of_memory(error) and not torch.is_grad_enabled():  # a graph would need it all anyway
                return _in_halves(program, examples, particles, once, latents)
            if not _may_be_of_tiling(error):
                raise
    each = range(particles)
    return [_run(program, once, examples, 1, _part(latents, k, k + 1)) for k in each]


def _in_halves(
    program: Program, batch: tuple[Tensor, ...], particles: int, once: Once, latents: Latents | None
) -> list[Run]:
    half = particles // 2
    bounds = ((0, half), (half, particles))
    return [
        run
        for start, end in bounds
        for run in executed(program, batch, end - start, once, _part(latents, start, end), tiles=True)
    ]


def _part(latents: Latents | None, start: int, end: int) -> Latents | None:
    return latents and {name: value[start:end] for name, value in latents.items()}


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


_SHAPES = ("shape", "size", "dimension", "broadcast", "match", "batch", "rows", "length", "index", "examples")
"""Words in the message of an error that a program written for one batch length raises."""


def _may_be_of_tiling(error: Exception) -> bool:
    """Whether an error can come from the batch's length. If it does not, the single runs that follow raise it again.

    An error that depends on a draw (a matrix without a Cholesky factor, a NaN) must not lead there: only the draws without
    an error would count.
    """
    if isinstance(error, ProgramError | IndexError | AssertionError):
        return True
    if not isinstance(error, RuntimeError | ValueError) or isinstance(
        error, NotImplementedError | torch.linalg.LinAlgError | torch.OutOfMemoryError
    ):
        return False
    cause: BaseException = error
    while cause.__cause__ is not None:  # Pyro adds the shapes of all sites to any error
        cause = cause.__cause__
    said = str(cause).lower()
    of_values = "to satisfy the constraint" in said or "within the support" in said
    return not of_values and any(word in said for word in _SHAPES)


def _run(program: Program, once: Once, batch: tuple[Tensor, ...], particles: int, latents: Latents | None) -> Run:
    # Where nothing is trained a program is given copies, so that what it writes into its batch stays its own.
    given = batch if particles > 1 or torch.is_grad_enabled() else tuple(tensor.clone() for tensor in batch)
    before = [_version(tensor) for tensor in given]
    with executing(program):
        copies = _copies(given, particles)
        guide, model = once(given, copies, latents)
    written = tuple(place for place, tensor in enumerate(given) if _version(tensor) != before[place])
    if given is batch:
        refuse_writes(written)
    sites = [*random_sites(guide).values(), *random_sites(model).values()]
    rows = particles * len(batch[0])
    plate = batch_plate(sites, rows)
    if plate is None and model.nodes:  # a guide alone may draw shared sites only, or nothing
        found = {frame.name: frame.size for site in sites for frame in plates(site).values()}
        raise ProgramError(
            f"no plate counts the {rows} examples of the batch (plates found: {found or 'none'}). Draw the sites of "
            "each example inside `with pyro.plate('data', len(x)):`."
        )
    return Run(guide, model, plate, particles, copies, written)


def refuse_writes(written: tuple[int, ...]) -> None:
    """Raises a ProgramError where a program has written into its batch."""
    if written:
        named = ", ".join(f"batch[{place}]" for place in written)
        raise ProgramError(
            f"the program writes into {named}, which are the caller's data and would be others at the next step. Make a new "
            "tensor in its place: x = x / 2 and not x /= 2 (no method that ends in an underscore)."
        )


def _version(tensor: Tensor) -> int:
    """How often a tensor has been written into; tensors made in inference mode do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _guide_then_model(
    program: Program, batch: tuple[Tensor, ...], copies: tuple[Tensor, ...], latents: Latents | None
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
        model = _Given(latents, len(copies[0]))(model)
    model_trace = poutine.trace(model).get_trace(*copies)
    if latents is not None:
        _refuse_other_names(
            latents.keys() - deterministic_sites(model_trace), guide_trace, _autoguide(program) is not None
        )
    return guide_trace, model_trace


def _guide_only(
    program: Program, batch: tuple[Tensor, ...], copies: tuple[Tensor, ...], latents: Latents | None
) -> tuple[Trace, Trace]:
    return _guide_trace(program, batch, copies, latents), Trace()


def _unconditioned(
    program: Program, batch: tuple[Tensor, ...], copies: tuple[Tensor, ...], latents: Latents | None
) -> tuple[Trace, Trace]:
    model = poutine.uncondition(program.model)
    if latents is not None:
        model = _Given(latents, len(copies[0]))(model)
    return Trace(), poutine.trace(model).get_trace(*copies)


def _given(
    program: Program, batch: tuple[Tensor, ...], copies: tuple[Tensor, ...], latents: Latents | None
) -> tuple[Trace, Trace]:
    model = given_latents(program, latents or {}, len(copies[0]))
    return Trace(), poutine.trace(model).get_trace(*copies)


def given_latents(program: Program, latents: Latents, rows: int) -> Callable[..., Any]:
    """The model of so many rows, with the values of these latents given."""
    model: Callable[..., Any] = _Given(latents, rows)(program.model)
    return model


def _guide_trace(
    program: Program, batch: tuple[Tensor, ...], copies: tuple[Tensor, ...], latents: Latents | None
) -> Trace:
    """The guide's draws for all particles: by one run on the batch where it has one site, else on the tiled batch."""
    rows, particles = len(batch[0]), len(copies[0]) // len(batch[0])
    autoguide = _autoguide(program)
    if latents is not None and autoguide is not None:
        if autoguide.prototype_trace is None:
            program.guide(*batch)
        drawn = auxiliary_values(autoguide, lambda name, site: _placed(latents[name], site, rows))
        return poutine.trace(_Drawn(drawn)(program.guide)).get_trace(*batch)
    if particles > 1:
        guide = program.guide if latents is None else _Given(latents, rows)(program.guide)
        try:
            trace = poutine.trace(VectorizedParticles(particles, rows)(guide)).get_trace(*batch)
            return prune_subsample_sites(trace)  # the model's plate is longer, and takes all its rows
        except Exception as error:
            # What comes after the site has rows for all particles, and may be written for those of the batch.
            if not isinstance(error, NotVectorizable) and not _may_be_of_tiling(error):
                raise
    guide = program.guide if latents is None else _Given(latents, len(copies[0]))(program.guide)
    return poutine.trace(guide).get_trace(*copies)


def _copies(batch: tuple[Tensor, ...], particles: int) -> tuple[Tensor, ...]:
    """The batch for so many particles, one copy after the other."""
    if particles == 1:
        return batch
    return tuple(tensor.expand(particles, *tensor.shape).flatten(0, 1) for tensor in batch)


class _Given(Messenger):
    """Gives latent sites their values `(particles, batch, ...)`, laid out as the site's plates are."""

    def __init__(self, latents: Latents, rows: int) -> None:
        super().__init__()
        self.latents, self.rows = latents, rows

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.latents and not message["is_observed"]:
            message["value"] = _placed(self.latents[message["name"]], message, self.rows)


class _Drawn(Messenger):
    """Gives sites their values, laid out as the sites' plates are."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.values:
            message["value"] = self.values[message["name"]]


def _placed(value: Tensor, site: Site, rows: int) -> Tensor:
    """A value `(particles, batch, ...)`, or `(1, ...)` of a shared site, laid out as the site's plates are."""
    plate = batch_plate([site], rows)
    if plate is None:
        return value.squeeze(0)
    return value.flatten(0, 1).movedim(0, plate.dim - site["fn"].event_dim)


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


def _common_particles(latents: Latents) -> int:
    counts = {name: value.shape[0] if value.dim() else 0 for name, value in latents.items()}
    if len(set(counts.values())) != 1:
        raise ProgramError(f"latents must share their first axis, the particles; they have {counts}.")
    return next(iter(counts.values()))


def _all_sites(run: Run) -> list[Site]:
    return [*random_sites(run.guide).values(), *random_sites(run.model).values()]
