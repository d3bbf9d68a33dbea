"""The log densities of a program's draws, of which every bound, weight and gradient estimator is made."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial, reduce
from itertools import dropwhile
from typing import NamedTuple

import torch
from torch import Tensor

from inference.programs.assignments import refuse_other_densities
from inference.programs.bounds import BoundFunction, elbo
from inference.programs.densities import log_density, refuse_inner_subsample, site_log_prob
from inference.programs.entries import leaves
from inference.programs.enumeration import contracted, entangled, enumerated, is_finite, refuse_unsummable
from inference.programs.execution import Latents, Run
from inference.programs.expectation import by_value, exact_site, score_function_sites
from inference.programs.program import Batch, Program, ProgramError
from inference.programs.sites import (
    Site,
    deterministic_sites,
    hides_values,
    is_implicit,
    is_point,
    is_summed,
    latents_in,
    random_sites,
)
from inference.programs.traces import joint_runs, replayed, runs
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
    """Log densities of draws from a program, per particle and example: `(particles, batch)` nats.

    `(particles, 1)` of a program without a batch plate: all the data are one example, and every site is local to it.
    """

    likelihood: Tensor
    """log p(x | z): the observed sites and factors of the model, summed over the finite sites that the guide leaves out."""
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
    log_sum: Tensor | None = None
    """log Σ_k w(k) of all values of the guide's site whose expectation is exact, where there is one (`expectation.py`).

    The terms above are then expectations under q(k | z), log q(k | z) among them: together they are the ELBO's.
    """

    @property
    def log_weights(self) -> Tensor:
        """log p(x, z) - log q(z | x), in nats: `(particles, batch)`, or `(particles, 1)` of the whole dataset.

        Where an expectation over k is exact it is log Σ_k w(k), the weight of z alone.

        With shared sites nothing can be had per example: the local terms are scaled to the dataset and the shared ones
        added, N/n · Σ local + shared.

        Raises:
            ProgramError: a site is implicit.
        """
        return self._weights(self.likelihood + self.prior - self.posterior if self.log_sum is None else self.log_sum)

    def log_weights_for(self, bound: BoundFunction) -> Tensor:
        """What a bound is taken of: the log-weights; for the ELBO their mean over the site whose expectation is exact."""
        if self.log_sum is None or bound != elbo:
            return self.log_weights
        return self._weights(self.likelihood + self.prior - self.posterior)

    def _weights(self, local: Tensor) -> Tensor:
        if self.implicit:
            raise _without_density(self.implicit)
        if self.shared is None:
            return local
        scale = self.shared.size / local.shape[1]
        return (scale * local.sum(1) + self.shared.prior - self.shared.posterior).unsqueeze(1)

    @property
    def log_guide(self) -> Tensor:
        """log q(z | x), shared sites included, in the shape of `log_weights`."""
        if self.shared is None:
            return self.posterior
        scale = self.shared.size / self.posterior.shape[1]
        return (scale * self.posterior.sum(1) + self.shared.posterior).unsqueeze(1)

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
    observed sites and factors add up to the likelihood; `pyro.deterministic` counts for nothing. Finite latents k that the
    guide leaves out, marked `infer={"enumerate": "parallel"}`, are summed out for each particle: log Σ_k p(x, z, k).

    Args:
        program: the model and its guide.
        batch: the examples, `(batch, ...)` each.
        particles: independent draws per example.
        latents: score these values instead of drawing, `(particles, batch, ...)` per site.

    Raises:
        ProgramError: model and guide draw different sites, a site is scaled, a plate is missing or ambiguous, a density
            does not have the shape that its plates give, or the data lie outside of their support.
    """
    return judged_terms(program, runs(program, batch, particles, latents))


def judged_terms(program: Program, found: list[Run]) -> Terms:
    """The log densities of given runs, of which everything is checked that `terms` checks."""
    pieces = []
    for run in found:
        refuse_outside(run)
        pieces.append(_judged(program, run, *latent_sites(run)))
    return _together(pieces)


def terms_of(program: Program, found: list[Run]) -> Terms:
    """The log densities of given runs, without a check of what they observe: a training step's data are checked already."""
    pieces = []
    for run in found:
        summed, guide = latent_sites(run)
        pieces.append(_terms_of(_enumerated(program, run, summed | _exact(run)), guide))
    return _together(pieces)


def guide_terms_of(run: Run) -> Terms:
    """The log densities of the guide's sites alone, of a run in which they were drawn or given."""
    return _terms_of(run, random_sites(run.guide))


def refuse_outside(run: Run) -> None:
    """Raises a ProgramError where the run observes values outside their support, whether validation is on or off."""
    for name, site in random_sites(run.model).items():
        if site["is_observed"]:
            check_support(name, site, None if hides_values(site) else run.first_copy(site))


