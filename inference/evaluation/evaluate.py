"""Scores a program on data: per-example numbers that carry their error, their kind and what they were measured on."""

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from inference.evaluation.comparable import other_data, other_estimators
from inference.evaluation.estimators import ERROR_OF_SUM, Estimate, Estimator, Importance
from inference.evaluation.likelihood import Likelihood, likelihood_of
from inference.evaluation.passes import Data, batches_of, count_of, no_batches
from inference.evaluation.pieces import scored_at_once
from inference.evaluation.stages import one_of, shares, stage
from inference.programs.alone import alone
from inference.programs.check import check_batch, check_finite, check_values
from inference.programs.entries import Examples, leaves, rows_of
from inference.programs.held_out import held_out
from inference.programs.noise import mix, own_noise, reseed
from inference.programs.program import Program, ProgramError, evaluating
from inference.programs.sites import hides_values
from inference.programs.traces import runs
from inference.programs.units import added_to, log_jacobian_of, refuse_partial_observation
from inference.programs.values import among


@dataclass(frozen=True)
class Evaluation:
    """A program's log p(x) on a dataset by each estimator, in nats."""

    log_prob: dict[str, Tensor]
    """By estimator: `(examples,)` float64; `(1,)`, the whole dataset's, where `per_example` is false."""
    error: dict[str, Tensor]
    """The standard error of each number's own Monte Carlo noise, in the shape of `log_prob`."""
    kind: dict[str, str]
    """By estimator: exact, lower bound in expectation, …"""
    settings: dict[str, dict[str, str | int | float]]
    measured_on: dict[str, str | int]
    """The data, its split, its size, and whether the likelihood is of discrete values or a density."""
    dimensions: int | None = None
    """Values per example of the only observed site, where that is discrete."""
    per_example: bool = True
    """False where the program shares sites between examples, or has no plate that counts them."""
    without_bits: str = ""
    """Why there are no bits per dimension; empty where there are."""
    details: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """By estimator, what else it found out, such as the acceptance of its chains: float64, see `Estimate.details`."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By estimator, how long it took for all examples."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Estimators that were asked for and refuse the program, and why."""

    def mean(self, name: str) -> float:
        """The mean log-likelihood per example, in nats (the dataset's, where nothing can be had per example)."""
        return float(self._values(name).mean())

    def standard_error(self, name: str) -> float:
        """The standard error of the mean, in nats.

        Over the examples, and so with the noise of their estimates; of a dataset's single number, its noise alone.
        """
        values = self._values(name)
        if len(values) == 1:
            return float(self.error[name][0])
        return math.sqrt(float(values.var()) / len(values) + self._shared_variance(name))

    def bits_per_dim(self, name: str) -> float:
        """Minus the mean log-likelihood in bits per observed variable; only of one discrete observed site.

        Raises:
            ProgramError: the likelihood is a density, several sites are observed, values are masked, or the number is the
                dataset's.
        """
        if self.dimensions is None or not self.per_example:
            raise ProgramError(
                f"bits per dimension are of one discrete observed site, each of its values scored: here "
                f"{self.without_bits or 'that is not so'}. Quote nats."
            )
        return -self.mean(name) / (self.dimensions * math.log(2.0))

    def noise(self, name: str) -> float:
        """The part of `standard_error` that more particles would remove: the estimates' own noise, in nats."""
        values = self._values(name)
        errors = self.details.get(name, {}).get(ERROR_OF_SUM, self.error[name])
        return float(errors.norm() / len(values))

    def gap(self, name: str, other: str) -> tuple[float, float]:
        """The paired mean difference of two estimates of this evaluation, and its standard error, in nats."""
        shared = self._shared_variance(name) + self._shared_variance(other)
        return _paired(self._values(name), self._values(other), self.error[name] + self.error[other], shared)

    def difference(self, other: "Evaluation", name: str, than: str | None = None) -> tuple[float, float]:
        """The paired mean difference from another evaluation on the same examples, and its standard error, in nats.

        `than` is the other's estimate, `name` by default. Besides numbers of one kind and setting, an exact one compares
        with a lower bound; the true difference then favours the bounded program by the bound's gap, which is unknown.

        Raises:
            ProgramError: the two were measured on different data, or by estimators of different settings.
        """
        than = name if than is None else than
        different = other_data(self.measured_on, other.measured_on) or other_estimators(
            *(self.kind.get(name), self.settings.get(name, {}), other.kind.get(than), other.settings.get(than, {}))
        )
        if different:
            raise ProgramError(
                f"two numbers can be compared only where data, kind and settings agree; here they differ: {different}. "
                "Evaluate both on the same batches with the same estimators."
            )
        shared = self._shared_variance(name) + other._shared_variance(than)
        return _paired(self._values(name), other._values(than), self.error[name] + other.error[than], shared)

    def summary(self) -> dict[str, Any]:
        """The numbers as plain values, for a table or a JSON file; what is not finite or cannot be had is None."""
        return {
            "measured_on": self.measured_on,
            "dimensions": self.dimensions,
            "per_example": self.per_example,
            "estimates": {name: self._summarised(name) for name in self.log_prob},
            "left_out": self.left_out,
        }

    def _summarised(self, name: str) -> dict[str, Any]:
        return {
            "kind": self.kind[name],
            "settings": self.settings[name],
            "nats": _finite(self.mean(name)),
            "standard_error": _finite(self.standard_error(name)),
            "noise": _finite(self.noise(name)),
            "bits_per_dim": _finite(self.bits_per_dim(name)) if self.dimensions and self.per_example else None,
            "details": {key: _spread(values) for key, values in self.details.get(name, {}).items()},
        }

    def _shared_variance(self, name: str) -> float:
        """The variance of the mean by draws that examples share, which their spread does not show."""
        alone = float(self.error[name].norm() / len(self.error[name]))
        return max(self.noise(name) ** 2 - alone**2, 0.0)

    def _values(self, name: str) -> Tensor:
        if name not in self.log_prob:
            raise ProgramError(f"there is no estimate {name!r}; this evaluation has {sorted(self.log_prob)}.")
        return self.log_prob[name]


