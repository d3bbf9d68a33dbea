"""How near samples are to held-out data, by all metrics, each with its interval or the reason why it has none."""

import math
from dataclasses import dataclass

from torch import Tensor

from inference.evaluation.sample_metrics import classifier_test, mmd, neighbours, sharpness
from inference.evaluation.sample_metrics.neighbours import Memorisation, Neighbours
from inference.evaluation.sample_metrics.score import Score
from ppmodels.app.study.drawing import Drawn
from ppmodels.app.study.features import Features, columns_of
from ppmodels.app.study.measurement import Missing, Number, Samples, Sharpness, TwoSample
from ppmodels.app.study.missing import found_or_missing, number
from ppmodels.app.study.settled import held_out_rows, is_images, kept_apart, others
from ppmodels.data import Dataset

BLOCK, FEWEST = 50, 10
"""Rows of a block of KID, and the fewest."""
WORK = 5e11
"""The most products of numbers for training neighbours."""


@dataclass(frozen=True)
class Compared:
    """The metrics of some samples, and what else they found out."""

    metrics: Samples
    nearest: Tensor
    """The training rows that are nearest to the samples: `(samples, *shape)`, or none where that is not known."""
    collapsed: bool
    """Whether coverage is below half of what as many data would have, by its whole interval."""
    notes: list[str]


def compared(drawn: Drawn, data: Dataset, features: Features) -> Compared:
    """Samples of a model beside the test split, and beside the training split for copies of it."""
    return _compared(drawn, data, features, data.train.values)


def real_against_real(data: Dataset, features: Features) -> Samples:
    """Training rows in the place of samples, beside the test split; for copies, beside the rest of the training split.

    KID's network has not seen them either, so that they are to it what held-out data are.
    """
    apart = kept_apart(data)
    rest = others(len(data.train), apart)
    none = Missing("data have no means given latents")
    drawn = Drawn(data.train.values[apart].float(), none, [])
    if not len(rest):
        raise ValueError("the training split has a single example")
    return _compared(drawn, data, features, data.train.values[rest]).metrics


def _compared(drawn: Drawn, data: Dataset, features: Features, train: Tensor) -> Compared:
    rows = held_out_rows(data)
    held_out = data.test.values[rows]
    columns = columns_of(data)
    x, y = columns(drawn.samples), columns(held_out)
    tested = found_or_missing(lambda: classifier_test.classifier_test(x, y))
    near = found_or_missing(lambda: neighbours.neighbours(x, y))
    known, notes = _within_reach(train, len(x) + len(y))
    copied = found_or_missing(lambda: neighbours.memorisation(x, columns(known), y))
    metrics = Samples(
        samples=len(drawn.samples),
        reference=_reference(len(rows), len(data.test)),
        features=features.words,
        kid=found_or_missing(lambda: number(_kid(features.of(drawn.samples), features.of(held_out)))),
        mmd=found_or_missing(lambda: _mmd(x, y)),
        classifier=tested if isinstance(tested, Missing) else TwoSample(number(tested.accuracy), tested.p_value),
        detectable=None if isinstance(tested, Missing) else tested.detectable,
        precision=_of(near, "precision"),
        recall=_of(near, "recall"),
        density=_of(near, "density"),
        coverage=_of(near, "coverage"),
        memorisation=copied if isinstance(copied, Missing) else number(copied.nearer),
        sharpness=_sharpness(drawn.samples, held_out, data),
        sharpness_of_means=drawn.means if isinstance(drawn.means, Missing) else _of_means(drawn.means, held_out, data),
    )
    return Compared(metrics, _nearest(copied, known), _collapsed(near), [*drawn.notes, *notes])


def _reference(rows: int, of: int) -> str:
    return f"{rows:,} of the test split" if rows == of else f"{rows:,} of the {of:,} of the test split"


def _kid(x: Tensor, y: Tensor) -> Score:
    block = min(BLOCK, min(len(x), len(y)) // 3)
    if block < FEWEST:
        raise ValueError(
            f"{len(x)} samples beside {len(y)} data are too few for three blocks of {FEWEST}, by which KID has its error"
        )
    return mmd.kid(x, y, block)


def _mmd(x: Tensor, y: Tensor) -> TwoSample:
    found = mmd.mmd(x, y)
    return TwoSample(number(found.score), found.p_value)


def _of(near: Neighbours | Missing, name: str) -> Number | Missing:
    return near if isinstance(near, Missing) else number(getattr(near, name))


def _collapsed(near: Neighbours | Missing) -> bool:
    return not isinstance(near, Missing) and near.coverage.high < near.expected_coverage / 2


def _within_reach(train: Tensor, queries: int) -> tuple[Tensor, list[str]]:
    """The training rows, or as many of the first as can be searched for the neighbours of so many, with a note."""
    most = max(1000, int(WORK / (queries * math.prod(train.shape[1:]))))
    if len(train) <= most:
        return train, []
    return train[:most], [f"copies were looked for among the first {most:,} of {len(train):,} training examples"]


def _nearest(copied: Memorisation | Missing, known: Tensor) -> Tensor:
    return known[:0] if isinstance(copied, Missing) else known[copied.nearest]


def _sharpness(samples: Tensor, held_out: Tensor, data: Dataset) -> Sharpness | Missing:
    if data.levels == 2 and is_images(data):
        return Missing("draws of binary pixels are as sharp as their noise, and say nothing")
    return _of_means(samples, held_out, data)


def _of_means(images: Tensor, held_out: Tensor, data: Dataset) -> Sharpness | Missing:
    if not is_images(data):
        return Missing("these are no images")

    def ratios() -> Sharpness:
        found = sharpness.sharpness(images, held_out)
        return Sharpness(number(found.gradient), number(found.high_frequency))

    return found_or_missing(ratios)
