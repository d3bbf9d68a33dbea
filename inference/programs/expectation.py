"""A finite site of the guide whose expectation is taken exactly, and the latents that it gates.

The guide draws latents z as if all were there, and then how many of them, or which, count: a site k of finite support,
marked `infer={"expectation": "exact"}`. The model draws k too, and masks the latents that are absent at a value of k; these
count in neither model nor guide. Every value of k has a weight of its own,

    w(k) = p(x, k, z present at k) / q(z present at k),

so that Σ_k q(k | z) (log w(k) - log q(k | z)) is the ELBO's term without a draw of k, and Σ_k w(k) an importance weight,
from which q(k | z) has cancelled. Both hold where q(z present at k) is a density by itself: a present latent is drawn
without a look at an absent one, and q(k | z) depends on those present at k alone, as in a loop that ends.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from inference.programs.densities import unmasked_log_prob
from inference.programs.enumeration import is_finite, refuse_unsummable
from inference.programs.execution import Run
from inference.programs.masks import without_mask
from inference.programs.program import ProgramError
from inference.programs.sites import Site, has_rsample, is_summed, latents_in, layers, plates, random_sites


class ByValue(NamedTuple):
    """Log densities of each value of the marked site, `(values, particles, batch)` nats, of the sites that depend on it."""

    likelihood: Tensor
    prior: Tensor
    posterior: Tensor
    """log q of the latents present, without the marked site."""
    log_q: Tensor
    """log q of the marked site's values."""

    def expected(self, table: Tensor) -> Tensor:
        """The mean of a table under the guide: `(particles, batch)`. A value that the guide excludes has no say."""
        q = self.log_q.exp()
        return (q * table.masked_fill(q == 0, 0.0)).sum(0)

    @property
    def log_sum(self) -> Tensor:
        """log Σ_k w(k): `(particles, batch)`."""
        return torch.logsumexp(self.likelihood + self.prior - self.posterior, 0)


def is_exact(site: Site) -> bool:
    """Whether the expectation over a guide's site is to be taken exactly."""
    return bool(site["infer"].get("expectation"))


def score_function_sites(guide: Mapping[str, Site]) -> dict[str, Site]:
    """The guide's sites that are credited by the score function: without reparameterised draws, and not summed exactly."""
    return {name: site for name, site in guide.items() if not has_rsample(site["fn"]) and not is_exact(site)}


def exact_site(run: Run) -> str | None:
    """The name of the guide's site whose expectation is taken exactly, if there is one.

    Raises:
        ProgramError: there are several, or the site is not finite, not each example's own, or not the guide's last.
    """
    guide = random_sites(run.guide)
    marked = [name for name, site in guide.items() if is_exact(site)]
    if not marked:
        return None
    name = marked[0]
    site = guide[name]
    if len(marked) > 1:
        raise ProgramError(
            f"the guide marks the sites {marked} for an exact expectation, which is taken of one site. Make one site of "
            "all their combinations, or draw the others."
        )
    if site["infer"]["expectation"] != "exact":
        raise ProgramError(
            f"site {name!r} is marked for the expectation {site['infer']['expectation']!r}; the only such mark is 'exact'."
        )
    refuse_unsummable({name: site})
    others = [frame for frame in plates(site) if run.plate is None or frame != run.plate.name]
    if others or not run.is_local(site):
        raise ProgramError(
            f"the expectation over site {name!r} is to be exact, and it stands in the plates {sorted(plates(site))}: each "
            "example needs one such site of its own, inside the plate of the batch alone."
        )
    if next(reversed(guide)) != name:
        raise ProgramError(
            f"the expectation over site {name!r} is to be exact, and the guide draws {[*guide][[*guide].index(name) + 1 :]} "
            "after it, which may depend on its draw. Draw it last: the latents as if all were there, and then which are."
        )
    return name


