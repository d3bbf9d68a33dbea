"""The pictures of a report, each with what is to be seen on it in words."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference.training.files import contents_of
from ppmodels.app import plots
from ppmodels.app.pictures import attempted
from ppmodels.app.study import figures, panels
from ppmodels.app.study.claims.likelihood import gap_of
from ppmodels.app.study.claims.sharpness import KINDS, found
from ppmodels.app.study.claims.stability import kids, worst
from ppmodels.app.study.folder import DATA, MEASURED, PICTURES
from ppmodels.app.study.groups import Group
from ppmodels.app.study.measurement import LogLikelihood, Measurement, Missing, Number, Samples, Sharpness
from ppmodels.app.study.protocol import Protocol
from ppmodels.app.study.uncertain import known, mean_of_examples, over_seeds


@dataclass(frozen=True)
class Picture:
    """A picture in the folder of the study."""

    file: str
    alt: str
    """What is to be seen, for those who do not see it."""
    caption: str


@dataclass
class Album:
    """Pictures as they are made, and why others could not be."""

    contents: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, alt: str, caption: str, make: Callable[[], bytes]) -> list[Picture]:
        """The picture in a list, which is empty where it could not be made."""
        file = f"{_slug(name)}.png"
        while file in self.contents:
            file = f"{file.removesuffix('.png')}-.png"
        made = attempted(f"picture {name}", 0, lambda: {file: make()})
        self.notes += made.notes
        if not made.files:
            return []
        self.contents[file] = make_bytes(made.files[file])
        return [Picture(f"{PICTURES}/{file}", alt, caption)]


def make_bytes(contents: object) -> bytes:
    """Contents that were made whole."""
    assert isinstance(contents, bytes)
    return contents


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._=]+", "-", name).strip("-.") or "picture"


@dataclass(frozen=True)
class Shown:
    """What pictures of samples are made from."""

    protocol: Protocol
    out: Path
    groups: Sequence[Group]
    album: Album

    def arrays(self, run: Measurement) -> dict[str, panels.Array]:
        """Of one run."""
        return self._read(f"{Path(run.run).name}.npz")

    def data(self) -> panels.Array | None:
        """The held-out examples."""
        return self._read(DATA).get("samples")

    def _read(self, name: str) -> dict[str, panels.Array]:
        try:
            return panels.arrays_of(self.out / MEASURED / name)
        except ValueError as error:
            if str(error) not in self.album.notes:
                self.album.notes.append(str(error))
            return {}


def samples(shown: Shown) -> list[Picture]:
    """Data, then every model's samples, uncurated: of its first seed, and of its worst."""
    data = shown.data()
    if data is None or not len(data):
        return []
    chosen = [(run, "") for group in shown.groups for run in group.finished[:1]]
    chosen += [
        (last, ", the worst by KID")
        for group in shown.groups
        if len(kids(group)) > 1 and (last := worst(group)) is not None and last is not group.finished[0]
    ]
    pictures: list[Picture] = []
    if panels.is_images(shown.protocol.data):
        scale = panels.scale_of(shown.protocol.data, data)
        title = f"data: {len(data)} of the test split"
        alt = f"A grid of {len(data)} held-out examples of {shown.protocol.data.name}."
        pictures += shown.album.add("data", alt, title, lambda: panels.mosaic(data, scale))
    for run, which in chosen:
        drawn = shown.arrays(run).get("samples")
        if drawn is None or not len(drawn):
            continue
        title = f"{run.model}, seed {run.seed}{which}"
        name = f"samples {Path(run.run).name}"
        if panels.is_images(shown.protocol.data):
            alt = f"A grid of {len(drawn)} uncurated samples of {title}, in the same scale as the data."
            pictures += shown.album.add(name, alt, title, _mosaic(drawn, scale))
        else:
            alt = (
                f"Histograms and scatter plots of the first columns: {len(drawn)} samples of {title} over {len(data)} test "
                "rows."
            )
            pictures += shown.album.add(name, alt, title, _columns(data, drawn, title))
    return pictures


