"""Figures, drawn without a display and without matplotlib's global state."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from inference import Calibration, Diagnosis, Evaluation

GAP = 1
"""Pixels of the images between two of them."""


class Frame(NamedTuple):
    """A square over an image: its centre and half its side in pixels, counted from 0, and how blurred its edges are."""

    x: float
    y: float
    reach: float
    blur: float


def grid(
    images: Tensor,
    columns: int,
    title: str,
    row_labels: Sequence[str] | None = None,
    frames: Sequence[Frame | None] = (),
) -> "Figure":
    """Images `(n, channel, height, width)`, 1 or 3 channels of values in [0, 1], in rows of `columns`, with frames."""
    picture = tiled(images, columns)
    height, width = picture.shape[:2]
    inches = max(5.0, 0.62 * columns)  # below this a title takes too many lines
    figure = blank((inches, inches * height / width + 0.5))
    axes = figure.add_subplot()
    axes.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_title(textwrap.fill(title, int(inches * 12)), fontsize=10)
    axes.set_xticks([])
    step = images.shape[-2] + GAP
    labels = list(row_labels or [])
    axes.set_yticks([step * row + (step - 1) / 2 for row in range(len(labels))], labels, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for index, frame in enumerate(frames):
        if frame is not None:
            row, column = divmod(index, columns)
            corner = (column * (images.shape[-1] + GAP) + GAP, row * step + GAP)
            _framed(axes, frame, corner, (images.shape[-1], images.shape[-2]))
    return figure


def boxed(images: Tensor, boxes: Sequence[Tensor], columns: int, title: str) -> "Figure":
    """Images as `grid` has them, with the boxes `(objects, 4)` of each: left, top, right, bottom, in its own pixels."""
    from matplotlib.patches import Rectangle

    figure = grid(images, columns, title)
    axes = figure.axes[0]
    height, width = (side + GAP for side in images.shape[-2:])
    for place, found in enumerate(boxes):
        row, column = divmod(place, columns)
        for number, (left, top, right, bottom) in enumerate(found.tolist()):
            corner = left + width * column + GAP, top + height * row + GAP
            axes.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=f"C{number % 10}"))
    return figure


def losses(history: Sequence[dict[str, float]], best: dict[str, float] | None) -> "Figure":
    """Every player's loss by step, and minus the score on the valid split, in nats as `evaluate` gives them."""
    figure = blank((7.0, 4.2))
    axes = figure.add_subplot()
    names = {name for row in history for name in row if "/" not in name} - {"step", "seconds", "validation"}
    for name in sorted(names):
        rows = [row for row in history if row.get(name) is not None]
        label = "training" if len(names) == 1 else f"training: {name}"
        axes.plot([row["step"] for row in rows], [row[name] for row in rows], linewidth=0.8, alpha=0.7, label=label)
    scored = [row for row in history if row.get("validation") is not None]
    if scored:
        values = [-row["validation"] for row in scored]
        axes.plot([row["step"] for row in scored], values, "o-", markersize=3, label="validation, minus the score")
    if best is not None:
        axes.plot([best["step"]], [-best["score"]], "*", markersize=13, label=f"best: {-best['score']:.2f}")
    _without_the_start(axes, history, sorted(names))
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats)" if len(names) == 1 else "loss of each player")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def bounds(result: "Evaluation") -> "Figure":
    """The mean of every estimate, with its own Monte Carlo noise, against the seconds that it took for an example.

    The spread of the examples is left out: all estimates have it in common.
    """
    figure = blank((7.0, 4.2))
    axes = figure.add_subplot()
    for name, values in result.log_prob.items():
        cost = result.seconds[name] / len(values)
        noise = result.noise(name)
        bar = noise if math.isfinite(noise) else 0.0
        axes.errorbar(cost, result.mean(name), bar, marker="o", capsize=4, linestyle="none", label=name)
    axes.set_xscale("log")
    axes.margins(0.15)
    axes.set_xlabel("seconds for an example" if result.per_example else "seconds")
    axes.set_ylabel("log p(x), bounded or exact (nats)")
    axes.set_title("Every estimate against its cost; bars are its own noise on these examples", fontsize=10)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    return figure


