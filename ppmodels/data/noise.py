"""Randomness of the data layer: seeds as a function of what they are for, and Bernoulli draws of grey levels."""

import torch
from torch import Tensor

# One stream per purpose, so that equal seeds never make an order and a draw share their numbers.
ORDER, TRAINING_DRAW, FIXED_DRAW, PARTITION, SIMULATED = range(5)

_MASK = (1 << 64) - 1
_BLOCK = 1 << 20  # values drawn at once by `fixed_draw`: bounds the float noise in memory


def mix(*words: int) -> int:
    """A 64-bit hash of integers (the finaliser of SplitMix64: Steele, Lea and Flood, 2014), to seed a generator."""
    state = 0
    for word in words:
        state = ((state ^ (word & _MASK)) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state


def bernoulli(levels: Tensor, top: int, generator: torch.Generator) -> Tensor:
    """A draw of Bernoulli(levels / top) as float 0./1., shape of `levels`; level 0 is never on and `top` always."""
    # `rand < x` costs 0.4 of torch.bernoulli. The noise stays below `top` after rounding, so `top` is always on.
    return torch.rand(levels.shape, generator=generator, device=levels.device).mul_(top).lt_(levels)


def fixed_draw(levels: Tensor, top: int, seed: int) -> Tensor:
    """One Bernoulli(levels / top) draw as uint8 0/1, a function of the seed and of each value's position.

    Drawn on the CPU whatever the device of `levels`, so that a number does not depend on where it is measured.
    """
    generator = torch.Generator().manual_seed(seed)
    flat = levels.cpu().flatten()
    drawn = [bernoulli(block, top, generator).to(torch.uint8) for block in flat.split(_BLOCK)]
    return torch.cat(drawn).view(levels.shape).to(levels.device)