def log_joint(program: Program, batch: Batch, latents: Latents) -> Tensor:
    """log p(x, z) at given latents, in nats: `(particles, batch)`, or `(particles, 1)` with shared sites or no batch plate.

    Finite latents that are marked `enumerate` and not given are summed out. The guide is not run.

    Raises:
        ProgramError: the latents are not those of the model, and what `terms` raises of its sites.
    """
    pieces = []
    for run in joint_runs(program, batch, latents):
        refuse_outside(run)
        given = latents.keys() - deterministic_sites(run.model)
        model, summed = _split(latents_in(run.model), given)
        if model.keys() != given:
            raise ProgramError(
                f"latents were given for {sorted(given)}; the model's latent sites are {sorted(model)}. Give all of them."
            )
        pieces.append(_judged(program, run, summed, {}))
    return _together(pieces).log_weights


def log_joint_of(program: Program, batch: Batch, latents: Latents) -> Terms:
    """The terms of `log_joint`, of all latents but those to be summed, without a look at what the batch observes."""
    pieces = []
    for run in joint_runs(program, batch, latents):
        _, summed = _split(latents_in(run.model), latents.keys())
        pieces.append(_terms_of(_enumerated(program, run, summed), {}))
    return _together(pieces)


def log_marginal(program: Program, batch: Batch) -> Tensor:
    """log p(x) per example, every latent site of the model summed over its support, marked or not: `(batch,)` nats.

    Raises:
        ProgramError: a latent site has no finite support, or is shared by all examples.
    """
    run = runs(program, batch)[0]
    for name, site in random_sites(run.model).items():
        if not run.is_local(site):
            raise ProgramError(
                f"site {name!r} lies outside the plate {run.plate.name!r} and is shared by all examples, so log p(x) is no "
                "sum over them. Use importance(particles), which reports the dataset's evidence."
            )
        log_density(name, site, run.plate)  # refuses what would be scored wrongly, such as a value that is broadcast
    refuse_outside(run)
    latents = latents_in(run.model)
    refuse_unsummable(latents)
    return _judged(program, run, latents, {}).log_weights.squeeze(0)


def latent_sites(run: Run) -> tuple[dict[str, Site], dict[str, Site]]:
    """The latent sites of the model that are to be summed out, and all sites of the guide, once they are known to agree.

    Raises:
        ProgramError: a site is missing from the guide, unknown to the model, or auxiliary without need.
    """
    model, guide = latents_in(run.model), random_sites(run.guide)
    auxiliary = [name for name, site in guide.items() if site["infer"].get("is_auxiliary")]
    drawn = guide.keys() - set(auxiliary)
    generated = [
        name for name, site in random_sites(run.model).items() if site["is_observed"] and is_implicit(site["fn"])
    ]
    if generated and not drawn:
        raise _without_density(generated)  # a GAN, whose empty guide is no mistake
    model, summed = _split(model, drawn)
    refuse_mismatch(model, drawn)
    random = [name for name in drawn if not is_point(guide[name])]
    if auxiliary and random:
        raise ProgramError(
            f"the guide draws the auxiliary sites {auxiliary} beside the random sites {sorted(random)}: log q(z | x) has "
            "no closed form there and log-weights would be no bound. Train with SVI(program, Trace_ELBO())."
        )
    return summed, guide


def _split(model: Mapping[str, Site], drawn: Collection[str]) -> tuple[dict[str, Site], dict[str, Site]]:
    """A model's latent sites without those that are left out to be summed, and these."""
    summed = {name: site for name, site in model.items() if name not in drawn and site["infer"].get("enumerate")}
    refuse_unsummable(summed)
    return {name: site for name, site in model.items() if name not in summed}, summed


def _without_density(names: Iterable[str]) -> ProgramError:
    return ProgramError(
        f"the sites {list(names)} have no density (implicit distributions), so there are no log-weights. Fit the "
        "program with Adversarial; to score a generator, give it an observation noise that has a density."
    )


