"""What an evaluation leaves in a run folder: numbers, the scores of every example, a figure of bounds and their cost."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from inference import Evaluation
from ppmodels.app import plots
from ppmodels.app.pictures import Files
from ppmodels.app.results import figure, write_results
from ppmodels.app.run import Run, as_json
from ppmodels.app.scoring import gap_of


def write_scores(run: Run, result: Evaluation, about: Mapping[str, Any], split: str, rows: Sequence[int]) -> None:
    """Writes evaluation.json, scores.csv and bounds.png (-SPLIT for other splits than test) in the place of earlier ones.

    Scores are written where each example has its own, and bounds where there are several. What can not be written is told
    by a warning. `rows` are the places of the examples in the split.
    """
    ending = "" if split == "test" else f"-{split}"
    bounds: Files = {f"bounds{ending}.png": None}
    if len(result.log_prob) > 1:
        bounds = figure(f"bounds{ending}.png", lambda: plots.bounds(result))
    gap = gap_of(result)
    numbers = as_json({**result.summary(), "inference_gap": gap and gap.summary(), **about})
    table = _table(result, rows).encode() if result.per_example else None
    write_results(run, {f"evaluation{ending}.json": numbers, f"scores{ending}.csv": table, **bounds})


def _table(result: Evaluation, rows: Sequence[int]) -> str:
    """One line for each example: its row in the split, nats and error by estimator, and the acceptance of its chains."""
    columns: dict[str, list[float]] = {}
    for name, values in result.log_prob.items():
        columns[name] = values.tolist()
        columns[f"{name} error"] = result.error[name].tolist()
        if (acceptance := result.details[name].get("acceptance")) is not None:
            columns[f"{name} acceptance"] = acceptance.tolist()
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["example", *columns])
    writer.writerows(zip(rows, *columns.values(), strict=True))
    return buffer.getvalue()
