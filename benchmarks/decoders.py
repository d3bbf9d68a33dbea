"""python -m benchmarks.decoders --latent 10: the sandwich's gap against time, on decoders of the size of Wu et al. (2017).

A VAE with the decoder latent-1024-1024-1024-784 and one learned scale of a normal observation is trained on continuous MNIST
(levels with uniform noise, in [0, 1]). Bounds from both sides on 20 images simulated from it are taken at more and more
temperatures, on the same images each time, as long as the minutes last (arXiv 1611.04273, figure 3 and table 2).
"""

import argparse
import time

import pyro
import torch
from pyro.distributions import Normal
from torch import Tensor, nn

from benchmarks.timing import machine
from inference import SVI, Step, fit, sandwich
from inference.programs.noise import own_noise
from ppmodels import VAE
from ppmodels.data import load
from ppmodels.nn import MLP, MLPEncoder

HIDDEN = (1024, 1024, 1024)
SIMULATED = 20


class NormalDecoder(nn.Module):
    """x ~ Normal(sigmoid(network(z)), σ), one σ for all pixels."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.network = MLP((latent, *HIDDEN, 784), nn.ReLU)
        self.log_scale = nn.Parameter(torch.tensor(-2.0))

    def forward(self, z: Tensor) -> Normal:
        """The distribution of images `(1, 28, 28)`."""
        mean = self.network(z).sigmoid().unflatten(1, (1, 28, 28))
        distribution: Normal = Normal(mean, self.log_scale.exp()).to_event(3)
        return distribution


def trained(latent: int, steps: int, seed: int, folder: str | None) -> VAE:
    """The VAE after so many steps of Adam, at batches of 100."""
    torch.manual_seed(seed)
    levels = load("mnist", folder).train.values
    program = VAE(
        (1, 28, 28), None, latent, MLPEncoder((1, 28, 28), None, latent, hidden=HIDDEN), NormalDecoder(latent)
    )

    def batch(step: int) -> tuple[Tensor]:
        noise = torch.Generator().manual_seed(1_000_000 * seed + step)
        rows = levels[torch.randint(len(levels), (100,), generator=noise)]
        return ((rows + torch.rand(rows.shape, generator=noise)) / 256,)

    step = Step(SVI(program), lambda parameters: torch.optim.Adam(parameters, 1e-3))
    began = time.perf_counter()
    fit(step, batch, steps)
    print(
        f"trained: {steps} steps, {time.perf_counter() - began:.0f} s, σ = {program.decoder.log_scale.detach().exp():.4f}"
    )
    return program.eval()


def main() -> None:
    """Prints the gap at each number of temperatures, and the minutes it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latent", type=int, default=10)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--temperatures", type=int, nargs="+", default=[100, 300, 1000, 3000, 10_000])
    parser.add_argument("--minutes", type=float, default=10, help="No bounds are begun that would take longer.")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--start", choices=("guide", "prior"), default="guide")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-folder", default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(machine("cpu"))
    program = trained(arguments.latent, arguments.steps, arguments.seed, arguments.data_folder)
    x = torch.zeros(SIMULATED, 1, 28, 28)
    print(
        f"{arguments.latent} latents, start {arguments.start}, {arguments.chains} chains, {SIMULATED} simulated images"
    )
    minutes_each = 0.0  # of one temperature
    for temperatures in arguments.temperatures:
        if minutes_each * temperatures > arguments.minutes:
            break
        estimator = sandwich(temperatures, arguments.chains, arguments.start)
        began = time.perf_counter()
        with own_noise(arguments.seed), pyro.validation_enabled(False):
            found = estimator.bounds(program, x)
        minutes = (time.perf_counter() - began) / 60
        minutes_each = minutes / temperatures
        gap, error = found.gap()
        print(
            f"  {temperatures:6d} temperatures {minutes:6.2f} min   lower {float(found.lower.mean()):8.2f}   "
            f"upper {float(found.upper.mean()):8.2f}   gap {gap:.3f} ± {error:.3f}   "
            f"acceptance {float(found.acceptance.mean()):.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
