"""The sample progression: samples of a program over the course of its training."""

from torch import Tensor

from inference import Step
from ppmodels.app import plots
from ppmodels.app.experiment import Experiment
from ppmodels.app.pictures import Pictures, attempted, draw_samples, in_own_units, labelled_rows, test_rows


class SampleProgression:
    """A callback of `fit` that draws samples by the same noise at several steps, and a picture of them all.

    Args:
        experiment: whose program is trained.
        seed: of the noise.
        steps: how many will be taken.
        times: how many times samples are drawn: after the first step, at the end, and more often early on.
    """

    def __init__(self, experiment: Experiment, seed: int, steps: int, times: int) -> None:
        self.experiment, self.seed = experiment, seed
        self.count = 10 if experiment.is_images else 1000
        self.due = {max(1, round(steps * (time / max(1, times - 1)) ** 2)) for time in range(times)}
        self.drawn: dict[int, Tensor] = {}
        self.failed: str | None = None

    def __call__(self, step: Step, metrics: dict[str, Tensor]) -> None:
        """Draws samples at the steps that are due. Where that fails it is tried no more, and training goes on."""
        if step.count in self.due and self.failed is None:
            try:
                with step.averaged():
                    self.drawn[step.count] = draw_samples(self.experiment, self.count, self.seed)
            except Exception as error:
                self.failed = f"no sample progression after step {step.count}: {str(error) or type(error).__name__}"

    def pictures(self) -> Pictures:
        """training.png: a row of images, or a panel of a table's first two columns, for each time."""

        def make() -> dict[str, bytes]:
            title = "the same noise after more and more steps"
            labels = [f"{step:,}" for step in self.drawn]
            if self.experiment.is_images:
                rows = list(self.drawn.values())
                return {"training.png": labelled_rows(self.experiment, rows, title, labels)}
            panels = {f"step {step:,}": in_own_units(self.experiment, values) for step, values in self.drawn.items()}
            return {"training.png": plots.png(plots.panels(test_rows(self.experiment), panels, title))}

        drawn = attempted("sample progression", self.seed, make) if self.drawn else Pictures()
        return drawn | Pictures(notes=[] if self.failed is None else [self.failed])
