"""A small program and what is done with it, for faults in Python."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference import SVI, Checkpoint, Step, Validation, evaluate, fit, importance


class Small(nn.Module):
    """x ~ N(z + mean, 1) of two columns, z ~ N(0, 1)."""

    def __init__(self, *data: object) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(2))
        self.guess = nn.Parameter(torch.zeros(2))

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(z + self.mean, 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.guess * x, 1.0).to_event(1))


def rows(number: int = 8) -> Tensor:
    return torch.linspace(-1.0, 1.0, 2 * number).reshape(number, 2)


def step(**settings: Any) -> Step:
    return Step(SVI(Small()), **settings)


def fitted(steps: Any = 3, taken: Step | None = None, batches: Any = None, **settings: Any) -> object:
    """A `fit` of the small program."""
    return fit(taken or step(), rows() if batches is None else batches, steps, progress=False, **settings)


def scored(batches: Any = None, estimators: Any = None, **settings: Any) -> object:
    """An `evaluate` of the small program."""
    return evaluate(Small(), rows() if batches is None else batches, estimators or {"iwae": importance(2)}, **settings)


def beside_a_fit(mine: Callable[[], object]) -> None:
    """Does it while another thread is in the middle of a `fit`."""
    inside, ends = threading.Event(), threading.Event()

    def waits(*_: object) -> None:
        inside.set()
        ends.wait(30)

    thread = threading.Thread(target=lambda: fitted(2, callbacks=[waits]))
    thread.start()
    inside.wait(30)
    try:
        mine()
    finally:
        ends.set()
        thread.join()


def nan_rows() -> Tensor:
    x = rows()
    x[3, 1] = float("nan")
    return x


def validated(**settings: Any) -> object:
    return fitted(2, validation=Validation(**{"batches": rows(), **settings}))


def kept(folder: str, **settings: Any) -> object:
    return fitted(2, checkpoint=Checkpoint(folder, **settings))


def objects() -> np.ndarray:
    return np.array([object()] * 8)
