"""Draws from a program: from its prior, its guide, and its model given latents."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from pyro.distributions import Unit
from pyro.poutine.messenger import Messenger
from torch import Tensor

from inference.programs.entries import rows_of
from inference.programs.enumeration import assignment_runs, enumerated, is_finite
from inference.programs.execution import Latents, Run
from inference.programs.numbers import refuse_below
from inference.programs.pair import refuse_unfitted
from inference.programs.program import Batch, Program, ProgramError, as_batch, evaluating
from inference.programs.sites import Site, deterministic_sites, latents_in, plates, random_sites
from inference.programs.traces import guide_runs, joint_runs, model_runs, refuse_other_rows, runs


class NoMean(ProgramError):
    """A distribution that has no mean in closed form, so that draws have to be averaged."""


def sample(program: Program, batch: Batch, draws: int = 1) -> dict[str, Tensor]:
    """Draws of all the model's sites from the prior predictive, the observations among them.

    Args:
        program: the model (its guide is not run).
        batch: gives shapes, device and context; what the model observes of it is not used.
        draws: how many per row of the batch.

    Returns:
        `(draws, batch, ...)` per site inside the batch plate, `(draws, ...)` per other site.
    """
    refuse_below("draws", draws, 1)
    with torch.no_grad(), evaluating(program):
        found = model_runs(program, batch, draws)
        return _together([run.values(random_sites(run.model)) for run in found])


def posterior(program: Program, batch: Batch, draws: int = 1) -> dict[str, Tensor]:
    """Draws of the latent sites from the guide, and the `pyro.deterministic` sites that follow from them.

    Sites of finite support that the guide leaves out are drawn from p(k | x, z), and are among the result.

    Returns:
        `(draws, batch, ...)` per site inside the batch plate, `(draws, ...)` per shared site.
    """
    refuse_below("draws", draws, 1)
    with torch.no_grad(), evaluating(program):
        found = runs(program, batch, draws)
        rows = rows_of(as_batch(batch))
        if any(name not in found[0].guide and is_finite(site) for name, site in latents_in(found[0].model).items()):
            return completed(program, batch, latents_of(found), draws)
        if _shares_between_draws(found, draws):
            found = [run for _ in range(draws) for run in runs(program, batch)]
        return _together([run.values(_drawn(run)) | following(run, rows) for run in found])


def latents_of(found: list[Run]) -> dict[str, Tensor]:
    """The latent sites that the guide drew in these runs."""
    return _together([run.values(_drawn(run)) for run in found])


def completed(program: Program, batch: Batch, latents: Latents, draws: int) -> dict[str, Tensor]:
    """The latents, draws from p(k | x, z) of the finite sites that they leave out, and the `pyro.deterministic` sites."""
    latents = _with_assignments(program, batch, latents, draws, _left_out(program, batch, latents))
    found = joint_runs(program, batch, latents)
    if _shares_between_draws(found, draws):
        found = [run for part in _parts(latents, draws) for run in joint_runs(program, batch, part)]
    rows = rows_of(as_batch(batch))
    return latents | _together([following(run, rows) for run in found])


def observations(program: Program, batch: Batch, latents: Latents, draws: int) -> dict[str, Tensor]:
    """Draws of the observed sites at given latents: `(draws, batch, ...)`."""
    return _together([run.values(_lifted(run)) for run in model_runs(program, batch, draws, latents)])


def draw(program: Program, batch: Batch, draws: int = 1) -> dict[str, Tensor]:
    """Draws of the latent sites from the guide, with gradients and in the program's own mode."""
    refuse_below("draws", draws, 1)
    return latents_of(guide_runs(program, batch, draws))


def decode(program: Program, batch: Batch, latents: Latents) -> dict[str, Tensor]:
    """The mean of each observed site's distribution given latents: `(particles, batch, ...)`; no batch axis without a plate.

    Latent sites that are not given are drawn from the prior; but those of finite support from p(k | x, z).

    Raises:
        NoMean: a distribution has no mean in closed form.
        ProgramError: the batch observes nothing, or a given latent is no site of the model.
    """
    with torch.no_grad(), evaluating(program):
        left_out = _left_out(program, batch, latents)
        _refuse_unobserved(left_out)
        if left_out.unknown:
            raise ProgramError(
                f"latents were given for {left_out.unknown}, of which the model has no sites. Leave them out."
            )
        found = model_runs(program, batch, 1, _with_assignments(program, batch, latents, 1, left_out))
        return _together(
            [
                {
                    name: run.in_front(_mean(name, site), site["fn"].event_dim)
                    for name, site in _lifted(run).items()
                    if run.is_local(site) and not isinstance(site["fn"], Unit)
                }
                for run in found
            ]
        )