def refuse_mismatch(model: Mapping[str, Site], drawn: set[str]) -> None:
    """Raises a ProgramError unless the guide draws just the latent sites of the model."""
    missing = sorted(model.keys() - drawn)
    finite = [name for name in missing if is_finite(model[name])]
    if finite:
        raise ProgramError(
            f"the guide does not draw the model's latent sites {missing}, of which {finite} are of finite support. "
            "Mark these infer={'enumerate': 'parallel'} (or the whole model: pyro.infer.config_enumerate), and they are "
            "summed out; or draw them in the guide under the same names. (A site with obs=None is latent: "
            "predict(program, batch) draws it. One with obs_mask loses its infer: mark the whole model.)"
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


def _enumerated(program: Program, run: Run, summed: Mapping[str, Site]) -> Run:
    """The run with all values of the summed sites; itself where there are none."""
    return run._replace(model=enumerated(program, run, summed)) if summed else run


def _exact(run: Run) -> dict[str, Site]:
    """The model's site over whose values an expectation is exact, if there is one."""
    name = exact_site(run)
    return {} if name is None else {name: latents_in(run.model)[name]}


def _judged(program: Program, run: Run, summed: Mapping[str, Site], guide: Mapping[str, Site]) -> Terms:
    """The terms of a run, once the sums are known to be over the densities of the values that it drew, among others."""
    summed = {**summed, **_exact(run)}
    whole = _enumerated(program, run, summed)
    found = _terms_of(whole, guide)
    if summed:
        refuse_other_densities(run.model, whole.model, partial(replayed, program, run))
    return found


def _terms_of(run: Run, guide: Mapping[str, Site]) -> Terms:
    like = leaves(run.batch)[0]
    model = random_sites(run.model)
    entangled_sites = entangled(run.model)
    free = {name: site for name, site in model.items() if name not in entangled_sites}
    observed = {name: site for name, site in free.items() if site["is_observed"]}
    latent = {name: site for name, site in free.items() if not site["is_observed"]}
    exact = exact_site(run) if guide else None
    gated = entangled_sites.keys() if exact else ()
    ungated = {name: site for name, site in guide.items() if name not in gated}
    unscored = score_function_sites(guide)
    groups = {"likelihood": observed, "prior": latent, "posterior": ungated, "score": unscored}
    local = _in_one_dtype({kind: _local(run, sites, like) for kind, sites in groups.items()})
    implicit = [name for sites in (model, guide) for name, site in sites.items() if is_implicit(site["fn"])]
    shared = None
    if not all(map(run.is_local, [*model.values(), *guide.values()])):
        of_sites = {
            "prior": _shared(run, observed, like) + _shared(run, latent, like),
            "posterior": _shared(run, ungated, like),
            "score": _shared(run, unscored, like),
        }
        shared = Shared(
            **_in_one_dtype(of_sites),
            size=run.dataset_size,
            come_first=_come_first(run, [*model.values()]) and _come_first(run, [*guide.values()]),
        )
    found = Terms(**local, shared=shared, implicit=tuple(dict.fromkeys(implicit)))
    if exact:
        return _with_expectation(found, run, exact, entangled_sites, guide)
    return _with_sum(found, run, entangled_sites) if entangled_sites else found


def _with_expectation(found: Terms, run: Run, name: str, sites: Mapping[str, Site], guide: Mapping[str, Site]) -> Terms:
    """The terms and the expectations of those that depend on a site of the guide, over all of its values."""
    each = by_value(run, name, sites, guide)
    return found._replace(
        likelihood=found.likelihood + each.expected(each.likelihood),
        prior=found.prior + each.expected(each.prior),
        posterior=found.posterior + each.expected(each.posterior + each.log_q),
        log_sum=found.likelihood + found.prior - found.posterior + each.log_sum,
    )


def _with_sum(found: Terms, run: Run, sites: Mapping[str, Site]) -> Terms:
    """The terms and those of the sites that depend on a summed k: log p(z) = log Σ_k p(z, k), and log p(x | z)."""
    if found.shared is not None and not all(map(run.is_local, sites.values())):
        return found._replace(shared=_with_shared_sum(found.shared, run, sites))
    joint = contracted(run.model, sites, run.plate)
    latents = {name: site for name, site in sites.items() if not site["is_observed"]}
    only_summed = all(map(is_summed, latents.values()))  # p(k) sums to 1
    prior = torch.zeros_like(joint) if only_summed else contracted(run.model, latents, run.plate)
    likelihood = torch.where(prior.isneginf(), 0.0, joint - prior)
    shape = (run.particles, run.examples)
    return found._replace(
        likelihood=found.likelihood + likelihood.reshape(shape), prior=found.prior + prior.reshape(shape)
    )


def _with_shared_sum(shared: Shared, run: Run, sites: Mapping[str, Site]) -> Shared:
    """The shared terms and log Σ_k p(x, z, k), where all examples share a summed k, and with it all that depends on it."""
    if run.dataset_size != run.examples:
        names = [name for name, site in sites.items() if is_summed(site) and not run.is_local(site)]
        raise ProgramError(
            f"the sites {names} are summed out and shared by all {run.dataset_size} examples, and the batch holds "
            f"{run.examples}: a sum over them is no sum over parts of the data. Give the whole dataset as one batch."
        )
    return shared._replace(prior=shared.prior + contracted(run.model, sites, None))


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
    return _added(densities, _zeros(like, run.particles * run.examples)).reshape(run.particles, run.examples)


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


def _together(pieces: list[Terms]) -> Terms:
    if len(pieces) == 1:
        return pieces[0]
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
        log_sum=None if pieces[0].log_sum is None else torch.cat([p.log_sum for p in pieces if p.log_sum is not None]),
    )
