"""What is measured of a run of a study."""

import json
import time
from dataclasses import asdict
from pathlib import Path

from inference.training.files import write_whole
from ppmodels.app.evaluation import evaluate
from ppmodels.app.run import Run
from ppmodels.app.study.experiments import device_of
from ppmodels.app.study.folder import MEASURED, REAL, measured
from ppmodels.app.study.measurement import FAILED, FINISHED, LogLikelihood, Measurement, Missing, Samples, Training
from ppmodels.app.study.protocol import Protocol, StudyModel

_NOT = Missing("not measured")


def measure(protocol: Protocol, out: Path, model: StudyModel, seed: int, threads: int = 1) -> Measurement:
    """Measures a finished run of a study, and writes its file."""
    began = time.perf_counter()
    run = Run.open(out / protocol.run_of(model, seed))
    result = evaluate(run, limit=len(protocol.examples), device=device_of(protocol), threads=threads, progress=False)
    best = list(result.kind)[-1]
    found = Measurement(
        model=model.name,
        family=model.family,
        seed=seed,
        run=protocol.run_of(model, seed),
        status=FINISHED,
        reason="",
        seconds=time.perf_counter() - began,
        training=Training(run.record["steps"], run.record["seconds"], run.record["parameters"], {}, None),
        log_likelihood=LogLikelihood(
            kind=result.kind[best],
            estimator=best,
            nats=result.mean(best),
            standard_error=result.standard_error(best),
            bits_per_dim=None,
            per_example=result.log_prob[best].tolist(),
            gap=None,
            note="",
        ),
        samples=_NOT,
        sampling=_NOT,
        codes=_NOT,
        posterior=_NOT,
    )
    write_whole(measured(out, protocol, model, seed), found.as_json().encode())
    return found


def failed(protocol: Protocol, model: StudyModel, seed: int, reason: str, out: Path) -> Measurement:
    """The measurement of a run that failed, and its file."""
    found = Measurement(
        model=model.name,
        family=model.family,
        seed=seed,
        run=protocol.run_of(model, seed),
        status=FAILED,
        reason=reason,
        seconds=0.0,
        training=Training(0, 0.0, 0, {}, None),
        log_likelihood=_NOT,
        samples=_NOT,
        sampling=_NOT,
        codes=_NOT,
        posterior=_NOT,
    )
    write_whole(measured(out, protocol, model, seed), found.as_json().encode())
    return found


def measure_real(protocol: Protocol, out: Path) -> Samples:
    """Measures real data in the place of samples, and writes their file."""
    found = Samples(
        samples=0,
        reference="",
        features="",
        kid=_NOT,
        mmd=_NOT,
        classifier=_NOT,
        detectable=None,
        precision=_NOT,
        recall=_NOT,
        density=_NOT,
        coverage=_NOT,
        memorisation=_NOT,
        sharpness=_NOT,
        sharpness_of_means=_NOT,
    )
    write_whole(out / MEASURED / REAL, json.dumps(asdict(found)).encode())
    return found
