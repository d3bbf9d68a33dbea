"""The report of a study."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.training.files import write_whole


@dataclass(frozen=True)
class Report:
    """All that a report says."""

    rows: list[dict[str, Any]]


def write_report(out: Path) -> Report:
    """Writes what is measured so far."""
    found = [json.loads(path.read_text()) for path in sorted((out / "measured").glob("*.json"))]
    write_whole(out / "report.json", json.dumps(found).encode())
    return Report(found)
