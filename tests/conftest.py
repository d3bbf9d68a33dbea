"""Shared by all tests: reproducible noise, and where real data lie."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pyro
import pytest
import torch
from torch.distributions import Distribution

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests press Ctrl-C, which a job in the background ignores
torch.set_num_threads(1)  # small tensors gain nothing from more, and lose much where cores are shared


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem != "test_tutorials")  # the longest first, while others are left
    for item in items:
        # A file's tests share what they train; the tutorials share nothing and go to the processes one by one.
        alone = item.path.stem == "test_tutorials"
        item.add_marker(pytest.mark.xdist_group(item.name if alone else item.path.stem))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _reproducible() -> Iterator[None]:
    torch.manual_seed(0)
    validated = Distribution._validate_args
    yield
    Distribution.set_default_validate_args(validated)  # a test's own import of zuko or Inductor switches it off
    assert not pyro.get_param_store().keys(), "a test wrote to Pyro's global parameter store"


@pytest.fixture(scope="session", autouse=True)
def _trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests train is entered in a file of theirs, not in the developer's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PPMODELS_TRUSTED", str(tmp_path_factory.mktemp("state") / "trusted"))
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real data sets that are not embedded."""
    folder = os.environ.get("PPMODELS_DATA")
    if not folder:
        pytest.skip("PPMODELS_DATA is not set: it names the folder with MNIST and the other data sets")
    return Path(folder)
