"""What is told of a run whose training failed: why, and what it had reached."""

import json
from pathlib import Path

from inference.training.files import contents_of
from ppmodels.app.computing import parameters_of
from ppmodels.app.experiment import device_named, prepared
from ppmodels.app.run import METRICS
from ppmodels.app.study.experiments import device_of, recipe_of
from ppmodels.app.study.measurement import FAILED, Curve, Measurement, Missing, Training
from ppmodels.app.study.protocol import Protocol, StudyModel
from ppmodels.app.terminal import printable

_BESIDE = ("step", "seconds", "validation")
"""What a row of metrics holds beside the losses, whose own details have a slash in their names."""


def failed(protocol: Protocol, out: Path, model: StudyModel, seed: int, error: Exception) -> Measurement:
    """The measurement of a run that an error ended while it was trained."""
    run = protocol.run_of(model, seed)
    lines = str(error).strip().splitlines()
    named = [type(error).__name__] if not type(error).__module__.startswith(("inference", "ppmodels")) else []
    reason = printable(": ".join([*named, *lines[:1]]))
    recipe = recipe_of(protocol, model).recipe
    program = prepared(recipe, protocol.folder, seed, device_named(device_of(protocol))).program
    none = Missing(f"the run failed: {reason}")
    return Measurement(
        model=model.name,
        family=model.family,
        seed=seed,
        run=run,
        status=FAILED,
        reason=reason,
        seconds=0.0,
        training=_reached(out / run, parameters_of(program)),
        log_likelihood=none,
        samples=none,
        sampling=none,
        codes=none,
        posterior=none,
    )


def _reached(folder: Path, parameters: int) -> Training:
    """What the metrics of a run tell; they are recorded now and then, so that some steps may have followed the last."""
    lines = contents_of(folder / METRICS).decode().splitlines() if (folder / METRICS).exists() else []
    rows = [json.loads(line) for line in lines]
    players = [name for name in (rows[0] if rows else {}) if name not in _BESIDE and "/" not in name]
    steps = max((int(row["step"]) for row in rows), default=0)
    seconds = max((float(row.get("seconds") or 0.0) for row in rows), default=0.0)
    loss = {player: _curve(rows, player) for player in players}
    validation = _curve(rows, "validation")
    return Training(steps, seconds, parameters, loss, validation if validation.step else None)


def _curve(rows: list[dict[str, float | None]], name: str) -> Curve:
    """What rows hold by a name; a number that was not finite is left out, as JSON has none."""
    points = [(int(row["step"] or 0), value) for row in rows if (value := row.get(name)) is not None]
    return Curve([step for step, _ in points], [value for _, value in points])
