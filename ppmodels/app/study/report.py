"""The report of a study."""

import json
from pathlib import Path

from inference.training.files import write_whole


def write_report(out: Path) -> None:
    """Writes what is measured so far."""
    found = [json.loads(path.read_text()) for path in sorted((out / "measured").glob("*.json"))]
    write_whole(out / "report.json", json.dumps(found).encode())
