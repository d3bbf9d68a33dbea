"""Importance-weighted variational inference: any bound on several particles, by a choice of gradient estimators."""

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from inference.objectives.objective import Objective, Player, factor
from inference.objectives.surrogate import bound_per_example
from inference.objectives.weighted import refuse_own_subsample, refuse_part_of_the_data
from inference.programs.bounds import BoundFunction, elbo, iwae
from inference.programs.dtypes import widest_dtype
from inference.programs.entries import Examples, rows_of
from inference.programs.expectation import refuse_exact
from inference.programs.numbers import refuse_below
from inference.programs.predict import draw
from inference.programs.program import Batch, Program, ProgramError, as_batch, parameters
from inference.programs.sites import has_rsample, random_sites
from inference.programs.terms import Terms, terms, terms_of
from inference.programs.traces import guide_runs, runs


class Gradient(Enum):
    """How the gradient of a bound reaches a reparameterised guide."""

    PATH = "path"
    """Through the draws and through log q: the plain derivative of the bound."""
    STICKING_THE_LANDING = "sticking the landing"
    """Through the draws alone (Roeder et al. 2017, arXiv 1703.09194): no variance where the guide is exact. Unbiased for
    the ELBO; for other bounds a biased gradient of the guide, which `DOUBLY_REPARAMETERISED` mends."""
    DOUBLY_REPARAMETERISED = "doubly reparameterised"
    """Through the draws with squared weights (Tucker et al. 2019, arXiv 1810.04152): unbiased for the
    importance-weighted bound, and its signal grows with the number of particles."""


