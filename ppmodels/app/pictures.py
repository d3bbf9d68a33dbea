"""Pictures of a run: samples, reconstructions, completions, and traversals of its latent space."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inference import posterior, sample
from inference.programs.entries import Examples
from inference.programs.noise import mix, own_noise
from inference.programs.program import evaluating
from inference.training.files import write_together
from ppmodels.app import plots
from ppmodels.app.drawn import (
    Impossible,
    completed,
    decoded,
    in_own_units,
    latents_given,
    observed_site,
    rows_drawn,
    taken,
)
from ppmodels.app.experiment import Experiment
from ppmodels.models import AIR

_SINGLE = "the test split has a single image"
_CELLS = 1_000_000
"""The most cells of a table of samples whose rows nobody has counted."""


Files = dict[str, bytes | Iterable[bytes] | None]
"""Contents by name, whole or in parts; None of a file of an earlier picture that there is not any more."""


@dataclass(frozen=True)
class Pictures:
    """Files by name, and why others were not made."""

    files: Files = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __or__(self, other: "Pictures") -> "Pictures":
        """Both."""
        return Pictures(self.files | other.files, list(dict.fromkeys([*self.notes, *other.notes])))

    def write(self, folder: Path) -> None:
        """Writes the files into a folder, all of them or none."""
        write_together(folder, self.files)


AT_ONCE = 1000
"""How many samples are drawn at once, and shown."""


def samples(experiment: Experiment, count: int | None = None, seed: int = 0, draws: bool = False) -> Pictures:
    """Samples: 100 images, means of p(x | z) at z from the prior, or draws; of a table 1000 draws, fewer if wide.

    Of more than are shown all are in samples.npy or samples.csv, drawn as they are written.
    """
    few = 100 if experiment.is_images else min(AT_ONCE, max(1, _CELLS // math.prod(experiment.data.shape)))
    number = count or few
    draws = draws or not experiment.is_images

    def make() -> Files:
        batch, columns, given = _context(experiment, min(number, AT_ONCE))
        found, what = decoded(experiment, batch, {}, draws)
        if experiment.is_images:
            title = what if what == "draws" else f"{what} of p(x | {'z, y' if given else 'z'}), z from the prior"
            title = title if number <= AT_ONCE else f"{AT_ONCE:,} of {number:,} {title}"
            stream = _parts_of(experiment, found, number, seed, draws, _floats, _array_header(number, found))
            kept = None if number <= AT_ONCE else stream
            return {"samples.png": _grid(experiment, found, columns, title + given), "samples.npy": kept}
        drawn, data = rows_drawn(experiment, found), test_rows(experiment)
        title = f"{len(drawn)} samples and {len(data)} test examples"
        return {
            "samples.csv": _parts_of(
                *(experiment, found, number, seed, draws),
                lambda values: _rows_of_table(experiment, rows_drawn(experiment, values)),
                _written([_columns(experiment)]),
            ),
            "samples.png": plots.png(plots.pairs(data, drawn, title, _columns(experiment))),
        }

    return attempted("samples", seed, make)


def _parts_of(
    experiment: Experiment,
    first: Tensor,
    count: int,
    seed: int,
    draws: bool,
    written: Callable[[Tensor], bytes],
    header: bytes,
) -> Iterator[bytes]:
    """The contents of a file of samples: its header, those that were drawn first, and the others as they are drawn."""
    yield header
    yield written(first)
    for start in range(AT_ONCE, count, AT_ONCE):
        with own_noise(mix(seed, 2, start)):
            batch, _, _ = _context(experiment, min(AT_ONCE, count - start), start)
            found, _ = decoded(experiment, batch, {}, draws)
        yield written(found)


def _array_header(count: int, values: Tensor) -> bytes:
    """The beginning of an .npy file of so many of these values."""
    header = io.BytesIO()
    shape = (count, *values.shape[1:])
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _floats(values: Tensor) -> bytes:
    return values.cpu().numpy().astype("<f4").tobytes()


def reconstructions(experiment: Experiment, seed: int = 0) -> Pictures:
    """Test images above the means of p(x | z) at one z from the guide."""

    def make() -> Files:
        _need_images(experiment)
        batch = experiment.examples(20)
        latents = latents_given(experiment, batch)
        if not latents:
            raise Impossible("the program has no latent variables")
        found, what = decoded(experiment, batch, latents)
        columns = min(10, len(found))
        rows = [block for pair in zip(batch[0].split(columns), found.split(columns), strict=True) for block in pair]
        labels = ["data", "mean" if what.startswith("means") else "draw"] * (len(rows) // 2)
        return {
            "reconstructions.png": _grid(
                experiment, torch.cat(rows), columns, f"test images and {what} of p(x | z), z from q(z | x)", labels
            )
        }

    return attempted("reconstructions", seed, make)


def scenes(experiment: Experiment, program: AIR, seed: int = 0) -> Pictures:
    """Test scenes with the boxes that the guide finds; some of them object by object; and scenes of the model's own."""

    def make() -> Files:
        batch = experiment.examples(20)
        with torch.no_grad(), evaluating(program):
            found = {name: value[0] for name, value in posterior(program, batch).items()}
            prior = {name: value[0] for name, value in sample(program, batch).items()}
            shown = torch.arange(len(batch[0]), device=batch[0].device) % (program.objects + 1)
            made = program.canvas(shown, program.render(*_objects(program, prior)))
        boxes = [each[:n] for each, n in zip(_boxes(program, found), found["n"].int().tolist(), strict=True)]
        top = (program.levels or 2) - 1
        return {
            "scenes.png": plots.png(
                plots.boxed(
                    (batch[0] / top).cpu(), boxes, 10, "test scenes, and the objects that one draw of the guide finds"
                )
            ),
            "objects.png": _object_by_object(program, batch[0][:10] / top, {name: z[:10] for name, z in found.items()}),
            "generated.png": plots.png(
                plots.grid(
                    made.clamp(0, 1).cpu(),
                    10,
                    f"scenes from the prior, n given: {', '.join(map(str, range(program.objects + 1)))}, …",
                )
            ),
        }

    return attempted("scenes", seed, make)


