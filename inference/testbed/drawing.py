"""Data that a program of the testbed draws."""

from torch import Tensor

from inference.programs.noise import own_noise
from inference.programs.program import Program
from inference.programs.simulate import simulated


def drawn(program: Program, like: Tensor, seed: int) -> Tensor:
    """A batch of the shape and dtype of `like`, drawn from the program's model by noise of its own."""
    with own_noise(seed):
        (x,) = simulated(program, like).batch
    assert isinstance(x, Tensor)
    return x
