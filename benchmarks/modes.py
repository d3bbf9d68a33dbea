"""python -m benchmarks.modes RECIPE… --data DATA: trains GANs with several seeds and counts the modes that they draw.

Of the ring and the grid: modes with at least 20 of 10,000 samples within three standard deviations, and the share of all
samples there. Of stacked digits: modes of 1,000 with at least one of 26,000 samples, by a classifier of single digits,
and KL(samples ‖ training set) over the modes. Of single images: classes and confidences of 10,000 samples.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.classifier import classified, trained
from inference import sample
from inference.programs.noise import own_noise
from ppmodels.app import train
from ppmodels.app.experiment import Experiment, restored
from ppmodels.app.lookup import NamedRecipe, find
from ppmodels.data import load
from ppmodels.data.simulated import GRID_SD, RING_SD, grid_modes, ring_modes


def draws(experiment: Experiment, count: int, seed: int) -> Tensor:
    """Samples of x, `(count, *shape)`; images rounded to levels."""
    with own_noise(seed):
        chunks = [experiment.data.train.values.new_zeros(1000, *experiment.data.shape).float()] * (-(-count // 1000))
        x = torch.cat([sample(experiment.program, (chunk,))["x"][0] for chunk in chunks])[:count]
    return x if experiment.data.levels is None else x.round().clamp(0, experiment.data.levels - 1)


def of_mixture(experiment: Experiment, modes: Tensor, sd: float) -> str:
    """Modes found, and the share of samples near one."""
    distance, which = torch.cdist(draws(experiment, 10_000, 1), modes).min(1)
    near = distance < 3 * sd
    found = torch.bincount(which[near], minlength=len(modes))
    return f"{int((found >= 20).sum())}/{len(modes)} modes, {float(near.float().mean()):.1%} of samples within 3 sd"


def of_stacks(folder: str | None) -> Callable[[Experiment], str]:
    """Modes of 1,000 and KL, by a classifier that is trained once."""
    classifier, accuracy = trained(load("digits", folder))
    print(f"classifier of single digits: {accuracy:.1%} of 180 test images right", flush=True)

    def score(experiment: Experiment) -> str:
        x = draws(experiment, 26_000, 1)
        parts = [classified(classifier, x[:, channel : channel + 1])[0] for channel in range(3)]
        counts = torch.bincount(100 * parts[0] + 10 * parts[1] + parts[2], minlength=1000).double()
        labels = experiment.data.train.labels
        assert labels is not None
        p, q = counts / counts.sum(), torch.bincount(labels, minlength=1000).double() / len(labels)
        kl = torch.special.xlogy(p, p / q.clamp(min=1 / len(labels))).sum()
        return f"{int((counts > 0).sum())}/1000 modes, KL {float(kl):.3f} nats"

    return score


def of_images(data: str, folder: str | None) -> Callable[[Experiment], str]:
    """Class counts and confidences, by a classifier that is trained once."""
    loaded = load(data, folder)
    classifier, accuracy = trained(loaded)
    real = classified(classifier, loaded.test.values.float())[1]
    print(
        f"classifier: {accuracy:.2%} of {len(real)} test images right; mean confidence {float(real.mean()):.3f} on them"
    )

    def score(experiment: Experiment) -> str:
        which, sure = classified(classifier, draws(experiment, 10_000, 1))
        counts = torch.bincount(which, minlength=loaded.classes).tolist()
        above = float((sure > 0.9).float().mean())
        return f"classes {counts}, mean confidence {float(sure.mean()):.3f}, above 0.9 for {above:.1%}"

    return score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE", help="GANs that are not called with labels.")
    parser.add_argument("--data", required=True, help="ring-8, grid-25, stacked-digits, or images with labels.")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", help="Where the data lie; $PPMODELS_DATA by default.")
    parser.add_argument("--out", type=Path, default=Path("runs/modes"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipes = {name: replace(find(name).recipe, data=arguments.data) for name in arguments.recipes}
    if any(recipe.labelled for recipe in recipes.values()):
        parser.error("expected recipes whose programs are not called with labels")
    score: Callable[[Experiment], str]
    if arguments.data == "ring-8":
        score = partial(of_mixture, modes=ring_modes(), sd=RING_SD)
    elif arguments.data == "grid-25":
        score = partial(of_mixture, modes=grid_modes(), sd=GRID_SD)
    else:
        stacked = arguments.data == "stacked-digits"
        score = of_stacks(arguments.folder) if stacked else of_images(arguments.data, arguments.folder)
    for name, recipe in recipes.items():
        for seed in arguments.seeds:
            run, _ = train(
                NamedRecipe(name, recipe),
                arguments.out / f"{name}-{arguments.data}-{seed}",
                arguments.folder,
                seed,
                "cpu",
                arguments.threads,
                overwrite=True,
                progress=False,
            )
            scores = score(restored(run, folder=arguments.folder, device="cpu"))
            print(
                f"{name} on {arguments.data}, seed {seed}: {scores}; {run.record['steps']} steps in "
                f"{run.record['seconds']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