def evaluate(
    program: Program,
    batches: Data,
    estimators: Mapping[str, Estimator],
    measured_on: Mapping[str, str | int] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Scores every example of `batches` by every estimator, the program in eval mode.

    Args:
        program: the model and its guide.
        batches: the data, as one batch; as many, in a list or a loader; or as a generator function. A `description` mapping
            that they carry goes into the result, and a `log_jacobian` into every number, where their values are not in the
            data's own units: in nats per example; or per value, of which those count that a last entry says are observed.
        estimators: by the name that the results will have, such as `{"iwae": importance(1000)}`.
        measured_on: what the data are, where `batches` do not say so themselves.
        seed: of the estimators' noise; the caller's generators are left as they were.

    Raises:
        ProgramError: another thread runs a program, there is no estimator or no batch, the batch observes nothing, the
            program subsamples by itself, there are several batches and no plate that counts examples, numbers of held-out
            examples and of the dataset are asked for at once, or what the estimators raise.
    """
    _refuse_other_estimators(estimators)
    description = dict(measured_on or getattr(batches, "description", None) or {})
    shapes: set[tuple[tuple[int, ...], ...]] = set()
    masked = _Masks()
    found: dict[str, list[Estimate]] = {name: [] for name in estimators}
    seconds = dict.fromkeys(estimators, 0.0)
    with alone("evaluate"), torch.no_grad(), evaluating(program), own_noise(seed):
        stream = batches_of(batches)
        first = next(stream, None)
        if first is None:
            raise no_batches(batches)
        check_batch(program, first)
        log_jacobian = log_jacobian_of(batches)
        subject = subject_of(program, estimators, first)
        if log_jacobian is not None:
            refuse_partial_observation(subject, first, log_jacobian)
        likelihood = likelihood_of(subject, first)
        whole, start = hashlib.sha256(), 0
        count = count_of(batches) if likelihood.per_example else 1
        parts = shares([getattr(estimator, "work", 1.0) for estimator in estimators.values()])
        for index, batch in enumerate(scored_at_once(program, likelihood, chain([first], stream))):
            check_finite(batch)
            if not description:
                _add(whole, batch)
            shapes.add(tuple(tuple(tensor.shape[1:]) for tensor in leaves(batch)))
            with one_of(index, count, "batch"):
                for position, (name, estimator) in enumerate(estimators.items()):
                    reseed(mix(seed, index, position))
                    began = time.perf_counter()
                    with stage(*parts[position], name), masked, among(start):
                        estimate = _estimated(estimator, program, subject, batch)
                    numbers = len(estimate.log_prob)  # or one, of the whole dataset
                    added = 0.0 if log_jacobian is None else added_to(log_jacobian, batch, numbers)
                    found[name].append(_on_the_host(estimate, added))
                    seconds[name] += time.perf_counter() - began
            start += rows_of(batch)
    if not description:
        description = {"data": whole.hexdigest()[:12]}
    description.setdefault("likelihood", likelihood.kind)
    likelihood = _seen_in_all(likelihood, masked.sites, shapes)
    return Evaluation(
        log_prob={name: torch.cat([piece.log_prob for piece in pieces]) for name, pieces in found.items()},
        error={name: torch.cat([piece.error for piece in pieces]) for name, pieces in found.items()},
        kind={name: _kind(estimator, found[name][0], likelihood) for name, estimator in estimators.items()},
        settings={name: dict(estimator.settings) for name, estimator in estimators.items()},
        measured_on=description,
        dimensions=likelihood.dimensions,
        without_bits=likelihood.without_bits,
        per_example=likelihood.per_example,
        seconds=seconds,
        details={
            name: {key: torch.cat([piece.details[key] for piece in pieces]) for key in pieces[0].details}
            for name, pieces in found.items()
        },
    )


def _refuse_other_estimators(estimators: object) -> None:
    """Raises a ProgramError for what is no mapping of names to estimators, or has none."""
    given = estimators if isinstance(estimators, Mapping) else {}
    others = {name: each for name, each in given.items() if not (callable(each) and hasattr(each, "settings"))}
    if not given or others:
        name, came = next(iter(others.items()), ("estimators", estimators))
        raise ProgramError(f"{name}: expected estimators by name, such as {{'iwae': importance(1000)}}, got {came!r}.")


def _kind(estimator: Estimator, estimate: Estimate, likelihood: Likelihood) -> str:
    if likelihood.point and isinstance(estimator, Importance):
        return _POINT
    return estimate.kind or estimator.kind


def _on_the_host(estimate: Estimate, added: float | Tensor) -> Estimate:
    """The estimate in float64 on the CPU, in the data's own units."""
    added = added.double().cpu() if isinstance(added, Tensor) else added
    details = {name: value.double().cpu() for name, value in estimate.details.items()}
    log_prob, error = estimate.log_prob.double().cpu(), estimate.error.double().cpu()
    return Estimate(log_prob + added, error, details, estimate.kind)


def _seen_in_all(likelihood: Likelihood, masked: set[str], shapes: set[tuple[tuple[int, ...], ...]]) -> Likelihood:
    """What the first batch said of the likelihood, less the bits where a later one counts other values."""
    if likelihood.dimensions is None:
        return likelihood
    if masked:
        without_bits = f"a mask hides values of the sites {sorted(masked)} in some batch, which do not count"
    elif len(shapes) > 1:  # such as sequences of several lengths
        without_bits = f"examples have different shapes, {sorted(shapes)}"
    else:
        return likelihood
    return likelihood._replace(dimensions=None, without_bits=without_bits)


class _Masks(Messenger):
    """Collects the observed sites of which a mask hides values."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: set[str] = set()

    def _pyro_post_sample(self, message: Any) -> None:
        if message["is_observed"] and not message["infer"].get("_deterministic") and hides_values(message):
            self.sites.add(message["name"])


def subject_of(program: Program, estimators: Mapping[str, Estimator], batch: Examples) -> Program:
    """The program of which there is a number: itself; or itself at a draw of what it shares, where data are held out.

    Raises:
        ProgramError: some estimators score held-out examples, and others the data as a whole.
    """
    apart = [name for name, estimator in estimators.items() if getattr(estimator, "held_out", False)]
    if not apart:
        return program
    others = sorted(estimators.keys() - {*apart})
    if others:
        raise ProgramError(
            f"{sorted(apart)} score each example given what was learnt from others, and {others} the evidence of these "
            "data: numbers of different things. Evaluate them one by one: the evidence on the data that the program was "
            "fitted to, the predictive density on others."
        )
    return held_out(program, batch).draw()


def _estimated(estimator: Estimator, program: Program, subject: Program, batch: Examples) -> Estimate:
    """An estimate; where Pyro's own validation finds a value outside its support, the site is named.

    Raises:
        ProgramError: a site has values outside its distribution's support.
    """
    try:
        return estimator(program, batch)
    except ValueError as error:
        if not isinstance(error, ProgramError) and "within the support" in str(error):
            with pyro.validation_enabled(False):
                check_values(runs(subject, batch)[0])
        raise


def _spread(values: Tensor) -> dict[str, float | int | None]:
    """The mean of a detail over all that it is known of, and the standard error of that; None of one alone."""
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": _finite(float(values.mean())), "standard_error": _finite(error), "of": len(values)}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _paired(first: Tensor, second: Tensor, error: Tensor, shared: float) -> tuple[float, float]:
    """The mean difference and its standard error; for two single numbers, an upper bound on it from their own errors."""
    paired = first - second
    spread = math.sqrt(float(paired.var()) / len(paired) + shared) if len(paired) > 1 else float(error[0])
    return float(paired.mean()), spread


_POINT = "log joint at a point estimate, no bound"


def _add(digest: "hashlib._Hash", batch: Examples) -> None:
    """Adds a batch to the digest that names data without a description."""
    for tensor in leaves(batch):
        laid_out = tensor.cpu().clone(memory_format=torch.contiguous_format)
        digest.update(laid_out.reshape(-1).view(torch.uint8).numpy().tobytes())
