"""python -m benchmarks: every ratio, measured here and now; speeds of a shared machine are only comparable as ratios."""

import argparse
from argparse import Namespace
from collections.abc import Callable

import torch

from benchmarks import (
    adversarial,
    air,
    annealing,
    autoregressive,
    checkpoint,
    draw,
    enumeration,
    gradients,
    memory,
    step,
)
from benchmarks.timing import machine

REPORTS: dict[str, Callable[[Namespace], None]] = {
    "step": lambda given: step.report(given.device),
    "enumeration": lambda given: enumeration.report(given.device),
    "gradients": lambda given: gradients.report(),
    "autoregressive": lambda given: autoregressive.report(given.device),
    "draw": lambda given: draw.report(given.device),
    "air": lambda given: air.report(given.device),
    "adversarial": lambda given: adversarial.report(given.device),
    "annealing": lambda given: annealing.report(given.device),
    "checkpoint": lambda given: checkpoint.report(given.device),
    "memory": lambda given: memory.report(given.examples),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--examples", type=int, default=200, help="MNIST test images in the memory measurement")
    parser.add_argument("--only", choices=[*REPORTS], help="One of them; all by default.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine(arguments.device))
    for name, report in REPORTS.items():
        if arguments.only in (None, name):
            report(arguments)


main()
