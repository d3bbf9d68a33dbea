"""Whole numbers and real ones, as users give them."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from inference import ProgramError
from inference.programs.numbers import refuse_below, refuse_outside


@pytest.mark.parametrize("value", [1, 2**63 - 1, np.int32(3), torch.tensor(3)])
def test_whole_numbers_are_taken_as_they_come(value: Any) -> None:
    refuse_below("draws", value, 1)


@pytest.mark.parametrize("value", [0, -1, 2**63, 2.0, "3", None, True, torch.tensor(3.0), math.nan])
def test_what_is_no_whole_number_of_that_size_is_named(value: Any) -> None:
    with pytest.raises(ProgramError, match="draws: expected a whole number of at least 1, for a reason, got "):
        refuse_below("draws", value, 1, "for a reason")


@pytest.mark.parametrize("value", [0.0, 1, math.nan, "0.5", None, True])
def test_ends_of_an_interval_are_left_out(value: Any) -> None:
    refuse_outside("level", 0.5, 0.0, 1.0)
    with pytest.raises(ProgramError, match="level: expected a number between 0 and 1, got "):
        refuse_outside("level", value, 0.0, 1.0)


def test_intervals_without_ends_are_told() -> None:
    with pytest.raises(ProgramError, match="rate: expected a number above 0, got inf"):
        refuse_outside("rate", math.inf, 0.0, math.inf)
    with pytest.raises(ProgramError, match="alpha: expected a number that is finite, got inf"):
        refuse_outside("alpha", math.inf, -math.inf, math.inf)
