"""What an evaluation leaves in a run folder: numbers, the scores of every example, a figure of bounds and their cost."""

import csv
import io
import warnings
from collections.abc import Mapping
from typing import Any

from inference import Evaluation
from ppmodels.app import plots
from ppmodels.app.files import write_whole
from ppmodels.app.pictures import Pictures, attempted
from ppmodels.app.run import Run


def write_scores(run: Run, result: Evaluation, about: Mapping[str, Any], ending: str) -> None:
    """Writes evaluation.json, scores.csv and bounds.png, named with an ending; what can not be is told by a warning."""
    figure = Pictures()
    if len(result.log_prob) > 1:
        figure = attempted("figure of bounds", 0, lambda: {f"bounds{ending}.png": plots.png(plots.bounds(result))})
    for note in figure.notes:
        warnings.warn(note, stacklevel=3)
    try:
        run.write_json(f"evaluation{ending}.json", {**result.summary(), **about})
        if result.per_example:
            write_whole(run.folder / f"scores{ending}.csv", _table(result).encode())
        figure.write(run.folder)
    except OSError as error:
        warnings.warn(f"{error.filename} could not be written: {error.strerror}", stacklevel=3)


def _table(result: Evaluation) -> str:
    """One row for each example: nats and error by estimator, and the acceptance of its chains."""
    columns: dict[str, list[float]] = {}
    for name, values in result.log_prob.items():
        columns[name] = values.tolist()
        columns[f"{name} error"] = result.error[name].tolist()
        if (acceptance := result.details[name].get("acceptance")) is not None:
            columns[f"{name} acceptance"] = acceptance.tolist()
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["example", *columns])
    writer.writerows([place, *row] for place, row in enumerate(zip(*columns.values(), strict=True)))
    return buffer.getvalue()
