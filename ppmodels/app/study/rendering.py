"""A report as three files that print the same structure."""

import base64
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from ppmodels.app.run import as_json
from ppmodels.app.terminal import printable

if TYPE_CHECKING:
    from ppmodels.app.study.report import Report

FILES = ("report.html", "report.md", "report.json")


def files_of(report: "Report", pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """The three files, the page with its pictures in it."""
    plain = asdict(report)
    embedded = {name: Markup(base64.b64encode(contents).decode()) for name, contents in pictures.items()}
    page, markdown = templates()
    html, markdown_text = page.render(report=plain, embedded=embedded), markdown.render(report=plain)
    return {"report.html": html.encode(), "report.md": markdown_text.encode(), "report.json": as_json(plain)}


@cache
def templates() -> tuple[Template, Template]:
    """Of the page and of the Markdown, as they come with the package."""
    return _environment(True).get_template("report.html"), _environment(False).get_template("report.md")


def _environment(html: bool) -> Environment:
    return Environment(
        loader=PackageLoader("ppmodels.app.study"),
        autoescape=True,  # or what a macro returns would be escaped again
        finalize=_shown if html else _in_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _shown(value: Any) -> Any:
    """Texts of others without characters that move what stands beside them."""
    return value if isinstance(value, Markup) else printable(value)


_MARKS = str.maketrans({mark: f"\\{mark}" for mark in "\\|*_`"})


def _in_markdown(value: Any) -> Any:
    """The same, with nothing that Markdown takes for its own."""
    if isinstance(value, Markup):
        return value
    return Markup(escape(printable(value), quote=False).translate(_MARKS).replace("](", "]\\("))
