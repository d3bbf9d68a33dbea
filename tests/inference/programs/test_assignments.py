"""Models that do not compute for all values of a summed site what they compute for one: refused, with what to do."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from torch import Tensor, nn

from inference import Pair, ProgramError, evaluate, exact, importance, log_joint, posterior, predict, reconstruct, terms

X = torch.tensor([[-1.2, 0.4, 1.5], [3.0, -0.3, 0.1], [0.2, 2.2, -1.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.5], dtype=torch.float64)
MEANS = torch.tensor([-1.0, 2.0], dtype=torch.float64)
IN_PARALLEL = {"enumerate": "parallel"}
Use = Callable[[Tensor], Tensor]


def _normal(loc: float | Tensor) -> dist.Normal:
    return dist.Normal(torch.as_tensor(loc, dtype=torch.float64), 1.0)


def _of_rows(use: Use) -> Callable[[Tensor], None]:
    """A local k, of which x takes some function."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", _normal(0.0))
            k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
            pyro.sample("x", _normal(use(k) + z), obs=x[:, 0])

    return model


def _guide(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        pyro.sample("z", _normal(x[:, 0]))


def _of_a_plate(use: Use) -> Callable[[Tensor], None]:
    """A k for each of three columns, of which x, outside of their plate, takes some function."""

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x), dim=-2):
            with pyro.plate("columns", 3, dim=-1):
                k = pyro.sample("k", dist.Categorical(WEIGHTS), infer=IN_PARALLEL)
            pyro.sample("x", _normal(use(k)), obs=x[:, :1])

    return model


ACROSS: dict[str, Use] = {
    "sum": lambda k: MEANS[k].sum(-1, keepdim=True),
    "one of them": lambda k: MEANS[k[..., :1]],
    "all": lambda k: MEANS[k].expand(*k.shape[:-1], 1) if k.shape[-1] == 1 else MEANS[k].mean(-1, keepdim=True),
}


@pytest.mark.parametrize("use", ACROSS.values(), ids=ACROSS)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_site_that_depends_on_a_whole_plate_of_summed_ones_is_refused(use: Use, rows: int) -> None:
    with pytest.raises(ProgramError, match=r"'x' depends on the summed site 'k'.*plates \['columns'\]"):
        evaluate(Pair(_of_a_plate(use)), X[:rows], {"exact": exact()})


def test_the_way_out_of_a_plate_is_a_loop() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            sites = [pyro.sample(f"k{i}", dist.Categorical(WEIGHTS), infer=IN_PARALLEL) for i in range(3)]
            pyro.sample("x", _normal(sum(MEANS[k] for k in sites)), obs=x[:, 0])

    found = evaluate(Pair(model), X, {"exact": exact()}).log_prob["exact"]
    ks = torch.cartesian_prod(*[MEANS] * 3).sum(-1)
    expected = (_normal(ks).log_prob(X[:, :1]) - torch.tensor(8.0, dtype=torch.float64).log()).logsumexp(-1)
    torch.testing.assert_close(found, expected)


MIXED: dict[str, Use] = {
    "less the mean of all rows": lambda k: MEANS[k] - MEANS[k].mean(-1, keepdim=True),
    "by a decision": lambda k: torch.zeros(()) if k.sum() > 1 else torch.ones(()),
    "a total": lambda k: k.sum().double(),
}


def test_draws_that_depend_on_a_whole_plate_are_refused() -> None:
    program = Pair(_of_a_plate(ACROSS["sum"]))
    for draws in (posterior, reconstruct, predict):
        with pytest.raises(ProgramError, match="'x' depends on the summed site 'k'"):
            draws(program, X, 2)


@pytest.mark.parametrize("use", MIXED.values(), ids=MIXED)
def test_a_model_that_takes_something_over_all_values_is_refused(use: Use) -> None:
    torch.manual_seed(0)
    program = Pair(_of_rows(use), _guide)
    latents = {"z": torch.zeros(200, 3, dtype=torch.float64)}  # 200 draws: one where all rows are alike says nothing
    for number in (lambda: terms(program, X, latents=latents), lambda: log_joint(program, X, latents)):
        with pytest.raises(ProgramError, match=r"\['x'\] have other densities .* \['k'\]"):
            number()


def test_a_model_that_is_random_by_itself_is_not_judged() -> None:
    """Dropout between k and x has other noise where all values stand side by side."""

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def model(self, x: Tensor) -> None:
            _of_rows(lambda k: self.dropout(MEANS[k]))(x)

        def guide(self, x: Tensor) -> None:
            _guide(x)

    torch.manual_seed(0)
    assert terms(Noisy(), X, 50).log_weights.shape == (50, 3)


FAILING: dict[str, tuple[Use, str]] = {
    "a decision": (lambda k: MEANS[0] if k[..., 0] else MEANS[1], "Boolean value"),
    "a number": (lambda k: MEANS[int(k[..., 0])], "one element"),
    "a fixed shape": (lambda k: MEANS[k].reshape(len(X)), "invalid for input"),
    "cat": (lambda k: torch.cat([MEANS[k], MEANS[:1]])[:-1], "number of dimensions"),
}


@pytest.mark.parametrize(("use", "said"), FAILING.values(), ids=FAILING)
def test_a_model_that_does_not_run_with_all_values_is_told_what_to_write(use: Use, said: str) -> None:
    program = Pair(_of_rows(use), _guide)
    for number in (lambda: terms(program, X), lambda: posterior(program, X)):
        with pytest.raises(ProgramError, match=rf"all of their values.*{said}.*torch\.where") as caught:
            number()
        assert "\n" not in str(caught.value)


def test_counts_of_different_totals_are_refused_by_name() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Binomial(torch.arange(1.0, 1 + len(x)), 0.5), infer=IN_PARALLEL)
            pyro.sample("x", _normal(k), obs=x[:, 0])

    with pytest.raises(ProgramError, match=r"\['k'\].*Inhomogeneous total count"):
        evaluate(Pair(model), X, {"exact": exact()})


def _partly_labelled(x: Tensor, y: Tensor) -> None:
    with pyro.plate("data", len(x)):
        k = pyro.sample("k", dist.Categorical(WEIGHTS), obs=y, obs_mask=y >= 0, infer=IN_PARALLEL)
        pyro.sample("x", _normal(MEANS[k]), obs=x[:, 0])


def test_labels_known_for_some_by_obs_mask() -> None:
    """Pyro drops the infer of such a site; the message says so, and what it says works."""
    y = torch.tensor([0, -1, 1])
    with pytest.raises(ProgramError, match=r"k_unobserved.*obs_mask loses its infer: mark the whole model"):
        evaluate(Pair(_partly_labelled), (X, y), {"bound": importance(1)})
    found = evaluate(Pair(config_enumerate(_partly_labelled)), (X, y), {"bound": importance(1)}).log_prob["bound"]
    of_k = WEIGHTS.log() + _normal(MEANS).log_prob(X[:, :1])
    expected = torch.where(y >= 0, of_k.gather(1, y.clamp(min=0).unsqueeze(1)).squeeze(1), of_k.logsumexp(1))
    torch.testing.assert_close(found, expected)
