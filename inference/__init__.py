"""Inference for any Pyro program: bounds, objectives, one training loop, one evaluator whose numbers carry errors."""

from inference.adversarial import Adversarial
from inference.bounds import Bound, elbo, iwae, renyi
from inference.check import check
from inference.differentiate import Compiled, Traced
from inference.divergences import (
    Divergence,
    hellinger,
    hinge,
    jensen_shannon,
    kl,
    least_squares,
    non_saturating,
    pearson,
    plug_in_kl,
    relativistic,
    reverse_kl,
    wasserstein,
)
from inference.estimators import Estimate, Estimator, exact, importance
from inference.evaluate import Evaluation, evaluate
from inference.fit import Fitted, Validation, fit
from inference.importance_weighted import Gradient, ImportanceWeighted
from inference.objective import Objective, Player
from inference.penalties import both, gradient_penalty, r1, r2
from inference.predict import decode, posterior, reconstruct, sample
from inference.program import Batch, Pair, Program, ProgramError
from inference.step import NonFinite, Step, adam
from inference.svi import SVI
from inference.terms import Shared, Terms, log_joint, terms

__all__ = [
    "SVI",
    "Adversarial",
    "Batch",
    "Bound",
    "Compiled",
    "Divergence",
    "Estimate",
    "Estimator",
    "Evaluation",
    "Fitted",
    "Gradient",
    "ImportanceWeighted",
    "NonFinite",
    "Objective",
    "Pair",
    "Player",
    "Program",
    "ProgramError",
    "Shared",
    "Step",
    "Terms",
    "Traced",
    "Validation",
    "adam",
    "both",
    "check",
    "decode",
    "elbo",
    "evaluate",
    "exact",
    "fit",
    "gradient_penalty",
    "hellinger",
    "hinge",
    "importance",
    "iwae",
    "jensen_shannon",
    "kl",
    "least_squares",
    "log_joint",
    "non_saturating",
    "pearson",
    "plug_in_kl",
    "posterior",
    "r1",
    "r2",
    "reconstruct",
    "relativistic",
    "renyi",
    "reverse_kl",
    "sample",
    "terms",
    "wasserstein",
]
