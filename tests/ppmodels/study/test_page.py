"""The page of a report in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ppmodels.app.study.report import write_report
from tests.ppmodels.study import browser, made_up

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Tab]:
    chromium = browser.found()
    if chromium is None:
        pytest.skip(f"no Chromium on the PATH ({', '.join(browser.NAMES)})")
    with browser.opened(chromium, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a long name, a failed seed and every kind of picture."""
    models = ("vae", "gan", "pixelcnn", "flow a_very_long_setting_without_a_space=" + "x" * 60)
    runs = [made_up.run(model, seed) for model in models for seed in (0, 1)]
    out = made_up.written(
        tmp_path_factory.mktemp("study"),
        made_up.study(models, (0, 1, 2), command="ppmodels study " + "--set " * 40 + "y" * 300),
        [*runs, made_up.failed("gan", 2)],
        made_up.samples(0.0, 0.0),
    )
    write_report(out)
    return out / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_a_page_opens_without_a_fault(tab: browser.Tab, page: Path, width: int, scheme: str) -> None:
    tab.open(page, width, scheme)
    assert tab.complaints() == []
    assert [url for url in tab.asked_for() if not url.startswith("data:")] == [page.resolve().as_uri()[:80]]
    loaded = tab.value_of("Array.from(document.images, each => each.complete && each.naturalWidth > 0)")
    assert len(loaded) > 12
    assert all(loaded)
    assert tab.value_of("innerWidth") == width
    assert tab.value_of("document.documentElement.scrollWidth") <= width
    # What is in a box of its own scrolls there; nothing else reaches over the edge, cut off or not.
    beyond = tab.value_of(
        "Array.from(document.body.querySelectorAll('*')).filter(each => !each.closest('.wide') && !each.closest('details')"
        " && each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 200))"
    )
    assert beyond == []
    dark = tab.value_of("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert (sum(dark) < 200) == (scheme == "dark")


def test_all_that_a_page_says_has_contrast(tab: browser.Tab, page: Path) -> None:
    """WCAG's 4.5 to 1 for text on what lies behind it, in both schemes."""
    script = """
    (() => {
      const parse = text => text.match(/[0-9.]+/g).map(Number);
      const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
      const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
      const behind = each => { const c = parse(getComputedStyle(each).backgroundColor);
        return c.length === 4 && c[3] === 0 ? (each.parentElement ? behind(each.parentElement) : [255, 255, 255]) : c; };
      return Array.from(document.body.querySelectorAll('p, td, th, li, dd, dt, a, span, h1, h2, h3, figcaption, summary'))
        .map(each => { const [a, b] = [light(parse(getComputedStyle(each).color)), light(behind(each))];
          return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), each.outerHTML.slice(0, 90)]; })
        .filter(([ratio]) => ratio < 4.5);
    })()
    """
    for scheme in ("light", "dark"):
        tab.open(page, 1400, scheme)
        assert tab.value_of(script) == []


def test_a_fault_would_be_seen(tab: browser.Tab, tmp_path: Path) -> None:
    """What the tests above look for, in a page that has it."""
    worse = tmp_path / "worse.html"
    worse.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'><body><div style='width:700px'>wide</div>"
        "<img src='http://127.0.0.1:9/none.png'><script>console.error('no')</script>"
    )
    tab.open(worse, 400)
    assert len(tab.complaints()) >= 2
    assert any(url.startswith("http:") for url in tab.asked_for())
    assert tab.value_of("document.images[0].naturalWidth") == 0
    assert tab.value_of("document.documentElement.scrollWidth") > 400
