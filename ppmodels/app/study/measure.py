"""Measures a finished run of a study, and the real data in the place of a run."""

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from inference.programs.noise import own_noise
from inference.training.files import write_together
from ppmodels.app.experiment import Experiment, restored
from ppmodels.app.run import Run
from ppmodels.app.study.arrays import Arrays, arrays_of, of_data, packed
from ppmodels.app.study.drawing import Drawn, drawn
from ppmodels.app.study.features import Features, features_of
from ppmodels.app.study.folder import DATA, MEASURED, REAL
from ppmodels.app.study.likelihood import log_likelihood
from ppmodels.app.study.measurement import FAILED, FINISHED, Measurement, Missing, Samples, as_text
from ppmodels.app.study.missing import found_or_missing
from ppmodels.app.study.posterior_checks import posterior_checks
from ppmodels.app.study.probe import codes
from ppmodels.app.study.protocol import Protocol, StudyModel
from ppmodels.app.study.samples import Compared, compared, real_against_real
from ppmodels.app.study.sampling_time import sampling_time
from ppmodels.app.study.settled import held_out_rows, settled
from ppmodels.app.study.training_of import training_of
from ppmodels.app.threads import computing_on
from ppmodels.data import Dataset

SEED = 0
"""Of all noise of measuring: runs differ by what was trained, and not by what they were measured with."""


def measure(protocol: Protocol, out: Path, model: StudyModel, seed: int, threads: int = 1) -> Measurement:
    """Measures the finished run of a model and seed; writes measured/MODEL-SEED.json and .npz, and returns the first.

    Raises FileNotFoundError or ValueError where run, data or recipe are not there or not the run's own.
    """
    began = time.perf_counter()
    folder = _measured(out)
    run = Run.open(out / protocol.run_of(model, seed))
    notes: list[str] = []
    with computing_on(threads), _told(notes), own_noise(SEED):
        trained = restored(run, device="cpu" if protocol.device == "cpu" else "auto")
        experiment = replace(trained, data=settled(trained.data))
        data = experiment.data.to("cpu")
        likelihood = found_or_missing(lambda: log_likelihood(run, trained, protocol.examples))
        made = found_or_missing(lambda: _samples(experiment, data, folder))
        sampling = found_or_missing(lambda: sampling_time(experiment, SEED))
        read = found_or_missing(lambda: codes(experiment, SEED))
        posterior = found_or_missing(lambda: posterior_checks(experiment, protocol.examples, SEED))
        arrays: Arrays = {}
        if not isinstance(made, Missing):
            arrays = arrays_of(experiment, made[0].samples, made[1], SEED)
            notes += made[1].notes
    found = Measurement(
        model=model.name,
        family=model.family,
        seed=seed,
        run=protocol.run_of(model, seed),
        status=FINISHED,
        reason="",
        seconds=time.perf_counter() - began,
        training=training_of(run),
        log_likelihood=likelihood,
        samples=made if isinstance(made, Missing) else made[1].metrics,
        sampling=sampling,
        codes=read,
        posterior=posterior,
        collapsed=not isinstance(made, Missing) and made[1].collapsed,
        notes=list(dict.fromkeys(notes)),
    )
    name = protocol.name_of(model, seed)
    write_together(folder, {f"{name}.json": found.as_json().encode(), f"{name}.npz": packed(arrays)})
    return found


def measure_real(protocol: Protocol, out: Path) -> Samples:
    """Training rows in the place of samples, beside the same held-out ones; writes measured/real.json and data.npz.

    The data are those of the first of the study's runs. Raises FileNotFoundError where there is none yet.
    """
    folder = _measured(out)
    data = settled(_data_of_runs(protocol, out)).to("cpu")
    with computing_on(1), own_noise(SEED):
        found = real_against_real(data, features_of(data, folder))
    write_together(folder, {REAL: as_text(found).encode(), DATA: packed(of_data(data))})
    return found


def failed(protocol: Protocol, model: StudyModel, seed: int, reason: str, out: Path) -> Measurement:
    """The measurement of a run that failed: its training as far as it is recorded, and the reason in all other places.

    It is written where that of a finished run would be.
    """
    none = Missing(f"the run failed: {reason}")
    name = protocol.run_of(model, seed)
    begun = Run.begun(out / name)
    known = {} if begun is None else {"parameters": begun.record.get("parameters", 0)}
    found = Measurement(
        model=model.name,
        family=model.family,
        seed=seed,
        run=name,
        status=FAILED,
        reason=reason,
        seconds=0.0,
        training=training_of(Run(out / name, known)),
        log_likelihood=none,
        samples=none,
        sampling=none,
        codes=none,
        posterior=none,
    )
    base = protocol.name_of(model, seed)
    write_together(_measured(out), {f"{base}.json": found.as_json().encode(), f"{base}.npz": None})
    return found


def _measured(out: Path) -> Path:
    folder = out / MEASURED
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _samples(experiment: Experiment, data: Dataset, folder: Path) -> tuple[Drawn, Compared]:
    """As many draws as there are held-out examples to compare them with, and their metrics."""
    features: Features = features_of(data, folder)
    made = drawn(experiment, len(held_out_rows(data)), SEED)
    return made, compared(made, data, features)


def _data_of_runs(protocol: Protocol, out: Path) -> Dataset:
    """The data as the first run of the study that is there reads them."""
    for model in protocol.models:
        for seed in protocol.seeds:
            try:
                run = Run.open(out / protocol.run_of(model, seed))
            except FileNotFoundError:
                continue
            return restored(run, device="cpu").data
    raise FileNotFoundError(f"{out / 'runs'} holds no finished run of the study, whose data could be measured")


@contextmanager
def _told(notes: list[str]) -> Iterator[None]:
    """A block whose warnings to a user become notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    notes += [str(each.message) for each in caught if each.category is UserWarning]
