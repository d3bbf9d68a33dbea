"""One run of a study, in a process of its own: `python -m ppmodels.app.study.worker OUT [MODEL SEED]`.

It trains the run, or goes on with it, and measures it. Without a model it measures real data in the place of samples.
A training that fails is a measurement too; what is no fault of the model (a full disk, a locked folder) ends the process.
It ends, as by SIGTERM, with the process that has started it.
"""

import sys
import traceback
from pathlib import Path

from inference.programs.execution import is_out_of_memory
from ppmodels.app.resuming import train_or_resume
from ppmodels.app.study.experiments import device_of, recipe_of
from ppmodels.app.study.folder import plan_of
from ppmodels.app.study.measure import failed, measure, measure_real
from ppmodels.app.study.protocol import Protocol, StudyModel
from ppmodels.app.study.workers import at_work
from ppmodels.app.terminal import printable


def trained_and_measured(protocol: Protocol, out: Path, model: StudyModel, seed: int) -> None:
    """Trains a run, or goes on with it, and writes its measurement."""
    folder, device = out / protocol.run_of(model, seed), device_of(protocol)
    try:
        _, notes = train_or_resume(recipe_of(protocol, model), folder, protocol.folder, seed, device, threads=1)
    except Exception as error:
        if _is_no_fault_of_the_model(error):
            raise
        traceback.print_exc()
        failed(protocol, model, seed, _reason(error), out)
        return
    for note in notes:
        print(f"note: {note}")
    measure(protocol, out, model, seed)


def _is_no_fault_of_the_model(error: Exception) -> bool:
    """Whether an error is one of the machine, or what the application refuses: a folder, data."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    refused = str(frame.f_globals.get("__name__", "")).startswith("ppmodels.app.")
    return refused or isinstance(error, OSError) or is_out_of_memory(error)


def _reason(error: Exception) -> str:
    """What went wrong, in a line; under its name, where it is no error of ours, which says all by itself."""
    first = next(iter(str(error).strip().splitlines()), "")
    kind = type(error)
    ours = kind.__module__.startswith(("inference.", "ppmodels.")) and first
    return printable(first if ours else f"{kind.__name__}: {first}".removesuffix(": "))


def main(folder: str, name: str | None = None, seed: str = "0") -> None:
    """One run of the study in a folder, or its row of real data."""
    with at_work():
        out = Path(folder)
        protocol = plan_of(out)
        if name is None:
            measure_real(protocol, out)
        else:
            trained_and_measured(protocol, out, protocol.model(name), int(seed))


if __name__ == "__main__":
    main(*sys.argv[1:])
