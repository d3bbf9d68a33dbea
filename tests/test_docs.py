"""README and docs: every link leads somewhere, every command and option is one, and the code runs as it stands."""

import inspect
import re
import shlex
from pathlib import Path

import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

import inference
from inference import testbed
from ppmodels.app import RECIPES
from ppmodels.app.cli import app
from ppmodels.data import NAMES

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
LINKED = [*PAGES, *(ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CONTRIBUTING", "RESULTS"))]
COMMANDS = get_command(app).commands  # type: ignore[attr-defined]  # a group of them

by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def prose(page: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^ {4,}.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`]*`", "code", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """The targets of a page's links to this repository."""
    found = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page))
    return [target for target in found if "://" not in target]


def blocks(page: Path) -> list[str]:
    """A page's Python."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of every `ppmodels …` of a page, in a block of its own or in a table's first column."""
    text = page.read_text(encoding="utf-8")
    shown = re.findall(r"^ {4}(?:\$ )?(ppmodels .*)$", text, flags=re.MULTILINE)
    listed = re.findall(r"^\| `(ppmodels [^`]*)`", text, flags=re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in shown + listed]


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}: {sorted(anchors(file))}"


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    readme = PAGES[0]
    assert len(readme.read_text(encoding="utf-8").splitlines()) <= 150
    assert {page.relative_to(ROOT).as_posix() for page in DOCS} <= set(links(readme))


@by_page
def test_every_command_is_one(page: Path) -> None:
    """It is parsed as it stands, without being run: its options exist, and its recipe, data and settings are known."""
    for name, *words in commands(page):
        parsed = COMMANDS[name].make_context(name, list(words)).params
        recipe = RECIPES.get(parsed.get("recipe", ""))
        assert name != "train" or recipe or parsed["recipe"] in ("RECIPE", "my_model.py"), words
        data = parsed.get("data")
        assert data is None or data in (*NAMES, "DATA") or re.search(r"[./]", data), words
        for setting in (parsed.get("settings") or ()) if recipe else ():
            assert setting.partition("=")[0] in recipe.all_settings, words


def test_every_command_is_listed() -> None:
    listed = {words[0] for words in commands(ROOT / "docs" / "command-line.md")}
    assert listed == set(COMMANDS)


@by_page
def test_every_option_exists(page: Path) -> None:
    known = {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        if parameter.param_type_name == "option"
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    named = set(re.findall(r"`(--[a-z-]+)", page.read_text(encoding="utf-8")))
    known.add("--help")
    assert named <= known, sorted(named - known)


def test_the_listed_names_of_inference_are_public() -> None:
    """In the first columns: every name that stands there or is called, and every keyword of a call."""
    text = (ROOT / "docs" / "inference.md").read_text(encoding="utf-8")
    columns = re.findall(r"^\| (`.*?`) \|", text, flags=re.MULTILINE)
    spans = [span for column in columns for span in re.findall(r"`([^`]+)`", column)]
    assert len(spans) > 25
    public = {name: getattr(room, name) for room in (inference, testbed) for name in room.__all__}
    for span in spans:
        names = re.findall(r"(\w+)\(", span) or [span]
        assert set(names) <= public.keys(), span
        known = {each for name in names for each in inspect.signature(public[name]).parameters}
        assert set(re.findall(r"(\w+)=", span)) <= known, span


def test_the_model_of_the_readme_is_trained_by_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (program,) = blocks(PAGES[0])
    assert len([line for line in program.splitlines() if line.strip()]) <= 25
    Path("my_model.py").write_text(program, encoding="utf-8")
    rows = torch.randn(100, 3).tolist()
    Path("table.csv").write_text("\n".join(["a,b,c", *(",".join(map(str, row)) for row in rows)]), encoding="utf-8")
    of_mine = [words for words in commands(PAGES[0]) if "my_model" in " ".join(words)]
    assert [words[0] for words in of_mine] == ["train", "evaluate", "sample"]
    for words in of_mine:
        few = ["--steps", "5"] if words[0] == "train" else []
        ended = CliRunner().invoke(app, [*words, *few], catch_exceptions=False)
        assert ended.exit_code == 0, ended.output


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the libraries that a reader's code calls
def test_the_code_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one namespace, programs first: the evaluation of a fitted program goes on from there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    first = ROOT / "docs" / "programs.md"
    names: dict[str, object] = {}
    for page in (first, *(page for page in DOCS if page != first)):
        for place, block in enumerate(blocks(page)):
            exec(compile(block, f"{page.name}, block {place + 1}", "exec"), names)
