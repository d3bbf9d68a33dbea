"""What may come between a run and its end: signals, readers that leave, and disks that are full."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import Tensor, nn

from inference import SVI, Step, Validation, elbo, fit, importance
from inference.training.progress import tell
from inference.training.signals import remembered
from tests.problems import LinearGaussian

X = LinearGaussian.data(64)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

ROOT = Path(__file__).parents[3]


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture(params=[signal.SIG_IGN, "a handler"])
def handler(request: pytest.FixtureRequest) -> Iterator[object]:
    """What SIGTERM does outside of the block."""
    came: list[int] = []
    chosen = (lambda number, frame: came.append(number)) if request.param == "a handler" else request.param
    before = signal.signal(signal.SIGTERM, chosen)
    yield came if request.param == "a handler" else None
    signal.signal(signal.SIGTERM, before)


def test_the_first_signal_is_remembered_and_the_second_goes_where_it_went(handler: list[int] | None) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with remembered(signal.SIGTERM) as came:
        assert came() is None
        send(signal.SIGTERM)
        assert came() is (None if handler is None else signal.SIGTERM)  # what is ignored stays ignored
        assert not handler
        send(signal.SIGTERM)
        assert handler in (None, [signal.SIGTERM])
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_of_another_kind_acts_at_once() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with remembered(signal.SIGINT, signal.SIGTERM) as came:
        send(signal.SIGTERM)
        assert came() is signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_saves_inside_is_not_ended_by_the_second() -> None:
    with remembered(signal.SIGINT) as came:
        send(signal.SIGINT)
        with remembered(signal.SIGINT) as again:
            send(signal.SIGINT)
            assert again() is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert came() is signal.SIGINT


def test_outside_the_main_thread_no_signal_is_taken() -> None:
    found: list[object] = []

    def work() -> None:
        with remembered(signal.SIGINT) as came:
            found.extend((came(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None, signal.getsignal(signal.SIGINT)]


def test_fit_takes_the_signals_that_it_is_given_and_no_other() -> None:
    taken: dict[int, bool] = {}
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def look(step: Step, values: dict[str, Tensor]) -> None:
        taken.update({number: signal.getsignal(number) is not handler for number, handler in before.items()})

    fit(Step(SVI(LinearGaussian())), X, 1, callbacks=[look], progress=False)
    assert taken == {signal.SIGINT: True, signal.SIGTERM: False, signal.SIGHUP: False}
    fit(Step(SVI(LinearGaussian())), X, 1, callbacks=[look], progress=False, signals=())
    assert not any(taken.values())
    found = fit(
        Step(SVI(LinearGaussian())),
        X,
        9,
        callbacks=[lambda step, _: send(signal.SIGTERM)],
        progress=False,
        signals=[signal.SIGTERM],
    )
    assert (found.steps, found.stopped) == (1, "interrupted")


def test_a_full_disk_ends_the_metrics_and_not_the_run() -> None:
    with pytest.warns(UserWarning, match="/dev/full: no more metrics are written, and training goes on: No space left"):
        found = fit(Step(SVI(LinearGaussian())), X, 3, metrics="/dev/full", record_every=1, progress=False)
    assert found.steps == len(found.history) == 3


def test_metrics_hold_whole_lines(tmp_path: Path) -> None:
    """A limit on the size of files ends a line in its middle, as a full disk does."""
    script = """
import resource, sys, warnings
from inference import SVI, Step, fit
from tests.problems import LinearGaussian
resource.setrlimit(resource.RLIMIT_FSIZE, (250, 250))
warnings.simplefilter("ignore")
fit(Step(SVI(LinearGaussian())), LinearGaussian.data(64), 9, metrics=sys.argv[1], record_every=1, progress=False)
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "metrics.jsonl"], cwd=ROOT, check=True, timeout=60)
    written = (tmp_path / "metrics.jsonl").read_text()
    assert 0 < written.count("\n") < 9
    assert written.endswith("}\n")


class _Fails(io.StringIO):
    """A standard error that fails as `error` does, on a terminal or off it."""

    def __init__(self, error: type[Exception], terminal: bool) -> None:
        super().__init__()
        self.error, self.terminal = error, terminal

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("error", [BrokenPipeError, OSError, ValueError])
def test_no_run_ends_for_its_display(error: type[Exception], terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", _Fails(error, terminal))
    assert fit(Step(SVI(LinearGaussian())), X, 3).steps == 3
    tell("a line")


def test_no_run_ends_for_want_of_a_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert fit(Step(SVI(LinearGaussian())), X, 3).steps == 3
    tell("a line")
    closed = io.StringIO()
    closed.close()
    with contextlib.redirect_stderr(closed):
        assert fit(Step(SVI(LinearGaussian())), X, 3).steps == 3


def test_state_that_is_no_tensor_is_nothing_to_averages_and_the_best_weights() -> None:
    class Counting(LinearGaussian):
        """A program whose state holds an object."""

        def get_extra_state(self) -> object:
            return object()

        def set_extra_state(self, state: object) -> None:
            pass

    program: nn.Module = Counting(error=0.5)
    validation = Validation(X, every=2, estimator=importance(2, elbo))
    assert fit(Step(SVI(program), average=0.9), X, 5, validation=validation, progress=False).best is not None
