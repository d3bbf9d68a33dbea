"""Batches: for training a function of the step, for evaluation a pass in order."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ppmodels.data.dataset import Dataset, Split
from ppmodels.data.noise import ORDER, TRAINING_DRAW, bernoulli, mix

Batch = tuple[Any, ...]
"""Tensors, and None in the place of labels that are not asked for where a mask follows."""


def _batch(dataset: Dataset, x: Tensor, y: Tensor | None, observed: Tensor | None) -> Batch:
    """The entries that a program is called with; all examples of a data set have the same."""
    if dataset.tells_observed:
        return x, y, torch.ones_like(x, dtype=torch.bool) if observed is None else observed
    return (x,) if y is None else (x, y)


def _require(dataset: Dataset, split: str, batch_size: int, labelled: bool) -> None:
    if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
        raise ValueError(f"batch_size: expected a whole number of at least 1, got {batch_size!r}")
    if labelled and dataset.split(split).labels is None:
        raise ValueError(f"{dataset.name} has no labels in its {split} split; use labelled=False")


class Shuffled:
    """Training batches as a function of the step: `(x,)`, or `(x, y)` where `labelled`, always `batch_size` examples.

    Of data with missing cells `(x, y, observed)`: y is None where not `labelled`, and `observed` bool of the shape of x.

    x is float32 level values `(batch, channel, height, width)` or `(batch, features)`; y is int64 `(batch,)`. Every
    epoch visits each example once in an order of its own, and a batch may straddle two epochs. A batch of the whole split
    has the split's order at every step: to a program without a plate it is one example. Order and binarisation are functions
    of (seed, epoch) and (seed, step) alone: resuming needs the step and no generator's state.
    Raises ValueError if `batch_size` exceeds the split or labels are asked for that it does not have.
    """

    def __init__(
        self, dataset: Dataset, split: str = "train", batch_size: int = 128, seed: int = 0, labelled: bool = False
    ) -> None:
        """Feed `split` of `dataset`, on the device where it lies."""
        _require(dataset, split, batch_size, labelled)
        self.dataset, self.split, self.batch_size, self.seed, self.labelled = dataset, split, batch_size, seed, labelled
        self._source: Split = dataset.split(split)
        if batch_size > len(self._source):
            raise ValueError(
                f"batch_size: expected at most {len(self._source)}, the examples in the {split} split of "
                f"{dataset.name}, got {batch_size}; use a smaller batch"
            )
        self._generator = torch.Generator(self._source.values.device)
        self._orders: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Batch:
        """The batch of that step."""
        index = self.indices(step)
        x = self._source.values.index_select(0, index)
        if self.dataset.grey_levels is None:
            x = x.float()
        else:
            self._generator.manual_seed(mix(self.seed, TRAINING_DRAW, step))
            x = bernoulli(x, self.dataset.grey_levels - 1, self._generator)
        y = self._source.labels.index_select(0, index) if self.labelled and self._source.labels is not None else None
        observed = self._source.observed
        return _batch(self.dataset, x, y, None if observed is None else observed.index_select(0, index))

    @property
    def description(self) -> dict[str, str | int]:
        """What a number computed on these batches is measured on."""
        return self.dataset.description(self.split)

    @property
    def log_jacobian(self) -> float | Tensor:
        """What to add to a log density of x to have it in the data's own units, in nats; see `Dataset.log_jacobian`."""
        return self.dataset.log_jacobian

    def indices(self, step: int) -> Tensor:
        """The places in the split of the examples of that step: `(batch,)`."""
        epoch, start = divmod(step * self.batch_size, len(self._source))
        index = self._order(epoch)[start : start + self.batch_size]
        missing = self.batch_size - len(index)
        return torch.cat([index, self._order(epoch + 1)[:missing]]) if missing else index

    def _order(self, epoch: int) -> Tensor:
        if self.batch_size == len(self._source):
            return torch.arange(self.batch_size, device=self._source.values.device)
        if epoch not in self._orders:
            # A straddling batch needs two orders: keep the previous one, forget the rest.
            self._orders = {known: order for known, order in self._orders.items() if known == epoch - 1}
            self._generator.manual_seed(mix(self.seed, ORDER, epoch))
            self._orders[epoch] = torch.randperm(
                len(self._source), generator=self._generator, device=self._source.values.device
            )
        return self._orders[epoch]


class InOrder:
    """Evaluation batches of one split in its own order, re-iterable: `(x,)`, or `(x, y)` where `labelled`.

    Of data with missing cells `(x, y, observed)`, as `Shuffled` gives them. x is float32 level values; the last batch may be
    short; `len()` counts batches. Under dynamic binarisation x comes from one fixed draw that depends on the example's
    position and not on `batch_size`.
    """

    def __init__(self, dataset: Dataset, split: str, batch_size: int, labelled: bool = False) -> None:
        """Read `split` of `dataset`, on the device where it lies."""
        _require(dataset, split, batch_size, labelled)
        self.dataset, self.split, self.batch_size, self.labelled = dataset, split, batch_size, labelled
        self._source = dataset.evaluated(split)

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._source) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Pass over the split once, from its first example."""
        for start in range(0, len(self._source), self.batch_size):
            rows = slice(start, start + self.batch_size)
            # A copy even where nothing is converted: what a caller writes into a batch must not reach the data.
            x = self._source.values[rows].to(torch.float32, copy=True)
            y = self._source.labels[rows].clone() if self.labelled and self._source.labels is not None else None
            observed = self._source.observed
            yield _batch(self.dataset, x, y, None if observed is None else observed[rows].clone())

    @property
    def description(self) -> dict[str, str | int]:
        """What a number computed on these batches is measured on."""
        return self.dataset.description(self.split)

    @property
    def log_jacobian(self) -> float | Tensor:
        """What to add to a log density of x to have it in the data's own units, in nats; see `Dataset.log_jacobian`."""
        return self.dataset.log_jacobian
