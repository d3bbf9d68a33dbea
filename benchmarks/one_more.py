"""python -m benchmarks.one_more WEIGHTS: AIR, trained on scenes of at most two digits, is given three.

WEIGHTS are what `python -m benchmarks.counting --data multi-mnist --save FOLDER` leaves. The scenes are a test scene of two
digits upon one of one digit, where no pixel of the sum exceeds the largest.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.counting import SIZES, by_argmax, images
from inference import posterior
from inference.programs.noise import own_noise
from ppmodels import AIR, load
from ppmodels.app.plots import boxed, png


def crowds() -> Tensor:
    """Scenes of three digits, `(scenes, 1, 50, 50)`."""
    data = load("multi-mnist", seed=0)
    assert data.levels is not None
    assert data.test.labels is not None
    twos, ones = (
        images(data.test, data.levels, (data.test.labels == count).nonzero().squeeze(1)[:2000]) for count in (2, 1)
    )
    size = min(len(twos), len(ones))
    both = twos[:size] + ones[:size]
    return both[both.flatten(1).amax(1) <= 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--out", type=Path, default=Path("one-more.png"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x = crowds()
    program = AIR(tuple(x.shape[1:]), None, **{**SIZES["multi-mnist"], "objects": 3})
    program.load_state_dict(load_file(arguments.weights))
    with own_noise(0):
        counts = by_argmax(program, x)
        found = {name: value[0] for name, value in posterior(program, x[:20]).items()}
    shares = ", ".join(f"{n}: {100 * float((counts == n).float().mean()):.1f} %" for n in range(4))
    print(f"{len(x)} scenes of three digits; the likeliest count is {shares}")
    places = program.boxes(torch.stack([found[f"where_{t}"] for t in (1, 2, 3)], 1))
    there = [each[:n] for each, n in zip(places, found["n"].int().tolist(), strict=True)]
    title = "three digits, found by a guide that was trained on at most two"
    arguments.out.write_bytes(png(boxed(x[:20], there, 10, title)))


if __name__ == "__main__":
    main()
