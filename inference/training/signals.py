"""Signals that wait until what is under way is done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def remembered(*numbers: signal.Signals) -> Iterator[Callable[[], signal.Signals | None]]:
    """A block in which the first of these signals is remembered, and a later one goes to the handler from before.

    The block is given a function that tells which signal came. A signal that the process ignores, as one started by
    `nohup` does, stays ignored. Outside the main thread, where Python takes no signals, nothing is changed.
    """
    came: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) for number in numbers}
    # None is a handler that was not set from Python, and could not be put back.
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}

    def remember(number: int, frame: FrameType | None) -> None:
        if came:
            signal.signal(number, before[signal.Signals(number)])
            signal.raise_signal(number)
        came.append(signal.Signals(number))

    try:
        for number in before:
            signal.signal(number, remember)
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
