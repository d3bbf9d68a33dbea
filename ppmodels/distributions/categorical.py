"""A free probability for every level."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from ppmodels.distributions.levels import LevelsDistribution, Shape


class CategoricalLevels(LevelsDistribution):
    """A level in 0..levels-1 with a free probability each, from `logits` `(..., levels)`; scalar events, as floats."""

    arg_constraints: ClassVar = {"logits": constraints.independent(constraints.real, 1)}

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape[-1], torch.Size(), validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of each level in `value`, in nats; ValueError for a value outside the support."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        log_p = self.logits.log_softmax(-1).expand((*shape, self.levels))
        return log_p.gather(-1, value.long().expand(shape).unsqueeze(-1)).squeeze(-1)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Levels of shape `sample_shape + batch_shape`."""
        shape = torch.Size(sample_shape)
        p = self.logits.softmax(-1).reshape(-1, self.levels)
        if not p.shape[0] or not shape.numel():
            return self.logits.new_empty(shape + self.batch_shape)
        drawn = p.multinomial(shape.numel(), replacement=True).T
        return drawn.to(p.dtype).reshape(shape + self.batch_shape)

    @property
    def mean(self) -> Tensor:
        """The expected level, `batch_shape`."""
        levels = torch.arange(self.levels, device=self.logits.device, dtype=self.logits.dtype)
        return (self.logits.softmax(-1) * levels).sum(-1)
