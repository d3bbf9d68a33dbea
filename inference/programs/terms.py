"""The log densities of a program's draws, of which every bound, weight and gradient estimator is made."""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from itertools import dropwhile
from typing import NamedTuple

import torch
from torch import Tensor

from inference.programs.densities import log_density, refuse_inner_subsample, site_log_prob
from inference.programs.entries import leaves
from inference.programs.execution import Latents, Run
from inference.programs.program import Batch, Program, ProgramError
from inference.programs.sites import (
    Site,
    deterministic_sites,
    has_rsample,
    hides_values,
    is_implicit,
    is_point,
    latents_in,
    random_sites,
)
from inference.programs.traces import joint_runs, runs
from inference.programs.values import check_support


class Shared(NamedTuple):
    """Log densities of the sites outside the batch plate, which all examples share: `(particles,)` nats."""

    prior: Tensor
    posterior: Tensor
    score: Tensor
    size: int
    """The number of examples in the dataset, of which the batch is a sample."""
    come_first: bool = False
    """Whether model and guide draw them before all local latents, so that they depend on none of these."""


class Terms(NamedTuple):
    """Log densities of draws from a program, per particle and example: `(particles, batch)` nats."""

    likelihood: Tensor
    """log p(x | z): the observed sites and factors of the model."""
    prior: Tensor
    """log p(z)."""
    posterior: Tensor
    """log q(z | x)."""
    score: Tensor
    """log q(z | x) of the sites without reparameterised draws alone."""
    shared: Shared | None = None
    """The sites outside the batch plate, where there are any."""
    implicit: tuple[str, ...] = ()
    """Sites that have no density and are therefore not in the terms."""

    @property
    def log_weights(self) -> Tensor:
        """log p(x, z) - log q(z | x), in nats: `(particles, batch)`, or `(particles, 1)` of the whole dataset.

        With shared sites nothing can be had per example: the local terms are scaled to the dataset and the shared ones
        added, N/n · Σ local + shared.

        Raises:
            ProgramError: a site is implicit.
        """
        if self.implicit:
            raise _without_density(self.implicit)
        local = self.likelihood + self.prior - self.posterior
        if self.shared is None:
            return local
        scale = self.shared.size / local.shape[1]
        return (scale * local.sum(1) + self.shared.prior - self.shared.posterior).unsqueeze(1)

    @property
    def log_scores(self) -> Tensor:
        """log q of the draws without reparameterisation, in the shape of `log_weights`."""
        if self.shared is None:
            return self.score
        return (self.score.sum(1) + self.shared.score).unsqueeze(1)

    @property
    def examples(self) -> int:
        """How many examples one entry of `log_weights` stands for: 1, or the dataset's size."""
        return 1 if self.shared is None else self.shared.size


def terms(program: Program, batch: Batch, particles: int = 1, latents: Latents | None = None) -> Terms:
    """The log densities of `particles` draws from the guide, under model and guide, site by site.

    Masks are kept and plate scales are not applied; plates other than the batch's are summed into the example; several
    observed sites and factors add up to the likelihood; `pyro.deterministic` counts for nothing.

    Args:
        program: the model and its guide.
        batch: the examples, `(batch, ...)` each.
        particles: independent draws per example.
        latents: score these values instead of drawing, `(particles, batch, ...)` per site.

    Raises:
        ProgramError: model and guide draw different sites, a site is enumerated or scaled, a plate is missing or
            ambiguous, a density does not have the shape that its plates give, or the data lie outside of their support.
    """
    found = runs(program, batch, particles, latents)
    for run in found:
        refuse_outside(run)
    return terms_of(found)


def terms_of(found: list[Run]) -> Terms:
    """The log densities of given runs, without a check of what they observe: a training step's data are checked already."""
    pieces = [_terms_of(run, *latent_sites(run)) for run in found]
    return pieces[0] if len(pieces) == 1 else _stacked(pieces)


def refuse_outside(run: Run) -> None:
    """Raises a ProgramError where the run observes values outside their support, whether validation is on or off."""
    for name, site in random_sites(run.model).items():
        if site["is_observed"]:
            check_support(name, site, None if hides_values(site) else run.first_copy(site))


def log_joint(program: Program, batch: Batch, latents: Latents) -> Tensor:
    """log p(x, z) at given latents, in nats: `(particles, batch)`, or `(particles, 1)` with shared sites.

    The guide is not run.

    Raises:
        ProgramError: the latents are not those of the model, and what `terms` raises of its sites.
    """
    pieces = []
    for run in joint_runs(program, batch, latents):
        refuse_outside(run)
        model = latents_in(run.model)
        given = latents.keys() - deterministic_sites(run.model)
        if model.keys() != given:
            raise ProgramError(
                f"latents were given for {sorted(given)}; the model's latent sites are {sorted(model)}. Give all of them."
            )
        pieces.append(_terms_of(run, model, {}))
    return (pieces[0] if len(pieces) == 1 else _stacked(pieces)).log_weights


def latent_sites(run: Run) -> tuple[dict[str, Site], dict[str, Site]]:
    """The latent sites of the model and all sites of the guide, once they are known to agree.

    Raises:
        ProgramError: a site is enumerated, missing from the guide, unknown to the model, or auxiliary without need.
    """
    model, guide = latents_in(run.model), random_sites(run.guide)
    auxiliary = [name for name, site in guide.items() if site["infer"].get("is_auxiliary")]
    drawn = guide.keys() - set(auxiliary)
    generated = [
        name for name, site in random_sites(run.model).items() if site["is_observed"] and is_implicit(site["fn"])
    ]
    if generated and not drawn:
        raise _without_density(generated)  # a GAN, whose empty guide is no mistake
    refuse_mismatch(model, drawn)
    random = [name for name in drawn if not is_point(guide[name])]
    if auxiliary and random:
        raise ProgramError(
            f"the guide draws the auxiliary sites {auxiliary} beside the random sites {sorted(random)}: log q(z | x) has "
            "no closed form there and log-weights would be no bound. Train with SVI(program, Trace_ELBO())."
        )
    return model, guide