def _mosaic(drawn: panels.Array, scale: panels.Scale) -> Callable[[], bytes]:
    return lambda: panels.mosaic(drawn, scale)


def _columns(data: panels.Array, drawn: panels.Array, title: str) -> Callable[[], bytes]:
    return lambda: panels.columns(data, drawn, figures.plain(title))


def neighbours(shown: Shown) -> list[Picture]:
    """Samples above the training examples that are nearest to them."""
    return _of_pairs(
        *(shown, "samples", "nearest", "neighbours"),
        "Rows of samples of {}, each above a row of the training examples nearest to them.",
        "{}: samples, and below each its nearest training example",
    )


def reconstructions(shown: Shown) -> list[Picture]:
    """Test images above their reconstructions."""
    return _of_pairs(
        *(shown, "originals", "reconstructions", "reconstructions"),
        "Rows of test images, each above a row of what {} reconstructs of them.",
        "{}: test images, and below each its reconstruction",
    )


def _of_pairs(shown: Shown, first: str, second: str, name: str, alt: str, caption: str) -> list[Picture]:
    data, pictures = shown.data(), list[Picture]()
    if data is None or not panels.is_images(shown.protocol.data):
        return []
    scale = panels.scale_of(shown.protocol.data, data)
    for run in _firsts(shown):
        arrays = shown.arrays(run)
        one, other = (panels.of_images(arrays, each) for each in (first, second))
        if one is not None and other is not None:
            title = f"{run.model}, seed {run.seed}"
            make = _pairs(one, other, scale)
            pictures += shown.album.add(f"{name} {Path(run.run).name}", alt.format(title), caption.format(title), make)
    return pictures


def _pairs(one: panels.Array, other: panels.Array, scale: panels.Scale) -> Callable[[], bytes]:
    return lambda: panels.paired(one, other, scale)


def completions(shown: Shown) -> list[Picture]:
    """Test images above what the model made of their upper halves."""
    return _of_pairs(
        *(shown, "originals", "completions", "completions"),
        "Rows of test images, each above a row of the same upper halves with lower halves that {} drew.",
        "{}: test images, and below each its upper half with a lower half that was drawn",
    )


def interpolations(shown: Shown) -> list[Picture]:
    """Ways between codes, a row each."""
    data, pictures = shown.data(), list[Picture]()
    if data is None or not panels.is_images(shown.protocol.data):
        return []
    scale = panels.scale_of(shown.protocol.data, data)
    for run in _firsts(shown):
        images = panels.of_images(shown.arrays(run), "interpolation")
        if images is not None:
            title = f"{run.model}, seed {run.seed}"
            alt = f"Rows of images, as {title} decodes the way from one code to another."
            caption = f"{title}: each row is the way between two codes"
            make = _rows(images, scale)
            pictures += shown.album.add(f"interpolation {Path(run.run).name}", alt, caption, make)
    return pictures


def _rows(images: panels.Array, scale: panels.Scale) -> Callable[[], bytes]:
    return lambda: panels.rows(images, scale)


def _firsts(shown: Shown) -> list[Measurement]:
    return [run for group in shown.groups for run in group.finished[:1]]


def curves(shown: Shown) -> list[Picture]:
    """Training of each model by seed."""
    pictures: list[Picture] = []
    for group in (
        each for each in shown.groups if any(run.training.loss or run.training.validation for run in each.runs)
    ):
        seeds = ", ".join(str(run.seed) for run in group.runs)
        alt = (
            f"Losses, and the score on the valid split where there is one, of {group.name} over its steps, a line for each "
            f"of the seeds {seeds}."
        )
        pictures += shown.album.add(f"curves {group.name}", alt, f"{group.name}, by seed", _curves(group))
    return pictures


