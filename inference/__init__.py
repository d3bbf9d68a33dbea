"""Inference for any Pyro program: bounds, objectives, one training loop, one evaluator whose numbers carry errors."""

from inference.bounds import Bound, elbo, iwae, renyi
from inference.check import check
from inference.differentiate import Compiled, Traced
from inference.estimators import Estimate, Estimator, exact, importance
from inference.evaluate import Evaluation, evaluate
from inference.fit import Fitted, Validation, fit
from inference.importance_weighted import Gradient, ImportanceWeighted
from inference.objective import Objective, Player
from inference.predict import decode, posterior, reconstruct, sample
from inference.program import Batch, Pair, Program, ProgramError
from inference.step import NonFinite, Step, adam
from inference.svi import SVI
from inference.terms import Shared, Terms, log_joint, terms

__all__ = [
    "SVI",
    "Batch",
    "Bound",
    "Compiled",
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
    "check",
    "decode",
    "elbo",
    "evaluate",
    "exact",
    "fit",
    "importance",
    "iwae",
    "log_joint",
    "posterior",
    "reconstruct",
    "renyi",
    "sample",
    "terms",
]
