"""Printed tables: recipes, evaluations, comparisons."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table

from inference import Evaluation
from inference.evaluation.refined import AMORTISATION_GAP
from inference.evaluation.sandwich import SIMULATED_GAP
from ppmodels.app.comparison import RankedRun
from ppmodels.app.lookup import NamedRecipe
from ppmodels.app.recipe import Recipe
from ppmodels.app.scoring import OBSERVATION_NOISE, gap_of
from ppmodels.app.settings import REQUIRED, written
from ppmodels.app.terminal import printable


def console() -> Console:
    """The terminal, taken to be 80 columns wide at least, or numbers would be cut off. Texts are printed as they are: a
    name such as a[bold]b.csv is no markup."""
    return Console(width=max(80, Console().width), markup=False, emoji=False, highlight=False)


def recipes(table: Mapping[str, Recipe], console: Console) -> None:
    """Prints the recipes by family."""
    width = max(map(len, table))
    for family, members in groupby(table.items(), lambda each: each[1].family):
        console.print(f"{family[0].upper()}{family[1:]}", style="bold")
        for name, each in members:
            console.print(f"  {name:{width}}  {printable(each.summary)}")
        console.print()
    console.print("ppmodels train NAME --data DATA     trains a recipe")
    console.print("ppmodels recipes NAME               lists its settings")


def recipe(found: NamedRecipe, console: Console) -> None:
    """Prints a recipe's settings with their types and defaults, and its presets by kind of data."""
    shown = found.recipe
    console.print(printable(f"{found.name}: {shown.summary}" if shown.summary else found.name), style="bold")
    console.print(f"Data: {printable(shown.data)}{', with labels' if shown.labelled else ''}, or by --data.\n")
    rows = _columns("--set", "default", "expected")
    for name, setting in shown.all_settings.items():
        default = "(give it)" if setting.default is REQUIRED else _value(setting.default)
        rows.add_row(name, default, setting.expected)
    console.print(rows)
    presets: dict[str, dict[str, object]] = {}
    for preset in shown.presets:
        presets.setdefault(preset.kind.name, {}).update(preset.values)
    if presets:
        rows = _columns("on these data", "have these defaults; lower rows win")
        for kind, values in presets.items():
            rows.add_row(kind, "; ".join(f"{name}={_value(value)}" for name, value in values.items()))
        console.print()
        console.print(rows)


def _columns(*headings: str) -> Table:
    rows = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        rows.add_column(heading, overflow="fold")
    return rows


def _value(value: object) -> str:
    """A value as `--set` takes it; the name of a value that is no setting."""
    if isinstance(value, Mapping):
        return " and ".join(f"{name} of {each.settings.get('particles', 1)} draws" for name, each in value.items())
    name = str(value.__name__).strip("_") if hasattr(value, "__name__") else written(value)
    return printable(name) or "(nothing)"


def evaluation(result: Evaluation, console: Console) -> None:
    """Prints an evaluation's numbers, each with its kind, and the data that they were measured on."""
    summary = result.summary()
    about = summary["measured_on"]
    density = about.get("likelihood") != "discrete"
    rows = Table(title=measured_on(about), title_justify="left", title_style="bold")
    rows.add_column("estimate", overflow="fold")  # long names give way, numbers do not
    rows.add_column("of log p(x)", overflow="fold")
    for heading in ("nats", "bits/dim"):
        rows.add_column(heading, justify="right", no_wrap=True)
    for name, row in summary["estimates"].items():
        label = f"{name}{_settings(row['settings'])}"
        bits = "—" if row["bits_per_dim"] is None else f"{row['bits_per_dim']:.4f}"
        rows.add_row(*map(printable, (label, row["kind"].removesuffix(" in expectation"), _nats(row), bits)))
    console.print(rows)
    if (gap := gap_of(result)) is not None:
        console.print(f"log p(x) - ELBO, taken apart:\n{gap.table()}")
    for line in _limits(summary, density):
        console.print(line, style="dim")


_SYMBOLS = {"temperatures": "T", "chains": "K", "particles": "K", "steps": "steps"}


def _settings(settings: Mapping[str, Any]) -> str:
    """The settings that a number is told by."""
    return "".join(f", {symbol} = {settings[name]}" for name, symbol in _SYMBOLS.items() if name in settings)