def _curves(group: Group) -> Callable[[], bytes]:
    return lambda: plots.png(figures.curves(group))


def bounds(shown: Shown) -> list[Picture]:
    """bounds.png of the runs that were evaluated by several estimators."""
    pictures: list[Picture] = []
    for run in _firsts(shown):
        path = shown.out / run.run / "bounds.png"
        if path.is_file():
            title = f"{run.model}, seed {run.seed}"
            alt = f"Estimates of log p(x) of {title} against the seconds that each took."
            pictures += shown.album.add(f"bounds {Path(run.run).name}", alt, title, _contents(path))
    return pictures


def _contents(path: Path) -> Callable[[], bytes]:
    return lambda: contents_of(path)


def likelihoods(shown: Shown) -> list[Picture]:
    """log p(x) of all models with their intervals, and how far above a bound it may lie."""
    lines = [row for group in shown.groups if (row := _likelihood(group)) is not None]
    said = "; ".join(f"{row.label} {row.number.value:.1f}" for row in lines)
    caption = "log p(x), 95 % intervals; dots to the right of a bound reach as far as its gap; small marks are seeds"
    return _intervals(
        shown, "likelihoods", lines, "log p(x), nats an example", f"log p(x) by model: {said}.", caption, False
    )


def _likelihood(group: Group) -> figures.Row | None:
    scores = [run.log_likelihood for run in group.finished if isinstance(run.log_likelihood, LogLikelihood)]
    shared = min((len(each.per_example) for each in scores), default=0)
    if shared < 2:
        return None
    found, gap = mean_of_examples([each.per_example[:shared] for each in scores]), gap_of(scores)
    up_to = None if gap is None or gap.value == 0 else found.value + gap.value
    return figures.Row(
        f"{group.name} ({scores[0].kind.split()[0]})", found.number(), [each.nats for each in scores], up_to
    )


def distances(shown: Shown, real: Samples | None) -> list[Picture]:
    """KID of all models beside that of real data."""
    lines = [
        figures.Row(group.name, over_seeds(kids(group)).number(), [each.value for each in kids(group)])
        for group in shown.groups
        if kids(group)
    ]
    if real is not None and isinstance(real.kid, Number):
        lines.append(figures.Row("real data", real.kid))
    said = "; ".join(f"{row.label} {row.number.value:.3g}" for row in lines)
    caption = "KID, 95 % intervals; small marks are seeds; the last line is real data in the place of samples"
    return _intervals(shown, "kid", lines, "KID, 0 is the data", f"KID by model: {said}.", caption, True)


def sharpness(shown: Shown, real: Samples | None) -> list[Picture]:
    """Log ratios of gradients' energy of draws and of means."""
    pictures: list[Picture] = []
    for kind, word in KINDS:
        lines = []
        for group in shown.groups:
            numbers = found(group, kind)
            if not isinstance(numbers, Missing):
                gradients = [each.gradient for each in numbers]
                lines.append(
                    figures.Row(group.name, over_seeds(gradients).number(), [each.value for each in gradients])
                )
        if lines and kind == "sharpness" and real is not None and isinstance(real.sharpness, Sharpness):
            lines.append(figures.Row("real data", known(real.sharpness.gradient).number()))
        said = "; ".join(f"{row.label} {row.number.value:.2f}" for row in lines)
        pictures += _intervals(
            *(shown, f"sharpness of {word}", lines, f"log ratio of gradients' energy, of {word}; 0 is the data"),
            f"Sharpness of {word} by model, where 0 is the data and less is blurred: {said}.",
            f"Sharpness of {word}, 95 % intervals; small marks are seeds",
            True,
        )
    return pictures


def _intervals(
    shown: Shown, name: str, rows: Sequence[figures.Row], label: str, alt: str, caption: str, zero: bool
) -> list[Picture]:
    if not rows:
        return []
    return shown.album.add(name, alt, caption, lambda: plots.png(figures.intervals(rows, label, zero)))
