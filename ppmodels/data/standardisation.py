"""Standardisation of a table's columns: less their mean, over their standard deviation."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

_NO_SPREAD = 1.0
"""The scale of a column without spread, and of no other."""


@dataclass(frozen=True)
class Standardisation:
    """(x - shift) / scale, column by column; a model is then fitted to columns of mean 0 and spread 1.

    A column without spread is shifted alone: its scale is 1, which no other's is.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def of(cls, table: Tensor, observed: Tensor | None = None) -> "Standardisation":
        """The mean and standard deviation of each column of a float64 table `(n, features)`, of its observed cells.

        Raises ValueError for a column of which no cell is observed.
        """
        first = table[0]
        if observed is not None:
            if bool((nothing := ~observed.any(0)).any()):
                column = int(nothing.int().argmax()) + 1
                raise ValueError(
                    f"column {column} has no value in the training split, where all of its cells are missing; leave it "
                    "out, or give more rows"
                )
            first = table.gather(0, observed.int().argmax(0, keepdim=True))[0]
            table = torch.where(observed, table, first)  # which leaves what is largest and smallest as it is
        mean = _mean(table, observed)
        deviation = table - mean
        largest = deviation.abs().amax(0)
        # Over the largest first, so that no square underflows.
        sd = largest * _mean((deviation / largest).square(), observed).sqrt()
        # What differs by rounding alone, such as 0.3 and 0.1 + 0.2, has no spread.
        spread = table.amax(0) - table.amin(0) > 16 * torch.finfo(table.dtype).eps * table.abs().amax(0)
        sd = torch.where(sd == _NO_SPREAD, math.nextafter(_NO_SPREAD, 2), sd)
        shift = torch.where(spread, mean, first)  # a mean of equal values can differ from them
        return cls(tuple(shift.tolist()), tuple(torch.where(spread, sd, _NO_SPREAD).tolist()))

    @classmethod
    def recorded(cls, record: Mapping[str, Sequence[float]] | None) -> "Standardisation | None":
        """What `dataclasses.asdict` gave, come back from JSON; None of None. Raises ValueError for anything else."""
        if record is None:
            return None
        shift, scale = record.get("shift"), record.get("scale")
        if not (_are_finite(shift) and _are_finite(scale) and len(shift) == len(scale) and min(scale, default=1) > 0):
            raise ValueError("standardisation: expected a finite shift and a positive scale of each column")
        return cls(tuple(shift), tuple(scale))

    @property
    def log_jacobian(self) -> float:
        """What to add to the log density of a standardised example for that of the original, in nats: -Σ log scale."""
        return -sum(map(math.log, self.scale))

    @property
    def log_jacobians(self) -> Tensor:
        """The same of each column, float64 `(features,)`, for examples of which some cells are missing."""
        return torch.tensor([-math.log(scale) for scale in self.scale], dtype=torch.float64)

    @property
    def digits(self) -> list[int]:
        """The decimal digits that distinguish original values in float32: those of their spread, beside a large mean."""
        columns = zip(self.shift, self.scale, strict=True)
        return [7 + math.ceil(math.log10(max(abs(shift) / scale, 1.0))) for shift, scale in columns]

    def standardised(self, table: Tensor, observed: Tensor | None = None) -> Tensor:
        """A table `(n, features)` in original units, standardised; float64. What is not observed becomes 0.

        Raises ValueError for other columns, and for a value that float32 can not hold beside so small a spread.
        """
        if table.shape[1:] != (len(self.scale),):
            raise ValueError(
                f"expected {len(self.scale)} columns, those of the data whose mean and standard deviation are used, "
                f"got examples of shape {tuple(table.shape[1:])}; give a table of the same columns"
            )
        found = (table - _row(self.shift, table)).div_(_row(self.scale, table))
        if observed is not None:
            found.masked_fill_(~observed, 0)
        far = (found.abs() > torch.finfo(torch.float32).max).any(0)
        if bool(far.any()):
            column = int(far.long().argmax())
            raise ValueError(
                f"column {column + 1}: expected values that can be given in standard deviations, got some more than 1e38 of "
                f"them away, {self.scale[column]:g} each in training; drop the column, or load with standardise=False"
            )
        return found

    def original(self, table: Tensor) -> Tensor:
        """A standardised table `(n, features)` in original units; float64."""
        return table * _row(self.scale, table) + _row(self.shift, table)

    @property
    def without_spread(self) -> list[int]:
        """The places of the columns that had one value in training."""
        return [place for place, scale in enumerate(self.scale) if scale == _NO_SPREAD]


def _mean(table: Tensor, observed: Tensor | None) -> Tensor:
    """The mean of each column's observed cells."""
    return table.mean(0) if observed is None else torch.where(observed, table, 0).sum(0) / observed.sum(0)


def _are_finite(values: object) -> TypeGuard[Sequence[float]]:
    largest = sys.float_info.max  # math.isfinite overflows on a whole number above it
    return isinstance(values, list | tuple) and all(type(x) in (int, float) and abs(x) <= largest for x in values)


def _row(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)
