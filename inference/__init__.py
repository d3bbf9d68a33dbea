"""Inference for any Pyro program: bounds, objectives, one training loop, one evaluator whose numbers carry errors."""

from inference.evaluation.annealed import annealed
from inference.evaluation.calibration import Calibration, calibration
from inference.evaluation.diagnose import Diagnosis, diagnose
from inference.evaluation.estimators import Estimate, Estimator, exact, importance
from inference.evaluation.evaluate import Evaluation, evaluate
from inference.evaluation.inference_gap import InferenceGap, inference_gap
from inference.evaluation.predictive import predictive
from inference.evaluation.predictive_check import PredictiveCheck, posterior_predictive_check
from inference.evaluation.refined import refined
from inference.evaluation.sample_metrics.classifier_test import classifier_test
from inference.evaluation.sample_metrics.mmd import kid, mmd
from inference.evaluation.sample_metrics.neighbours import memorisation, neighbours
from inference.evaluation.sample_metrics.sharpness import sharpness
from inference.evaluation.sandwich import sandwich
from inference.evaluation.simulated_gap import simulated_gap
from inference.evaluation.to_arviz import to_arviz
from inference.objectives.adversarial.divergences import (
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
from inference.objectives.adversarial.objective import Adversarial
from inference.objectives.adversarial.penalties import both, gradient_penalty, r1, r2
from inference.objectives.importance_weighted import Gradient, ImportanceWeighted
from inference.objectives.objective import Objective, Player
from inference.objectives.svi import SVI
from inference.objectives.wake_sleep import WakeSleep
from inference.programs.bounds import Bound, elbo, iwae, renyi
from inference.programs.check import check
from inference.programs.pair import Pair
from inference.programs.predict import decode, posterior, predict, reconstruct, sample
from inference.programs.program import Batch, Program, ProgramError
from inference.programs.simulate import Simulated, simulated
from inference.programs.terms import Shared, Terms, log_joint, terms
from inference.training.checkpoint import Checkpoint, Rollback
from inference.training.differentiate import Compiled, Traced
from inference.training.factories import adam
from inference.training.fit import fit
from inference.training.fitted import Fitted
from inference.training.parameter_groups import parameter_groups
from inference.training.step import NonFinite, Step
from inference.training.validation import Validation

__all__ = [
    "SVI",
    "Adversarial",
    "Batch",
    "Bound",
    "Calibration",
    "Checkpoint",
    "Compiled",
    "Diagnosis",
    "Divergence",
    "Estimate",
    "Estimator",
    "Evaluation",
    "Fitted",
    "Gradient",
    "ImportanceWeighted",
    "InferenceGap",
    "NonFinite",
    "Objective",
    "Pair",
    "Player",
    "PredictiveCheck",
    "Program",
    "ProgramError",
    "Rollback",
    "Shared",
    "Simulated",
    "Step",
    "Terms",
    "Traced",
    "Validation",
    "WakeSleep",
    "adam",
    "annealed",
    "both",
    "calibration",
    "check",
    "classifier_test",
    "decode",
    "diagnose",
    "elbo",
    "evaluate",
    "exact",
    "fit",
    "gradient_penalty",
    "hellinger",
    "hinge",
    "importance",
    "inference_gap",
    "iwae",
    "jensen_shannon",
    "kid",
    "kl",
    "least_squares",
    "log_joint",
    "memorisation",
    "mmd",
    "neighbours",
    "non_saturating",
    "parameter_groups",
    "pearson",
    "plug_in_kl",
    "posterior",
    "posterior_predictive_check",
    "predict",
    "predictive",
    "r1",
    "r2",
    "reconstruct",
    "refined",
    "relativistic",
    "renyi",
    "reverse_kl",
    "sample",
    "sandwich",
    "sharpness",
    "simulated",
    "simulated_gap",
    "terms",
    "to_arviz",
    "wasserstein",
]
