"""A report's first table and its verdicts on a terminal."""

from rich.table import Table

from ppmodels.app.study.report import Report


def table(report: Report) -> Table:
    """The main table."""
    rows = Table("model", "seed", "status")
    for row in report.rows:
        if "model" in row:
            rows.add_row(row["model"], str(row["seed"]), row["status"])
    return rows


def verdicts(report: Report) -> Table:
    """A line for each claim."""
    return Table("claim")
