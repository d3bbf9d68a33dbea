"""Plates over part of a dataset whose rows the program gives itself: `pyro.plate(..., subsample=indices)`."""

from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor


class GivenSubsamples(Messenger):
    """Indexes `pyro.param` and `pyro.subsample` by the rows of a plate that has as many as the dataset, in any order.

    Pyro takes as many rows as the dataset has for all of them in order, and indexes nothing. They need not be: a batch
    repeated for each particle can be just as long, and so can a shuffled dataset.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, Tensor] = {}
        self.in_order: dict[str, Tensor] = {}

    def _pyro_sample(self, message: Any) -> None:
        rows, name = message["value"], message["name"]
        if not site_is_subsample(message) or not isinstance(rows, Tensor) or rows is self.in_order.get(name):
            return
        if len(rows) == message["fn"].size:
            self.rows[name] = rows

    def _pyro_post_sample(self, message: Any) -> None:
        if site_is_subsample(message) and message["name"] not in self.rows:
            self.in_order[message["name"]] = message["value"]  # drawn by Pyro; the model gets these from the guide

    def _pyro_post_param(self, message: Any) -> None:
        self._index(message)

    def _pyro_post_subsample(self, message: Any) -> None:
        self._index(message)

    def _index(self, message: Any) -> None:
        event_dim = message["kwargs"].get("event_dim")
        if event_dim is None or not self.rows:
            return
        for frame in message["cond_indep_stack"]:
            rows = self.rows.get(frame.name)
            axis = frame.dim - event_dim if frame.dim is not None else 0
            value = message["value"]
            if rows is not None and frame.vectorized and value.dim() >= -axis and value.shape[axis] == frame.full_size:
                message["value"] = value.index_select(axis, rows.to(value.device))
