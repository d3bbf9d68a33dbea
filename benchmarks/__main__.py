"""python -m benchmarks: every ratio, measured here and now; speeds of a shared machine are only comparable as ratios."""

import argparse

import torch

from benchmarks import adversarial, annealing, autoregressive, enumeration, gradients, memory, step
from benchmarks.timing import machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--examples", type=int, default=200, help="MNIST test images in the memory measurement")
    parser.add_argument(
        "--only",
        choices=("step", "enumeration", "gradients", "autoregressive", "adversarial", "annealing", "memory"),
        help="One of them; all by default.",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine(arguments.device))
    reports = {
        "step": lambda: step.report(arguments.device),
        "enumeration": lambda: enumeration.report(arguments.device),
        "gradients": gradients.report,
        "autoregressive": lambda: autoregressive.report(arguments.device),
        "adversarial": lambda: adversarial.report(arguments.device),
        "annealing": lambda: annealing.report(arguments.device),
        "memory": lambda: memory.report(arguments.examples),
    }
    for name, report in reports.items():
        if arguments.only in (None, name):
            report()


main()
