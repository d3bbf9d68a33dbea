"""A report is complete whatever is missing, says what is missing, and is the same in all of its files."""

import dataclasses
import io
import json
import re
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from ppmodels.app import plots
from ppmodels.app.study.claims.claim import FAILS, HOLDS, UNDECIDED
from ppmodels.app.study.measurement import Missing, Samples
from ppmodels.app.study.protocol import StudyData
from ppmodels.app.study.report import Report, write_report
from ppmodels.app.study.terminal import table, verdicts
from tests.ppmodels.study import made_up

USUAL = ("vae", "gan", "pixelcnn")


def usual(out: Path, **changed: Any) -> Path:
    runs = [made_up.run(model, seed) for model in USUAL for seed in (0, 1)]
    return made_up.written(out, made_up.study(seeds=(0, 1), **changed), runs, made_up.samples(0.0, 0.0))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study with its report, which nobody changes."""
    out = usual(tmp_path_factory.mktemp("study"))
    write_report(out)
    return out


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time of a report, and many tests do not look at them."""
    monkeypatch.setattr(plots, "png", lambda figure: b"\x89PNG")


class Page(HTMLParser):
    """What a page has: the texts of cells, verdicts and headings, pictures, ids, links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.verdicts: list[str] = []
        self.headings: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self._into: list[list[str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        found = dict(attrs)
        into = {"td": self.cells, "th": self.cells, "h1": self.headings, "h2": self.headings, "h3": self.headings}.get(
            tag
        )
        if tag == "span" and "verdict" in str(found.get("class")):
            into = self.verdicts
        if into is not None:
            into.append("")
            self._into.append(into)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "h1", "h2", "h3") or (tag == "span" and self._into and self._into[-1] is self.verdicts):
            self._into.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
        for into in self._into[-1:]:
            into[-1] += data


def page(out: Path) -> Page:
    return Page((out / "report.html").read_text())


def plain(out: Path) -> Any:
    return json.loads((out / "report.json").read_text())


def markdown(out: Path) -> str:
    """report.md as it is read, without the marks that keep texts from being taken for Markdown."""
    text = (out / "report.md").read_text()
    for mark in ("\\|", "\\*", "\\_", "\\`", "\\(", "\\\\"):
        text = text.replace(mark, "¦" if mark == "\\|" else mark[1])
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def tables_of(found: Any) -> Iterator[dict[str, Any]]:
    """The tables of report.json in the order of the page."""
    yield found["protocol"]
    for claim in found["claims"]:
        yield from claim["tables"]
    yield found["main"]
    for section in found["sections"]:
        yield from section["tables"]


def test_the_three_files_hold_the_same_numbers(whole: Path) -> None:
    out = whole
    found = plain(out)
    expected = [
        text for each in tables_of(found) for text in (*each["columns"], *(c["text"] for r in each["rows"] for c in r))
    ]
    assert page(out).cells == expected
    rows = [line for line in markdown(out).splitlines() if line.startswith("|") and "---" not in line]
    assert [cell.strip() for row in rows for cell in row.strip("|").split("|")] == expected
    said = [each["verdict"] for phrase in found["paragraph"] for each in phrase["said"]]
    for claim in found["claims"]:
        parts = [part["verdict"] for part in claim["parts"]]
        said += [claim["verdict"], *(parts if len(parts) > 1 else [])]
    assert page(out).verdicts == said
    words = "holds here|does not hold here|not decided|left out"
    found_there = re.findall(rf"\*\*({words})\*\*|^### .*: ({words})$", (out / "report.md").read_text(), re.MULTILINE)
    assert [bold or heading for bold, heading in found_there] == said
    for text in [part["because"] for claim in found["claims"] for part in claim["parts"]]:
        assert text in page(out).text
        assert text.replace("|", "¦") in markdown(out)


def test_a_cell_shows_the_number_that_it_holds(whole: Path) -> None:
    units = {"µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
    shown = 0
    for each in tables_of(plain(whole)):
        for cell in (cell for row in each["rows"] for cell in row if cell["value"] is not None):
            text = cell["text"].rsplit(": ", 1)[-1].replace("−", "-").replace(",", "")
            if text.startswith(("<", ">", "≥")):
                continue
            number, *unit = text.split()[:2]
            digits = len(number.partition(".")[2])
            factor = units.get(unit[0], 1.0) if unit else 1.0
            close = max(0.51 * 10**-digits, 0.006 * abs(cell["value"]) / factor)
            assert float(number) == pytest.approx(cell["value"] / factor, abs=close), cell
            shown += 1
    assert shown > 80


@pytest.mark.usefixtures("undrawn")
def test_the_report_returned_is_the_one_written(tmp_path: Path) -> None:
    report = write_report(usual(tmp_path))
    assert isinstance(report, Report)
    assert dataclasses.asdict(report)["claims"] == plain(tmp_path)["claims"]
    assert [claim.number for claim in report.claims] == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("undrawn")
def test_the_terminal_shows_the_numbers_of_the_page(tmp_path: Path) -> None:
    report = write_report(usual(tmp_path))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(report))
    console.print(verdicts(report))
    text = console.export_text()
    for row in report.main.rows[:3]:
        for cell in row[1:2] + row[4:7]:
            assert cell.text.partition(" [")[0] in text, (cell, text)
    assert max(map(cell_len, text.splitlines())) <= 80
    lines = [line for line in text.splitlines() if re.match(r"[1-6] ", line)]
    assert [next(each for each in (HOLDS, FAILS, UNDECIDED) if each in line) for line in lines] == [
        claim.verdict for claim in report.claims
    ]


def test_a_summary_counts_in_english(tmp_path: Path) -> None:
    report = write_report(made_up.written(tmp_path, made_up.study(("pixelcnn",), (0,)), [made_up.run("pixelcnn")]))
    assert report.summary.endswith("Of the six claims 0 hold here, 0 do not and 6 are not decided.")
    assert [each.name for each in report.claims[0].tables] == ["likelihood-models"], "of pairs there are none"
    runs = [made_up.run(model, seed) for model in USUAL for seed in (0, 1)]
    slow = dataclasses.replace(runs[0], sampling=Missing("not measured"))
    found = write_report(made_up.written(tmp_path, made_up.study(USUAL, (0, 1)), [slow, *runs[1:]])).summary
    assert not re.search(r"\b1 (hold|do|are)\b", found)
    assert "1 is not decided" in found


def test_the_terminal_cuts_no_words_off(tmp_path: Path) -> None:
    runs = [made_up.run("vae", seed, samples=made_up.samples(0.02, None, -0.5), collapsed=True) for seed in range(2)]
    report = write_report(made_up.written(tmp_path, made_up.study(("vae",), (0, 1)), runs))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(report))
    text = console.export_text()
    assert "(means)" in text
    assert "collapsed" in text


def test_every_picture_is_in_the_page_with_words_for_it(whole: Path) -> None:
    pictures = [picture for section in plain(whole)["sections"] for picture in section["pictures"]]
    shown = [found for tag, found in page(whole).attributes if tag == "img"]
    assert [found["alt"] for found in shown] == [picture["alt"] for picture in pictures]
    assert all(str(found["src"]).startswith("data:image/png;base64,iVBOR") for found in shown)
    assert all(len(picture["alt"]) > 20 and (whole / picture["file"]).is_file() for picture in pictures)
    names = " ".join(picture["file"] for picture in pictures)
    for what in ("data", "samples-vae-0", "neighbours-gan-0", "reconstructions-vae-0", "completions-pixelcnn-0",
                 "interpolation-vae-0", "curves-gan", "likelihoods", "kid", "sharpness-of-draws"):  # fmt: skip
        assert f"pictures/{what}.png" in names


def test_a_page_asks_for_nothing_outside(whole: Path) -> None:
    text = (whole / "report.html").read_text()
    assert "<script" not in text
    assert not re.findall(r"url\(|@import|https?://|//[a-z]", re.sub(r"base64,[^\"]*", "", text))
    ids = {found["id"] for _, found in page(whole).attributes if "id" in found}
    links = [str(found["href"]) for tag, found in page(whole).attributes if tag == "a"]
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_headings_and_tables_can_be_read_aloud(whole: Path) -> None:
    tags = [tag for tag, _ in page(whole).attributes]
    assert tags.count("h1") == 1
    assert tags.count("caption") == tags.count("table") > 8
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all("scope" in found for tag, found in page(whole).attributes if tag == "th")


@pytest.mark.usefixtures("undrawn")
def test_a_failed_seed_is_counted_and_its_reason_told(tmp_path: Path) -> None:
    runs = [made_up.run(model, 0) for model in USUAL] + [made_up.run("vae", 1), made_up.run("pixelcnn", 1)]
    made_up.written(tmp_path, made_up.study(seeds=(0, 1)), [*runs, made_up.failed("gan", 1)])
    report = write_report(tmp_path)
    assert [row[-1].text for row in report.main.rows[:3]] == ["2 of 2", "1 of 2, 1 failed", "2 of 2"]
    assert report.claims[2].verdict == HOLDS
    assert "loss of the critic is nan at step 412" in page(tmp_path).text
    assert "real data have not been measured yet" in page(tmp_path).text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("models", [("vae",), ("gan",), ("pixelcnn",), ("own.py",)])
def test_of_one_model_a_report_says_what_is_missing(tmp_path: Path, models: Sequence[str]) -> None:
    runs = [made_up.run(model, seed) for model in models for seed in (0, 1)]
    made_up.written(tmp_path, made_up.study(models, (0, 1)), runs, made_up.samples())
    report = write_report(tmp_path)
    assert report.claims[0].verdict == UNDECIDED
    assert "there is no" in report.claims[0].parts[0].because
    assert len(report.main.rows) == 2
    assert page(tmp_path).headings[0] == "Generative models on digits"


@pytest.mark.usefixtures("undrawn")
def test_before_any_run_a_report_is_there(tmp_path: Path) -> None:
    made_up.written(tmp_path, made_up.study(), [])
    report = write_report(tmp_path)
    assert "0 of 9 runs so far" in report.summary
    assert all(claim.verdict == UNDECIDED for claim in report.claims)
    assert "no run yet" in markdown(tmp_path)


def test_of_a_table(tmp_path: Path) -> None:
    data = StudyData("house.csv", "abc", [3], None, "none", None, 300, 40, 40)
    images = Missing("of images alone")
    runs = [
        dataclasses.replace(
            each, samples=dataclasses.replace(each.samples, sharpness=images, sharpness_of_means=images)
        )
        for model in ("vae", "flow")
        for seed in (0,)
        if isinstance((each := made_up.run(model, seed)).samples, Samples)
    ]
    made_up.written(tmp_path, made_up.study(("vae", "flow"), (0,), data=data), runs, made_up.samples())
    report = write_report(tmp_path)
    names = [picture.file for section in report.sections for picture in section.pictures]
    assert "pictures/samples-flow-0.png" in names
    assert not [name for name in names if "reconstructions" in name or "neighbours" in name]
    assert "of images alone" in page(tmp_path).text
    assert "there is no autoregressive model here" in report.claims[0].parts[0].because


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("shape", "levels"), [([3, 12, 10], 256), ([2, 9, 9], None), ([1, 5, 40], 2)])
def test_of_images_of_any_size_and_channels(tmp_path: Path, shape: list[int], levels: int | None) -> None:
    data = StudyData("pictures", "abc", shape, levels, "none", 3, 300, 40, 40)
    out = usual(tmp_path, data=data)
    report = write_report(out)
    assert "pictures/samples-gan-0.png" in [each.file for section in report.sections for each in section.pictures]
    assert not [section for section in report.sections if section.key == "notes"]


@pytest.mark.usefixtures("undrawn")
def test_names_of_others_are_no_markup(tmp_path: Path) -> None:
    name = "<b>a|b</b> *x* [y](http://z)\n\x1b[2J &amp; {{ 7 * 7 }} $x"
    protocol = made_up.study(("vae",), (0, 1))
    odd = dataclasses.replace(protocol.models[0], name=name)
    protocol = dataclasses.replace(protocol, models=[odd])
    made_up.written(
        tmp_path,
        protocol,
        [dataclasses.replace(made_up.run("vae", seed), model=name, run=protocol.run_of(odd, seed)) for seed in (0, 1)],
        made_up.samples(),
    )
    write_report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "<b>" not in text
    assert "&lt;b&gt;a|b&lt;/b&gt;" in text
    assert "49" not in [each.strip() for each in page(tmp_path).cells]
    assert "\x1b" not in text + (tmp_path / "report.md").read_text()
    assert "<b>" not in (tmp_path / "report.md").read_text()
    assert "](http" not in (tmp_path / "report.md").read_text()
    assert plain(tmp_path)["main"]["rows"][0][0]["text"] == name


@pytest.mark.usefixtures("undrawn")
def test_damaged_files_are_named(tmp_path: Path) -> None:
    out = usual(tmp_path)
    (out / "measured" / "vae-0.npz").write_bytes(b"PK nothing")
    write_report(out)
    assert "vae-0.npz is damaged" in page(out).text
    (out / "measured" / "gan-0.json").write_text('{"model": 1')
    with pytest.raises(ValueError, match=r"gan-0\.json is damaged"):
        write_report(out)
    with pytest.raises(FileNotFoundError, match=r"study\.json"):
        write_report(tmp_path / "measured")


@pytest.mark.usefixtures("undrawn")
def test_objects_in_arrays_are_not_unpickled(tmp_path: Path) -> None:
    out = usual(tmp_path)
    np.savez(out / "measured" / "vae-0.npz", samples=np.array([{"a": 1}], dtype=object))
    write_report(out)
    assert "vae-0.npz is damaged" in page(out).text


def test_templates_come_with_the_package() -> None:
    names = {each.name for each in (files("ppmodels.app.study") / "templates").iterdir()}
    assert {"report.html", "report.md", "report.css"} <= names
    project = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert 'packages = ["inference", "ppmodels"]' in project, (
        "whole folders, or templates would be left out of the wheel"
    )


@pytest.mark.usefixtures("undrawn")
def test_a_report_is_replaced_by_the_next(tmp_path: Path) -> None:
    out = made_up.written(tmp_path, made_up.study(), [made_up.run("vae", 0)])
    assert "1 of 9 runs so far" in write_report(out).summary
    made_up.written(tmp_path, made_up.study(), [made_up.run("vae", 0), made_up.run("gan", 0)])
    assert "2 of 9 runs so far" in write_report(out).summary
    assert not [each.name for each in out.iterdir() if each.name.startswith(".")]
