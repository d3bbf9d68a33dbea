"""python -m benchmarks.counting: AIR trained on scenes of several digits, and whether it counts them, seed by seed.

Seconds are of the processor, on one thread.
"""

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.timing import machine
from inference import SVI, Step, adam, elbo, evaluate, importance, posterior
from inference.programs.noise import own_noise
from ppmodels import AIR, load
from ppmodels.app.recipe import cosine
from ppmodels.data import Split

SIZES: dict[str, dict[str, int]] = {
    "multi-mnist": {"objects": 2},
    "multi-digits": {"objects": 3, "window": 8, "layer": 100},
}


def images(split: Split, levels: int, rows: slice | Tensor) -> Tensor:
    """Canvases of 0 to 1."""
    return split.values[rows].float() / (levels - 1)


def by_argmax(program: AIR, x: Tensor, draws: int = 20) -> Tensor:
    """The most probable count under Σ_z q(z) q(n | z), by so many draws of n: `(batch,)`."""
    drawn = posterior(program, x, draws)["n"].long()
    return torch.nn.functional.one_hot(drawn, program.objects + 1).sum(0).argmax(-1)


def trained(name: str, seed: int, steps: int, k: float, save: Path | None) -> None:
    """Trains one seed, and prints what it counts and scores on the test scenes."""
    data = load(name, seed=0)
    assert data.levels is not None
    assert data.test.labels is not None
    torch.manual_seed(seed)
    program = AIR(data.shape, None, k=k, **SIZES[name])
    step = Step(
        SVI(program), adam(1e-3), clip=100.0, average=0.995, seed=seed, learning_rate=lambda at: cosine(at / steps)
    )
    order = torch.Generator().manual_seed(seed)
    began = time.process_time()
    for at in range(steps):
        rows = torch.randint(len(data.train), (64,), generator=order)
        loss = step(images(data.train, data.levels, rows))["loss"]
        if at % 500 == 499:
            print(
                f"  seed {seed}, step {at + 1}, {time.process_time() - began:.0f} s: bound {-float(loss):.1f}",
                flush=True,
            )
    seconds = time.process_time() - began
    with step.averaged():
        x = images(data.test, data.levels, slice(2000))
        report(program, x, data.test.labels[:2000], f"{name}, seed {seed}", seconds)
        if save is not None:
            save_file(program.state_dict(), save / f"{name}-{seed}-{k:g}.safetensors")


def report(program: AIR, x: Tensor, counts: Tensor, title: str, seconds: float) -> None:
    """Prints accuracy, the confusion matrix (rows are the true counts), and two bounds."""
    with own_noise(0):
        likeliest, drawn = by_argmax(program, x), posterior(program, x)["n"][0].long()
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
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--k", type=float, default=0.01)
    parser.add_argument("--save", type=Path, help="a folder for the weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine("cpu"))
    for seed in arguments.seeds:
        trained(arguments.data, seed, arguments.steps, arguments.k, arguments.save)


if __name__ == "__main__":
    main()
