"""The best bound that a guide's family has for each example: its distributions' parameters set free and optimised."""

import math
from dataclasses import dataclass
from functools import partial

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from inference.evaluation.chunks import as_memory_allows
from inference.evaluation.estimators import Estimate, Mean
from inference.evaluation.free_parameters import freed
from inference.evaluation.stages import reached, shares, stage
from inference.programs.bounds import LOWER_BOUND
from inference.programs.entries import Examples, rows_of
from inference.programs.execution import Run
from inference.programs.numbers import refuse_below, refuse_outside
from inference.programs.program import Batch, Program, ProgramError, as_batch
from inference.programs.sites import has_rsample, random_sites
from inference.programs.terms import log_joint, log_joint_of
from inference.programs.traces import guide_runs

AMORTISATION_GAP = "amortisation gap"
"""The name in `Estimate.details` of the bound less the ELBO at the encoder's own parameters, by as many fresh draws."""


@dataclass(frozen=True)
class Refined:
    """The ELBO of each example at parameters of the guide's family that were optimised for it alone."""

    steps: int
    particles: int = 8
    draws: int = 500
    learning_rate: float = 0.05
    rows: int = 2000
    """How many draws × examples are run at once."""

    def __post_init__(self) -> None:
        for name in ("steps", "particles", "draws", "rows"):
            refuse_below(name, getattr(self, name), 1)
        refuse_outside("learning_rate", self.learning_rate, 0.0, math.inf)

    @property
    def kind(self) -> str:
        return LOWER_BOUND

    @property
    def settings(self) -> dict[str, str | int | float]:
        return {
            "steps": self.steps,
            "particles": self.particles,
            "draws": self.draws,
            "learning_rate": self.learning_rate,
        }

    @property
    def work(self) -> float:
        return 3.0 * self.steps * self.particles + 2.0 * self.draws

    def __call__(self, program: Program, batch: Batch) -> Estimate:
        family = _Family(program, as_batch(batch))
        return as_memory_allows(partial(self._estimate, family), self.rows)

    def _estimate(self, family: "_Family", rows: int) -> Estimate:
        size = max(1, rows // rows_of(family.batch))
        first, middle, last = shares([self.draws, 3.0 * self.steps * self.particles, self.draws])
        with stage(*first):
            before = self._scored(family, family.initial, size)
        with stage(*middle):
            optimised = self._optimised(family, size)
        with stage(*last):
            after = self._scored(family, optimised, size)
        return after._replace(details={AMORTISATION_GAP: after.log_prob - before.log_prob})

    def refuse(self, program: Program, batch: Batch) -> None:
        """Raises the ProgramError that scoring this batch would, before anything is optimised."""
        with torch.no_grad():
            _Family(program, as_batch(batch))

    def _optimised(self, family: "_Family", size: int) -> list[Tensor]:
        """The mean of the last quarter of the parameters that Adam gives, at a rate that falls to a tenth."""
        free = [value.clone().requires_grad_() for value in family.initial]
        optimizer = torch.optim.Adam(free, self.learning_rate)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1 ** (1 / self.steps))
        averaged = range(self.steps - max(1, self.steps // 4), self.steps)
        mean = [torch.zeros_like(value) for value in family.initial]
        for step in range(self.steps):
            gradients = [torch.zeros_like(value) for value in free]
            for draws in _chunks(self.particles, size):
                with torch.enable_grad():
                    loss = -family.log_weights(free, draws).sum() / self.particles  # a sum: examples do not meet
                    for total, part in zip(gradients, torch.autograd.grad(loss, free), strict=True):
                        total += part
            for value, gradient in zip(free, gradients, strict=True):
                value.grad = gradient.nan_to_num_(0.0, 0.0, 0.0)
            optimizer.step()
            schedule.step()
            if step in averaged:
                for total, value in zip(mean, free, strict=True):
                    total += value.detach() / len(averaged)
            reached((step + 1) / self.steps, f"step {step + 1} of {self.steps}")
        return mean

    def _scored(self, family: "_Family", values: list[Tensor], size: int) -> Estimate:
        moments, done = Mean(), 0
        with torch.no_grad():
            for draws in _chunks(self.draws, size):
                moments.add(family.log_weights(values, draws).double())
                done += draws
                reached(done / self.draws)
        return moments.estimate()


def refined(steps: int = 500, particles: int = 8, draws: int = 500, learning_rate: float = 0.05) -> Refined:
    """The estimator of what the guide's family can do at best (Cremer et al. 2018, arXiv 1801.03558).

    The parameters of each guide site's distribution become free for each example, start at the encoder's, and are optimised
    for that example alone by the ELBO's gradient. They are then scored with fresh noise: a lower bound, whose gap to
    log p(x) is the family's. `details` has what amortisation costs: the bound less the ELBO at the encoder's parameters.

    Args:
        steps: of Adam, all examples of a batch at once.
        particles: draws for the gradient of each example.
        draws: by which the result is scored, and the encoder's.
        learning_rate: of Adam, on unconstrained parameters; falls to a tenth.

    Raises:
        ValueError: a number is not positive.
    """
    return Refined(steps, particles, draws, learning_rate)


def _chunks(draws: int, size: int) -> list[int]:
    """So many draws in chunks of a size, the last of which may be smaller."""
    return [min(size, draws - start) for start in range(0, draws, size)]


class _Family:
    """The distributions of a guide's sites as functions of free parameters, one set for each example."""

    def __init__(self, program: Program, batch: Examples) -> None:
        self.program, self.batch = program, batch
        self.run = _independent_sites(program, batch)
        self.sites = random_sites(self.run.guide)
        self.free = {name: freed(name, site["fn"]) for name, site in self.sites.items()}
        self.initial = [value for free in self.free.values() for value in free.values]
        self._refuse_dependent_sites()
        log_joint(program, batch, self.run.values(self.sites))  # judges the data and the sums, once

    def _refuse_dependent_sites(self) -> None:
        """Parameters that follow from earlier draws are others in another run, also where no gradient says so."""
        sites = random_sites(guide_runs(self.program, self.batch)[0].guide)
        others = {name: freed(name, site["fn"]) for name, site in sites.items()}
        dependent = [
            name
            for name in sorted(self.free.keys() | others.keys())
            if not (name in self.free and name in others and self.free[name].has_values_of(others[name]))
        ]
        if dependent:
            raise ProgramError(
                f"the parameters of the guide's sites {dependent} depend on earlier draws, so that no set of parameters "
                "for an example stands for them. Compare importance(particles) and annealed(temperatures) instead."
            )

    def log_weights(self, values: list[Tensor], draws: int) -> Tensor:
        """log p(x, z) - log q(z), of draws from q at these parameters: `(draws, batch)` nats."""
        given, latents, log_q = iter(values), {}, []
        for name, site in self.sites.items():
            fn = self.free[name].distribution([next(given) for _ in self.free[name].values])
            drawn = fn.rsample(torch.Size([draws]))
            latents[name] = drawn.movedim(self.run.plate.dim - fn.event_dim, 1)
            log_prob = scale_and_mask(fn.log_prob(drawn), 1.0, site["mask"])
            log_q.append(log_prob.movedim(self.run.plate.dim, 1).reshape(draws, self.run.examples, -1).sum(2))
        return log_joint_of(self.program, self.batch, latents).log_weights - torch.stack(log_q).sum(0)


def _independent_sites(program: Program, batch: Examples) -> Run:
    """A run of the guide, once its sites are known to be of distributions that can be set free.

    Raises:
        ProgramError: sites are shared, auxiliary, discrete, or none.
    """
    run = guide_runs(program, batch)[0]
    sites = random_sites(run.guide)
    if not sites:
        raise ProgramError("the guide draws no site, so there are no parameters to refine: use importance(particles).")
    if any(site["infer"].get("is_auxiliary") for site in sites.values()):
        raise ProgramError(
            "the guide draws the auxiliary sites "
            f"{sorted(n for n, s in sites.items() if s['infer'].get('is_auxiliary'))}, as AutoGuides do, whose "
            "parameters are free for each value already: there is nothing to refine."
        )
    if not run.per_example:
        raise ProgramError(
            "sites of the guide are shared by all examples (or no plate counts these), and their parameters are free "
            "already: there is nothing to refine for an example alone."
        )
    for name, site in sites.items():
        if not has_rsample(site["fn"]):
            raise ProgramError(
                f"the guide's site {name!r} ({type(site['fn']).__name__}) has no reparameterised draws, whose gradient "
                "would refine it. Where its support is finite, leave it out of the guide and mark it "
                "infer={'enumerate': 'parallel'}."
            )
    return run
