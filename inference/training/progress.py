"""Progress of a run of steps, or of told stages: a bar on a terminal, a line now and then elsewhere."""

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol, TextIO

from inference.evaluation.stages import followed_by

_UNREAD = (OSError, ValueError)
"""What writing raises where nobody reads any more: a pipe, a terminal or a file that is closed, a disk that is full."""


class Progress(Protocol):
    """Shows how far a run has come."""

    def update(self, done: int, message: str) -> None:
        """`done` steps are taken; `message` holds the latest metrics."""


@contextmanager
def shown(total: int, visible: bool = True, taken: int = 0) -> Iterator[Progress]:
    """A progress display of `total` steps, `taken` earlier, on standard error: a bar on a terminal, else plain lines.

    Where nobody reads standard error any more it falls silent; no run ends for that.
    """
    if not visible:
        yield _Silent()
    elif _on_a_terminal():
        with _bar(total, taken) as bar:
            yield bar
    else:
        yield _Lines(total, taken)


@contextmanager
def shown_stages(visible: bool = True) -> Iterator[None]:
    """A block of which standard error shows how far it has come, as far as `inference.evaluation.stages` tells."""
    if not visible:
        yield
    elif _on_a_terminal():
        with _stage_bar() as bar, followed_by(bar.update):
            yield
    else:
        with followed_by(_StageLines().update):
            yield


def tell(line: str) -> None:
    """Prints a line on standard error, where there is one that can be written to."""
    if sys.stderr is not None:
        with suppress(*_UNREAD):
            print(line, file=sys.stderr, flush=True)


def _on_a_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # it is closed
        return False


class _Unfailing(io.TextIOBase):
    """A stream whose failures to write are nobody's: a bar is drawn from a thread of its own, too."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        with suppress(*_UNREAD):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(*_UNREAD):
            self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # rich draws by it
        return self.stream.encoding


class _Silent:
    def update(self, done: int, message: str) -> None:
        pass


class _Lines:
    """A line after 1, 2, 4, … steps and then every ten seconds: enough to see that a run is alive."""

    def __init__(self, total: int, taken: int) -> None:
        self.total, self.taken, self.start = total, taken, time.perf_counter()
        self.next_step, self.last = taken + 1, self.start

    def update(self, done: int, message: str) -> None:
        now = time.perf_counter()
        if done < self.total and now - self.last < 10.0 and (done < self.next_step or now - self.start > 10.0):
            return
        self.next_step, self.last = 2 * done - self.taken, now
        rate = (done - self.taken) / max(now - self.start, 1e-9)
        left = (self.total - done) / rate
        tell(f"step {done}/{self.total}  {message}  {rate:.1f} steps/s  {left:.0f} s left")


class _StageLines:
    """A line after 1, 3, 7, … seconds and then every ten; none of what is over before."""

    def __init__(self) -> None:
        self.last, self.pause = time.perf_counter(), 1.0
        self.begun: tuple[float, float] | None = None  # when, and at which fraction: before that it gets ready

    def update(self, done: float, what: str) -> None:
        now = time.perf_counter()
        if self.begun is None and done > 0:
            self.begun = now, done
        if now - self.last < self.pause:
            return
        self.last, self.pause = now, min(2 * self.pause, 10.0)
        left = ""
        if self.begun is not None and done > self.begun[1]:
            left = f"  {(now - self.begun[0]) * (1 - done) / (done - self.begun[1]):.0f} s left"
        tell(f"{done:.0%}{f'  {what}' if what else ''}{left}")


@contextmanager
def _bar(total: int, taken: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        BarColumn(bar_width=20),  # leaves room for several losses in 80 columns
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    console = Console(file=_Unfailing(sys.stderr))  # type: ignore[arg-type]  # all that rich asks of a stream
    with RichProgress(*columns, console=console) as display:
        yield _Bar(display, display.add_task("", total=total, completed=taken, rate=""), taken)


@contextmanager
def _stage_bar() -> Iterator["_StageBar"]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    console = Console(file=_Unfailing(sys.stderr))  # type: ignore[arg-type]
    with RichProgress(*columns, console=console, transient=True) as display:
        yield _StageBar(display, display.add_task("", total=1.0))


class _StageBar:
    def __init__(self, display, task) -> None:  # type: ignore[no-untyped-def]
        self.display, self.task = display, task

    def update(self, done: float, what: str) -> None:
        self.display.update(self.task, completed=done, description=what)


class _Bar:
    def __init__(self, display, task, taken: int) -> None:  # type: ignore[no-untyped-def]  # rich is imported only on a terminal
        self.display, self.task, self.taken, self.start = display, task, taken, time.perf_counter()

    def update(self, done: int, message: str) -> None:
        rate = f"{(done - self.taken) / max(time.perf_counter() - self.start, 1e-9):.1f} steps/s"
        self.display.update(self.task, completed=done, description=message, rate=rate)
