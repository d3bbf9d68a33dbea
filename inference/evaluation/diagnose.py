"""Is the guide any good: Pareto k̂, effective sample size, active units, KL by site, what amortisation costs."""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inference.evaluation.active_units import ACTIVE, PosteriorMeans, units_of
from inference.evaluation.estimators import Mean
from inference.evaluation.inference_gap import Part, part_of
from inference.evaluation.kl import log_ratios
from inference.evaluation.likelihood import likelihood_of
from inference.evaluation.pareto import FEWEST_DRAWS, TAIL, effective_sample_size, smoothed, threshold
from inference.evaluation.passes import Data, batches_of, count_of, no_batches
from inference.evaluation.pieces import scored_at_once
from inference.evaluation.refined import AMORTISATION_GAP, Refined
from inference.evaluation.stages import one_of, reached, shares, stage
from inference.programs.check import check_batch, check_finite
from inference.programs.entries import Examples, rows_of
from inference.programs.noise import mix, own_noise, reseed
from inference.programs.numbers import refuse_below
from inference.programs.program import Program, ProgramError, evaluating
from inference.programs.sites import random_sites
from inference.programs.terms import terms, terms_of
from inference.programs.traces import runs

NO_KL = 0.01
"""The nats per example below which a site of the guide is its prior."""

ROWS = 2000
"""How many draws × examples are run at once."""


