"""Random numbers as a function of the step of a run, not of what was drawn before."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from inference.programs.numbers import refuse_below

_MASK = (1 << 64) - 1


def mix(*words: int) -> int:
    """A well-mixed 63-bit seed from any number of integers (splitmix64's finaliser; Steele et al. 2014).

    Neighbouring inputs, such as two successive steps, give unrelated seeds.
    """
    state = 0
    for word in words:
        state = (state + (word & _MASK) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def reseed(seed: int) -> None:
    """Seeds torch's default generators of the CPU and of a CUDA device already in use."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed costs forty times as much
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)


@contextmanager
def own_noise(seed: int) -> Iterator[None]:
    """A block that draws its own reproducible noise and leaves the caller's generators as it found them.

    Raises ProgramError for a seed that is no whole number.
    """
    refuse_below("seed", seed, 0)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    cpu = torch.default_generator.get_state()
    cuda = [torch.cuda.get_rng_state(device) for device in devices]
    try:
        reseed(seed)
        yield
    finally:
        torch.default_generator.set_state(cpu)
        for device, state in zip(devices, cuda, strict=True):
            torch.cuda.set_rng_state(state, device)
