"""One run of the guide for all particles: its networks see each example once, however many draws are taken."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from inference.programs.sites import batch_plate, plates

Shape = torch.Size | list[int] | tuple[int, ...]


class NotVectorizable(RuntimeError):
    """The guide has to be run on a copy of the batch for each particle."""


class VectorizedDistribution(TorchDistribution):
    """A distribution over `particles` copies of a batch, concatenated along its batch axis."""

    arg_constraints = {}  # noqa: RUF012  # torch's own form

    def __init__(self, base: Any, particles: int, axis: int) -> None:
        self.base_dist, self.particles = base, particles
        self.axis = axis + len(base.batch_shape)  # counted from the left, before the event axes
        shape = list(base.batch_shape)
        shape[self.axis] *= particles
        super().__init__(torch.Size(shape), base.event_shape, validate_args=False)
        self._drawn: tuple[Tensor, Tensor] | None = None

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]  # an attribute there, the base's here
        return bool(self.base_dist.has_rsample)

    @property
    def support(self) -> Any:
        return self.base_dist.support

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        return self._concatenated(self.base_dist.sample((*sample_shape, self.particles)), len(sample_shape))

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        stacked = self.base_dist.rsample((*sample_shape, self.particles))
        value = self._concatenated(stacked, len(sample_shape))
        self._drawn = value, stacked
        return value

    def log_prob(self, value: Tensor) -> Tensor:
        left = value.dim() - len(self.batch_shape) - len(self.event_shape)  # axes of a sample shape
        axis = left + self.axis
        if self._drawn is not None and value is self._drawn[0]:
            stacked = self._drawn[1]  # a flow has cached the inverse of its own draw
        else:
            stacked = value.unflatten(axis, (self.particles, -1)).movedim(axis, left)
        return self._concatenated(self.base_dist.log_prob(stacked), left)

    def _concatenated(self, stacked: Tensor, left: int) -> Tensor:
        return stacked.movedim(left, left + self.axis).flatten(left + self.axis, left + self.axis + 1)


class VectorizedParticles(Messenger):
    """Repeats the only random site of a guide, which nothing after it can then depend on.

    Raises:
        NotVectorizable: there is a second site, a mask, or a plate besides the batch's, or the guide subsamples.
    """

    def __init__(self, particles: int, rows: int) -> None:
        super().__init__()
        self.particles, self.rows, self.done = particles, rows, False

    def _pyro_sample(self, message: Any) -> None:
        if site_is_subsample(message):
            if message["fn"].subsample_size not in (None, message["fn"].size):
                raise NotVectorizable("random subsample indices belong to model and guide alike")
            return
        plate = batch_plate([message], self.rows)
        if self.done or plate is None or message["is_observed"] or message["mask"] is not None:
            raise NotVectorizable(f"site {message['name']!r}")
        if len(plates(message)) > 1 or plate.full_size != self.rows:
            raise NotVectorizable(f"site {message['name']!r}")
        message["fn"] = VectorizedDistribution(message["fn"], self.particles, plate.dim)
        rows = self.particles * self.rows
        message["cond_indep_stack"] = tuple(
            frame._replace(size=rows, full_size=rows) if frame.name == plate.name else frame
            for frame in message["cond_indep_stack"]
        )
        self.done = True
