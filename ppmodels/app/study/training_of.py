"""How a run was trained, as its record and its metrics tell it."""

import json
import math

from inference.training.files import contents_of
from ppmodels.app.run import METRICS, Run
from ppmodels.app.study.measurement import Curve, Training

_OTHERS = {"step", "seconds", "validation"}


def training_of(run: Run) -> Training:
    """Steps, seconds and curves; of a run without a record, which failed, as far as its metrics go."""
    rows = _rows(run)
    players = {name for row in rows for name in row if name not in _OTHERS and "/" not in name}
    last = rows[-1] if rows else {"step": 0.0, "seconds": 0.0}
    validation = _curve(rows, "validation")
    return Training(
        steps=int(run.record.get("steps", last["step"])),
        seconds=float(run.record.get("seconds", last.get("seconds", 0.0))),
        parameters=int(run.record.get("parameters", 0)),
        loss={name: _curve(rows, name) for name in sorted(players)},
        validation=validation if validation.step else None,
    )


def _rows(run: Run) -> list[dict[str, float]]:
    """The metrics as they were recorded, as far as they can be read: the last line of a run that failed may be cut."""
    try:
        lines = contents_of(run.folder / METRICS).decode(errors="replace").splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int | float):
            found.append(row)
    return found


def _curve(rows: list[dict[str, float]], name: str) -> Curve:
    """A column where it is a finite number: a loss that was none is told by what is missing."""
    kept = [row for row in rows if isinstance(row.get(name), int | float) and math.isfinite(row[name])]
    return Curve([int(row["step"]) for row in kept], [float(row[name]) for row in kept])
