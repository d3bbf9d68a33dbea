"""Two checkouts side by side: `python -m benchmarks.versions OTHER` times step, batches and sampling in both, in turn.

Every measurement is a process of its own on one thread, the two checkouts alternately; the ratio is this one over the other.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]

SETUP = """
import time
import pyro
import torch
torch.set_num_threads(1)
from inference import SVI, ImportanceWeighted, Step, Traced, evaluate, exact, importance
from ppmodels import VAE, GatedPixelCNN, load
from ppmodels.data import Shuffled
torch.manual_seed(0)
pyro.enable_validation(False)
data = load("digits")
x = (torch.rand(128, 1, 28, 28) > 0.5).float()
"""
MEASURES = {
    "step, small VAE, batch 16": (
        "step = Step(SVI(VAE((1, 4, 4), 2, 2))); y = x[:16, :, :4, :4].contiguous()",
        "step(y)",
        300,
    ),
    "step, MNIST VAE, batch 128": ("step = Step(SVI(VAE((1, 28, 28), 2, 50)))", "step(x)", 60),
    "step traced, MNIST VAE": ("step = Step(SVI(VAE((1, 28, 28), 2, 50)), differentiate=Traced())", "step(x)", 60),
    "step, IWAE of 5": ("step = Step(ImportanceWeighted(VAE((1, 28, 28), 2, 50), particles=5))", "step(x)", 25),
    "batches, digits": (
        "batches = Shuffled(data, batch_size=64); count = iter(range(10**9))",
        "batches(next(count))",
        3000,
    ),
    "evaluate, importance(100)": (
        "program = VAE((1, 28, 28), 2, 50)",
        "evaluate(program, x, {'iwae': importance(100)})",
        5,
    ),
    "evaluate, exact, gated PixelCNN": (
        "program = GatedPixelCNN(data.shape, data.levels, layers=2); y = data.test.values.float()",
        "evaluate(program, y, {'exact': exact()})",
        10,
    ),
    "sampling, gated PixelCNN, 16 digits": (
        "program = GatedPixelCNN(data.shape, data.levels, layers=2)",
        "program().sample((16,))",
        5,
    ),
}
"""By name: what is made first, what is timed, and how often it is done in a measurement."""


def milliseconds(checkout: Path, name: str) -> float:
    """The time of one call in a checkout, in a process of its own."""
    prepare, call, times = MEASURES[name]
    script = f"""{SETUP}
{prepare}
for _ in range(3):
    {call}
start = time.perf_counter()
for _ in range({times}):
    {call}
print((time.perf_counter() - start) / {times} * 1e3)
"""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=checkout, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def main() -> None:
    """Prints a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(f"{'':38}{'other':>10}{'this':>10}{'ratio':>8}   lowest to highest")
    for name in MEASURES:
        pairs = [(milliseconds(arguments.other, name), milliseconds(HERE, name)) for _ in range(arguments.rounds)]
        ratios = sorted(this / other for other, this in pairs)
        other, this = (statistics.median(column) for column in zip(*pairs, strict=True))
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"{name:38}{other:8.2f} ms{this:8.2f} ms{statistics.median(ratios):8.2f}   {spread}", flush=True)


if __name__ == "__main__":
    main()
