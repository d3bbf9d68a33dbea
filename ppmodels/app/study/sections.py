"""The tables of a report that are not a claim's: protocol, all models, sample metrics, cost; and what they do not show."""

from collections.abc import Iterable, Sequence
from statistics import fmean, median

from ppmodels.app.study.claims.claim import listed
from ppmodels.app.study.claims.codes import probe
from ppmodels.app.study.claims.likelihood import kind, nats
from ppmodels.app.study.claims.sampling import times
from ppmodels.app.study.claims.sharpness import found
from ppmodels.app.study.claims.stability import collapsed, failed, kids
from ppmodels.app.study.groups import PARAGRAPH, Group
from ppmodels.app.study.measurement import LogLikelihood, Measurement, Missing, Number, Samples, Sharpness, TwoSample
from ppmodels.app.study.protocol import Protocol
from ppmodels.app.study.tables import (
    Cell,
    Table,
    count,
    duration,
    interval,
    none,
    plain,
    probability,
    seconds,
    share,
    table,
    text,
)
from ppmodels.app.study.uncertain import over_seeds

REAL = "real data"


def protocol_table(protocol: Protocol, measurements: Sequence[Measurement]) -> Table:
    """What was fixed before anything was trained."""
    data = protocol.data
    levels = "real numbers" if data.levels is None else f"{data.levels} levels"
    binarised = "" if data.binarisation == "none" else f", binarisation {data.binarisation}"
    spent = sum(each.seconds + each.training.seconds for each in measurements)
    minutes = (
        "by the given steps"
        if protocol.minutes is None
        else f"{protocol.minutes:g} minutes, from which the steps were fixed"
    )
    shape = " × ".join(map(str, data.shape)) + (" columns" if len(data.shape) == 1 else "")
    lines = {
        "data": f"{data.name}, {shape}, {levels}{binarised}",
        "digest": data.digest,
        "split": f"{data.train:,} training, {data.valid:,} valid and {data.test:,} test examples",
        "scored on": f"{len(protocol.examples):,} fixed test examples, the same for all models",
        "classes": "none" if data.classes is None else f"{data.classes}",
        "models": "; ".join(
            f"{model.name} ({model.family or 'a family of its own'}), {model.steps:,} steps of {model.batch_size}"
            for model in protocol.models
        ),
        "seeds": ", ".join(map(str, protocol.seeds)),
        "length": minutes,
        "command": protocol.command,
        "device": protocol.device,
        "versions": ", ".join(f"{name} {version}" for name, version in protocol.versions.items()),
        "time": f"{duration(spent)} of training and measuring, all runs together",
    }
    rows = [[text(name), text(words)] for name, words in lines.items()]
    return table("protocol", "What was fixed before anything was trained", ["what", "here"], rows, protocol.notes)


def main_table(protocol: Protocol, groups: Sequence[Group], real: Samples | None) -> Table:
    """A row for each model, and real data in the place of samples as the last."""
    columns = [
        "model",
        "nats",
        "of log p(x)",
        "bits/dim",
        "KID",
        "coverage",
        "sharpness",
        "time an image",
        "probe",
        "runs",
    ]
    rows = [_model(group, len(protocol.seeds)) for group in groups]
    rows.append(_real(real))
    notes = [
        "Means over seeds. nats ± standard error over test examples and seeds; [ ] are 95 % intervals, with the spread "
        "over seeds.",
        "KID: kernel distance of features to held-out data, 0 is the data. Sharpness: log ratio of the gradients' energy "
        "of draws, or of means where draws say nothing; 0 is the data, below it is blurred. Probe: accuracy of a linear "
        "probe on the codes.",
    ]
    return table("main", "All models on the same data", columns, rows, notes)


def _model(group: Group, seeds: int) -> list[Cell]:
    kid = Missing(_why(group, "kid")) if not kids(group) else over_seeds(kids(group)).number()
    covered = _numbers(group, "coverage")
    bits = [run.log_likelihood.bits_per_dim for run in group.finished if isinstance(run.log_likelihood, LogLikelihood)]
    had = [each for each in bits if each is not None]
    alone = [each.seconds_alone for each in times(group)]
    return [
        text(group.name),
        nats(group),
        text(kind(group) if group.had("log_likelihood") else ""),
        plain(fmean(had), 3) if had else none("densities have no bits/dim") if bits else text(""),
        interval(kid),
        share(over_seeds(covered).number()) if covered else none(_why(group, "coverage")),
        _sharp(group),
        seconds(median(alone)) if alone else none(group.reason("sampling")),
        probe(group),
        text(_runs(group, seeds)),
    ]


def _runs(group: Group, seeds: int) -> str:
    """How many runs there are, and what became of them."""
    said = [f"{len(group.finished)} of {seeds}"]
    said += [f"{failed(group)} failed"] * bool(failed(group)) + [f"{collapsed(group)} collapsed"] * bool(
        collapsed(group)
    )
    return ", ".join(said)


def _sharp(group: Group) -> Cell:
    draws, means = found(group, "sharpness"), found(group, "sharpness_of_means")
    numbers, suffix = (draws, "") if not isinstance(draws, Missing) else (means, " (means)")
    if isinstance(numbers, Missing):
        return none(draws.missing if isinstance(draws, Missing) else numbers.missing)
    cell = interval(over_seeds([each.gradient for each in numbers]).number())
    return Cell(cell.text + suffix, cell.value, cell.low, cell.high)


