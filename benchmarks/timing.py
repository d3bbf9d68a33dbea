"""Two or more things timed in turn, so that a machine whose speed drifts is fair to all of them."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(things: Mapping[str, Callable[[], object]], rounds: int = 40, calls: int = 5) -> dict[str, list[float]]:
    """Seconds per call of each thing, in `rounds` rounds of `calls` calls each, one thing after the other."""
    for thing in things.values():
        for _ in range(5):
            thing()
    found: dict[str, list[float]] = {name: [] for name in things}
    for _ in range(rounds):
        for name, thing in things.items():
            synchronise()
            began = time.perf_counter()
            for _ in range(calls):
                thing()
            synchronise()
            found[name].append((time.perf_counter() - began) / calls)
    return found


def synchronise() -> None:
    """Waits for a CUDA device in use."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def ratio(first: list[float], second: list[float]) -> str:
    """The ratio round by round: its median and quartiles."""
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f}, {len(ratios)} rounds)"


def milliseconds(times: list[float]) -> str:
    """The median, and the fastest round."""
    return f"{1e3 * statistics.median(times):.3f} ms (fastest {1e3 * min(times):.3f})"


def machine(device: str) -> str:
    """What the machine can do: the speed of a float32 matrix product."""
    size = 1024 if device == "cpu" else 8192
    a = torch.randn(size, size, device=device)
    times = interleaved({"product": lambda: a @ a}, rounds=10, calls=3)["product"]
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}: matrix product {size}³ at {2 * size**3 / min(times) / 1e9:.0f} GF/s"
