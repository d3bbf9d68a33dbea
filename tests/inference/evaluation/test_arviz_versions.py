"""ArviZ on what to_arviz gives: its numbers, its plots, its files, and both of its versions."""

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from inference import to_arviz
from inference.evaluation.arviz_versions import arviz_data
from tests.problems import LinearGaussian

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it announces its next version
    import arviz as az

NEW = int(az.__version__.split(".")[0]) >= 1
"""These tests run under both of ArviZ's versions, 1.x needs Python 3.12; what is of one alone is skipped under the other."""

EFFECTS = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
SPREADS = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18], dtype=torch.float64)
"""Rubin's eight schools: the effects of coaching, and their standard errors (Rubin 1981)."""
SCHOOLS = [
    "Choate",
    "Deerfield",
    "Phillips Andover",
    "Phillips Exeter",
    "Hotchkiss",
    "Lawrenceville",
    "St. Paul's",
    "Mt. Hermon",
]


class EightSchools(nn.Module):
    """mu ~ N(0, 5), tau ~ HalfCauchy(5), theta = mu + tau · N(0, 1), y ~ N(theta, sigma); not centred.

    The guide has heavier tails for mu and tau than the posterior, and given these the posterior of each school.
    """

    def model(self, y: Tensor, sigma: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(y.new_tensor(5.0)))
        with pyro.plate("school", len(y)):
            standard = pyro.sample("standard", dist.Normal(y.new_zeros(()), 1.0))
            theta = pyro.deterministic("theta", mu + tau * standard)
            pyro.sample("y", dist.Normal(theta, sigma), obs=y)

    def guide(self, y: Tensor, sigma: Tensor) -> None:
        mu = pyro.sample("mu", dist.StudentT(5.0, y.new_tensor(4.4), 3.0))
        tau = pyro.sample("tau", dist.HalfCauchy(y.new_tensor(3.5)))
        precision = 1 + (tau / sigma) ** 2
        with pyro.plate("school", len(y)):
            pyro.sample("standard", dist.Normal(tau * (y - mu) / sigma**2 / precision, precision**-0.5))


class Complete(nn.Module):
    """The schools are all alike: one effect mu for all."""

    def model(self, y: Tensor, sigma: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 5.0))
        with pyro.plate("school", len(y)):
            pyro.sample("y", dist.Normal(mu, sigma), obs=y)

    def guide(self, y: Tensor, sigma: Tensor) -> None:
        precision = (sigma**-2).sum() + 1 / 25
        pyro.sample("mu", dist.Normal((y / sigma**2).sum() / precision, precision**-0.5))


def module_of(function: Callable[..., Any]) -> Any:
    return sys.modules[function.__module__]


def groups_of(found: Any) -> set[str]:
    """The names of the groups: an InferenceData has a method for them, a DataTree has children."""
    return set(found.children if NEW else found.groups())


@pytest.fixture(scope="module")
def schools() -> Any:
    return to_arviz(EightSchools(), (EFFECTS, SPREADS), 500, coords={"school": SCHOOLS})


@pytest.fixture(scope="module")
def local() -> Any:
    return to_arviz(LinearGaussian(error=0.1), LinearGaussian.data(3), 200)


