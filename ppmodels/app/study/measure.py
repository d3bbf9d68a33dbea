"""Measures a finished run of a study, and the real data in the place of a run."""

from pathlib import Path

from ppmodels.app.study.measurement import Measurement, Samples
from ppmodels.app.study.protocol import Protocol, StudyModel


def measure(protocol: Protocol, out: Path, model: StudyModel, seed: int, threads: int = 1) -> Measurement:
    """Measures the run of a model and seed."""
    raise NotImplementedError


def measure_real(protocol: Protocol, out: Path) -> Samples:
    """Measures real data in the place of samples."""
    raise NotImplementedError
