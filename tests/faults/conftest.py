"""The folder that all faults begin with, and the table that is printed at the end."""

from collections import Counter
from pathlib import Path

import pytest

from tests.faults.runner import VERDICTS, write_template


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "template"
    write_template(folder)
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found: dict[str, Counter[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            told = dict(getattr(report, "user_properties", ()))
            if getattr(report, "when", None) == "call" and "verdict" in told:
                found.setdefault(told["section"], Counter())[told["verdict"]] += 1
    if not found:
        return
    terminalreporter.section("faults")
    terminalreporter.line(f"| section | cases | {' | '.join(VERDICTS)} |")
    terminalreporter.line("|---|" + "---|" * (len(VERDICTS) + 1))
    found["all"] = sum(found.values(), Counter())
    for section, counts in found.items():
        numbers = [counts.total(), *(counts[verdict] for verdict in VERDICTS)]
        terminalreporter.line(f"| {section} | {' | '.join(map(str, numbers))} |")
