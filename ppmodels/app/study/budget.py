"""How many steps fit into minutes: arithmetic on timings."""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TIMED = 20
"""Steps by which a model is timed, and the fewest that it is trained by."""


@dataclass(frozen=True)
class Cost:
    """What a model's training was timed to cost, in seconds."""

    start: float
    """From the start of its process until its steps take what they take: imports, data, tracing and compiling."""
    step: float
    score: float
    """A score on the valid split; 0 where there is none."""
    score_every: int | None
    """Steps between two scores."""

    def seconds(self, steps: int) -> float:
        """Of a run of so many steps."""
        scores = 0 if self.score_every is None else math.ceil(steps / self.score_every)
        return self.start + steps * self.step + scores * self.score

    def steps(self, seconds: float, most: int) -> int:
        """The most steps, up to `most`, that take no longer; 0 where there are none."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.seconds(middle) <= seconds else (low, middle - 1)
        return low


def makespan(durations: Sequence[float], processes: int) -> float:
    """When the last of these jobs ends, each begun in its turn by the first process that is free."""
    free = [0.0] * processes
    for duration in durations:
        heapq.heappush(free, heapq.heappop(free) + duration)
    return max(free)


def steps_within(
    minutes: float, costs: Mapping[str, Cost], most: Mapping[str, int], seeds: int, processes: int
) -> dict[str, int]:
    """The steps of each model: all runs are given the same time, the most by which training ends within the minutes.

    No model takes more steps than its recipe has, `most`; what it leaves is the others'.
    Raises ValueError where one would take fewer than TIMED, with the minutes that these need.
    """

    def ends(steps: Mapping[str, int]) -> float:
        """When training ends, in minutes."""
        return makespan([costs[name].seconds(count) for name, count in steps.items()] * seeds, processes) / 60

    def taken(seconds: float) -> dict[str, int]:
        return {name: cost.steps(seconds, most[name]) for name, cost in costs.items()}

    fewest = {name: min(TIMED, count) for name, count in most.items()}
    longest = max(costs[name].seconds(count) for name, count in most.items())
    low, high = 0.0, longest
    if ends(taken(longest)) <= minutes:
        low = longest
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if ends(taken(middle)) <= minutes else (low, middle)
    found = taken(low)
    short = [f"{name} {found[name]}" for name in found if found[name] < fewest[name]]
    if short:
        needed = max(costs[name].seconds(count) for name, count in fewest.items())
        raise ValueError(
            f"--minutes {minutes:g} leaves too few steps: {', '.join(short)}, where {TIMED} are the fewest. These need "
            f"{math.ceil(10 * ends(taken(needed))) / 10:g} minutes; give these, fewer models or seeds, or --steps."
        )
    return found