def diagnosis(result: "Diagnosis") -> "Figure":
    """k̂ of all examples in order against its threshold; KL by site; active units by site."""
    shown = [_kl, *([_units] if result.active_units else [])]
    figure = blank((4.0 + 3.0 * len(shown), 3.4))
    tails, *others = figure.subplots(1, 1 + len(shown), width_ratios=(2, *[1] * len(shown)))
    khat = result.khat.sort().values.numpy()
    tails.plot(np.arange(1, len(khat) + 1) / len(khat), khat, ".-" if len(khat) < 30 else "-")
    tails.axhline(
        result.threshold, color="black", linewidth=0.8, linestyle="--", label=f"trusted up to {result.threshold:.2f}"
    )
    tails.set_title(f"Can {result.draws} weighted draws be trusted?", fontsize=10)
    tails.set_xlim(0.0, 1.05)
    tails.set_xlabel("fraction of examples")
    tails.set_ylabel("Pareto k̂ of the weights")
    tails.legend(frameon=False)
    tails.grid(alpha=0.3)
    for axes, draw in zip(others, shown, strict=True):
        draw(axes, result)
        axes.set_xlabel("site")
        axes.set_xlim(-0.8, max(1, len(result.kl)) - 0.2)
    return figure


def _kl(axes: Any, result: "Diagnosis") -> None:
    axes.bar(list(result.kl), list(result.kl.values()), yerr=list(result.kl_error.values()), width=0.5)
    axes.set_title("KL of the guide to the prior", fontsize=10)
    axes.set_ylabel("nats")


def _units(axes: Any, result: "Diagnosis") -> None:
    names = list(result.active_units)
    axes.bar(names, [result.units[name] for name in names], width=0.5, alpha=0.3, label="units")
    axes.bar(names, [result.active_units[name] for name in names], width=0.5, label="active")
    axes.set_title("Units that move with x", fontsize=10)
    axes.set_ylabel("number of units")
    axes.set_ylim(0, 1.25 * max(result.units.values()))
    axes.legend(frameon=False, ncols=2, fontsize=8)


def calibration(result: "Calibration", most: int = 8) -> "Figure":
    """The empirical distribution of ranks less the uniform one, of the quantities farthest out."""
    figure = blank((7.0, 4.2))
    axes = figure.add_subplot()
    ranks = np.arange(result.draws) / result.draws
    low, high = result.bands()
    axes.fill_between(ranks, low, high, color="black", alpha=0.12, label=f"{1 - result.level:.0%} of right guides")
    tests = result.tests
    for name in sorted(tests, key=lambda each: tests[each].gamma)[:most]:
        axes.plot(ranks, result.ecdf_difference(name), label=name)
    axes.set_xlabel("rank of the true value, as a fraction of the guide's draws")
    axes.set_ylabel("ECDF - uniform")
    others = f"; the {most} farthest out of {len(tests)} quantities" if len(tests) > most else ""
    axes.set_title(f"Simulation-based calibration{others}", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def pairs(
    data: Tensor, samples: Tensor, title: str, names: Sequence[str], most: int = 4, shown: int = 1000
) -> "Figure":
    """The first columns of two tables `(n, features)`: histograms on the diagonal, scatter plots beside it.

    Cells that are NaN are missing, and left out.
    """
    count = min(most, data.shape[1])
    first, second = data[:shown].numpy(), samples[:shown].numpy()
    side = max(4.5, 2.2 * count)
    figure = blank((side, side + 0.4))
    axes = figure.subplots(count, count, squeeze=False, sharex="col")
    ranges = _ranges(data, 0.1)
    for row in range(count):
        for column in range(count):
            panel = axes[row, column]
            if row == column:
                for values, label in ((first, "data"), (second, "samples")):
                    _histogram(panel, values[:, row], ranges[row], label)
            else:
                for values in (first, second):
                    panel.plot(values[:, column], values[:, row], ".", markersize=2.5, alpha=0.5)
                panel.set_ylim(ranges[row])
            panel.set_xlim(ranges[column])
            panel.tick_params(labelsize=7)
        axes[row, 0].set_ylabel("density" if count == 1 else names[row])
        axes[count - 1, row].set_xlabel(names[row])
    axes[0, 0].legend(frameon=False, fontsize=8)
    beyond = f" (the first {count} of {data.shape[1]} columns)" if data.shape[1] > count else ""
    figure.suptitle(textwrap.fill(title + beyond, int(side * 11)), fontsize=10)
    return figure


def panels(data: Tensor, samples: Mapping[str, Tensor], title: str, shown: int = 1000) -> "Figure":
    """The first two columns of tables `(n, features)`, one panel each by its name, with the data behind."""
    figure = blank((2.3 * len(samples), 2.9))
    first, second = 0, min(1, data.shape[1] - 1)
    ranges = _ranges(data, 0.2)
    for axes, (name, values) in zip(figure.subplots(1, len(samples), squeeze=False)[0], samples.items(), strict=True):
        for some, label in ((data, "data"), (values, "samples")):
            axes.plot(
                some[:shown, first].numpy(), some[:shown, second].numpy(), ".", markersize=2, alpha=0.5, label=label
            )
        axes.set_xlim(ranges[first])
        axes.set_ylim(ranges[second])
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=6)
    figure.suptitle(title, fontsize=9)
    return figure


