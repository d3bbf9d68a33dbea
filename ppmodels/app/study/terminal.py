"""A report's first table and its verdicts on a terminal, with the numbers that the page has."""

from rich.table import Table

from ppmodels.app.study.report import Report
from ppmodels.app.study.tables import Cell
from ppmodels.app.terminal import printable

_SHOWN = ("KID", "coverage", "sharpness", "time an image", "probe", "runs")
_WRAPPED = ("sharpness", "runs")
"""Those with words beside the number."""


def table(report: Report) -> Table:
    """The main table, without the intervals that 80 columns have no room for; ≥ is a lower bound's."""
    main = report.main
    place = {name: column for column, name in enumerate(main.columns)}
    title = printable(f"{report.title}: {main.caption.lower()}")
    rows = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    rows.add_column("model", overflow="fold", min_width=9)  # long names give way, numbers do not
    for heading in ("nats", *_SHOWN):
        rows.add_column(
            heading.removeprefix("time "),
            justify="right",
            no_wrap=heading not in _WRAPPED,
            overflow="fold",
            min_width=6,
        )
    for row in main.rows:
        bounded = "lower bound" in row[place["of log p(x)"]].text
        nats = _number(row[place["nats"]])
        cells = [row[0].text, f"≥ {nats}" if bounded else nats, *(_number(row[place[name]]) for name in _SHOWN)]
        rows.add_row(*map(printable, cells))
    return rows


def verdicts(report: Report) -> Table:
    """A line for each claim, and one for each of its statements where it makes several."""
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for column in range(3):
        rows.add_column(no_wrap=column < 2, overflow="fold")
    for claim in report.claims:
        several = len(claim.parts) > 1
        said = claim.statement if several else claim.parts[0].because
        rows.add_row(*map(printable, (f"{claim.number} {claim.name}", claim.verdict, said)))
        for part in claim.parts if several else ():
            rows.add_row(
                "",
                printable(part.verdict),
                printable(f"{part.statement.removesuffix('.')}: {part.because}"),
                style="dim",
            )
    return rows


def _number(cell: Cell) -> str:
    """The text without its interval."""
    number, _, rest = cell.text.partition(" [")
    return number + rest.partition("]")[2]
