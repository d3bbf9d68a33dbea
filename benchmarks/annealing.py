"""Hamiltonian transitions of annealed importance sampling, beside Pyro's kernel and a loop by hand; memory by chains."""

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable

import pyro
import torch
from pyro.infer.mcmc import HMC
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.timing import interleaved, milliseconds, ratio
from inference import annealed, evaluate
from inference.evaluation.annealing_path import AnnealingPath
from inference.evaluation.hamiltonian import transition
from ppmodels import VAE

IMAGES, CHAINS, LEAPFROG, STEP = 100, 16, 10, 0.05
MEMORY_IMAGES = 10
PYROS = "Pyro's HMC, one chain"


def report(device: str) -> None:
    """Prints what a transition costs for a chain, and the ratios."""
    torch.manual_seed(0)
    program = VAE(shape=(1, 28, 28)).to(device).eval()
    x = torch.randint(0, 2, (IMAGES, 1, 28, 28), device=device).float()
    with pyro.validation_enabled(False):
        path = AnnealingPath(program, x, "prior")
        here = path.draw(CHAINS)
        half, step = torch.tensor(0.5, device=device), torch.full((IMAGES,), STEP, device=device)
        kernel, one = _pyros(program, x[:1])
        by_hand = _by_hand(program, x)
        z = torch.randn(CHAINS * IMAGES, here.rows.shape[-1], device=device)
        things = {
            "ours": lambda: transition(path, here, half, step, LEAPFROG),
            "by hand": lambda: by_hand(z),
            PYROS: lambda: kernel.sample(one),
        }
        times = interleaved(things, rounds=15, calls=1)
    each = [seconds / (IMAGES * CHAINS) for seconds in times["ours"]]
    print(f"Transitions of {LEAPFROG} leapfrog steps, VAE 784-200-200-50, {IMAGES} images × {CHAINS} chains")
    for name, found in times.items():
        print(f"  {name:24} {milliseconds(found)}")
    print(f"  ours / by hand: {ratio(times['ours'], times['by hand'])}   aim 1.25")
    print(f"  Pyro's / ours, a transition and chain: {ratio(times[PYROS], each)}   aim 30")
    print(f"Peak memory of annealed(3, chains), {MEMORY_IMAGES} images, each in a process of its own")
    for chains in (10, 100, 1000, 10_000):
        subprocess.run([sys.executable, "-m", "benchmarks.annealing", "--chains", str(chains)], check=True)


def _by_hand(program: VAE, x: Tensor) -> Callable[[Tensor], Tensor]:
    """The same transition at β = 1/2 as one writes it for this decoder alone."""
    flat = x.flatten(1).repeat(CHAINS, 1)

    def energy(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            logits = program.decoder(z).base_dist.logits.flatten(1)
            likelihood = -binary_cross_entropy_with_logits(logits, flat, reduction="none").sum(1)
            log_density = 0.5 * likelihood - 0.5 * z.square().sum(1)
            (gradient,) = torch.autograd.grad(log_density.sum(), z)
        return log_density.detach(), gradient

    def moved(z: Tensor) -> Tensor:
        log_density, gradient = energy(z)
        momentum = torch.randn_like(z)
        before = log_density - 0.5 * momentum.square().sum(1)
        there, momentum = z, momentum + 0.5 * STEP * gradient
        for number in range(LEAPFROG):
            there = there + STEP * momentum
            log_density, gradient = energy(there)
            momentum = momentum + (STEP if number < LEAPFROG - 1 else 0.5 * STEP) * gradient
        accepted = torch.rand_like(before).log() < log_density - 0.5 * momentum.square().sum(1) - before
        return torch.where(accepted.unsqueeze(1), there, z)

    return moved


def _pyros(program: VAE, x: Tensor) -> tuple[HMC, dict[str, Tensor]]:
    """Pyro's kernel on the same potential for one chain of one image, its adaptation off."""

    def potential(values: dict[str, Tensor]) -> Tensor:
        z = values["z"]
        likelihood: Tensor = program.decoder(z).log_prob(x).sum()
        return -(0.5 * likelihood - 0.5 * z.square().sum())

    kernel = HMC(
        potential_fn=potential,
        step_size=STEP,
        num_steps=LEAPFROG,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    initial = {"z": torch.randn(1, program.latent, device=x.device)}
    kernel.initial_params = initial
    kernel.setup(0)
    return kernel, initial


def main() -> None:
    """Prints the peak memory of so many chains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, required=True)
    chains = parser.parse_args().chains
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randint(0, 2, (MEMORY_IMAGES, 1, 28, 28)).float()
    evaluate(VAE(shape=(1, 28, 28)), x, {"annealed": annealed(3, chains, leapfrog=1)})
    print(f"  {chains:6d} chains {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
