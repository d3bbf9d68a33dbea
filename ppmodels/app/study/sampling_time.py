"""What a sample costs: seconds alone and among a hundred, and how many passes of the network wait for one another."""

import statistics
import time
from collections.abc import Callable

import torch

from inference import sample
from inference.programs.noise import mix, own_noise
from ppmodels.app.experiment import Experiment
from ppmodels.app.study.drawing import context
from ppmodels.app.study.measurement import Sampling
from ppmodels.app.study.passes import sequential_passes

REPEATS, ENOUGH = 9, 2.0
"""How often a batch is timed at most, and after how many seconds no more."""


def sampling_time(experiment: Experiment, seed: int = 0) -> Sampling:
    """The median time of an image, draws of x, at batch 1 and at batch 100, and the sequential passes of one."""
    if not experiment.likelihood.per_example:
        raise ValueError("all examples share latents, so that none is drawn by itself")

    def drawing(count: int) -> Callable[[], object]:
        batch = context(experiment, count).rows
        return lambda: sample(experiment.program, batch)

    with own_noise(mix(seed, 7)):
        passes = sequential_passes(experiment.program, drawing(1))
        return Sampling(_median(experiment, drawing(1)), _median(experiment, drawing(100)) / 100, max(1, passes))


def _median(experiment: Experiment, draw: Callable[[], object]) -> float:
    seconds = list[float]()
    while len(seconds) < REPEATS and sum(seconds) < ENOUGH:
        began = time.perf_counter()
        draw()
        if experiment.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:] or seconds)  # the first one warms up