@pytest.fixture
def _no_window() -> Any:
    before = matplotlib.get_backend()
    matplotlib.use("Agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ArviZ's own drawing
        yield
    plt.close("all")
    matplotlib.use(before)


def test_eight_schools_have_their_known_loo(schools: Any) -> None:
    found = az.loo(schools, pointwise=True)
    assert schools.posterior.attrs["largest_khat"] < 0.7
    assert (found.pareto_k < 0.7).all()
    assert abs((found.elpd if NEW else found.elpd_loo) + 30.8) < 0.3


def test_eight_schools_have_the_reference_means(schools: Any, data_folder: Path) -> None:
    """Within 5 standard errors from an effective sample size of a third of the draws."""
    reference = np.load(data_folder / "posteriordb/eight_schools-eight_schools_noncentered/draws.npz")
    exact = dict(
        zip(reference["names"].tolist(), reference["draws"].reshape(-1, len(reference["names"])).T, strict=True)
    )
    table = az.summary(schools, var_names=["mu", "tau", "theta"], kind="stats", round_to="none")
    names = ["mu", "tau", *[f"theta[{place + 1}]" for place in range(8)]]
    assert table.index.tolist() == ["mu", "tau", *[f"theta[{school}]" for school in SCHOOLS]]
    for found, name in zip(table["mean"], names, strict=True):
        assert abs(found - exact[name].mean()) < 5 * exact[name].std() * (3 / 500) ** 0.5, name


def test_models_are_compared(schools: Any) -> None:
    """Of eight schools the pooled model is known to be about as good (Vehtari et al. 2017, arXiv 1507.04544)."""
    alike = to_arviz(Complete(), (EFFECTS, SPREADS), 200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = az.compare({"schools": schools, "alike": alike})
    assert set(table.index) == {"schools", "alike"}
    assert abs(table["elpd_diff"]).max() < 1


PLOTS_0X: dict[str, Callable[[Any], Any]] = {
    "trace": lambda found: az.plot_trace(found, var_names=["mu", "theta"]),
    "pair": lambda found: az.plot_pair(found, var_names=["mu", "tau"], kind="kde"),
    "forest": lambda found: az.plot_forest(found, var_names=["theta"]),
    "ppc": lambda found: az.plot_ppc(found, num_pp_samples=50, random_seed=1),
    "prior ppc": lambda found: az.plot_ppc(found, group="prior", num_pp_samples=50, random_seed=1),
    "rank": lambda found: az.plot_rank(found, var_names=["mu", "tau"]),
}
PLOTS_1X: dict[str, Callable[[Any], Any]] = {
    "trace": lambda found: az.plot_trace(found, var_names=["mu", "theta"]),
    "pair": lambda found: az.plot_pair(found, var_names=["mu", "tau"]),
    "forest": lambda found: az.plot_forest(found, var_names=["theta"]),
    "ppc": lambda found: az.plot_ppc_dist(found, num_samples=50),
    "prior ppc": lambda found: az.plot_ppc_dist(found, group="prior_predictive", num_samples=50),
}
"""Its rank plot compares chains, and takes at least two."""


@pytest.mark.usefixtures("_no_window")
@pytest.mark.parametrize("plot", PLOTS_1X if NEW else PLOTS_0X)
def test_arviz_draws_it(schools: Any, plot: str, tmp_path: Path) -> None:
    if NEW:
        PLOTS_1X[plot](schools).savefig(tmp_path / "plot.png")
        assert plt.imread(tmp_path / "plot.png").std() > 0.01
    else:
        assert all(axis.has_data() for axis in np.ravel(PLOTS_0X[plot](schools)))


@pytest.mark.skipif(NEW, reason="the calls of ArviZ 0.x")
@pytest.mark.usefixtures("_no_window")
def test_arviz_draws_local_latents(local: Any) -> None:
    for drawn in (az.plot_trace(local), az.plot_forest(local), az.plot_ppc(local), az.plot_rank(local)):
        assert any(axis.has_data() for axis in np.ravel(drawn))
    assert az.summary(local, kind="stats").index[0] == "z[0, 0]"


def test_a_file_of_it_reads_back(schools: Any, tmp_path: Path) -> None:
    schools.to_netcdf(tmp_path / "schools.nc")
    read = az.from_netcdf(tmp_path / "schools.nc")
    assert groups_of(read) == groups_of(schools) >= {"guide", "log_likelihood", "constant_data"}
    for group in groups_of(read):
        assert read[group].equals(schools[group]), group
        assert read[group].attrs == schools[group].attrs
    assert read.attrs == schools.attrs


@pytest.mark.skipif(NEW, reason="of ArviZ 0.x")
def test_023_misreads_the_call_of_1x_without_a_word() -> None:
    """Why no from_dict is called here: the group becomes a variable of the posterior."""
    misread = az.from_dict({"posterior": {"z": np.zeros((1, 20))}})
    assert misread.groups() == ["posterior"]
    assert "z" not in misread.posterior


@pytest.mark.skipif(NEW, reason="beside the data of ArviZ 0.x")
def test_under_1x_it_is_a_tree_of_the_same_data(local: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """xarray's own tree, as 1.x makes one of its groups."""
    import xarray

    given: list[Any] = []
    monkeypatch.setattr(module_of(to_arviz), "arviz_data", lambda *arguments: given.append(arguments))
    to_arviz(LinearGaussian(error=0.1), LinearGaussian.data(3), 200)
    monkeypatch.setattr(az, "__version__", "1.2.0")
    tree = arviz_data(*given[0])
    assert isinstance(tree, xarray.DataTree)
    assert set(tree.children) == groups_of(local)
    for group in groups_of(local):
        assert tree[group].to_dataset().identical(local[group])
    assert tree.attrs == local.attrs
    tree.to_netcdf(tmp_path / "tree.nc")
    with xarray.open_datatree(tmp_path / "tree.nc") as read:
        assert read.identical(tree)


def test_importing_inference_does_not_wait_for_arviz() -> None:
    script = "import sys, inference; sys.exit('arviz' in sys.modules or 'xarray' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
