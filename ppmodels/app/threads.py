"""How many threads torch computes with: a rule of the model's size and device, and a block that keeps to it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

MOST = 1024
"""More threads than any machine has cores for."""
LARGE = 1_000_000_000
"""Parameters times rows of a step from which on torch's own number of threads is taken.

Threads wait for one another at the end of every operation, and where a core is shared one of them is always late. On two
cores beside other work, steps on two threads took 4 to 50 times as long as on one (medians, in turn with one another): of
VAEs with 20 to 745 million by this measure, a convolutional VAE, a gated PixelCNN, a Diagonal BiLSTM and a Row LSTM. On
idle cores the convolutional VAE of Fashion-MNIST gained 1.45 by the second thread, the VAE of the digits nothing.
"""


def suitable(parameters: int, rows: int, device: torch.device) -> int:
    """How many threads suit a model of so many parameters that is run on so many rows, examples × particles, at once.

    One where the step is small, or where a GPU does the work; else as many as torch has been given.
    """
    small = parameters * rows < LARGE
    return 1 if small or device.type != "cpu" else torch.get_num_threads()


@contextmanager
def computing_on(threads: int) -> Iterator[None]:
    """A block in which torch computes with so many threads; the previous number is restored.

    Raises ValueError for less than one, and for more than any machine has, with which torch ends the process.
    """
    if not 1 <= threads <= MOST:
        raise ValueError(f"threads: expected at least 1 and at most {MOST}, got {threads}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
