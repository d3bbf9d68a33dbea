"""The data of a study as evaluation reads them, and the choices of rows that all of its runs share."""

import dataclasses

import torch
from torch import Tensor

from ppmodels.app.experiment import Experiment, chosen_rows
from ppmodels.data import Dataset
from ppmodels.data.dataset import SPLITS

MOST = 1000
"""Samples of a run, and held-out examples beside them, at most."""


def settled(data: Dataset) -> Dataset:
    """The data with the one fixed draw of each split, where every batch would be binarised anew."""
    if data.grey_levels is None:
        return data
    train, valid, test = (data.evaluated(name) for name in SPLITS)
    return dataclasses.replace(data, train=train, valid=valid, test=test, binarisation="static", grey_levels=None)


def with_test(experiment: Experiment, rows: Tensor) -> Experiment:
    """The experiment with these rows of its test split alone."""
    data = settled(experiment.data)
    return dataclasses.replace(
        experiment, data=dataclasses.replace(data, test=data.test.take(rows.to(experiment.device)))
    )


def held_out_rows(data: Dataset) -> Tensor:
    """The rows of the test split that samples are compared with: all, or a fixed choice of 1,000."""
    return chosen_rows(len(data.test), MOST)


def kept_apart(data: Dataset) -> Tensor:
    """The training rows that stand in the place of samples, real against real: a fixed choice, as many as samples.

    At most half of the split; the rest of it is what KID's network learns from.
    """
    return chosen_rows(len(data.train), max(1, min(len(held_out_rows(data)), len(data.train) // 2)))


def others(count: int, rows: Tensor) -> Tensor:
    """The rows of so many that are not among these."""
    left = torch.ones(count, dtype=torch.bool)
    left[rows] = False
    return left.nonzero().squeeze(1)


def is_images(data: Dataset) -> bool:
    """Whether examples are images of two pixels a side or more."""
    return len(data.shape) == 3 and min(data.shape[1:]) >= 2


def original(data: Dataset, values: Tensor) -> Tensor:
    """Values as the splits hold them, as float32 in the data's own units."""
    return data.original(values.float()).float().cpu()
