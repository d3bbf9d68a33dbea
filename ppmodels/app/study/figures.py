"""Figures of a study: curves by seed, and intervals of all models side by side."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ppmodels.app import plots
from ppmodels.app.study.groups import Group
from ppmodels.app.study.measurement import FAILED, Curve, Number

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Row(NamedTuple):
    """A line of a figure of intervals."""

    label: str
    number: Number
    seeds: Sequence[float] = ()
    up_to: float | None = None
    """Where a bound could lie at most."""


def curves(group: Group) -> "Figure":
    """The losses of every player, and the score on the valid split, a line for each seed."""
    players = list(dict.fromkeys(name for run in group.runs for name in run.training.loss))
    scored = any(run.training.validation is not None for run in group.runs)
    titles = [f"loss: {name}" if len(players) > 1 else "training loss" for name in players]
    titles += ["score on the valid split"] * scored
    figure = plots.blank((max(3.4, 2.9 * len(titles)), 2.5))
    panels = figure.subplots(1, max(1, len(titles)), squeeze=False)[0]
    for axes, title in zip(panels, titles, strict=False):
        axes.set_title(plain(title), fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
    for place, run in enumerate(group.runs):
        found = [run.training.loss.get(name) for name in players] + [run.training.validation] * scored
        for axes, curve in zip(panels, found, strict=False):
            _curve(axes, curve, f"seed {run.seed}" + (", failed" if run.status == FAILED else ""), place)
    for axes in panels:
        _without_the_start(axes)
    if panels[0].get_legend_handles_labels()[0]:
        panels[0].legend(frameon=False, fontsize=8)
    return figure


def _curve(axes: Any, curve: Curve | None, label: str, place: int) -> None:
    if curve is None or not curve.step:
        return
    failed = label.endswith("failed")
    axes.plot(curve.step, curve.value, color=f"C{place}", linewidth=0.9, alpha=0.85, label=label)
    if failed:
        axes.plot(curve.step[-1:], curve.value[-1:], "x", color=f"C{place}")


def _without_the_start(axes: Any) -> None:
    """Limits the axis to what comes after the first twentieth of the steps, which would flatten the rest."""
    lines = [(line.get_xdata(), line.get_ydata()) for line in axes.get_lines()]
    last = max((float(x[-1]) for x, _ in lines if len(x)), default=0.0)
    later = [float(b) for x, y in lines for a, b in zip(x, y, strict=True) if a >= 0.05 * last and math.isfinite(b)]
    if len(later) > 10:
        margin = 0.05 * max(max(later) - min(later), 1e-6)
        axes.set_ylim(min(later) - margin, max(later) + margin)


def intervals(rows: Sequence[Row], label: str, zero: bool) -> "Figure":
    """A line for each row with its 95 % interval and a point for each seed; with a line at 0, where that is the data."""
    figure = plots.blank((5.4, 0.9 + 0.4 * len(rows)))
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        value, low, high = row.number.value, row.number.low, row.number.high
        bar = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar([value], [place], xerr=bar, marker="o", markersize=5, capsize=3, linestyle="none", color="C0")
        axes.plot(row.seeds, [place + 0.22] * len(row.seeds), "|", color="C0", alpha=0.6, markersize=6)
        if row.up_to is not None and row.up_to > value:
            axes.plot([value, row.up_to], [place, place], linestyle=":", color="C0", linewidth=1.2)
            axes.plot([row.up_to], [place], ">", color="C0", markersize=4)
    if zero:
        axes.axvline(0.0, color="black", linewidth=0.8, alpha=0.6)
    axes.set_yticks(range(len(rows)), [plain(row.label) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _spread_out(axes, rows)
    return figure


def _spread_out(axes: Any, rows: Sequence[Row]) -> None:
    """Where one number would press all others together, an axis of powers of ten."""
    values = sorted(abs(row.number.value) for row in rows)
    if len(values) > 1 and values[0] > 0 and values[-1] > 20 * max(values[-2], values[0]):
        axes.set_xscale("symlog", linthresh=values[-2])


def plain(words: str) -> str:
    """Words that matplotlib does not take for a formula."""
    return words.replace("$", r"\$")
