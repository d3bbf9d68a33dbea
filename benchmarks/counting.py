"""python -m benchmarks.counting: AIR trained on scenes of several digits, and whether it counts them, seed by seed.

`--by` says how the count is learnt: summed; drawn, by the score function with a neural baseline; or by wake-sleep.
Seconds are of the processor, on one thread.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.by_steps import BeforeFirst, BeforeSecond, ByStep
from benchmarks.timing import machine
from inference import SVI, Objective, Step, WakeSleep, adam, elbo, evaluate, importance, posterior
from inference.programs.noise import own_noise
from ppmodels import AIR, load
from ppmodels.app.recipe import cosine
from ppmodels.data import Split

SIZES: dict[str, dict[str, int]] = {
    "multi-mnist": {"objects": 2},
    "multi-digits": {"objects": 3, "window": 8, "layer": 100},
}
BY = ("summed", "score function", "wake-sleep")


def images(split: Split, levels: int, rows: slice | Tensor) -> Tensor:
    """Canvases of 0 to 1."""
    return split.values[rows].float() / (levels - 1)


class Scenes:
    """Training scenes, 64 at a time, in an order of its own."""

    def __init__(self, split: Split, levels: int, seed: int) -> None:
        self.split, self.levels = split, levels
        self.order = torch.Generator().manual_seed(seed)

    def __call__(self) -> Tensor:
        return images(self.split, self.levels, torch.randint(len(self.split), (64,), generator=self.order))


def counts_of(program: AIR, x: Tensor, draws: int) -> Tensor:
    """Draws of the count: `(draws, batch)`."""
    found = posterior(program, x, draws)
    if isinstance(program, ByStep):
        return torch.stack([found[f"there_{t + 1}"] for t in range(program.objects)]).sum(0).long()
    return found["n"].long()


def by_argmax(program: AIR, x: Tensor, draws: int = 20) -> Tensor:
    """The most probable count under Σ_z q(z) q(n | z), by so many draws of n: `(batch,)`."""
    drawn = counts_of(program, x, draws)
    return nn.functional.one_hot(drawn, program.objects + 1).sum(0).argmax(-1)


def objective_of(by: str, program: AIR) -> Objective:
    """How the count is learnt; the draws of `ByStep` are of two objects."""
    if by == "wake-sleep":
        return WakeSleep(program, particles=5, sleep=0.5)
    if by == "score function":
        pixels, known = math.prod(program.shape), 1 + 3 + program.what
        networks = {"there_1": BeforeFirst(pixels), "there_2": BeforeSecond(pixels + known)}
        return SVI(program, baseline=nn.ModuleDict(networks))
    return SVI(program)


def step_of(by: str, program: AIR, seed: int, steps: int, learning_rate: float) -> Step:
    """A step whose rate falls to 0 after so many."""
    rate = adam(learning_rate)
    # The baseline has to find the ELBO's size, of hundreds of nats, first.
    optimizer = {"loss": rate, "baseline": adam(1e-2)} if by == "score function" else rate
    return Step(
        objective_of(by, program),
        optimizer,
        clip=100.0,
        average=0.995,
        seed=seed,
        learning_rate=lambda at: cosine(min(1.0, at / steps)),
    )


def taken(step: Step, scenes: Scenes, steps: int, said: str) -> float:
    """Takes the steps; the seconds that they took."""
    began = time.process_time()
    for at in range(steps):
        losses = step(scenes())
        if at % 500 == 499:
            seconds = time.process_time() - began
            print(
                f"  {said}, step {at + 1}, {seconds:.0f} s: bound {-float(next(iter(losses.values()))):.1f}", flush=True
            )
    return time.process_time() - began


def trained(
    name: str, by: str, seed: int, steps: int | None, minutes: float, k: float, rate: float, save: Path | None
) -> None:
    """Trains one seed, and prints what it counts and scores on the test scenes."""
    data = load(name, seed=0)
    assert data.levels is not None
    assert data.test.labels is not None
    make = AIR if by == "summed" else ByStep

    def program() -> AIR:
        torch.manual_seed(seed)
        return make(data.shape, None, k=k, explore=(steps or 2000) // 2, **SIZES[name])

    scenes = Scenes(data.train, data.levels, seed)
    if steps is None:
        trial = step_of(by, program(), seed, 1, rate)
        taken(trial, scenes, 5, "")
        steps = int(60 * minutes * 20 / taken(trial, scenes, 20, ""))
    fitted, scenes = program(), Scenes(data.train, data.levels, seed)
    step = step_of(by, fitted, seed, steps, rate)
    seconds = taken(step, scenes, steps, f"{by}, seed {seed}")
    with step.averaged():
        x = images(data.test, data.levels, slice(2000))
        report(fitted, x, data.test.labels[:2000], f"{name}, {by}, seed {seed}, {steps} steps at {rate:g}", seconds)
        if save is not None:
            save_file(fitted.state_dict(), save / f"{name}-{by.replace(' ', '-')}-{seed}-{steps}-{rate:g}.safetensors")


def report(program: AIR, x: Tensor, counts: Tensor, title: str, seconds: float) -> None:
    """Prints accuracy, the confusion matrix (rows are the true counts), and two bounds."""
    with own_noise(0):
        likeliest, drawn = by_argmax(program, x), counts_of(program, x, 1)[0]
        found = evaluate(program, x[:500], {"elbo": importance(16, elbo), "iwae": importance(100)})
    size = program.objects + 1
    confusion = torch.bincount(counts * size + likeliest, minlength=size**2).reshape(size, size).tolist()
    bounds = ", ".join(f"{name} {each.mean():.1f}" for name, each in found.log_prob.items())
    right, right_drawn = (100 * (each == counts).float().mean() for each in (likeliest, drawn))
    print(
        f"{title}: argmax {right:.2f} %, draw {right_drawn:.2f} % of {len(counts)} test scenes after {seconds:.0f} s of one "
        f"core; {bounds} nats (500 scenes); confusion {confusion}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=tuple(SIZES), default="multi-digits")
    parser.add_argument("--by", choices=BY, default="summed", help="others than the sum: two objects, multi-mnist")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, help="in place of --minutes")
    parser.add_argument("--minutes", type=float, default=2.0, help="of one core; fixes the number of steps beforehand")
    parser.add_argument("--k", type=float, default=0.01)
    parser.add_argument("--rate", type=float, default=1e-3, help="Adam's learning rate; it falls to 0")
    parser.add_argument("--save", type=Path, help="a folder for the weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine("cpu"))
    for seed in arguments.seeds:
        given = arguments
        trained(given.data, given.by, seed, given.steps, given.minutes, given.k, given.rate, given.save)


if __name__ == "__main__":
    main()