class ImportanceWeighted(Objective):
    """Fits a program by a bound on K weighted draws per example; the loss is minus the bound, in nats per example.

    Of a program without a batch plate it is minus the bound of the dataset: all the data are one example.

    Weights are per example and unscaled, so a subsampled plate changes nothing. Latents without reparameterised draws
    are credited leave-one-out (Mnih & Rezende 2016, arXiv 1602.06725), which needs K ≥ 2; the others follow `gradient`.
    With K draws and the default bound it is the IWAE (Burda et al. 2016, arXiv 1509.00519).

    Args:
        program: an `nn.Module` with `model` and `guide`.
        bound: `(particles, batch)` log-weights to `(batch,)` nats: `iwae`, `elbo`, `renyi(alpha)`, or your own.
        particles: K.
        beta: the weight of log p(z) - log q(z | x) in training (Higgins et al. 2017), a number or a function of the
            step; evaluation does not use it.
        gradient: how the gradient reaches reparameterised draws.

    Raises:
        ProgramError: fewer particles than the bound and the latents need, or a gradient that does not fit them.
    """

    beta: Tensor

    def __init__(
        self,
        program: Program,
        bound: BoundFunction = iwae,
        particles: int = 5,
        beta: float | Callable[[int], float] = 1.0,
        gradient: Gradient = Gradient.PATH,
    ) -> None:
        super().__init__(program)
        refuse_below("particles", particles, 1)
        if gradient is Gradient.DOUBLY_REPARAMETERISED and bound != iwae:
            raise ProgramError(
                f"the doubly reparameterised gradient is derived for bound=iwae; got {bound}. Use "
                "Gradient.STICKING_THE_LANDING with the ELBO, or Gradient.PATH with any bound."
            )
        self.bound, self.particles, self.gradient = bound, particles, gradient
        self._beta_at: Callable[[int], float] = beta if callable(beta) else lambda step: beta
        self.register_buffer("beta", torch.tensor(factor("beta", 0, self._beta_at(0))), persistent=False)

    def players(self) -> dict[str, Player]:
        return {"loss": Player(parameters(self.program), self.loss, log_density=True)}

    def prepare(self, batch: Batch) -> None:
        super().prepare(batch)
        self.beta = self.beta.to(widest_dtype(self.program))

    def schedule(self, step: int) -> None:
        self.beta.fill_(factor("beta", step, self._beta_at(step)))

    def loss(self, batch: Batch) -> Tensor:
        """Minus the bound per example, in nats, with the gradient asked for."""
        examples = as_batch(batch)
        if self.gradient is Gradient.PATH:
            drawn = self._tempered(terms_of(self.program, runs(self.program, examples, self.particles)))
        else:
            drawn = self._through_the_draws(examples)
        return -bound_per_example(self.bound, drawn)

    def check(self, batch: Batch) -> None:
        if self.bound != elbo or self.gradient is not Gradient.PATH:
            refuse_exact(guide_runs(self.program, batch)[0], f"ImportanceWeighted({self.bound}, {self.gradient})")
        super().check(batch)
        drawn, run = terms(self.program, as_batch(batch)), runs(self.program, as_batch(batch))[0]
        if self.particles == 1 and drawn.log_scores.requires_grad:
            raise ProgramError(
                "the guide draws sites without reparameterised gradients, which are credited against the other particles: "
                "ImportanceWeighted needs at least two particles; got 1."
            )
        rows = rows_of(as_batch(batch))
        if self.particles > 1 and self.bound != elbo:
            refuse_own_subsample(run, rows, instead="bound=elbo")
        if self.gradient is not Gradient.PATH:
            self._check_guide_repeats(as_batch(batch))
        if self.bound != elbo:
            refuse_part_of_the_data(drawn)

    @torch.no_grad()
    def _check_guide_repeats(self, examples: Examples) -> None:
        """The draws are scored by a second run of the guide, which must be the guide that drew them."""
        latents = draw(self.program, examples, self.particles)
        first, second = (terms(self.program, examples, latents=latents) for _ in range(2))
        shared = first.shared is None or second.shared is None or first.shared.posterior.equal(second.shared.posterior)
        if not (shared and first.posterior.equal(second.posterior)):
            raise ProgramError(
                f"the guide has noise of its own, such as dropout, so no second run of it is the guide that drew; "
                f"{self.gradient.value} needs one. Remove the noise from the guide, or use Gradient.PATH."
            )

    def _is_reparameterised(self, examples: Examples) -> bool:
        guide = guide_runs(self.program, examples)[0].guide
        return all(has_rsample(site["fn"]) for site in random_sites(guide).values())

    def _tempered(self, drawn: Terms) -> Terms:
        """The terms with beta on log p(z) - log q(z | x)."""
        beta = self.beta
        shared = drawn.shared
        if shared is not None:
            shared = shared._replace(prior=beta * shared.prior, posterior=beta * shared.posterior)
        return drawn._replace(prior=beta * drawn.prior, posterior=beta * drawn.posterior, shared=shared)

    def _through_the_draws(self, examples: Examples) -> Terms:
        """Terms in which log q has a gradient through the draws alone."""
        latents = draw(self.program, examples, self.particles)
        still = [name for name, value in latents.items() if not value.requires_grad]
        if not latents or (still and not self._is_reparameterised(examples)):  # or the guide is frozen
            raise ProgramError(
                f"{self.gradient.value} follows reparameterised draws; the draws of {still or 'no site'} carry no "
                "gradient. Use Gradient.PATH."
            )
        weights: list[Tensor] = []
        if self.gradient is Gradient.DOUBLY_REPARAMETERISED:
            latents = {name: _scaled_gradient(value, weights) for name, value in latents.items()}
        detached = _Detached(self.program)
        drawn = self._tempered(terms_of(detached, runs(detached, examples, latents=latents)))
        weights.append(torch.softmax(drawn.log_weights.detach(), 0))
        return drawn


def _scaled_gradient(value: Tensor, weights: list[Tensor]) -> Tensor:
    """The value, with a gradient that will be multiplied by the normalised weight of its particle and example.

    The bound's own gradient has one factor of the weight, towards model and draws alike; this gives the draws their
    second. The hook sits on the copy that is scored, so that draws which depend on earlier draws meet it once.
    """
    copy = value.view_as(value)
    if not copy.requires_grad:
        return copy

    def scale(gradient: Tensor) -> Tensor:
        weight = weights[0] if gradient.dim() > 1 else weights[0].squeeze(1)
        return gradient * weight.reshape(weight.shape + (1,) * (gradient.dim() - weight.dim()))

    copy.register_hook(scale)
    return copy


class _Guide(nn.Module):
    """A program's guide as a forward, so that it can be called with other parameter values."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, *batch: Any) -> Any:
        return self.program.guide(*batch)  # type: ignore[operator]  # nn.Module's attributes are untyped


class _Detached(NamedTuple):
    """A program whose guide's parameters are constants."""

    program: Any

    def model(self, *batch: Any) -> Any:
        return self.program.model(*batch)

    def guide(self, *batch: Any) -> Any:
        holder = _Guide(self.program)
        constants = {name: parameter.detach() for name, parameter in holder.named_parameters()}
        return functional_call(holder, constants, batch)

    @property
    def tiles(self) -> bool:
        return getattr(self.program, "tiles", True)
