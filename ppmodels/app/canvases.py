"""Pictures of DRAW at work: the canvas after each step, and where the windows were."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inference import posterior, sample
from ppmodels.app import plots
from ppmodels.app.experiment import Experiment
from ppmodels.app.pictures import Pictures, attempted
from ppmodels.models import DRAW
from ppmodels.nn.attention import ReadWindow, WindowMap, WriteWindow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 8
"""How many examples are shown, or half as many beside what is read."""
COLUMNS = 16
"""How many steps are shown at most; of more, every second, third, …, and the last."""


def growing_samples(experiment: Experiment, seed: int = 0) -> Pictures:
    """canvases.png: what is painted of z from the prior, step by step; of programs other than DRAW, nothing."""
    program = experiment.program
    if not isinstance(program, DRAW):
        return Pictures()

    def make() -> dict[str, bytes]:
        z = sample(program, experiment.examples(ROWS))["z"][0]
        return {"canvases.png": plots.png(strip(program, z, "z from the prior"))}

    return attempted("canvases", seed, make)


def growing_reconstructions(experiment: Experiment, seed: int = 0) -> Pictures:
    """reading.png: test images as they are read, above the canvas, step by step; of programs other than DRAW, nothing."""
    program = experiment.program
    if not isinstance(program, DRAW):
        return Pictures()

    def make() -> dict[str, bytes]:
        batch = experiment.examples(ROWS // 2)
        z = posterior(program, batch)["z"][0]
        return {"reading.png": plots.png(strip(program, z, "z from q(z | x)", batch[0]))}

    return attempted("reading", seed, make)


@torch.no_grad()
def strip(program: DRAW, z: Tensor, title: str, x: Tensor | None = None) -> "Figure":
    """The canvases that are painted of z `(batch, glimpses, latent)`, a row for each, under the windows of writing.

    Where x is given, the examples stand above them under the windows of reading.
    """
    strokes = list(program.strokes(z))
    after = [stroke.h for stroke in strokes]
    before = [torch.zeros_like(after[0]), *after[:-1]]
    every = -(-len(strokes) // COLUMNS)
    shown = range((len(strokes) - 1) % every, len(strokes), every)
    canvases = torch.stack([program.head.expected(strokes[t].canvas) for t in shown], 1)
    written = _frames(program.write, [after[t] for t in shown])
    blocks, labels = [(canvases, written)], ["canvas"]
    if x is not None:
        read = _frames(program.read, [before[t] for t in shown])
        blocks, labels = [(x.unsqueeze(1).expand_as(canvases), read), *blocks], ["read", *labels]
    images = torch.stack([images for images, _ in blocks], 1)
    frames = [
        frame for example in zip(*(frames for _, frames in blocks), strict=True) for row in example for frame in row
    ]
    top = 1 if program.levels is None else program.levels - 1
    legend = "; frames are the windows, thicker where they blur more" if any(frames) else ""
    return plots.grid(
        (images.flatten(0, 2) / top).clamp(0, 1).cpu(),
        len(shown),
        f"{title}: after step {', '.join(str(t + 1) for t in shown)}{legend}",
        labels * len(z),
        frames,
    )


def _frames(module: object, states: Sequence[Tensor]) -> list[list[plots.Frame | None]]:
    """For each example, where its window is at each state; None where there is no window."""
    if not isinstance(module, ReadWindow | WriteWindow):
        return [[None] * len(states) for _ in range(len(states[0]))]
    return [list(each) for each in zip(*(_at(module.window, h) for h in states), strict=True)]


def _at(window_map: WindowMap, h: Tensor) -> list[plots.Frame | None]:
    window = window_map(h)
    reach = (window_map.points - 1) / 2 * window.stride
    numbers = (window.x - 1, window.y - 1, reach, window.variance.sqrt())
    return [plots.Frame(*each) for each in torch.stack(numbers, 1).tolist()]
