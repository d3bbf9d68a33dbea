"""The house rules that imports can show: which way the arrows run, and that nothing unpickles."""

import ast
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for package in ("inference", "ppmodels") for path in (ROOT / package).rglob("*.py"))
NAMES = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in SOURCES}


def _imports(path: Path, everywhere: bool = True) -> set[str]:
    """The modules that a file imports; at its top level only, unless `everywhere`."""
    tree = ast.parse(path.read_text())
    nodes = list(ast.walk(tree)) if everywhere else list(tree.body)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return found


BELOW: dict[str, set[str]] = {
    "programs": set(),
    "objectives": {"programs"},
    "evaluation": {"programs"},
    "training": {"programs", "objectives", "evaluation"},
    "testbed": {"programs"},
}
"""The rooms of `inference`, each with those that it stands on."""


def test_every_file_has_a_room() -> None:
    loose = [path.name for path in (ROOT / "inference").iterdir() if path.name not in {*BELOW, "__pycache__"}]
    assert sorted(loose) == ["__init__.py", "py.typed"]
    mirrored = {path.name for path in (ROOT / "tests" / "inference").iterdir() if path.is_dir()} - {"__pycache__"}
    assert mirrored == set(BELOW), "the tests have the same rooms"


@pytest.mark.parametrize("path", [path for path in SOURCES if NAMES[path].startswith("inference.")], ids=NAMES.get)
def test_no_room_knows_one_above_it(path: Path) -> None:
    name = NAMES[path]
    room = name.split(".")[1]
    known = {module.split(".")[1] for module in _imports(path) if module.startswith("inference.")}
    assert known <= BELOW[room] | {room}, f"{name} imports from {sorted(known - BELOW[room] - {room})}"
    assert "inference" not in _imports(path), f"{name} imports the package that imports it"


@pytest.mark.parametrize("path", SOURCES, ids=NAMES.get)
def test_imports_run_one_way(path: Path) -> None:
    name, found = NAMES[path], _imports(path)
    packages = {module.split(".")[0] for module in found}
    if name.startswith("inference"):
        assert "ppmodels" not in packages, f"{name} knows models"
    elif not name.startswith(("ppmodels.app", "ppmodels.__main__")):
        assert "inference" not in packages, f"{name} knows inference: only ppmodels.app joins the two"
        assert not any(module.startswith("ppmodels.app") for module in found)
    if name.startswith("ppmodels.models."):
        others = {module for module in found if module.startswith("ppmodels.models")}
        assert not others, f"{name} imports another model: {others}"


def test_no_import_circle() -> None:
    known = {name: path for path, name in NAMES.items()}
    arrows = {
        name: {module for module in _imports(path, everywhere=False) if module in known and module != name}
        for name, path in known.items()
        if path.name != "__init__.py"
    }
    arrows = {name: found & arrows.keys() for name, found in arrows.items()}
    while arrows:
        leaves = {name for name, found in arrows.items() if not found}
        assert leaves, f"an import circle among {sorted(arrows)}"
        arrows = {name: found - leaves for name, found in arrows.items() if name not in leaves}


@pytest.mark.parametrize("path", SOURCES, ids=NAMES.get)
def test_nothing_unpickles(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not {"pickle", "cloudpickle", "dill", "joblib"} & {module.split(".")[0] for module in _imports(path)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("torch.load", "torch.save", "np.save"), f"{path}:{node.lineno}"
            if called in ("np.load", "numpy.load"):
                allowed = [keyword.value for keyword in node.keywords if keyword.arg == "allow_pickle"]
                assert all(isinstance(value, ast.Constant) and value.value is False for value in allowed)


@pytest.mark.parametrize("package", ["inference", "ppmodels", "ppmodels.data", "ppmodels.app"])
def test_importing_changes_nothing_global(package: str) -> None:
    script = f"""
import torch, pyro
from torch.distributions import Distribution
before = (torch.get_default_dtype(), Distribution._validate_args, torch.initial_seed(), torch.get_num_threads(),
          torch.get_rng_state().sum().item(), pyro.settings.get())
import {package}
after = (torch.get_default_dtype(), Distribution._validate_args, torch.initial_seed(), torch.get_num_threads(),
         torch.get_rng_state().sum().item(), pyro.settings.get())
assert before == after, (before, after)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_the_inference_package_is_ours() -> None:
    """Another project on the package index also imports as `inference`."""
    script = "import inference; print(inference.__file__); inference.SVI"
    environment = {**os.environ, "PYTHONPATH": ""}
    # From outside the checkout, so that the installed package answers and not the working directory.
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd="/", env=environment
    )
    assert Path(found.stdout.strip()) == ROOT / "inference" / "__init__.py"


def test_typed_packages_say_so() -> None:
    assert (ROOT / "inference" / "py.typed").exists()
    assert (ROOT / "ppmodels" / "py.typed").exists()


@pytest.mark.parametrize("package", ["inference", "ppmodels", "ppmodels.app"])
def test_everything_that_a_package_names_is_there(package: str) -> None:
    module = import_module(package)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
