"""How stages are shown: lines by the clock, silence where it is asked for, and a bar on a terminal."""

import io
import sys

import pytest

from inference.evaluation.stages import reached, stage
from inference.training import progress
from inference.training.progress import shown_stages


def test_stages_are_lines_after_1_3_7_seconds_and_then_every_ten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now)
    with shown_stages(), stage(0.0, 1.0, "annealed"):
        for second in range(1, 41):
            now = 1.0 * second
            reached(second / 40, f"temperature {second} of 40")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("temperature ")[1].split()[0] for line in lines] == ["1", "3", "7", "15", "25", "35"]
    assert lines[3] == "38%  annealed, temperature 15 of 40  25 s left"


def test_what_is_over_at_once_or_not_to_be_seen_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with shown_stages():
        reached(0.5, "half")
    monkeypatch.setattr(progress.time, "perf_counter", iter(range(0, 1000, 100)).__next__)
    with shown_stages(visible=False):
        reached(0.5, "half")
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with shown_stages():
        reached(0.37, "a[bold]b")
    shown = terminal.getvalue()
    assert "37 %" in shown
    assert "a[bold]b" in shown, "a name is no markup"