def reconstruct(program: Program, batch: Batch, draws: int = 1) -> dict[str, Tensor]:
    """Draws of the observed sites given latents drawn from the guide: `(draws, batch, ...)`.

    Sites of finite support that the guide leaves out are drawn from p(k | x, z), and are among the result.

    Raises:
        ProgramError: the batch observes nothing, or the guide leaves out a latent site of another kind, which would be drawn
            whatever x is, and on which x may depend.
    """
    with torch.no_grad(), evaluating(program):
        latents = draw(program, batch, draws)
        left_out = _left_out(program, batch, latents)
        _refuse_unobserved(left_out)
        _refuse_infinite(left_out)
        given = _with_assignments(program, batch, latents, draws, left_out)
        assigned = {name: value for name, value in given.items() if name not in latents}
        return observations(program, batch, given, draws) | assigned


def predict(program: Program, batch: Batch, draws: int = 1) -> dict[str, Tensor]:
    """Draws from the posterior predictive: latents from the guide, every other site of the model given these.

    For new inputs there is nothing to observe: of `model(x, y=None)`, fitted to `(x, y)`, the batch is `(x_new, None)`, or
    `(x_new,)`, of any number of rows. What the batch does observe is drawn anew, as `reconstruct` does; sites of finite
    support that the guide leaves out are then drawn from p(k | x, z).

    Returns:
        `(draws, batch, ...)` per site inside the batch plate, `(draws, ...)` per shared site, `pyro.deterministic` ones too.

    Raises:
        ProgramError: the guide has values for the rows of another batch, or leaves out a latent site on which what is
            observed may depend.
    """
    with torch.no_grad(), evaluating(program):
        _refuse_other_rows(program, batch)
        latents = draw(program, batch, draws)
        left_out = _left_out(program, batch, latents)
        if left_out.observes:
            _refuse_infinite(left_out)
            latents = _with_assignments(program, batch, latents, draws, left_out)
        found = model_runs(program, batch, draws, latents)
        if _shares_between_draws(found, draws):
            found = [run for part in _parts(latents, draws) for run in model_runs(program, batch, 1, part)]
        rows = rows_of(as_batch(batch))
        return _together([run.values(_values(run)) | following(run, rows) for run in found])


def _shares_between_draws(found: list[Run], draws: int) -> bool:
    """Whether runs of several draws have one value where all examples share it, which each draw should have for itself."""
    return len(found) < draws and not all(map(found[0].is_local, _deterministic(found[0]).values()))


def _parts(latents: Latents, draws: int) -> list[Latents]:
    """The latents of each draw by itself."""
    return [{name: value[k : k + 1] for name, value in latents.items()} for k in range(draws)]


class _LeftOut(NamedTuple):
    """The latent sites of a model that are not given."""

    finite: list[str]
    """Those of finite support."""
    causes: list[str]
    """The others before an observed site, which may depend on them."""
    unseen: frozenset[str]
    """The others after all that is observed, of which it says nothing by itself."""
    observes: bool
    """Whether the batch observes anything."""
    unknown: list[str]
    """What is given and is no site of the model."""


def _left_out(program: Program, batch: Batch, latents: Latents) -> _LeftOut:
    first = {name: value[:1] for name, value in latents.items()}
    model = joint_runs(program, batch, first)[0].model
    sites = random_sites(model)
    observed = [place for place, site in enumerate(sites.values()) if site["is_observed"]]
    upstream = list(sites)[: observed[-1]] if observed else []
    left_out = {name: site for name, site in sites.items() if not site["is_observed"] and name not in latents}
    infinite = [name for name, site in left_out.items() if not is_finite(site)]
    return _LeftOut(
        finite=[name for name in left_out if name not in infinite],
        causes=[name for name in infinite if name in upstream],
        unseen=frozenset(infinite) - {*upstream},
        observes=bool(observed),
        unknown=sorted(set(latents) - {*sites, *deterministic_sites(model)}),
    )


class _Unscored(NamedTuple):
    """A program in whose model some sites have no say: what is drawn beside them is drawn as if they were not there."""

    program: Program
    names: frozenset[str]

    def model(self, *batch: Any) -> Any:
        with _Silent(self.names):
            return self.program.model(*batch)

    def guide(self, *batch: Any) -> Any:
        return self.program.guide(*batch)


