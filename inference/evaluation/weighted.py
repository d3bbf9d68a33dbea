"""Weighted draws from a guide, and equally weighted ones of the posterior made of them."""

from typing import NamedTuple

import torch
from torch import Tensor

from inference.evaluation.pareto import Smoothed, smoothed
from inference.evaluation.stages import reached
from inference.programs.expectation import refuse_exact
from inference.programs.predict import latents_of
from inference.programs.program import Batch, Program, ProgramError
from inference.programs.terms import Terms, judged_terms
from inference.programs.traces import runs


class Weighted(NamedTuple):
    """Draws of a guide and their log densities: `(draws, examples)` nats, or `(draws, 1)` of the whole dataset."""

    latents: dict[str, Tensor]
    """`(draws, batch, ...)` per site inside the batch plate, `(draws, ...)` per shared site."""
    log_guide: Tensor
    log_weights: Tensor
    smoothed: Smoothed

    @property
    def log_joint(self) -> Tensor:
        """log p(x, z), finite sites that the guide leaves out summed."""
        return self.log_weights + self.log_guide


def weighted(program: Program, batch: Batch, draws: int, chunk: int) -> Weighted:
    """Draws from the guide, so many at once, with weights for each example: all its own, or all of the dataset.

    Raises:
        ProgramError: what `terms` raises; or every draw of an example has no density under the model.
    """
    latents, found = [], []
    for start in range(0, draws, chunk):
        drawn = runs(program, batch, min(chunk, draws - start))
        refuse_exact(drawn[0], "to_arviz")
        latents.append(latents_of(drawn))
        found.append(judged_terms(program, drawn))
        reached(min(start + chunk, draws) / draws)
    log_weights = torch.cat([piece.log_weights.double() for piece in found])
    nowhere = log_weights.isneginf().all(0).nonzero().flatten().tolist()
    if nowhere:
        raise ProgramError(
            f"all {draws} draws of the guide lie where the model has no density (examples {nowhere[:5]}, {len(nowhere)} in "
            "all), so that none of them is one of the posterior. Let the guide draw inside the support of the prior."
        )
    return Weighted(
        {name: torch.cat([piece[name] for piece in latents]) for name in latents[0]},
        torch.cat([_log_guide(piece).double() for piece in found]),
        log_weights,
        smoothed(log_weights),
    )


def resampled(log_weights: Tensor) -> Tensor:
    """Places of draws, so often as their weights say: `(draws, examples)`, in random order, for each example by itself.

    Systematic resampling (Kitagawa 1996): a draw of weight w among S stands there S·w times, rounded up or down, so that
    equal weights give every draw once.
    """
    draws, examples = log_weights.shape
    total = torch.softmax(log_weights, 0).cumsum(0).T.contiguous()
    steps = torch.arange(draws, dtype=total.dtype) + torch.rand(examples, 1, dtype=total.dtype)
    places = torch.searchsorted(total / total[:, -1:], steps / draws, right=True).clamp_max(draws - 1)
    order = torch.rand(examples, draws).argsort(1)
    return places.gather(1, order).T


def picked(places: Tensor, values: Tensor) -> Tensor:
    """The values of the draws at these places: `(draws, examples, ...)`; `(draws, ...)` where all examples share them."""
    places = places.to(values.device)
    if places.shape[1] == 1:
        return values[places[:, 0]]
    return values[places, torch.arange(places.shape[1], device=values.device)]


def _log_guide(found: Terms) -> Tensor:
    if found.shared is None:
        return found.posterior
    return (found.posterior.sum(1) + found.shared.posterior).unsqueeze(1)
