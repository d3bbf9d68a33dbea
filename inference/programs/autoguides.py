"""The auxiliary draws of an AutoGuide, in unconstrained coordinates, that give its latent sites given values."""

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.autoguide import AutoContinuous, AutoDelta, AutoGuide, AutoGuideList, AutoNormal
from torch import Tensor
from torch.distributions import biject_to

from inference.programs.program import ProgramError
from inference.programs.sites import Site

Values = Callable[[str, Site], Tensor]
"""The given value of a latent site, by its name, laid out as the site's plates are."""


def auxiliary_values(guide: AutoGuide, given: Values) -> dict[str, Tensor]:
    """The values of the sites that the guide draws at random, by name; those of its point estimates are the given ones.

    Raises:
        ProgramError: the draws of a guide of this kind can not be computed from the latents.
    """
    if isinstance(guide, AutoGuideList):
        parts: list[Any] = list(guide)
        found = [auxiliary_values(part, given) for part in parts]
        return {name: value for each in found for name, value in each.items()}
    if isinstance(guide, AutoDelta):
        return {name: given(name, site) for name, site in _sites(guide).items()}
    if isinstance(guide, AutoContinuous):
        flat = [_unconstrained(site, given(name, site)).reshape(-1) for name, site in _sites(guide).items()]
        return {f"_{guide._pyro_name}_latent": torch.cat(flat)}
    if type(guide) is AutoNormal:
        return {
            f"{name}_unconstrained": _unconstrained(site, given(name, site)) for name, site in _sites(guide).items()
        }
    raise ProgramError(
        f"the guide is a {type(guide).__name__}, whose draws can not be computed from given latents, so that their "
        "log q is not available. For log p(x, z) alone use log_joint(program, batch, latents)."
    )


def _sites(guide: AutoGuide) -> dict[str, Site]:
    return dict(guide.prototype_trace.iter_stochastic_nodes())


def _unconstrained(site: Site, value: Tensor) -> Tensor:
    found: Tensor = biject_to(site["fn"].support).inv(value)
    return found
