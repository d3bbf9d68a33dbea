"""Times a model's training, in a process of its own: `python -m ppmodels.app.study.timing PLAN MODEL RESULT`."""

import json
import sys
import time
from pathlib import Path

from inference import fit
from inference.training.files import write_whole
from inference.training.validation import Best
from ppmodels.app.experiment import device_named, prepared
from ppmodels.app.fitting import step_of, validation_of
from ppmodels.app.scoring import unvalidated
from ppmodels.app.study.budget import TIMED
from ppmodels.app.study.experiments import device_of, recipe_of
from ppmodels.app.study.protocol import Protocol
from ppmodels.app.study.workers import at_work
from ppmodels.app.threads import computing_on
from ppmodels.data import Shuffled

_FIRST = 2
"""Steps that are not counted: in these, graphs are traced and compiled."""


def timed(protocol: Protocol, name: str) -> dict[str, float | None]:
    """Seconds of a step and of a score of a model, and the steps between two scores."""
    recipe = recipe_of(protocol, protocol.model(name)).recipe
    experiment = prepared(recipe, protocol.folder, 0, device_named(device_of(protocol)))
    recipe, step = experiment.recipe, step_of(experiment, 0)
    batches = Shuffled(experiment.data, batch_size=recipe.batch_size, seed=0, labelled=recipe.labelled)
    ends: list[float] = []
    with computing_on(1), unvalidated():
        fit(
            step,
            batches,
            _FIRST + TIMED,
            callbacks=[lambda step, values: ends.append(time.perf_counter())],
            progress=False,
            signals=(),
        )
        validation, began = validation_of(experiment), time.perf_counter()
        if validation is not None:
            Best(step, validation).score()
        score = time.perf_counter() - began
    return {
        "step": (ends[-1] - ends[_FIRST - 1]) / TIMED,
        "score": 0.0 if validation is None else score,
        "score_every": recipe.validate_every,
    }


def main(plan: str, name: str, result: str) -> None:
    """Times the model of that name of the plan in a file, and writes the result to another."""
    with at_work():
        protocol = Protocol.of_json(Path(plan).read_text())
        write_whole(Path(result), json.dumps(timed(protocol, name)).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