def _real(real: Samples | None) -> list[Cell]:
    if real is None:
        return [text(REAL), *[text("")] * 3, *[none("real data have not been measured yet")] * 3, *[text("")] * 3]
    sharp = real.sharpness.gradient if isinstance(real.sharpness, Sharpness) else real.sharpness
    return [text(REAL), *[text("")] * 3, interval(real.kid), share(real.coverage), interval(sharp), *[text("")] * 3]


def _numbers(group: Group, name: str) -> list[Number]:
    values = (getattr(run.samples, name) for run in group.finished if isinstance(run.samples, Samples))
    return [each for each in values if isinstance(each, Number)]


def _why(group: Group, name: str) -> str:
    values = (getattr(run.samples, name) for run in group.finished if isinstance(run.samples, Samples))
    return next((each.missing for each in values if isinstance(each, Missing)), group.reason("samples"))


def metrics_table(groups: Sequence[Group], real: Samples | None) -> Table:
    """How near samples are to held-out data, a row for each run, and the row of real data."""
    columns = [
        *("model", "seed", "KID", "MMD²", "p of MMD²", "two-sample accuracy", "p of accuracy"),
        *("precision", "recall", "density", "coverage", "memorisation"),
    ]
    runs = [run for group in groups for run in group.finished]
    rows = [[text(run.model), count(run.seed), *_metrics(run.samples)] for run in runs]
    rows.append(
        [text(REAL), text(""), *_metrics(real if real is not None else Missing("real data have not been measured yet"))]
    )
    samples = [each for each in (*(run.samples for run in runs), real) if isinstance(each, Samples)]
    notes = [
        *_distinct("Against: {}.", (each.reference for each in samples)),
        *_distinct("KID by features of: {}.", (each.features for each in samples)),
        *_distinct("Samples of a run: {}.", (f"{each.samples:,}" for each in samples)),
    ]
    found = [each.detectable for each in samples if each.detectable is not None]
    if found:
        notes.append(f"An accuracy of {max(found):.3f} would be found four times out of five.")
    notes.append(
        "Real data: a part of the training split in the place of samples, as many as were drawn of each model; what it "
        "has is what a perfect model would have. Memorisation: P(a sample is nearer to the training data than a held-out "
        "example), 1/2 where nothing is copied. p-values are of single runs and not corrected for their number."
    )
    return table("metrics", "Samples beside held-out data, by run [95 % interval]", columns, rows, notes)


def _distinct(words: str, values: Iterable[str]) -> list[str]:
    kept = list(dict.fromkeys(each for each in values if each))
    return [words.format(listed(kept))] if kept else []


def _metrics(samples: Samples | Missing) -> list[Cell]:
    if isinstance(samples, Missing):
        return [none(samples.missing)] * 10
    return [
        interval(samples.kid),
        *_test(samples.mmd),
        *_test(samples.classifier),
        share(samples.precision),
        share(samples.recall),
        interval(samples.density),
        share(samples.coverage),
        share(samples.memorisation),
    ]


def _test(test: TwoSample | Missing) -> list[Cell]:
    if isinstance(test, Missing):
        return [none(test.missing)] * 2
    return [interval(test.statistic), probability(test.p_value)]


def cost_table(protocol: Protocol, groups: Sequence[Group]) -> Table:
    """What training and measuring took."""
    sizes = {model.name: model.batch_size for model in protocol.models}
    rows = [
        [
            text(group.name),
            count(group.runs[0].training.parameters),
            count(max(run.training.steps for run in group.runs)),
            count(sizes.get(group.name)),
            seconds(fmean(run.training.seconds for run in group.runs)),
            seconds(fmean(run.seconds for run in group.runs)),
        ]
        for group in groups
        if group.runs
    ]
    columns = ["model", "parameters", "steps", "examples a step", "training a run", "measuring a run"]
    return table("cost", "What a run costs, the mean over seeds", columns, rows)


def limits(protocol: Protocol, groups: Sequence[Group], real: Samples | None) -> list[str]:
    """What the study does not show, as far as it can know."""
    data = protocol.data
    said = [
        f"Every number is of {data.name} and of these sizes and steps. The paragraph was written about large networks on "
        "large pictures; where it does not hold here it may hold there, and the other way round.",
        f"Numbers are of {len(protocol.examples):,} test examples; the valid split chose the stopping points and a "
        "generator's noise, and is not pooled with them. Where these are few, intervals are wide.",
        "No model was tuned for these data: settings are those of its recipe, and more search could change the order.",
        "Distances of samples depend on their features and on the number of samples: compare them within this report "
        "alone.",
        "Verdicts are decided one by one; with six of them, each wrong at most once in twenty times, one of them may well "
        "be.",
    ]
    if len(protocol.seeds) < 2:
        said.append(
            "With one seed nothing is known of what another would give, and no claim that it could change is decided."
        )
    elif len(protocol.seeds) < 5:
        said.append(
            f"{len(protocol.seeds)} seeds show whether training goes wrong often, not whether it goes wrong rarely."
        )
    strangers = [group.name for group in groups if group.family not in PARAGRAPH]
    if strangers:
        said.append(
            f"{listed(strangers)}: of none of the three families, shown beside them, and decides nothing about the "
            "paragraph."
        )
    if real is None:
        said.append("Real data have not been measured yet, so that nothing says what a perfect model would have.")
    return said
