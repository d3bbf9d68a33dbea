"""The tutorials run as they stand, draw their pictures, and are well-formed percent notebooks."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tutorials"
NAMES = [path.name for path in sorted(FOLDER.glob("*.py"))]
PICTURES = {
    "01_vae.py": ["bounds", "interpolation", "reconstructions", "samples", "training"],
    "02_your_own_program.py": ["covariance", "mixture"],
    "03_pixelrnn.py": [
        "classes",
        "completions",
        "nats",
        "pixelvae",
        "receptive_fields",
        "samples",
        "surprise",
        "training",
    ],
    "04_gan_as_inference.py": ["gan", "monitor", "posterior", "ratio", "simulator"],
    "05_what_is_the_likelihood.py": ["bounds", "calibration", "forest", "predictive"],
    "06_draw.py": ["canvases", "reading", "whole", "windows"],
    "07_counting.py": ["boxes", "objects", "one_more"],
}
MARKDOWN, CODE = "# %% [markdown]", "# %%"


def cells(text: str) -> list[tuple[str, str]]:
    """The cells of a percent notebook: marker and body."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("# %%"):
            found.append((line.rstrip(), []))
        else:
            assert found, f"{line!r} stands before the first cell"
            found[-1][1].append(line)
    return [(marker, "\n".join(lines).strip()) for marker, lines in found]


def test_every_tutorial_is_known():
    assert sorted(PICTURES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_percent_format(name: str):
    found = cells((FOLDER / name).read_text(encoding="utf-8"))
    marker, title = found[0]
    assert marker == MARKDOWN
    assert title.startswith("# # "), "a tutorial starts with its title"
    for position, (marker, body) in enumerate(found):
        assert marker in (MARKDOWN, CODE), f"cell {position} begins with {marker!r}"
        assert body, f"cell {position} is empty"
        if marker == MARKDOWN:
            assert all(line == "#" or line.startswith("# ") for line in body.splitlines()), f"cell {position}: {body}"
            assert body.count("$") % 2 == 0, f"cell {position} leaves a formula open"
        else:
            assert ast.parse(body).body, f"cell {position} has no code"


@pytest.mark.parametrize("name", NAMES)
def test_runs(name: str, tmp_path: Path):
    # One thread: where several processes share the cores, torch's threads wait for one another for minutes.
    environment = os.environ | {"TUTORIAL_OUT": str(tmp_path), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(FOLDER / name)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "nan" not in done.stdout.lower().split(), done.stdout
    for picture in PICTURES[name]:
        pixels = matplotlib.image.imread(tmp_path / f"{picture}.png")  # raises unless it is a whole PNG
        assert min(pixels.shape[:2]) > 100, f"{picture}.png is {pixels.shape}"
        assert pixels[..., :3].std() > 0.02, f"{picture}.png is blank"
