"""Adaptive contrast: a critic compares the guide with an explicit r(z | x) near it, in place of the prior far away.

KL(q ‖ p) = KL(q ‖ r) + E_q[log r - log p] (Mescheder et al., 2017, arXiv 1701.04722, section 3.3). The critic estimates
the first term, which is small where r is near q; the second has densities. Here r is a distribution that is fitted to the
draws of the guide by their likelihood, and the critic sees z as r sees it: less its mean, over its standard deviation.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from inference.programs.program import ProgramError


class Contrast(NamedTuple):
    """r of one latent site."""

    network: nn.Module
    """Returns the distribution r."""
    inputs: tuple[str, ...]
    """The names of what its `forward` is given."""
    site: str

    def __call__(self, values: Mapping[str, Tensor]) -> Any:
        """r given its inputs among these values: a distribution over the site's value."""
        return self.network(**{name: values[name] for name in self.inputs})

    def whitened(self, q: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Critic inputs with z whitened by r, of the guide's draws and of draws of r; and log r of the guide's draws.

        Whitened draws of r are the same whatever r is, and carry no gradient; those of the guide do, as does log r.
        """
        r, z = self(q), q[self.site]
        log_r: Tensor = r.log_prob(z)
        whitened = (z - r.mean) / r.stddev
        return {**q, self.site: whitened}, {**q, self.site: ((r.sample() - r.mean) / r.stddev).detach()}, log_r

    def check(self, q: Mapping[str, Tensor]) -> None:
        """Raises a ProgramError unless r is a distribution with mean, deviation and density over the site's values."""
        r, z = self(q), q[self.site]
        missing = [name for name in ("mean", "stddev", "log_prob") if not _has(r, name)]
        if missing:
            raise ProgramError(
                f"contrast: expected its forward to return a distribution such as Normal(loc, scale).to_event(1), got a "
                f"{type(r).__name__} without {missing}."
            )
        expected = (tuple(z.shape), tuple(z.shape[:1]))
        shapes = (tuple(r.mean.shape), tuple(r.log_prob(z).shape))
        if shapes != expected:
            raise ProgramError(
                f"contrast: expected draws of shape {expected[0]} as {self.site!r} has and log densities of {expected[1]}, "
                f"got {shapes[0]} and {shapes[1]}; let it end with .to_event({z.dim() - 1})."
            )


def _has(distribution: object, name: str) -> bool:
    try:
        return hasattr(distribution, name)
    except NotImplementedError:
        return False