def refuse_exact(run: Run, what: str) -> None:
    """Raises a ProgramError where the guide has a site whose expectation is exact, and `what` would get it wrong.

    It cancels from the weights, so that of all bounds the ELBO alone has a gradient for its probabilities; gradients that
    hold the guide fixed have none; Pyro's estimators do not know the mark; and a weight of a draw is none of its count.
    """
    marked = [name for name, site in random_sites(run.guide).items() if is_exact(site)]
    if marked:
        raise ProgramError(
            f"the expectation over the guide's site {marked[0]!r} is to be exact, which {what} does not know. Train with "
            "SVI(program), or ImportanceWeighted(program, bound=elbo) by Gradient.PATH; evaluate with importance(particles)."
        )


def present(guide: Site, model: Site) -> Site:
    """A guide's site, masked as the model masks its own: what is absent there counts in neither."""
    mask = guide["mask"]
    for each in _event_masks(model):
        mask = each if mask is None else torch.as_tensor(mask, device=each.device) & each
    return {**guide, "mask": mask}


def masked_as_model(run: Run) -> Run:
    """A run in which the guide's latents count only where the model's do, if the guide has an exact expectation."""
    if exact_site(run) is None:
        return run
    model, guide = latents_in(run.model), run.guide.copy()
    for name in random_sites(guide):
        if name in model:
            guide.nodes[name] = present(guide.nodes[name], model[name])
    return run._replace(guide=guide)


def _event_masks(site: Site) -> list[Tensor]:
    """The masks of a site, each of whole events."""
    found = [] if site["mask"] is None else [site["mask"]]
    for layer in layers(site["fn"]):
        if isinstance(layer, MaskedDistribution):
            if layer.event_dim != site["fn"].event_dim:
                raise ProgramError(
                    f"site {site['name']!r} is masked inside of its event, so that parts of one draw would be absent. Mask "
                    "the whole: Normal(…).to_event(1).mask(is_there), a site for each thing that may be absent."
                )
            found.append(layer._mask)
    return [torch.as_tensor(mask, device=site["value"].device) for mask in found]


def by_value(run: Run, name: str, sites: Mapping[str, Site], guide: Mapping[str, Site]) -> ByValue:
    """The densities of the sites that depend on the marked one, of an enumerated run, for each of its values.

    Raises:
        ProgramError: the guide's site has another number of values than the model's, or other finite sites are summed too.
    """
    own = sites[name]
    others = [each for each, site in sites.items() if is_summed(site) and each != name]
    if others:
        raise ProgramError(
            f"the expectation over the guide's site {name!r} is to be exact, and the guide leaves out the finite sites "
            f"{others}, which would be summed with it. Draw these in the guide too."
        )
    count, fn = len(own["value"]), without_mask(guide[name]["fn"])
    if not is_finite(guide[name]) or len(fn.enumerate_support(expand=False)) != count:
        raise ProgramError(f"site {name!r} has {count} values in the model, and another number of them in the guide.")
    tables = {
        each: _table(run, scale_and_mask(site["unscaled_log_prob"], 1.0, site["mask"]), count)
        for each, site in sites.items()
    }
    gated = {each: present(guide[each], site) for each, site in sites.items() if each in guide and each != name}
    drawn = [
        _table(run, scale_and_mask(unmasked_log_prob(each, site), 1.0, site["mask"]), count)
        for each, site in gated.items()
    ]
    log_q = _table(run, fn.log_prob(own["value"]), count)
    zeros = torch.zeros_like(log_q)
    return ByValue(
        likelihood=sum((tables[each] for each, site in sites.items() if site["is_observed"]), zeros),
        prior=sum((tables[each] for each, site in sites.items() if not site["is_observed"]), zeros),
        posterior=sum(drawn, zeros),
        log_q=log_q,
    )


def _table(run: Run, log_prob: Tensor, count: int) -> Tensor:
    """A density with the values' axis to the left of all plates, summed over the plates inside the example."""
    axes = -min([-1, *(frame.dim for site in random_sites(run.model).values() for frame in plates(site).values())])
    padded = log_prob.reshape((1,) * (axes + 1 - log_prob.dim()) + log_prob.shape)
    if run.plate is None:
        summed = padded.flatten(1).sum(1, keepdim=True)
    else:
        summed = padded.movedim(run.plate.dim, 1).flatten(2).sum(2) if axes > 1 else padded
    return summed.expand(count, run.particles * run.examples).unflatten(1, (run.particles, run.examples))