def _without_density(names: Iterable[str]) -> ProgramError:
    return ProgramError(
        f"the sites {list(names)} have no density (implicit distributions), so there are no log-weights. Fit the "
        "program with Adversarial; to score a generator, give it an observation noise that has a density."
    )


def refuse_mismatch(model: Mapping[str, Site], drawn: set[str]) -> None:
    """Raises a ProgramError unless the guide draws just the latent sites of the model."""
    missing = sorted(model.keys() - drawn)
    enumerated = [name for name in missing if model[name]["infer"].get("enumerate")]
    if enumerated:
        raise ProgramError(
            f"the sites {enumerated} are enumerated: they are summed out by SVI(program, TraceEnum_ELBO()) in training "
            "and by exact() in evaluation, and cannot be drawn here."
        )
    if missing:
        raise ProgramError(
            f"the guide does not draw the model's latent sites {missing} (it draws {sorted(drawn) or 'nothing'}): what "
            "they contribute would not be a bound. Draw them in the guide under the same names. (A site with obs=None is "
            "latent: predict(program, batch) draws it.)"
        )
    extra = sorted(drawn - model.keys())
    if extra:
        raise ProgramError(
            f"the guide draws {extra}, which the model does not (its latent sites: {sorted(model) or 'none'}). Remove "
            "them, correct the name, or mark them infer={'is_auxiliary': True} and train with SVI(program, Trace_ELBO())."
        )


def _terms_of(run: Run, latent: Mapping[str, Site], guide: Mapping[str, Site]) -> Terms:
    like = leaves(run.batch)[0]
    observed = {name: site for name, site in random_sites(run.model).items() if site["is_observed"]}
    unscored = {name: site for name, site in guide.items() if not has_rsample(site["fn"])}
    groups = {"likelihood": observed, "prior": latent, "posterior": guide, "score": unscored}
    local = _in_one_dtype({kind: _local(run, sites, like) for kind, sites in groups.items()})
    implicit = [name for sites in (observed, latent, guide) for name, site in sites.items() if is_implicit(site["fn"])]
    everything = [*observed.values(), *latent.values(), *guide.values()]
    shared = None
    if not all(map(run.is_local, everything)):
        of_sites = {
            "prior": _shared(run, observed, like) + _shared(run, latent, like),
            "posterior": _shared(run, guide, like),
            "score": _shared(run, unscored, like),
        }
        shared = Shared(
            **_in_one_dtype(of_sites),
            size=run.dataset_size,
            come_first=_come_first(run, [*random_sites(run.model).values()]) and _come_first(run, [*guide.values()]),
        )
    return Terms(**local, shared=shared, implicit=tuple(dict.fromkeys(implicit)))


def _come_first(run: Run, sites: Sequence[Site]) -> bool:
    """Whether no shared site comes after a local latent one, on whose draws it could depend."""
    after = dropwhile(lambda site: site["is_observed"] or not run.is_local(site), sites)
    return all(map(run.is_local, after))


def _local(run: Run, sites: Mapping[str, Site], like: Tensor) -> Tensor:
    densities = [
        log_density(name, site, run.plate)
        for name, site in sites.items()
        if run.is_local(site) and not is_implicit(site["fn"])
    ]
    return _added(densities, _zeros(like, run.plate.size)).reshape(run.particles, run.examples)


def _shared(run: Run, sites: Mapping[str, Site], like: Tensor) -> Tensor:
    shared = {name: site for name, site in sites.items() if not run.is_local(site) and not is_implicit(site["fn"])}
    for name, site in shared.items():
        refuse_inner_subsample(name, site, run.plate)
    densities = [site_log_prob(name, site).sum() for name, site in shared.items()]
    return _added(densities, _zeros(like, ())).reshape(1)


def _added(densities: list[Tensor], zeros: Tensor) -> Tensor:
    total = densities[0] if densities else zeros
    for density in densities[1:]:
        total = total + density
    return total


def _in_one_dtype(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts in the widest dtype among them: the zeros of a part without sites know no more than the data."""
    widest = reduce(torch.promote_types, (part.dtype for part in parts.values()))
    return {name: part.to(widest) for name, part in parts.items()}


def _zeros(like: Tensor, shape: int | tuple[int, ...]) -> Tensor:
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    return like.new_zeros(shape, dtype=dtype)


def _stacked(pieces: list[Terms]) -> Terms:
    shared = None
    if pieces[0].shared is not None:
        parts = [piece.shared for piece in pieces if piece.shared is not None]
        shared = Shared(
            prior=torch.cat([part.prior for part in parts]),
            posterior=torch.cat([part.posterior for part in parts]),
            score=torch.cat([part.score for part in parts]),
            size=parts[0].size,
            come_first=parts[0].come_first,
        )
    return Terms(
        likelihood=torch.cat([piece.likelihood for piece in pieces]),
        prior=torch.cat([piece.prior for piece in pieces]),
        posterior=torch.cat([piece.posterior for piece in pieces]),
        score=torch.cat([piece.score for piece in pieces]),
        shared=shared,
        implicit=pieces[0].implicit,
    )
