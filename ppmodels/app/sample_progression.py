"""The sample progression: samples of a program over the course of its training."""

from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from inference import Step
from inference.training.files import contents_of, write_whole
from ppmodels.app import plots
from ppmodels.app.drawn import in_own_units
from ppmodels.app.experiment import Experiment
from ppmodels.app.pictures import Pictures, attempted, draw_samples, labelled_rows, test_rows


class SampleProgression:
    """A callback of `fit` that draws samples by the same noise at several steps, and a picture of them all.

    Args:
        experiment: whose program is trained.
        seed: of the noise.
        steps: how many will be taken.
        times: how many times samples are drawn: after the first step, at the end, and more often early on.
        path: where they are kept for a run that goes on; those that are there are of its earlier steps.
    """

    def __init__(self, experiment: Experiment, seed: int, steps: int, times: int, path: Path) -> None:
        self.experiment, self.seed, self.path = experiment, seed, path
        self.count = 10 if experiment.is_images else 1000
        self.due = {max(1, round(steps * (time / max(1, times - 1)) ** 2)) for time in range(times)}
        self.drawn = _kept(path)
        self.failed: str | None = None

    def __call__(self, step: Step, metrics: dict[str, Tensor]) -> None:
        """Draws samples at the steps that are due. Where that fails it is tried no more, and training goes on."""
        if step.count in self.due and self.failed is None:
            try:
                with step.averaged():
                    self.drawn[step.count] = draw_samples(self.experiment, self.count, self.seed)
                kept = {str(count): drawn.cpu().contiguous() for count, drawn in self.drawn.items()}
                write_whole(self.path, safetensors.torch.save(kept))
            except Exception as error:
                self.failed = f"no sample progression after step {step.count}: {str(error) or type(error).__name__}"

    def pictures(self) -> Pictures:
        """training.png: a row of images, or a panel of a table's first two columns, for each time."""

        def make() -> dict[str, bytes]:
            title, drawn = "the same noise after more and more steps", dict(sorted(self.drawn.items()))
            labels = [f"{step:,}" for step in drawn]
            if self.experiment.is_images:
                rows = list(drawn.values())
                return {"training.png": labelled_rows(self.experiment, rows, title, labels)}
            panels = {f"step {step:,}": in_own_units(self.experiment, values) for step, values in drawn.items()}
            return {"training.png": plots.png(plots.panels(test_rows(self.experiment), panels, title))}

        drawn = attempted("sample progression", self.seed, make) if self.drawn else Pictures()
        return drawn | Pictures(notes=[] if self.failed is None else [self.failed])


def _kept(path: Path) -> dict[int, Tensor]:
    """The samples in a file, by step; none where it is missing or damaged, as they are only looked at."""
    try:
        return {int(step): values for step, values in safetensors.torch.load(contents_of(path)).items()}
    except (OSError, ValueError, SafetensorError):
        return {}
