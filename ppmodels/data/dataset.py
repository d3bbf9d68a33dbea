"""The values: a split is one resident tensor, a dataset is three of them and what their numbers mean."""

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from ppmodels.data.noise import FIXED_DRAW, fixed_draw, mix
from ppmodels.data.reading import Reading
from ppmodels.data.standardisation import Standardisation

SPLITS = ("train", "valid", "test")
BINARISATIONS = ("none", "dynamic", "static", "threshold", "published")


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one split: images, uint8 `(n, channel, height, width)`, or a table, float32 or uint8 `(n, features)`.

    `labels` are int64 `(n,)`, or None. `source` is the fingerprint of what the values were made of, where that is
    something else: a table before it was standardised. `observed` says which cells of a table are known, bool of the shape
    of the values; None where all are. Unknown ones hold 0. Raises ValueError for any other type or shape, and for NaN or
    infinity.
    """

    values: Tensor
    labels: Tensor | None = None
    source: str | None = None
    observed: Tensor | None = None

    def __post_init__(self) -> None:
        """Check type, shape and finiteness."""
        kind = (self.values.dtype, self.values.ndim)
        if kind not in ((torch.uint8, 4), (torch.uint8, 2), (torch.float32, 2)):
            raise ValueError(
                "values: expected uint8 images (n, channel, height, width) or a table (n, features), float32 or uint8, "
                f"got {self.values.dtype} of shape {tuple(self.values.shape)}; convert them, or read a file with `load`"
            )
        if self.values.numel() == 0:
            raise ValueError(f"values: expected at least one number, got shape {tuple(self.values.shape)}")
        if self.values.is_floating_point() and not bool(self.values.isfinite().all()):
            raise ValueError("values: expected finite numbers, got NaN or infinity; drop or impute those rows")
        if self.labels is not None and (self.labels.dtype, self.labels.shape) != (torch.int64, (len(self),)):
            raise ValueError(
                f"labels: expected int64 of shape ({len(self)},), one for each example, "
                f"got {self.labels.dtype} of shape {tuple(self.labels.shape)}"
            )
        if self.observed is not None:
            self._check_observed(self.observed)

    def _check_observed(self, observed: Tensor) -> None:
        if self.values.ndim != 2 or (observed.dtype, observed.shape) != (torch.bool, self.values.shape):
            raise ValueError(
                f"observed: expected bool of the shape of a table's values, {tuple(self.values.shape)}, "
                f"got {observed.dtype} of shape {tuple(observed.shape)}"
            )
        if bool((self.values[~observed] != 0).any()):
            raise ValueError("values: expected 0 in cells that are not observed; torch.where(observed, values, 0)")

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.values)

    def to(self, device: torch.device | str) -> "Split":
        """The same split with its tensors on `device`."""
        labels, observed = (None if each is None else each.to(device) for each in (self.labels, self.observed))
        return replace(self, values=self.values.to(device), labels=labels, observed=observed)

    def take(self, index: Tensor) -> "Split":
        """The examples at `index`, int64 `(m,)`."""
        labels, observed = (None if each is None else each[index] for each in (self.labels, self.observed))
        source = None if self.source is None else fingerprint_of(index, self.source)
        return Split(self.values[index], labels, source, observed)

    @cached_property
    def fingerprint(self) -> str:
        """The first 12 hex digits of the SHA-256 of the values (with their type and shape), computed once.

        Where cells are missing it is of their places too.
        """
        return self.source or fingerprint_of(self.values, self.observed)


def fingerprint_of(values: Tensor, of: str | Tensor | None = None) -> str:
    """The first 12 hex digits of the SHA-256 of `of`, and of a tensor with its type and shape."""
    of = fingerprint_of(of) if isinstance(of, Tensor) else of or ""
    digest = hashlib.sha256(f"{of}{values.dtype} {tuple(values.shape)}".encode())
    digest.update(values.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three splits of equal example shape, the number of levels of a value, and how it was binarised.

    `levels` is what a model sees: values are 0..levels-1, and None stands for real numbers (a density). Under
    dynamic binarisation `levels` is 2 while the splits keep `grey_levels` levels, from which every batch is drawn.
    `binarisation` is "none", "dynamic", "static", "threshold" or "published"; `binarisation_seed` belongs to its draw.
    Of a table, `standardisation` is what was done to its columns, or None, and `columns` are their names, if they have any.
    `reading` is how a file was read, and `remarks` what a person should know of that. `masked` says that a program is made
    for tables with missing cells, as these or those that it was trained on are.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    levels: int | None
    binarisation: str = "none"
    binarisation_seed: int = 0
    grey_levels: int | None = None
    standardisation: Standardisation | None = None
    columns: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    remarks: tuple[str, ...] = ()
    masked: bool = False

    def __post_init__(self) -> None:
        """Check that the splits agree with each other and with the levels."""
        if self.binarisation not in BINARISATIONS:
            raise ValueError(f"binarisation: expected one of {', '.join(BINARISATIONS)}, got {self.binarisation!r}")
        if self.binarisation != "none" and self.levels != 2:
            raise ValueError(f"levels: expected 2 with {self.binarisation} binarisation, got {self.levels}")
        if (self.grey_levels is None) == (self.binarisation == "dynamic"):
            raise ValueError("grey_levels: belongs to dynamic binarisation, and to it alone; use `.binarized(...)`")
        resident = self.grey_levels or self.levels
        for name in SPLITS:
            values = self.split(name).values
            if values.shape[1:] != self.train.values.shape[1:] or values.dtype != self.train.values.dtype:
                raise ValueError(
                    f"{name}: expected {self.train.values.dtype} examples of shape {self.shape} as in train, "
                    f"got {values.dtype} of shape {tuple(values.shape[1:])}"
                )
            if (resident is None) != values.is_floating_point():
                raise ValueError(f"levels: uint8 images have a number of levels and tables have None, got {resident}")
            if resident is not None and int(values.max()) >= resident:
                raise ValueError(f"{name}: expected values 0..{resident - 1}, got {int(values.max())}; check `levels`")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: (channel, height, width) or (features,)."""
        return tuple(self.train.values.shape[1:])

    @property
    def discrete(self) -> bool:
        """Whether log p(x) is the probability of levels; if not, it is a density."""
        return self.levels is not None

    @cached_property
    def classes(self) -> int:
        """One more than the largest label in any split, or 0 if a split has none."""
        labels = [split.labels for split in (self.train, self.valid, self.test) if split.labels is not None]
        return 1 + max(int(some.max()) for some in labels) if len(labels) == len(SPLITS) else 0

    @property
    def missing(self) -> bool:
        """Whether any cell of any split is missing."""
        return any(self.split(name).observed is not None for name in SPLITS)

    @property
    def missing_cells(self) -> list[tuple[int, int]]:
        """The places of the columns with missing cells, and how many each lacks in all splits."""
        counts = torch.zeros(self.shape, dtype=torch.int64)
        for observed in (self.split(name).observed for name in SPLITS):
            counts += 0 if observed is None else (~observed).sum(0).cpu()
        return [(at, int(counts[at])) for at in counts.nonzero().flatten().tolist()]

    @property
    def tells_observed(self) -> bool:
        """Whether batches say which cells are observed."""
        return self.masked or self.missing

    @property
    def log_jacobian(self) -> float | Tensor:
        """What to add to a log density of the values to have it in the data's own units, in nats per example.

        Where batches say which cells are observed, it is that of each column, `(features,)`, and those of an example count.
        """
        if self.standardisation is None:
            return 0.0
        of_columns = self.standardisation.log_jacobians
        return of_columns.to(self.train.values.device) if self.tells_observed else self.standardisation.log_jacobian

    @property
    def notes(self) -> list[str]:
        """What a person who trains on these data should know."""
        return [
            *self.remarks,
            *([f"{self._missing()} cells are missing, and numbers are of the observed ones"] if self.missing else []),
            *(
                f"{column} has no spread: samples keep its value, and no density fits a constant, so better leave it out"
                for column in self._without_spread
            ),
            *(
                f"{self._named(at)} has one value in {share:.0%} of its rows: a density has no bound there, and log p(x) "
                "may tell of little else; better leave the column out"
                for at, share in self._repeated
            ),
        ]

    @cached_property
    def constant(self) -> list[int]:
        """The places of the columns of a table that have one value in the training split."""
        if self.standardisation is not None:
            return self.standardisation.without_spread
        values, observed = self.train.values, self.train.observed
        if values.ndim != 2:
            return []
        known = torch.ones_like(values, dtype=torch.bool) if observed is None else observed
        first = values[known.int().argmax(0), torch.arange(values.shape[1], device=values.device)]
        return [int(place) for place in ((values == first) | ~known).all(0).nonzero()]

    @property
    def _without_spread(self) -> list[str]:
        """Those of a standardised table, by place (from 1) and name."""
        if self.standardisation is None:
            return []
        return [self._named(at) for at in self.constant]

    @property
    def _repeated(self) -> list[tuple[int, float]]:
        """The columns of real numbers in which one value is that of a twentieth of the training rows, and its share."""
        values, observed = self.train.values, self.train.observed
        if self.discrete or values.ndim != 2:
            return []
        often = []
        for at in range(values.shape[1]):
            known = values[:, at] if observed is None else values[observed[:, at], at]
            count = int((known == known.mode().values).sum()) if len(known) else 0
            if count >= max(10, len(known) / 20) and at not in self.constant:
                often.append((at, count / len(known)))
        return often

    def _named(self, at: int) -> str:
        return f"column {at + 1}" + (f" ({self.columns[at]})" if self.columns else "")

    def _missing(self) -> str:
        """How many cells are missing, of how many."""
        splits = [self.split(name) for name in SPLITS]
        missing = sum(int((~each.observed).sum()) for each in splits if each.observed is not None)
        return f"{missing:,} of {sum(each.values.numel() for each in splits):,}"

    def original(self, values: Tensor) -> Tensor:
        """Values such as the splits hold, `(n, *shape)`, in the units of the source."""
        return values if self.standardisation is None else self.standardisation.original(values)

    def split(self, name: str) -> Split:
        """The split of that name: "train", "valid" or "test"."""
        if name not in SPLITS:
            raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {name!r}")
        split: Split = getattr(self, name)
        return split

    def to(self, device: torch.device | str) -> "Dataset":
        """The same dataset with every tensor on `device`."""
        return replace(self, train=self.train.to(device), valid=self.valid.to(device), test=self.test.to(device))

    def binarized(self, how: str, seed: int = 0) -> "Dataset":
        """This dataset with two levels, for a Bernoulli likelihood.

        "static" draws Bernoulli(grey / (levels - 1)) once, from the seed. "threshold" is on from half the top level.
        "dynamic" keeps the grey levels and draws every training batch afresh; in evaluation it is the static draw
        of the same seed. "none" changes nothing. Raises ValueError for a table and for images that are binary already.
        """
        choices = ("none", "dynamic", "static", "threshold")
        if how not in choices:
            raise ValueError(f"binarized: expected one of {', '.join(choices)}, got {how!r}")
        if how == "none":
            return self
        if self.levels is None:
            raise ValueError(f"{self.name} is a table of real numbers and has no grey levels to binarise; use 'none'")
        if self.levels == 2:
            raise ValueError(
                f"{self.name} is binary already (binarisation: {self.binarisation}); use it as it is ('none')"
            )
        if how == "dynamic":
            return replace(self, levels=2, binarisation=how, binarisation_seed=seed, grey_levels=self.levels)
        train, valid, test = (self._binary(name, how, seed, self.levels - 1) for name in SPLITS)
        return replace(self, train=train, valid=valid, test=test, levels=2, binarisation=how, binarisation_seed=seed)

    def evaluated(self, name: str) -> Split:
        """The split as evaluation reads it: under dynamic binarisation the one fixed draw, else the split itself."""
        if self.grey_levels is None:
            return self.split(name)
        return self._binary(name, "static", self.binarisation_seed, self.grey_levels - 1)

    def _binary(self, name: str, how: str, seed: int, top: int) -> Split:
        values = self.split(name).values
        if how == "threshold":
            on = (values >= (top + 1) // 2).to(torch.uint8)
        else:
            on = fixed_draw(values, top, mix(seed, FIXED_DRAW, SPLITS.index(name)))
        return replace(self.split(name), values=on)

    def description(self, split: str) -> dict[str, str | int]:
        """What a number computed on that split is measured on; two numbers compare only where these agree."""
        seed = self.binarisation_seed
        binarisation = {
            "none": "none",
            "dynamic": "dynamic (a fresh Bernoulli draw each epoch in training; "
            f"one fixed draw, seed {seed}, in evaluation)",
            "static": f"static (one fixed Bernoulli draw, seed {seed})",
            "threshold": "threshold (on from half the top level)",
            "published": "published (binarised by its source)",
        }
        about: dict[str, str | int] = {
            "data": self.name,
            "split": split,
            "examples": len(self.split(split)),
            "levels": "none" if self.levels is None else self.levels,
            "binarisation": binarisation[self.binarisation],
            "fingerprint": self.split(split).fingerprint,
        }
        observed = self.split(split).observed
        if observed is not None:
            about |= {"observed": f"{int(observed.sum()):,} of {observed.numel():,} cells"}
        return about if self.discrete else about | {"standardised": self._standardised()}

    def _standardised(self) -> str:
        if self.standardisation is None:
            return "no"
        constant = ", ".join(self._without_spread)
        how = "by the mean and standard deviation of the training split; nats are of the original units"
        return f"{how}; without spread: {constant}" if constant else how
