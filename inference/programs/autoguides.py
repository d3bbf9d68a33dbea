"""What an AutoGuide is given: a model without some sites, a model with parameters of its own, values of its latents."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoContinuous, AutoDelta, AutoGuide, AutoGuideList, AutoNormal
from torch import Tensor
from torch.distributions import CorrCholeskyTransform, biject_to

from inference.programs.program import ProgramError
from inference.programs.sites import Site

Values = Callable[[str, Site], Tensor]
"""The given value of a latent site, by its name, laid out as the site's plates are."""


class HiddenSites:
    """The sites of a model that an AutoGuide leaves out.

    Args:
        names: of the sites.
    """

    def __init__(self, names: Collection[str]) -> None:
        if isinstance(names, str):
            raise ProgramError(f"hide={names!r}: expected a list of names, got one string; write hide=[{names!r}].")
        self.names = frozenset(names)
        self._met: set[str] = set()

    def blocked(self, model: Callable[..., Any]) -> Callable[..., Any]:
        """The model, of which nobody outside sees these sites."""
        return poutine.block(model, hide_fn=self._hides) if self.names else model

    def _hides(self, message: Any) -> bool:
        hidden = message["name"] in self.names
        if hidden:
            self._met.add(message["name"])
        return hidden

    @contextmanager
    def checked(self, guide: AutoGuide | None) -> Iterator[None]:
        """A block that runs the guide, which traces its model at its first run.

        Raises:
            ProgramError: the model has no such sites, or the guide meets discrete ones.
        """
        traces = guide is not None and guide.prototype_trace is None
        try:
            yield
        except (ValueError, NotImplementedError) as error:
            said, kind = str(error).partition("\n")[0], type(guide).__name__
            if "to be discrete" in said:
                raise ProgramError(
                    f"{kind} draws marked finite sites alone, and the model has others ({said}). Let an AutoGuide draw "
                    "those, and finite sites be summed out: Pair(model, AutoNormal, hide=[…])."
                ) from error
            if "discrete sample site" not in said:
                raise
            raise ProgramError(
                f"{said.split('.')[0]} in an AutoGuide. Leave it out, Pair(model, {kind}, hide=[…]), and mark "
                "it infer={'enumerate': 'parallel'}, so that it is summed out."
            ) from error
        unknown = sorted(self.names - self._met) if traces else []
        if unknown:
            raise ProgramError(f"hide: the model has no sites {unknown}; correct the names.")


def take_over(guide: AutoGuide, inside: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Lets an AutoGuide that was built elsewhere, and its parts, run their models `inside` something.

    Raises:
        ProgramError: it has run, and keeps values in Pyro's global store.
    """
    parts = [part for part in guide.modules() if isinstance(part, AutoGuide)]
    kind = type(guide).__name__
    if any(part.prototype_trace is not None for part in parts):
        raise ProgramError(
            f"the guide ({kind}) has run outside this pair, and keeps its values in Pyro's global store. Pass a new "
            f"one, Pair(model, {kind}(model)), or the class, Pair(model, {kind}), or functools.partial({kind}, …)."
        )
    for part in parts:
        part._model = (inside(part.model),)


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
        f"the draws of the guide, {type(guide).__name__}, can not be computed from given latents, so that their log q is "
        "not available. For log p(x, z) alone use log_joint(program, batch, latents); anneal from the prior, start='prior'."
    )


def _sites(guide: AutoGuide) -> dict[str, Site]:
    return dict(guide.prototype_trace.iter_stochastic_nodes())


def _unconstrained(site: Site, value: Tensor) -> Tensor:
    transform = biject_to(site["fn"].support)
    found: Tensor = _cholesky_inverse(value) if isinstance(transform, CorrCholeskyTransform) else transform.inv(value)
    return found


def _cholesky_inverse(factor: Tensor) -> Tensor:
    """`CorrCholeskyTransform().inv(factor)`, which looks its entries up by a mask, and so could not be traced."""
    rows, columns = torch.tril_indices(factor.shape[-1], factor.shape[-1], -1, device=factor.device)
    left = 1 - factor.square().cumsum(-1)
    before = torch.nn.functional.pad(left[..., :-1], (1, 0), value=1.0)
    return torch.atanh(factor[..., rows, columns] / before[..., rows, columns].sqrt())
