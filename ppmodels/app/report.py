"""Tables for a person to read."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ppmodels.app.commands import Standing
from ppmodels.app.recipe import Recipe


def recipes(table: Mapping[str, Recipe], console: Console) -> None:
    """Prints the recipes by name."""
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("recipe", "data", "steps", "what it is"):
        rows.add_column(heading, no_wrap=heading != "what it is", justify="right" if heading == "steps" else "left")
    for name, recipe in table.items():
        rows.add_row(name, recipe.data, f"{recipe.steps:,}", recipe.summary)
    console.print(rows)


def evaluation(summary: Mapping[str, Any], console: Console) -> None:
    """Prints an evaluation's numbers with what they are and what they were measured on."""
    about = summary["measured_on"]
    density = about.get("likelihood") != "discrete"
    rows = Table(title=_measured_on(about), title_justify="left", title_style="bold")
    for heading in ("estimate", "of log p(x)", "nats", "bits/dim"):
        rows.add_column(heading, justify="right" if heading in ("nats", "bits/dim") else "left", no_wrap=True)
    for name, row in summary["estimates"].items():
        settings = row["settings"]
        label = f"{name}, K = {settings['particles']}" if "particles" in settings else name
        bits = "—" if row["bits_per_dim"] is None else f"{row['bits_per_dim']:.4f}"
        rows.add_row(label, row["kind"], _nats(row), bits)
    console.print(rows)
    for line in _limits(summary, density):
        console.print(line, highlight=False, style="dim")


def comparison(standings: Sequence[Standing], console: Console) -> None:
    """Prints runs in their order, each with its number and how far it is behind the first on the same examples."""
    first = standings[0]
    rows = Table(title=_measured_on(first.result.measured_on), title_justify="left", title_style="bold")
    rows.add_column("run", overflow="fold")  # long names give way, numbers do not
    rows.add_column("of log p(x)", no_wrap=True)
    for heading in ("nats", "bits/dim", "behind"):
        rows.add_column(heading, justify="right", no_wrap=True)
    for each in standings:
        row = each.result.summary()["estimates"][each.estimate]
        behind = "—" if each is first else "{:.2f} ± {:.2f}".format(*first.ahead_of(each))
        bits = "—" if row["bits_per_dim"] is None else f"{row['bits_per_dim']:.4f}"
        kind = row["kind"].removesuffix(" in expectation")
        rows.add_row(each.run.folder.name, kind, _nats(row), bits, behind)
    console.print(rows)
    lines = ["Mean nats per example; differences are paired by example. Below two standard errors nothing is decided."]
    if len({each.result.kind[each.estimate] for each in standings}) > 1:
        lines.append("A run known by a lower bound (in expectation) is in truth better by its gap, which is not known.")
    for line in lines:
        console.print(line, highlight=False, style="dim")


def _nats(row: Mapping[str, Any]) -> str:
    nats, error = ("not finite" if row[key] is None else f"{row[key]:.2f}" for key in ("nats", "standard_error"))
    return f"{nats} ± {error}"


def _measured_on(about: Mapping[str, Any]) -> str:
    part = f"{about.get('examples')}" + (f" of {about['of_examples']}" if "of_examples" in about else "")
    levels = "real numbers" if about.get("levels") == "none" else f"{about.get('levels')} levels"
    binarisation = "" if about.get("binarisation") == "none" else f", binarisation {about.get('binarisation')}"
    return f"{about.get('data')}, {about.get('split')} split, {part} examples, {levels}{binarisation}"


def _limits(summary: Mapping[str, Any], density: bool) -> list[str]:
    """What the numbers do not say."""
    lines = []
    if not summary["per_example"]:
        lines.append(
            "Nats of the whole dataset ± the estimate's own standard error: the program shares latents between examples."
        )
    else:
        lines.append("Mean nats per example ± its standard error over these examples.")
    if any("lower bound" in row["kind"] for row in summary["estimates"].values()):
        lines.append("Of a lower bound only its expectation lies below the mean of log p(x).")
    if density:
        lines.append(
            "A density: its nats depend on the units of the data and do not compare with those of discrete levels; "
            "it has no bits/dim."
        )
    return lines