@dataclass(frozen=True)
class Diagnosis:
    """What weighted draws say of a guide."""

    khat: Tensor
    """`(examples,)`: the shape of the tail of an example's weights; `(1,)` of the dataset, where examples share sites."""
    ess: Tensor
    """In the shape of `khat`: how many equal weights the draws are worth."""
    draws: int
    kl: dict[str, float]
    """By site, E_q[log q(z) - log p(z)] in nats: the mean over examples, or the dataset's of what all examples share."""
    kl_error: dict[str, float]
    """By site, the standard error of that number's own Monte Carlo noise."""
    active_units: dict[str, int]
    """By site, how many units have a posterior mean that moves with x, by more than 0.01 of the unit's whole variance."""
    units: dict[str, int]
    """By site, how many units it has in all."""
    amortisation_gap: float | None
    """What it costs, in nats per example, that one encoder serves all of them; None where that cannot be had."""
    amortisation_gap_error: float | None
    without_amortisation_gap: str
    """Why there is no such number; empty where there is."""

    @property
    def threshold(self) -> float:
        """The k̂ up to which so many draws can be trusted."""
        return threshold(self.draws)

    @property
    def reliable(self) -> float:
        """The fraction of examples whose k̂ is not above the threshold."""
        return float((self.khat <= self.threshold).double().mean())

    @property
    def inactive(self) -> dict[str, float]:
        """By site, the fraction of units that are not active."""
        return {name: 1.0 - active / self.units[name] for name, active in self.active_units.items()}

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The sites that say nothing of x: no unit is active, or the KL to the prior is below 0.01 nats."""
        return tuple(
            name
            for name in {**self.kl, **self.active_units}
            if self.kl.get(name, math.inf) < NO_KL or self.active_units.get(name) == 0
        )

    def summary(self) -> dict[str, Any]:
        """The numbers as plain values, for a JSON file; what is not finite is None."""
        return {
            "examples": len(self.khat),
            "draws": self.draws,
            "threshold": self.threshold,
            "reliable": self.reliable,
            "khat": _spread(self.khat),
            "ess": _spread(self.ess),
            "kl": {name: {"nats": _plain(kl), "noise": _plain(self.kl_error[name])} for name, kl in self.kl.items()},
            "active_units": {name: {"active": n, "of": self.units[name]} for name, n in self.active_units.items()},
            "collapsed": [*self.collapsed],
            "amortisation_gap": self.amortisation_gap,
            "amortisation_gap_error": self.amortisation_gap_error,
            "without_amortisation_gap": self.without_amortisation_gap,
        }

    def table(self) -> str:
        """The numbers as lines of text."""
        return "\n".join(f"{name:<24}{said}".rstrip() for name, said in self._rows())

    def __str__(self) -> str:
        return self.table()

    def _rows(self) -> Iterator[tuple[str, str]]:
        khat, ess = self.khat, self.ess
        yield "k̂", f"median {khat.median():.2f}, largest {khat.max():.2f}"
        yield f"  at most {self.threshold:.2f}", f"{self.reliable:.1%} of {len(khat)}: weights can be trusted"
        yield "effective sample size", f"median {ess.median():.0f}, smallest {ess.min():.0f} of {self.draws} draws"
        for name, kl in self.kl.items():
            yield f"KL of {name}", f"{kl:.3f} ± {self.kl_error[name]:.3f} nats"
        for name, active in self.active_units.items():
            yield f"active units of {name}", f"{active} of {self.units[name]}"
        if self.collapsed:
            yield "says nothing of x", ", ".join(self.collapsed)
        gap, error = self.amortisation_gap, self.amortisation_gap_error
        yield "amortisation gap", self.without_amortisation_gap or f"{gap:.3f} ± {error:.3f} nats"


def diagnose(
    program: Program, batches: Data, draws: int = 1000, refined: Refined | None = None, seed: int = 0
) -> Diagnosis:
    """What weighted draws say of a program's guide, the program in eval mode.

    Pareto k̂ (Vehtari et al. 2024, arXiv 1507.02646) and effective sample size of the weights p(x, z) / q(z | x) of each
    example; KL by site; active units (Burda et al. 2016, arXiv 1509.00519); amortisation gap (Cremer et al. 2018, arXiv
    1801.03558).

    Args:
        program: the model and its guide.
        batches: the data, as those of `evaluate`.
        draws: from the guide, for each example.
        refined: by which the amortisation gap is measured, on all examples: `refined(steps)`, or not.
        seed: of the draws; the caller's generators are left as they were.

    Raises:
        ValueError: fewer than 25 draws, to whose tail no shape can be fitted.
        ProgramError: the guide draws nothing or has its mass at one value, a log-weight is NaN, or what `evaluate` raises.
    """
    refuse_below("draws", draws, FEWEST_DRAWS, TAIL)
    if refined is not None and not isinstance(refined, Refined):
        raise ProgramError(f"refined: expected refined(steps), or None for no such gap, got {refined!r}.")
    khat, ess, amortisation = list[Tensor](), list[Tensor](), _Amortisation(refined)
    kl: dict[str, _OverExamples] = defaultdict(_OverExamples)
    means: dict[str, PosteriorMeans] = defaultdict(PosteriorMeans)
    with torch.no_grad(), evaluating(program), own_noise(seed):
        stream = batches_of(batches)
        first = next(stream, None)
        if first is None:
            raise no_batches(batches)
        check_batch(program, first)
        likelihood = likelihood_of(program, first)
        _refuse_without_draws(program, first, likelihood.point)
        count = count_of(batches) if likelihood.per_example else 1
        parts = shares([draws, 0.0 if refined is None else refined.work])
        for index, batch in enumerate(scored_at_once(program, likelihood, chain([first], stream))):
            check_finite(batch)
            reseed(mix(seed, index))
            with one_of(index, count, "batch"):
                with stage(*parts[0]):
                    drawn = _drawn(program, batch, draws)
                with stage(*parts[1], "refined"):
                    amortisation.add(program, batch)
            khat.append(smoothed(drawn.log_weights).khat)
            ess.append(effective_sample_size(drawn.log_weights).cpu())
            for name, ratio in drawn.ratios.items():
                kl[name].add(ratio, rows_of(batch))
            for name, units in drawn.units.items():
                means[name].add(units)
    shares_of_variance = {name: each.share for name, each in means.items()}
    known = {name: share for name, share in shares_of_variance.items() if not share.isnan().any()}
    gap = amortisation.mean()
    return Diagnosis(
        khat=torch.cat(khat),
        ess=torch.cat(ess),
        draws=draws,
        kl={name: each.mean for name, each in kl.items()},
        kl_error={name: each.error for name, each in kl.items()},
        active_units={name: int((share > ACTIVE).sum()) for name, share in known.items()},
        units={name: share.numel() for name, share in known.items()},
        amortisation_gap=None if gap is None else gap.mean,
        amortisation_gap_error=None if gap is None else gap.error,
        without_amortisation_gap=amortisation.refusal,
    )


class _Draws(NamedTuple):
    """What the draws of a batch say."""

    log_weights: Tensor
    """`(draws, examples)`."""
    ratios: dict[str, Mean]
    """log q - log p by site, the mean over the examples."""
    units: dict[str, Mean]
    """The values by site: `(examples, units)`."""


def _drawn(program: Program, batch: Examples, draws: int) -> _Draws:
    terms(program, batch)  # judges what the batch observes, once
    log_weights: list[Tensor] = []
    ratios: dict[str, Mean] = defaultdict(Mean)
    units: dict[str, Mean] = defaultdict(Mean)
    chunk = max(1, ROWS // rows_of(batch))
    for start in range(0, draws, chunk):
        found = runs(program, batch, min(chunk, draws - start))
        log_weights.append(terms_of(program, found).log_weights)
        reached(min(start + chunk, draws) / draws)
        for run in found:
            for name, each in log_ratios(program, run).items():
                ratios[name].add(each.double().mean(1).cpu())
            for name, values in units_of(run).items():
                units[name].add(values.cpu())
    return _Draws(torch.cat(log_weights), ratios, units)


class _OverExamples:
    """A mean over the examples of all batches, and the noise of its estimate."""

    def __init__(self) -> None:
        self.examples, self.total, self.squares = 0, 0.0, 0.0

    def add(self, of_batch: Mean, examples: int) -> None:
        mean, error, *_ = of_batch.estimate()
        self.examples += examples
        self.total += examples * float(mean)
        self.squares += (examples * float(error)) ** 2

    @property
    def mean(self) -> float:
        return self.total / self.examples

    @property
    def error(self) -> float:
        return math.sqrt(self.squares) / self.examples


class _Amortisation:
    """What amortisation costs each example, or why that is not known."""

    def __init__(self, refined: Refined | None) -> None:
        self.refined, self.gaps = refined, list[Tensor]()
        self.refusal = "" if refined else "not measured, as it takes an optimisation: diagnose(…, refined=refined())"

    def add(self, program: Program, batch: Examples) -> None:
        if self.refined is None or self.refusal:
            return
        try:
            best = self.refined(program, batch)
        except ProgramError as error:
            self.refusal, self.gaps = str(error), []
        else:
            self.gaps.append(best.details[AMORTISATION_GAP].double().cpu())

    def mean(self) -> Part | None:
        return part_of(torch.cat(self.gaps)) if self.gaps else None


def _refuse_without_draws(program: Program, batch: Examples, point: bool) -> None:
    if point:
        raise ProgramError(
            "the guide has continuous latents at one value, so that no weights of draws say how good it is. Diagnose a "
            "guide with a density: AutoNormal, or Pair.laplace_approximation of an AutoLaplaceApproximation."
        )
    terms(program, batch)  # of a generator there is more to say
    if not random_sites(runs(program, batch)[0].guide):
        raise ProgramError(
            "the guide draws no latents, so there is nothing in it to diagnose: exact() gives log p(x) itself."
        )


def _spread(values: Tensor) -> dict[str, float | None]:
    quantiles = {"smallest": values.min(), "median": values.median(), "largest": values.max()}
    return {name: _plain(float(value)) for name, value in quantiles.items()}


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
