"""Tables for a person to read."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ppmodels.app.recipe import Recipe


def recipes(table: Mapping[str, Recipe], console: Console) -> None:
    """Prints the recipes by name."""
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("recipe", "data", "steps", "what it is"):
        rows.add_column(heading, no_wrap=heading != "what it is", justify="right" if heading == "steps" else "left")
    for name, recipe in table.items():
        rows.add_row(name, recipe.data, f"{recipe.steps:,}", recipe.summary)
    console.print(rows)


def evaluation(summary: Mapping[str, Any], console: Console, of_examples: int | None = None) -> None:
    """Prints an evaluation's numbers with what they are and what they were measured on."""
    about = summary["measured_on"]
    density = about.get("likelihood") != "discrete"
    rows = Table(title=_measured_on(about, of_examples), title_justify="left", caption_justify="left")
    rows.add_column("estimate")
    rows.add_column("of log p(x)")
    rows.add_column("nats ± standard error", justify="right")
    rows.add_column("bits/dim", justify="right")
    for name, row in summary["estimates"].items():
        settings = ", ".join(f"{value} {key}" for key, value in row["settings"].items() if key != "bound")
        error = "unknown" if row["standard_error"] is None else f"{row['standard_error']:.3f}"
        bits = "—" if row["bits_per_dim"] is None else f"{row['bits_per_dim']:.4f}"
        rows.add_row(f"{name} ({settings})" if settings else name, row["kind"], f"{row['nats']:.3f} ± {error}", bits)
    console.print(rows)
    for line in _limits(summary, density):
        console.print(line, highlight=False)


def _measured_on(about: Mapping[str, Any], of_examples: int | None) -> str:
    examples = about.get("examples")
    part = f"{examples} of {of_examples}" if of_examples not in (None, examples) else f"{examples}"
    levels = "real numbers" if about.get("levels") == "none" else f"{about.get('levels')} levels"
    binarisation = "" if about.get("binarisation") == "none" else f", binarisation {about.get('binarisation')}"
    return f"{about.get('data')}, {about.get('split')} split, {part} examples, {levels}{binarisation}"


def _limits(summary: Mapping[str, Any], density: bool) -> list[str]:
    """What the numbers do not say."""
    lines = []
    if not summary["per_example"]:
        lines.append("Nats of the whole dataset: the program shares latent variables between examples.")
    else:
        lines.append("Mean nats per example; the standard error is over these examples.")
    if any("lower bound" in row["kind"] for row in summary["estimates"].values()):
        lines.append("A lower bound: the mean of log p(x) is expected to be at least this.")
    if density:
        lines.append(
            "A density: its nats depend on the units of the data and do not compare with those of discrete levels; "
            "it has no bits/dim."
        )
    return lines