def _objects(program: AIR, latents: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The places and the looks of all objects."""
    steps = range(1, program.objects + 1)
    return [latents[f"where_{t}"] for t in steps], [latents[f"what_{t}"] for t in steps]


def _boxes(program: AIR, latents: dict[str, Tensor]) -> Tensor:
    return program.boxes(torch.stack(_objects(program, latents)[0], 1)).cpu()


def _object_by_object(program: AIR, x: Tensor, latents: dict[str, Tensor]) -> bytes:
    """Each scene, what each of its objects adds to the canvas, and the whole."""
    with torch.no_grad(), evaluating(program):
        alone = program.render(*_objects(program, latents))
        there = latents["n"] > torch.arange(program.objects, device=x.device).unsqueeze(1)
        parts = alone * there[..., None, None, None]
    rows = torch.cat((x.unsqueeze(0), parts, parts.sum(0, keepdim=True)))
    labels = ["data", *(f"object {t}" for t in range(1, program.objects + 1)), "sum"]
    title = "test scenes, and what the guide finds in them, object by object"
    return plots.png(plots.grid(rows.flatten(0, 1).clamp(0, 1).cpu(), len(x), title, labels))


def completions(experiment: Experiment, seed: int = 0, given: float = 0.5, endings: int = 6) -> Pictures:
    """Test images, of which the upper part is given, and several endings that the program draws for each."""

    def make() -> Files:
        _need_images(experiment)
        batch = experiment.examples(10)
        x = batch[0]
        height = x.shape[2]
        rows = min(max(round(given * height), 0), height - 1)
        known = torch.zeros_like(x, dtype=torch.bool)
        known[:, :, :rows] = True
        index = torch.arange(len(x), device=x.device).repeat_interleave(endings)
        drawn = completed(experiment, taken(batch, index), known[index])
        grey = torch.where(known, x, x.new_tensor(((experiment.data.levels or 2) - 1) / 2))
        images = torch.cat((x.unsqueeze(1), grey.unsqueeze(1), drawn.unflatten(0, (len(x), endings))), 1)
        title = f"test images, their first {rows} of {height} rows, and {endings} endings drawn given these"
        return {"completions.png": _grid(experiment, images.flatten(0, 1), endings + 2, title)}

    return attempted("completions", seed, make)


def pictures_of_test_images(experiment: Experiment, seed: int = 0) -> Pictures:
    """Reconstructions and traversals; for a program without a latent code, completions or interpolations; scenes of AIR."""
    if isinstance(experiment.program, AIR):
        return reconstructions(experiment, seed) | scenes(experiment, experiment.program, seed)
    if has_codes(experiment, seed):
        return reconstructions(experiment, seed) | latent_pictures(experiment, seed)
    if has_noises(experiment, seed):
        return _between_draws(experiment, seed)
    return completions(experiment, seed)


def latent_pictures(experiment: Experiment, seed: int = 0) -> Pictures:
    """A traversal of the most active latent dimensions, and interpolations: between test images, or between draws of z."""
    if not has_codes(experiment, seed) and has_noises(experiment, seed):
        return _between_draws(experiment, seed)
    return attempted(
        "traversal", seed, lambda: {"traversal.png": _traversal(experiment, *codes(experiment))}
    ) | attempted("interpolation", seed, lambda: {"interpolation.png": _interpolation(experiment, *codes(experiment))})


def _between_draws(experiment: Experiment, seed: int) -> Pictures:
    return attempted("interpolation", seed, lambda: {"interpolation.png": _great_circles(experiment)})


def has_codes(experiment: Experiment, seed: int) -> bool:
    """Whether the guide draws latents."""
    return _found(lambda: latents_given(experiment, experiment.examples(2)), seed)


def has_noises(experiment: Experiment, seed: int) -> bool:
    """Whether the model draws vectors of its own."""
    return _found(lambda: _noises(experiment), seed)


def _found(find: Callable[[], dict[str, Tensor]], seed: int) -> bool:
    """Whether there is something to show; where that fails there is not, and the pictures that need it say why."""
    try:
        with own_noise(mix(seed, 2)):
            return bool(find())
    except Exception:
        return False


def codes(experiment: Experiment) -> tuple[Examples, str, Tensor]:
    """Some test images, the name of the only latent site, and its draws given them: `(draws, batch, dimensions)`."""
    _need_images(experiment)
    batch = experiment.examples(256)
    latents = latents_given(experiment, batch, 32)
    if len(latents) == 1:
        ((name, value),) = latents.items()
        if value.dim() == 3 and value.is_floating_point():
            return batch, name, value
    shapes = {name: tuple(value.shape[2:]) for name, value in latents.items()}
    raise Impossible(f"it needs a program with one vector of latents, this has {shapes or 'none'}")


def _traversal(experiment: Experiment, batch: Examples, name: str, z: Tensor) -> bytes:
    """Each row moves one dimension between the 1 % and 99 % quantiles of what the guide draws over the data."""
    if len(batch[0]) < 2:
        raise Impossible(_SINGLE)
    columns, means = 10, z.mean(0)
    # A dimension that the program does not use has the same posterior mean for every x (Burda et al. 2016).
    activity = means.var(0) - z.var(0).mean(0) / len(z)  # less the Monte Carlo variance of the means
    active = activity.argsort(descending=True)[:8]
    active = active[: max(1, int((activity[active] > 0.01).sum()))]
    ends = torch.quantile(z[:4].flatten(0, 1)[:, active], z.new_tensor([0.01, 0.99]), dim=0)
    path = torch.lerp(ends[0], ends[1], torch.linspace(0, 1, columns, device=z.device).unsqueeze(1))
    points = means[0].expand(len(active), columns, -1).clone()
    for row, dimension in enumerate(active.tolist()):
        points[row, :, dimension] = path[:, row]
    rows = torch.zeros(len(active) * columns, dtype=torch.long, device=z.device)
    found, what = decoded(experiment, taken(batch, rows), {name: points.flatten(0, 1).unsqueeze(0)})
    labels = [f"{name}[{dimension}]" for dimension in active.tolist()]
    title = f"{what}; each row moves one of the most active of {z.shape[-1]} dimensions, 1 % to 99 %"
    return _grid(experiment, found, columns, title, labels)


def _interpolation(experiment: Experiment, batch: Examples, name: str, z: Tensor) -> bytes:
    rows, what = interpolated(experiment, batch, name, z)
    title = f"test images at both ends, between them {what} along a line in {name}"
    return _grid(experiment, rows.flatten(0, 1), 10, title)


def interpolated(experiment: Experiment, batch: Examples, name: str, z: Tensor) -> tuple[Tensor, str]:
    """Straight lines from the posterior mean of one test image to that of another: `(pairs, 10, …)`, and what is between."""
    means = z.mean(0)
    first, second = _partners(batch)
    steps = torch.linspace(0, 1, 8, device=means.device)[None, :, None]
    points = torch.lerp(means[first].unsqueeze(1), means[second].unsqueeze(1), steps)
    found, what = decoded(
        experiment, taken(batch, first.repeat_interleave(8)), {name: points.flatten(0, 1).unsqueeze(0)}
    )
    between = found.unflatten(0, (len(first), 8))
    return torch.cat([batch[0][first].unsqueeze(1), between, batch[0][second].unsqueeze(1)], 1), what


def _noises(experiment: Experiment) -> dict[str, Tensor]:
    """A model's own draws, which its guide leaves out, of one row: vectors by the names of their sites."""
    drawn = sample(experiment.program, experiment.examples(1))
    observed = {observed_site(experiment, experiment.examples(2))[0]}
    return {
        name: value
        for name, value in drawn.items()
        if name not in observed and value.dim() == 3 and value.is_floating_point()
    }


def _great_circles(experiment: Experiment) -> bytes:
    found, what = great_circles(experiment)
    return _grid(experiment, found.flatten(0, 1), found.shape[1], what)


def great_circles(experiment: Experiment, rows: int = 8, columns: int = 10) -> tuple[Tensor, str]:
    """Great circles from one draw of z to another, on which all points are as likely as the ends: `(rows, columns, …)`.

    After White (2016, arXiv 1609.04468). And what they are, in words.
    """
    (name, *others) = _noises(experiment)
    if others:
        raise Impossible(f"it needs a program with one vector of latents, this has {[name, *others]}")
    batch, _, given = _context(experiment, rows)
    first, second = (sample(experiment.program, batch)[name][0] for _ in range(2))
    angle = torch.linspace(0, torch.pi / 2, columns, device=first.device)[None, :, None]
    # Two draws in many dimensions are nearly orthogonal.
    points = angle.cos() * first.unsqueeze(1) + angle.sin() * second.unsqueeze(1)
    repeated = torch.arange(rows, device=first.device).repeat_interleave(columns)
    found, what = decoded(experiment, taken(batch, repeated), {name: points.flatten(0, 1).unsqueeze(0)})
    title = f"{what} of x; each row goes from one draw of {name} to another{given}"
    return found.unflatten(0, (rows, columns)), title


def _partners(batch: Examples, pairs: int = 8) -> tuple[Tensor, Tensor]:
    """Indices of pairs of examples; of the same class where labels are given, as only z is changed."""
    size = len(batch[0])
    if len(batch) == 1:
        count = min(pairs, size // 2)
        if count < 1:
            raise Impossible(_SINGLE)
        index = torch.arange(2 * count, device=batch[0].device)
        return index[:count], index[count:]
    labels = batch[1].tolist()
    chosen: list[tuple[int, int]] = []
    for label in sorted(set(labels)):
        same = [index for index in range(size) if labels[index] == label]
        chosen += [(same[0], same[1])] if len(same) > 1 else []
    if not chosen:
        raise Impossible("no two test images shown are of the same class")
    first, second = torch.tensor(chosen[:pairs], device=batch[0].device).T
    return first, second


def _context(experiment: Experiment, count: int, start: int = 0) -> tuple[Examples, int, str]:
    """A batch that gives the model its shapes and labels, the columns to show it in, and what is given.

    It goes on from one of `start` examples.
    """
    x = experiment.examples(min(count, 1000))[0]
    places = start + torch.arange(count, device=x.device)
    x = x[places % len(x)]
    columns = max(1, min(10, count))
    if not experiment.recipe.labelled:
        return (x,), columns, ""
    classes = experiment.data.classes
    columns = min(classes, 20)
    return (x, places % classes), columns, f"; labels y = 0..{classes - 1} in turn"


def _need_images(experiment: Experiment) -> None:
    if not experiment.is_images:
        raise Impossible(f"examples of shape {experiment.data.shape} are no images")


def draw_samples(experiment: Experiment, count: int, seed: int) -> Tensor:
    """Draws of x, or means given draws of z where there are any: the same noise for the same seed."""
    with own_noise(mix(seed, 2)):
        batch, _, _ = _context(experiment, count)
        return decoded(experiment, batch, {}, draws=not experiment.is_images)[0]


def test_rows(experiment: Experiment) -> Tensor:
    """The test split as rows `(n, features)` in the units of the data, NaN where a cell is missing."""
    split = experiment.data.evaluated("test")
    rows = in_own_units(experiment, split.values)
    return rows if split.observed is None else torch.where(split.observed.cpu(), rows, torch.nan)


def labelled_rows(experiment: Experiment, rows: list[Tensor], title: str, labels: list[str]) -> bytes:
    """Rows of as many images each, with their labels."""
    return _grid(experiment, torch.cat(rows), len(rows[0]), title, labels)


def attempted(what: str, seed: int, make: Callable[[], Mapping[str, bytes | Iterable[bytes] | None]]) -> Pictures:
    """The pictures that `make` makes, by noise of its own, or a note that says why they are not to be had."""
    # The run is saved by now: an error in a user's program must not lose it.
    try:
        with own_noise(mix(seed, 2)):
            return Pictures(dict(make()))
    except Exception as error:
        return Pictures(notes=[f"no {what}: {str(error) or type(error).__name__}"])


def _grid(experiment: Experiment, values: Tensor, columns: int, title: str, labels: list[str] | None = None) -> bytes:
    assert experiment.data.levels is not None
    images = (values / (experiment.data.levels - 1)).clamp(0, 1).cpu()
    return plots.png(plots.grid(images, columns, title, labels))


def _columns(experiment: Experiment) -> Sequence[str]:
    """The names of the columns, or x0, x1, …"""
    return experiment.data.columns or [f"x{column}" for column in range(math.prod(experiment.data.shape))]


def csv_of(experiment: Experiment, values: Tensor) -> bytes:
    """Rows in the units of the data as a file with the names of its columns; a cell that is NaN is empty."""
    return _written([_columns(experiment)]) + _rows_of_table(experiment, values)


def _rows_of_table(experiment: Experiment, values: Tensor) -> bytes:
    standardisation = experiment.data.standardisation
    digits = [7] * values.shape[1] if standardisation is None else standardisation.digits
    rows = (zip(row, digits, strict=True) for row in values.tolist())
    return _written([["" if math.isnan(value) else f"{value:.{n}g}" for value, n in row] for row in rows])


def _written(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
