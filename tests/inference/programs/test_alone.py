"""One thread at a time: a second is refused by name, and the first goes on."""

import threading

import pytest
import torch

from inference import SVI, ProgramError, Step, evaluate, fit, importance, sample
from tests.problems import LinearGaussian

X = torch.linspace(-1.0, 1.0, 18, dtype=torch.float64).reshape(6, 3)


def test_a_second_thread_is_refused_and_the_first_goes_on() -> None:
    program = LinearGaussian()
    inside, ends, steps = threading.Event(), threading.Event(), list[int]()

    def waits(*_: object) -> None:
        inside.set()
        assert ends.wait(20)

    thread = threading.Thread(
        target=lambda: steps.append(fit(Step(SVI(program)), X, 2, callbacks=[waits], progress=False).steps),
        name="first",
    )
    thread.start()
    assert inside.wait(20)
    other = LinearGaussian()
    refused = {
        "fit": lambda: fit(Step(SVI(other)), X, 1, progress=False),
        "evaluate": lambda: evaluate(other, X, {"iwae": importance(2)}),
        "a program": lambda: sample(other, X),
    }
    try:
        for what, call in refused.items():
            with pytest.raises(ProgramError, match=rf"{what} was called while another thread is in fit \(first\)"):
                call()
    finally:
        ends.set()
        thread.join()
    assert steps == [2]
    sample(other, X)
