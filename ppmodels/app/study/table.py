"""The short table of a study: what is measured so far, by model."""

import math
from collections.abc import Callable, Sequence
from statistics import mean, stdev

from rich.console import Console
from rich.table import Table

from ppmodels.app.study.measurement import FAILED, LogLikelihood, Measurement, Missing, Number, Sampling
from ppmodels.app.study.protocol import Protocol
from ppmodels.app.terminal import printable


def table(protocol: Protocol, found: Sequence[Measurement], console: Console) -> None:
    """Prints log p(x), KID and the time of a sample of each model."""
    data = protocol.data
    rows = Table(
        title=printable(f"{data.name}, {len(protocol.examples)} of {data.test} test examples"),
        title_justify="left",
        title_style="bold",
    )
    rows.add_column("model", overflow="fold")
    rows.add_column("of log p(x)", overflow="fold")
    for heading in ("nats", "KID", "a sample", "seeds"):
        rows.add_column(heading, justify="right", no_wrap=True)
    for model in protocol.models:
        own = [each for each in found if each.model == model.name]
        rows.add_row(*map(printable, (model.name, _kind(own), _nats(own), _kid(own), _time(own), _seeds(own))))
    console.print(rows)
    console.print(
        "Means over seeds ± their standard deviation; of one seed, nats ± the standard error over the examples.",
        style="dim",
    )


def spread(values: Sequence[float], written: Callable[[float], str], alone: float | None = None) -> str:
    """The mean of values ± their standard deviation; of one, ± what it has alone."""
    if not values:
        return "—"
    error = stdev(values) if len(values) > 1 else alone
    return written(mean(values)) + ("" if error is None else f" ± {written(error)}")


def _likelihoods(own: Sequence[Measurement]) -> list[LogLikelihood]:
    return [each.log_likelihood for each in own if isinstance(each.log_likelihood, LogLikelihood)]


def _kind(own: Sequence[Measurement]) -> str:
    kinds = {each.kind.removesuffix(" in expectation") for each in _likelihoods(own)}
    return " and ".join(sorted(kinds)) or "—"


def _nats(own: Sequence[Measurement]) -> str:
    scored = _likelihoods(own)
    return spread([each.nats for each in scored], "{:.2f}".format, scored[0].standard_error if scored else None)


def _kid(own: Sequence[Measurement]) -> str:
    values = [each.samples.kid for each in own if not isinstance(each.samples, Missing)]
    return spread([each.value for each in values if isinstance(each, Number)], "{:.4f}".format)


def _time(own: Sequence[Measurement]) -> str:
    times = [each.sampling.seconds_alone for each in own if isinstance(each.sampling, Sampling)]
    return duration(mean(times)) if times else "—"


def _seeds(own: Sequence[Measurement]) -> str:
    bad = sum(each.status == FAILED for each in own)
    return f"{bad} of {len(own)} failed" if bad else f"{len(own)}"


def duration(seconds: float) -> str:
    """A short time in its own unit, to three digits."""
    unit, factor = next(
        ((unit, factor) for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)) if seconds * factor >= 1),
        ("µs", 1e6),
    )
    digits = max(0, 2 - math.floor(math.log10(max(seconds * factor, 1e-9))))
    return f"{seconds * factor:.{min(digits, 2)}f} {unit}"