def comparison(ranking: Sequence[RankedRun], console: Console) -> None:
    """Prints the ranked runs, each with its number and its paired difference from the first."""
    first = ranking[0]
    rows = Table(title=measured_on(first.result.measured_on), title_justify="left", title_style="bold")
    rows.add_column("run", overflow="fold")  # long names give way, numbers do not
    rows.add_column("of log p(x)", overflow="fold")
    for heading in ("nats", "bits/dim", "behind"):
        rows.add_column(heading, justify="right", no_wrap=True)
    for each in ranking:
        row = each.result.summary()["estimates"][each.estimate]
        behind = "—" if each is first else "{:.2f} ± {:.2f}".format(*first.ahead_of(each))
        bits = "—" if row["bits_per_dim"] is None else f"{row['bits_per_dim']:.4f}"
        kind = row["kind"].removesuffix(" in expectation")
        rows.add_row(*map(printable, (each.run.folder.name, kind, _nats(row), bits, behind)))
    console.print(rows)
    lines = ["Mean nats per example; differences are paired by example. Below two standard errors nothing is decided."]
    if len({each.result.kind[each.estimate] for each in ranking}) > 1:
        lines.append(
            "Where log p(x) is bounded from below (in expectation), it is higher by the bound's gap, which is unknown."
        )
    for each in ranking:
        noise = each.result.details.get(each.estimate, {}).get(OBSERVATION_NOISE)
        lines += [] if noise is None else [_noise(printable(each.run.folder.name), float(noise.mean()))]
    for line in lines:
        console.print(line, style="dim")


def _noise(name: str, scale: float) -> str:
    return f"{name}: of the generator with normal observation noise of {scale:.3g}, fitted on the valid split."


def _nats(row: Mapping[str, Any]) -> str:
    nats, error = ("not finite" if row[key] is None else f"{row[key]:.2f}" for key in ("nats", "standard_error"))
    return f"{nats} ± {error}"


def measured_on(about: Mapping[str, Any]) -> str:
    """The data, split and examples that numbers are of, in words."""
    part = f"{about.get('examples')}" + (f" of {about['of_examples']}" if "of_examples" in about else "")
    levels = "real numbers" if about.get("levels") == "none" else f"{about.get('levels')} levels"
    binarisation = "" if about.get("binarisation") == "none" else f", binarisation {about.get('binarisation')}"
    observed = f", {about['observed']} observed" if "observed" in about else ""
    return printable(
        f"{about.get('data')}, {about.get('split')} split, {part} examples, {levels}{binarisation}{observed}"
    )


def _limits(summary: Mapping[str, Any], density: bool) -> list[str]:
    """What limits the meaning of the numbers."""
    lines = []
    if not summary["per_example"]:
        lines.append(
            "Nats of the whole dataset ± the estimate's own standard error: examples share latents, or no plate counts them."
        )
    else:
        lines.append("Mean nats per example ± its standard error over these examples.")
    if "observed" in summary["measured_on"]:
        lines.append("log p(x) is that of each example's observed cells; of one without any it is 0.")
    if any("lower bound" in row["kind"] for row in summary["estimates"].values()):
        lines.append("Of a lower bound only its expectation lies below the mean of log p(x).")
    for name, row in summary["estimates"].items():
        lines += _told(name, row["details"])
    lines += [printable(f"{name} is left out: {reason}") for name, reason in summary["left_out"].items()]
    if density:
        lines.append(
            "A density: its nats depend on the units of the data and do not compare with those of discrete levels; "
            "it has no bits/dim."
        )
    return lines


def _told(name: str, details: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What an estimator found out besides its number."""
    known = {key: value for key, value in details.items() if value["mean"] is not None}
    lines = []
    if noise := known.get(OBSERVATION_NOISE):
        lines.append(_noise(name, noise["mean"]))
    if acceptance := known.get("acceptance"):
        lines.append(f"{name}: {acceptance['mean']:.0%} of the chains' transitions were accepted.")
    if gap := known.get(SIMULATED_GAP):
        lines.append(
            f"{name}: bounds from both sides are {_with_error(gap)} nats apart on {gap['of']} simulated examples: evidence "
            "for this number, no bound."
        )
    if gap := known.get(AMORTISATION_GAP):
        lines.append(f"{name}: the ELBO at the encoder's own parameters is {_with_error(gap)} nats lower.")
    return lines


def _with_error(detail: Mapping[str, Any]) -> str:
    error = "" if detail["standard_error"] is None else f" ± {detail['standard_error']:.2f}"
    return f"{detail['mean']:.2f}{error}"
