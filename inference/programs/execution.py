"""Executes a program for any number of particles: as copies of the batch, or one by one."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_struct import Trace
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from inference.programs.alone import alone
from inference.programs.caches import FreshTransforms
from inference.programs.densities import refuse_loose_axes
from inference.programs.dtypes import explained_dtypes
from inference.programs.entries import Examples, leaves, mapped, named, rows_of
from inference.programs.masks import HiddenValues
from inference.programs.numbers import refuse_below
from inference.programs.program import Batch, Program, ProgramError, as_batch, localise, without_store
from inference.programs.signatures import explained_entries
from inference.programs.sites import Frame, Site, batch_plate, plates, random_sites
from inference.programs.subsampling import GivenSubsamples

Latents = Mapping[str, Tensor]
"""Values of latent sites: `(particles, batch, ...)` inside the batch plate, `(particles, ...)` of others."""


class Run(NamedTuple):
    """One execution of a program; its traces cover `particles` copies of the batch, concatenated along its axis."""

    guide: Trace
    model: Trace
    plate: Frame
    """The plate over the examples; None where there is none: all the data are then one example, and every site is local."""
    particles: int
    batch: Examples = ()
    """What the model was called with."""
    written: tuple[str, ...] = ()
    """The places in the batch that the program wrote into."""

    @property
    def examples(self) -> int:
        return 1 if self.plate is None else self.plate.size // self.particles

    def first_copy(self, site: Site) -> Tensor | None:
        """A site's values on the first particle's copy of the batch, where all others are copies of them; else None."""
        value = site["value"]
        copied = any(value is tensor or value._base is tensor for tensor in leaves(self.batch))
        if self.particles == 1 or not copied or not self.is_local(site):
            return None
        axis: int = self.plate.dim - site["fn"].event_dim
        return value.narrow(axis, 0, self.examples)

    @property
    def dataset_size(self) -> int:
        """The number of examples in the dataset, of which the batch is a sample."""
        size: int = 1 if self.plate is None else self.plate.full_size
        return size

    def is_local(self, site: Site) -> bool:
        return self.plate is None or self.plate.name in plates(site)

    @property
    def per_example(self) -> bool:
        """Whether every example has a log-weight of its own: a plate counts them, and they share no site."""
        return self.plate is not None and all(map(self.is_local, _all_sites(self)))

    def values(self, sites: Mapping[str, Site]) -> dict[str, Tensor]:
        """The sites' values with particles and examples in front (see `Latents`)."""
        return {name: self._in_front(site) for name, site in sites.items()}

    def in_front(self, value: Tensor, event_dim: int) -> Tensor:
        """A value of a local site as `(particles, batch, ...)`, or `(1, ...)` without a batch plate."""
        if self.plate is None:
            return value.unsqueeze(0)
        return value.movedim(self.plate.dim - event_dim, 0).unflatten(0, (self.particles, self.examples))

    def _in_front(self, site: Site) -> Tensor:
        value = site["value"]
        return self.in_front(value, site["fn"].event_dim) if self.is_local(site) else value.unsqueeze(0)


Once = Callable[[Examples, Examples, Latents | None], tuple[Trace, Trace]]
"""Runs guide and model of a program, given a batch and its copies concatenated along the batch axis."""


@contextmanager
def executing(program: object) -> Iterator[None]:
    """A block that runs a program: transforms fresh, rows by its own subsample, nothing in Pyro's store or behind masks."""
    modules = list(program.modules()) if isinstance(program, nn.Module) else []
    localise(modules)
    try:
        with alone("a program"), without_store(), FreshTransforms(modules), GivenSubsamples(), HiddenValues():
            yield
    except ProgramError as error:
        said = _as_it_was_said(error)
        raise said from said.__cause__
    except ValueError as error:
        part = _TOO_MANY.search(_said(error))
        if part is None or int(part[1]) <= int(part[2]):
            raise
        raise ProgramError(
            f"a plate of {part[2]} examples, which are the whole dataset, is asked to hold {part[1]} of a batch. Give "
            f"batches of at most {part[2]}; or declare the plate by the data: pyro.plate('data', len(x))."
        ) from error
    except NotImplementedError as error:
        if "does not support sampling" not in _said(error):
            raise
        raise ProgramError(
            "a latent site has an improper prior (ImproperUniform), from which nothing can be drawn, and no guide draws it. "
            "Draw it in the guide, and start from there; or give it a proper prior."
        ) from error


_TOO_MANY = re.compile(r"subsample_size does not match len\(subsample\), (\d+) vs (\d+)")
"""What Pyro says of a plate whose subsample is to be larger than it is itself."""


def _as_it_was_said(error: ProgramError) -> ProgramError:
    """The error without the shapes of all sites, which Pyro's traces add to it."""
    while isinstance(error.__cause__, ProgramError):
        error = error.__cause__
    return error


