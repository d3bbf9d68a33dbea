"""Plates over part of a data set: which rows are at hand, where a program names them itself."""

from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor


class GivenSubsamples(Messenger):
    """Indexes `pyro.param` and `pyro.subsample` by the rows of a plate that has as many as the data set, in any order.

    Pyro takes so many rows for all of them in their own order, and indexes nothing. They need not be: copies of a batch,
    one for each particle, can be just as long, and so can a shuffled data set.
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
            self.in_order[message["name"]] = message["value"]  # Pyro's own, which the model gets from the guide

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
