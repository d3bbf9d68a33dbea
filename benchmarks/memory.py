"""Peak memory of IWAE-5000 over MNIST's test set, in a process of its own."""

import argparse
import os
import resource
import subprocess
import sys
import time

PARTICLES = 5000


def report(examples: int) -> None:
    """Measures in a fresh process, so that nothing else counts; says so where MNIST is not at hand."""
    if not os.environ.get("PPMODELS_DATA"):
        print("peak memory of IWAE-5000: not measured, PPMODELS_DATA is not set")
        return
    subprocess.run([sys.executable, "-m", "benchmarks.memory", "--examples", str(examples)], check=True)


def main() -> None:
    import torch

    from inference import evaluate, importance
    from ppmodels import VAE
    from ppmodels.data import InOrder, load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    data = load("mnist").binarized("dynamic")
    loaded = _peak()
    batches = list(InOrder(data, "test", 100))[: -(-arguments.examples // 100)]
    began = time.perf_counter()
    evaluate(VAE(), batches, {"iwae": importance(PARTICLES)})
    seconds = time.perf_counter() - began
    print(
        f"peak memory of IWAE-{PARTICLES}, VAE 784-200-200-50, {100 * len(batches)} MNIST test images: "
        f"{_peak():.2f} GiB (of which {loaded:.2f} GiB before the first batch)   aim 1.5\n"
        f"  {seconds:.0f} s, {100 * len(batches) * PARTICLES / seconds / 1e3:.0f} thousand weights/s"
    )


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
