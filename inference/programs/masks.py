"""What a mask hides: observed values that may be anything, and latents that sum to 1 all the same."""

from collections.abc import Iterator
from typing import Any

import torch
from pyro.distributions import MaskedDistribution
from pyro.distributions.torch import Independent
from pyro.poutine.messenger import Messenger
from torch import Tensor

from inference.programs.sites import Site, hides_values, layers


class HiddenValues(Messenger):
    """Puts hidden observations into the support of a density that looks values up, such as a label of -1 for none."""

    def _pyro_sample(self, message: Any) -> None:
        if not message["is_observed"] or not hides_values(message):
            return
        innermost, value = layers(message["fn"])[-1], message["value"]
        bounds = getattr(innermost, "support", None)
        lower, upper = getattr(bounds, "lower_bound", None), getattr(bounds, "upper_bound", None)
        if not getattr(bounds, "is_discrete", False) or lower is None or upper is None or not isinstance(value, Tensor):
            return
        within = torch.minimum(torch.maximum(value, value.new_tensor(lower)), torch.as_tensor(upper).to(value))
        message["value"] = where_seen(message, value, within)


def where_seen(site: Site, value: Tensor, other: Tensor | float) -> Tensor:
    """A site's value where no mask hides it, and another value where one does."""
    for seen in _masks(site):
        value = torch.where(seen, value, other)
    return value


def hidden_as_nan(site: Site) -> Site:
    """The site with NaN in place of the real numbers that a mask hides, which may be anything."""
    value = site["value"]
    return {**site, "value": where_seen(site, value, torch.nan)} if value.is_floating_point() else site


def _masks(site: Site) -> Iterator[Tensor]:
    """What the masks of a site and its distribution let through, with axes for the events under each mask."""
    masks = [(site["mask"], site["fn"].event_dim)] if site["mask"] is not None else []
    masks += [(layer._mask, layer.event_dim) for layer in layers(site["fn"]) if isinstance(layer, MaskedDistribution)]
    for mask, event_dim in masks:
        seen = torch.as_tensor(mask, device=site["value"].device)
        yield seen.reshape(seen.shape + (1,) * event_dim)


class Unmasked(Messenger):
    """Takes the masks off enumerated sites: one that is hidden sums to 1, not to the size of its support.

    What depends on it keeps its own mask. Entered before the program runs, it sees a message after all of the program's
    own handlers.
    """

    def _pyro_sample(self, message: Any) -> None:
        if not message["is_observed"] and message["infer"].get("enumerate") == "parallel":
            message["mask"] = None
            message["fn"] = without_mask(message["fn"])


def without_mask(distribution: Any) -> Any:
    """A distribution without the masks of its own."""
    if isinstance(distribution, MaskedDistribution):
        return without_mask(distribution.base_dist)
    if isinstance(distribution, Independent):
        return without_mask(distribution.base_dist).to_event(distribution.reinterpreted_batch_ndims)
    return distribution
