"""Held-out data of a program with shared latents: at a draw of these from the guide, its examples are independent."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.trace_messenger import TraceMessenger
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from inference.programs.dataset import scope
from inference.programs.entries import Examples, mapped
from inference.programs.execution import Latents, Run, executed, executing, may_be_of_tiling
from inference.programs.noise import own_noise
from inference.programs.pair import Pair, refuse_unfitted
from inference.programs.program import Batch, Program, ProgramError, as_batch
from inference.programs.sites import Frame, Site, is_point, latents_in, plates, random_sites
from inference.programs.traces import Drawn


class GivenShared(NamedTuple):
    """A program at given values of what its examples share: they are independent, and every estimator is of each by itself.

    Its guide is the program's own, or the prior of the local latents.
    """

    program: Program
    values: Mapping[str, Tensor]
    """Of the sites outside the batch plate that the guide draws, auxiliary ones too."""
    hidden: frozenset[str]
    """The sites outside the batch plate, of model and guide."""
    amortised: bool

    @property
    def tiles(self) -> bool:
        """Whether particles may be laid along the batch axis."""
        return not self.amortised or getattr(self.program, "tiles", True)

    def model(self, *batch: Any) -> Any:
        with poutine.block(hide=[*self.hidden]), Drawn(self.values):
            return self.program.model(*batch)

    def guide(self, *batch: Any) -> Any:
        if not self.amortised:
            with poutine.block(hide_fn=_is_observed_or_summed):
                return self.model(*batch)
        with poutine.block(hide=[*self.hidden]), Drawn(self.values):
            return self.program.guide(*batch)


class HeldOut(NamedTuple):
    """A batch that the program was not fitted to, seen through what its guide knows of the shared latents."""

    program: Program
    batch: Examples
    hidden: frozenset[str]
    amortised: bool
    """Whether the guide draws the local latents as functions of x: what belongs to fitted rows says nothing of others."""
    local: tuple[str, ...]
    """The local latents that are drawn, and not summed."""
    points: tuple[str, ...]
    """The shared latents that the guide has at one value."""

    def draw(self) -> GivenShared:
        """The program at a draw of the shared latents from the guide."""
        drawn = _drawn(self.program, self.batch)
        values = {name: site["value"] for name, site in drawn.items() if name in self.hidden}
        return GivenShared(self.program, values, self.hidden, self.amortised)


def held_out(program: Program, batch: Batch) -> HeldOut:
    """What is known of a batch by a program that shares latents between examples and was fitted to others.

    Raises:
        ProgramError: no plate counts the examples, they share no latents, or the guide does not draw these; it draws them by
            the batch it is given; or they come after local latents of the model.
    """
    refuse_unfitted(program)
    examples = as_batch(batch)
    drawn, again = _drawn(program, examples), _drawn(program, examples)
    run = _scouted(program, examples, drawn)
    shared = _shared_latents(run, drawn)
    _refuse_reading(program, examples, shared)
    local = {name: site for name, site in latents_in(run.model).items() if run.is_local(site)}
    unmarked = [name for name, site in local.items() if not site["infer"].get("enumerate")]
    guided = [name for name in local if name in drawn and _has_rows(drawn[name], run.plate)]
    amortised = bool(guided) and {*unmarked} <= {*guided} and _is_amortised(program, examples)
    return HeldOut(
        program,
        examples,
        hidden=frozenset(
            name for sites in (random_sites(run.model), drawn) for name in sites if not _in(run.plate, sites[name])
        ),
        amortised=amortised,
        local=tuple(guided if amortised else unmarked),
        points=tuple(
            name for name in shared if is_point(drawn[name]) and drawn[name]["value"].equal(again[name]["value"])
        ),
    )


def _drawn(program: Program, batch: Examples) -> dict[str, Site]:
    """The sites that the guide draws, up to one that has values for the rows it was fitted to alone."""
    recorded = TraceMessenger()
    try:
        with executing(program), recorded:
            program.guide(*mapped(torch.clone, batch))
    except Exception as error:
        if not may_be_of_tiling(error):
            raise
    return random_sites(recorded.trace)


def _scouted(program: Program, batch: Examples, drawn: Mapping[str, Site]) -> Run:
    """A run of the model at what the guide has drawn, which shows what its plate counts."""
    values = {name: site["value"] for name, site in drawn.items()}

    def once(examples: Examples, copies: Examples, latents: Latents | None) -> tuple[Trace, Trace]:
        return Trace(), poutine.trace(_WhereTheyFit(values)(program.model)).get_trace(*copies)

    run = executed(program, batch, 1, once, None)[0]
    if run.plate is None:
        raise ProgramError(
            "no plate counts the examples, so that all the data are one example, and no density of new ones is known from "
            "the sites. Draw the sites of each example inside `with pyro.plate('data', len(x)):`; or score the evidence of "
            "the whole dataset by importance(particles)."
        )
    return run


class _WhereTheyFit(Messenger):
    """Gives latent sites the guide's values, but those of other rows: these sites are drawn from the prior."""

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, message: Any) -> None:
        value = self.values.get(message["name"])
        if value is not None and not message["is_observed"] and value.shape == message["fn"].shape():
            message["value"] = value


def _shared_latents(run: Run, drawn: Mapping[str, Site]) -> list[str]:
    latents = latents_in(run.model)
    shared = [name for name, site in latents.items() if not run.is_local(site)]
    if not shared:
        raise ProgramError(
            "the program shares no latents between examples, so that every batch is scored as if it were held out. Use "
            "importance(particles), or exact() where nothing but finite latents is left."
        )
    missing = [name for name in shared if name not in drawn]
    if missing:
        raise ProgramError(
            f"the guide does not draw the latent sites {missing}, which all examples share (it draws {sorted(drawn)}), or "
            "only after a site with values for the rows it was fitted to: nothing is known of them from other data. Draw "
            "them in the guide, before all local ones."
        )
    after = [
        name for name in [*latents][len(shared) :] if name in shared
    ]  # the first ones are all shared, or some are late
    if after:
        raise ProgramError(
            f"the model draws {after}, which all examples share, after latents of single examples, on which they may "
            "depend: new examples would then have a say in them. Draw them before the plate."
        )
    return shared


def _refuse_reading(program: Program, batch: Examples, shared: list[str]) -> None:
    """Raises a ProgramError where the guide's draws of shared latents change with the batch it is given."""
    others = mapped(lambda tensor: tensor[:1].expand_as(tensor), batch)
    with own_noise(0):
        here = _drawn(program, batch)
    with own_noise(0):
        there = _drawn(program, others)
    moved = [name for name in shared if not here[name]["value"].equal(there[name]["value"])]
    if moved:
        raise ProgramError(
            f"the guide draws the shared sites {moved} by the batch that it is given, so that held-out data would be scored "
            "by what they say themselves. Keep what the guide has learnt in its parameters."
        )


def _is_amortised(program: Program, batch: Examples) -> bool:
    """Whether a guide that draws local latents does so as a function of x; an AutoGuide has values for each place."""
    of_places = isinstance(program, Pair) and program.autoguide is not None
    return not of_places and not scope(program, batch).by_place


def _in(plate: Frame, site: Site) -> bool:
    return plate.name in plates(site)


def _has_rows(site: Site, plate: Frame) -> bool:
    return _in(plate, site) and plates(site)[plate.name].size == plate.size


def _is_observed_or_summed(message: Any) -> bool:
    return bool(message["is_observed"] or message["infer"].get("enumerate"))