class _Silent(Messenger):
    """Masks sites by their names."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.names:
            message["mask"] = False


def _refuse_other_rows(program: Program, batch: Batch) -> None:
    """Raises a ProgramError where the guide has values for the rows of the batch it was fitted to, and these are others."""
    refuse_unfitted(program)
    plate = model_runs(program, batch, 1)[0].plate
    refuse_other_rows(guide_runs(program, batch)[0].guide, plate)


def _refuse_unobserved(left_out: _LeftOut) -> None:
    if not left_out.observes:
        raise ProgramError(
            "the batch observes nothing (an entry that is None?), so that there is nothing to decode or reconstruct. For "
            "draws of all sites given the guide's latents: predict(program, batch)."
        )


def _with_assignments(
    program: Program, batch: Batch, latents: Latents, draws: int, left_out: _LeftOut
) -> dict[str, Tensor]:
    """The latents, and draws of the sites of finite support that they leave out, given x and them."""
    if not left_out.finite:
        return dict(latents)
    if left_out.causes:
        prior = _together([run.values(latents_in(run.model)) for run in model_runs(program, batch, draws, latents)])
        latents = {**{name: prior[name] for name in left_out.causes}, **latents}
    scored = _Unscored(program, left_out.unseen) if left_out.unseen else program
    first = {name: value[:1] for name, value in latents.items()}
    enumerated(scored, joint_runs(scored, batch, first)[0], left_out.finite)  # refuses what can not be summed
    found = assignment_runs(scored, batch, draws, latents)
    sites = [(run, latents_in(run.model)) for run in found]
    return {**latents, **_together([run.values({name: each[name] for name in left_out.finite}) for run, each in sites])}


def _refuse_infinite(left_out: _LeftOut) -> None:
    if left_out.causes:
        raise ProgramError(
            f"the guide does not draw the latent sites {sorted(left_out.causes)}, so they would be drawn from the prior, "
            "whatever x is. Draw them in the guide, or draw from the prior: sample(program, batch). (A site with obs=None "
            "is latent too: let it come after the observed ones, and predict(program, batch) draws it.)"
        )


def _mean(name: str, site: Site) -> Tensor:
    try:
        mean: Tensor | None = site["fn"].mean
    except NotImplementedError:
        mean = None
    # torch gives NaN where there is no mean, as for Categorical and Cauchy.
    if mean is None or not bool(mean.isfinite().all()):
        raise NoMean(
            f"the distribution of site {name!r} ({type(site['fn']).__name__}) has no mean in closed form. Average draws: "
            "`reconstruct`, or `sample`."
        )
    return mean


def _drawn(run: Run) -> dict[str, Site]:
    return {name: site for name, site in random_sites(run.guide).items() if not site["infer"].get("is_auxiliary")}


def _values(run: Run) -> dict[str, Site]:
    """The random sites of the model, without factors."""
    return {name: site for name, site in random_sites(run.model).items() if not isinstance(site["fn"], Unit)}


def _lifted(run: Run) -> dict[str, Site]:
    return {name: site for name, site in random_sites(run.model).items() if site["infer"].get("was_observed")}


def _deterministic(run: Run) -> dict[str, Site]:
    return deterministic_sites(run.guide) | deterministic_sites(run.model)


def following(run: Run, examples: int) -> dict[str, Tensor]:
    """The values of `pyro.deterministic` sites, particles and examples in front where they have a row for each."""
    found = {}
    for name, site in _deterministic(run).items():
        value = site["value"]
        axis = batch_axis(run, site) if run.is_local(site) else None
        found[name] = (
            value.unsqueeze(0) if axis is None else value.movedim(axis, 0).unflatten(0, (run.particles, examples))
        )
    return found


def batch_axis(run: Run, site: Site) -> int | None:
    """The axis of the examples in a deterministic value, whose event axes `pyro.deterministic` need not count."""
    if run.plate is None:
        return None
    shape, frames = site["value"].shape, plates(site).values()
    said = site["fn"].event_dim
    events = [said] if said < len(shape) else range(len(shape) - 1, -1, -1)
    for event_dim in events:
        axes = [(frame.dim - event_dim, frame.size) for frame in frames]
        if all(-axis <= len(shape) and shape[axis] == size for axis, size in axes):
            return int(run.plate.dim) - event_dim
    return None


def _together(pieces: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