def png(figure: "Figure") -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)  # takes its place as the figure's canvas
    figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.1)
    return buffer.getvalue()


def _ranges(data: Tensor, margin: float) -> list[tuple[float, float]]:
    """Where each column of a table lies, and a part of that on both sides; of one without spread, 1 around it."""
    values = data.double()
    low, high = (values.nan_to_num(nan=end) for end in (math.inf, -math.inf))
    nothing = values.isnan().all(0)
    low, high = low.amin(0).masked_fill(nothing, 0), high.amax(0).masked_fill(nothing, 0)
    margins = torch.where(high > low, margin * (high - low), 0.5)
    return list(zip((low - margins).tolist(), (high + margins).tolist(), strict=True))


def _histogram(axes: Any, values: NDArray[np.float32], limits: tuple[float, float], label: str, bins: int = 25) -> None:
    """A density of all values, those beyond the limits too; matplotlib's own divides 0 by 0 where all are beyond."""
    values = values[~np.isnan(values)]
    each = bins / (max(1, len(values)) * (limits[1] - limits[0]))
    axes.hist(values, bins, range=limits, weights=np.full(len(values), each), alpha=0.5, label=label)


def blank(size: tuple[float, float]) -> "Figure":
    """A figure of that many inches, with nothing on it."""
    # Imported here, as its import fails where MPLBACKEND or a matplotlibrc is nonsense: then only pictures are missing.
    from matplotlib.figure import Figure

    return Figure(figsize=size, dpi=130, layout="constrained")


def tiled(images: Tensor, columns: int) -> NDArray[np.float32]:
    """One picture of all, `(height, width)` or `(height, width, 3)`, white between images and in empty places."""
    count, channels, height, width = images.shape
    rows = math.ceil(count / columns)
    canvas = np.ones((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), dtype=np.float32)
    for index, image in enumerate(images.float().permute(0, 2, 3, 1).numpy()):
        top, left = (index // columns) * (height + GAP) + GAP, (index % columns) * (width + GAP) + GAP
        canvas[top : top + height, left : left + width] = image
    return canvas[:, :, 0] if channels == 1 else canvas


def _framed(axes: Any, frame: Frame, corner: tuple[int, int], size: tuple[int, int]) -> None:
    """Draws a frame on the image whose first pixel is at `corner`, and not beyond that image."""
    from matplotlib.patches import Rectangle

    left, top = corner
    square = Rectangle(
        (left + frame.x - frame.reach, top + frame.y - frame.reach), 2 * frame.reach, 2 * frame.reach, fill=False
    )
    square.set(edgecolor="tab:red", linewidth=0.5 + 0.15 * min(frame.blur, 10.0))
    axes.add_patch(square)
    square.set_clip_path(Rectangle((left - 0.5, top - 0.5), *size, transform=axes.transData))


def _without_the_start(axes: Any, history: Sequence[dict[str, float]], names: Sequence[str]) -> None:
    """Limits the axis to what comes after the first twentieth of the steps, whose losses would flatten the rest."""
    later = [row for row in history if row["step"] >= 0.05 * history[-1]["step"]]
    values = [row[name] for row in later for name in names if row.get(name) is not None]
    values += [-row["validation"] for row in later if row.get("validation") is not None]
    if len(values) > 10:
        low, high = np.quantile(values, [0.001, 0.999])
        margin = 0.05 * max(high - low, 1e-6)
        axes.set_ylim(low - margin, high + margin)
