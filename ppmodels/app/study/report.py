"""The report of a study: one structure of plain data, of which report.json, report.md and report.html are printed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference.training.files import write_together
from ppmodels.app.study import folder, illustrations, sections
from ppmodels.app.study.claims import PARAGRAPH, SOURCE, claims
from ppmodels.app.study.claims.claim import FAILS, HOLDS, UNDECIDED, Claim, listed
from ppmodels.app.study.groups import Group, groups_of
from ppmodels.app.study.illustrations import Album, Picture, Shown
from ppmodels.app.study.measurement import Measurement, Samples
from ppmodels.app.study.protocol import Protocol
from ppmodels.app.study.rendering import files_of
from ppmodels.app.study.tables import Table

FORMAT = 1


@dataclass(frozen=True)
class Said:
    """A verdict inside the paragraph."""

    label: str
    verdict: str
    claim: int


@dataclass(frozen=True)
class Phrase:
    """A phrase of the paragraph with its verdicts."""

    text: str
    after: str
    said: list[Said]


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    key: str
    title: str
    words: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """All that a report says; report.json."""

    title: str
    summary: str
    protocol: Table
    paragraph: list[Phrase]
    source: str
    claims: list[Claim]
    main: Table
    sections: list[Section]
    format: int = FORMAT


def write_report(out: Path) -> Report:
    """Writes report.html, report.md, report.json and their pictures from what has been measured so far.

    Raises FileNotFoundError where there is no study, ValueError where a file of it is damaged.
    """
    protocol = folder.plan_of(out)
    measurements, real = folder.measurements(out, protocol), folder.real_data(out)
    report, pictures = report_of(protocol, measurements, real, out)
    (out / folder.PICTURES).mkdir(exist_ok=True)
    write_together(out / folder.PICTURES, pictures)
    write_together(out, files_of(report, pictures))
    return report


def report_of(
    protocol: Protocol, measurements: Sequence[Measurement], real: Samples | None, out: Path
) -> tuple[Report, dict[str, bytes]]:
    """The report, and its pictures by name; the arrays of pictures are read from the study's folder."""
    groups = planned(protocol, measurements)
    album = Album()
    shown = Shown(protocol, out, groups, album)
    found = claims(groups, real, protocol.data.classes)
    told = _sections(shown, real, measurements)
    report = Report(
        title=f"Generative models on {protocol.data.name}",
        summary=_summary(protocol, measurements, found),
        protocol=sections.protocol_table(protocol, measurements),
        paragraph=_paragraph(found),
        source=SOURCE,
        claims=found,
        main=sections.main_table(protocol, groups, real),
        sections=told,
    )
    return report, album.contents


def _summary(protocol: Protocol, measurements: Sequence[Measurement], found: Sequence[Claim]) -> str:
    planned = len(protocol.models) * len(protocol.seeds)
    runs = (
        f"{len(measurements)} runs" if len(measurements) == planned else f"{len(measurements)} of {planned} runs so far"
    )
    counted = [(sum(claim.verdict == verdict for claim in found), words) for verdict, words in _COUNTED]
    counts = [f"{number} {one if number == 1 else many}" for number, (one, many) in counted]
    return (
        f"{listed(model.name for model in protocol.models)} with {_of(len(protocol.seeds), 'seed')} each, {runs}, measured "
        f"on one scale. Of the six claims {listed(counts)}."
    )


_COUNTED = (
    (HOLDS, ("holds here", "hold here")),
    (FAILS, ("does not", "do not")),
    (UNDECIDED, ("is not decided", "are not decided")),
)


def _of(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _paragraph(found: Sequence[Claim]) -> list[Phrase]:
    parts = {part.key: Said(part.label, part.verdict, claim.number) for claim in found for part in claim.parts}
    return [Phrase(words, after, [parts[key] for key in keys]) for words, after, keys in PARAGRAPH]


def _sections(shown: Shown, real: Samples | None, measurements: Sequence[Measurement]) -> list[Section]:
    groups, album, protocol = shown.groups, shown.album, shown.protocol
    further = [
        *illustrations.reconstructions(shown),
        *illustrations.completions(shown),
        *illustrations.interpolations(shown),
    ]
    bounds = illustrations.bounds(shown)
    found = [
        Section(
            "samples",
            "Samples beside data",
            [
                "Uncurated and of a fixed seed, the first of each model; where another seed is worst by KID, that one too."
            ]
            if groups
            else ["No run has been measured yet."],
            [*illustrations.samples(shown), *illustrations.neighbours(shown)],
        ),
        Section("training", "Training by seed", [], illustrations.curves(shown)),
        Section(
            "likelihood",
            "Likelihood and its bounds",
            []
            if bounds
            else ["No run was evaluated by several estimators: ppmodels evaluate RUN --estimators … does that."],
            [*illustrations.likelihoods(shown), *bounds],
        ),
        Section(
            "codes",
            "Reconstructions, completions, interpolations",
            [] if further else ["No model here has codes, or completes images; or the examples are no images."],
            further,
        ),
        Section(
            "metrics",
            "Samples in numbers",
            [],
            [*illustrations.distances(shown, real), *illustrations.sharpness(shown, real)],
            [sections.metrics_table(groups, real)],
        ),
        Section("cost", "Cost", [], [], [sections.cost_table(protocol, groups)]),
        Section("limits", "What this does not show", sections.limits(protocol, groups, real)),
    ]
    notes = [*album.notes, *(f"{each.model}, seed {each.seed}: {note}" for each in measurements for note in each.notes)]
    return [*found, Section("notes", "Notes", list(dict.fromkeys(notes)))] if notes else found


def planned(protocol: Protocol, measurements: Sequence[Measurement]) -> list[Group]:
    """All models of the study, those without a run yet too."""
    there = {group.name: group for group in groups_of(measurements)}
    return [there.get(model.name, Group(model.name, model.family, ())) for model in protocol.models]