def executed(
    program: Program, batch: Batch, particles: int, once: Once, latents: Latents | None, tiles: bool = True
) -> list[Run]:
    """Runs of a program by `once`: one for all particles where it can be, or one run each."""
    examples = as_batch(batch)
    if latents:
        particles = _common_particles(latents)
    refuse_below("particles", particles, 1)
    if particles > 1 and tiles:
        try:
            rows = particles * rows_of(examples)
            with _InOnePlate(rows):
                run = _run(program, once, examples, particles, latents)
            if run.per_example and run.plate.size == rows:
                return [run]
        except Exception as error:
            if is_out_of_memory(error) and not torch.is_grad_enabled():  # a graph would need it all anyway
                return _in_halves(program, examples, particles, once, latents)
            if not isinstance(error, _Outside) and not may_be_of_tiling(error):
                raise
    each = range(particles)
    return [_run(program, once, examples, 1, _part(latents, k, k + 1)) for k in each]


class _Outside(Exception):
    """A site outside the plate over all rows, so that the particles have to be run one by one."""


class _InOnePlate(Messenger):
    """Stops a run of copies at the first site that no plate over their rows holds, before more is done in vain."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def _pyro_sample(self, message: Any) -> None:
        counts = not (site_is_subsample(message) or message["infer"].get("_deterministic"))
        if counts and all(frame.size != self.rows for frame in plates(message).values()):
            raise _Outside


def _in_halves(program: Program, batch: Examples, particles: int, once: Once, latents: Latents | None) -> list[Run]:
    half = particles // 2
    bounds = ((0, half), (half, particles))
    return [
        run for start, end in bounds for run in executed(program, batch, end - start, once, _part(latents, start, end))
    ]


def _part(latents: Latents | None, start: int, end: int) -> Latents | None:
    return latents and {name: value[start:end] for name, value in latents.items()}


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory has run out."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


_SHAPES = ("shape", "size", "dimension", "broadcast", "match", "batch", "rows", "length", "index", "examples")
"""Words in the message of an error that a program written for one batch length raises."""


def may_be_of_tiling(error: Exception) -> bool:
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
    return not is_of_values(error) and any(word in _said(error) for word in _SHAPES)


def is_of_values(error: Exception) -> bool:
    """Whether Pyro's validation has found a value or a parameter that a distribution does not take."""
    said = _said(error)
    return "to satisfy the constraint" in said or "within the support" in said


def _said(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:  # Pyro adds the shapes of all sites to any error
        cause = cause.__cause__
    return str(cause).lower()


def _run(program: Program, once: Once, batch: Examples, particles: int, latents: Latents | None) -> Run:
    # Where nothing is trained a program is given copies, so that what it writes into its batch stays its own.
    given = batch if particles > 1 or torch.is_grad_enabled() else mapped(torch.clone, batch)
    before = _versions(given)
    with executing(program), explained_entries(program, given), explained_dtypes(program, given):
        copies = _copies(given, particles)
        guide, model = once(given, copies, latents)
    after = _versions(given)
    written = tuple(name for name in before | after if before.get(name) != after.get(name))
    if given is batch:
        refuse_writes(written)
    sites = [*random_sites(guide).values(), *random_sites(model).values()]
    rows = particles * rows_of(batch)
    plate = batch_plate(sites, rows)
    if plate is None and model.nodes:  # a guide alone may draw shared sites only, or nothing
        _refuse_forgotten_plate(sites, rows)
    return Run(guide, model, plate, particles, copies, written)


def _refuse_forgotten_plate(sites: list[Site], rows: int) -> None:
    """Raises a ProgramError unless the sites of a program without a batch plate give one number for all the data."""
    if not sites:
        raise ProgramError(
            "the model draws and observes no site, so there is nothing to fit or to score. Does it call pyro.sample, and is "
            "it called: gpr.model() and not gpr.model?"
        )
    for site in sites:
        refuse_loose_axes(site, rows)
    names = set.intersection(*({frame.name for frame in plates(site).values()} for site in sites))
    for frame in plates(sites[0]).values():
        if frame.name in names and frame.size > rows and frame.size % rows == 0:  # as if it counted rows of copies
            raise ProgramError(
                f"no plate counts the {rows} examples of the batch, and plate {frame.name!r} of {frame.size} holds every "
                "site. Give the data that it counts as the batch, examples first, and declare it by them: "
                "pyro.plate('data', len(x))."
            )


def refuse_writes(written: tuple[str, ...]) -> None:
    """Raises a ProgramError where a program has written into its batch."""
    if written:
        raise ProgramError(
            f"the program writes into {', '.join(written)}, which are the caller's data and would be others at the next "
            "step. Make a new tensor in its place: x = x / 2 and not x /= 2 (no method that ends in an underscore)."
        )


def _versions(batch: Examples) -> dict[str, tuple[int, int]]:
    """Which tensor stands where, and how often it has been written into; tensors made in inference mode do not count."""
    return {
        name: (id(tensor), 0 if tensor.is_inference() else tensor._version) for name, tensor in named(batch).items()
    }


def _copies(batch: Examples, particles: int) -> Examples:
    """The batch for so many particles, one copy after the other."""
    if particles == 1:
        return batch
    return mapped(lambda tensor: tensor.expand(particles, *tensor.shape).flatten(0, 1), batch)


def _common_particles(latents: Latents) -> int:
    counts = {name: value.shape[0] if value.dim() else 0 for name, value in latents.items()}
    if len(set(counts.values())) != 1:
        raise ProgramError(f"latents must share their first axis, the particles; they have {counts}.")
    return next(iter(counts.values()))


def _all_sites(run: Run) -> list[Site]:
    return [*random_sites(run.guide).values(), *random_sites(run.model).values()]
