"""AIR: counts, canvases, places."""

import math

import pytest
import torch
from pyro import poutine
from torch import Tensor

from inference import SVI, Step, adam, elbo, log_joint, posterior, sample, terms
from inference.programs.densities import log_density
from inference.programs.sites import random_sites
from inference.programs.traces import runs
from ppmodels import AIR
from ppmodels.models.air import _log_first_stop

SHAPE = (1, 9, 8)


def tiny(objects: int = 2, levels: int | None = None) -> AIR:
    torch.manual_seed(0)
    return AIR(SHAPE, levels, objects, 0.2, window=4, what=3, hidden=6, layer=5, explore=0).double()


@pytest.fixture
def x() -> Tensor:
    return torch.rand(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_bound_is_a_sum_over_all_paths(x: Tensor) -> None:
    """Each count scored by itself: its objects, its canvas, its path of yes, …, yes, no."""
    program = tiny()
    latents = posterior(program, x, 3)
    weights, paths = [], []
    for n in range(3):
        at = {**latents, "n": torch.full((3, 4), n)}
        run = runs(program, x, latents=at)[0]
        log_q = {
            name: log_density(name, site, run.plate).reshape(3, 4) for name, site in random_sites(run.guide).items()
        }
        present = [log_q[f"{kind}_{t}"] for kind in ("where", "what") for t in range(1, n + 1)]
        weights.append(log_joint(program, x, at) - sum(present, torch.zeros(3, 4, dtype=torch.float64)))
        paths.append(log_q["n"])
    w, q = torch.stack(weights), torch.stack(paths)
    torch.testing.assert_close(q.exp().sum(0), torch.ones(3, 4, dtype=torch.float64))
    found = terms(program, x, latents=latents)
    torch.testing.assert_close(found.log_weights_for(elbo), (q.exp() * (w - q)).sum(0), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.log_weights, w.logsumexp(0), rtol=0, atol=1e-10)


def test_a_count_is_a_path_of_steps() -> None:
    more = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    go = more.sigmoid()[0].tolist()
    expected = [1 - go[0], go[0] * (1 - go[1]), go[0] * go[1] * (1 - go[2]), go[0] * go[1] * go[2]]
    torch.testing.assert_close(_log_first_stop(more).exp(), torch.tensor([expected], dtype=torch.float64))


def test_gradients_are_those_of_finite_differences(x: Tensor) -> None:
    program = tiny()

    def loss() -> Tensor:
        torch.manual_seed(5)
        return SVI(program).loss(x)

    loss().backward()
    for name, parameter in program.named_parameters():
        assert parameter.grad is not None, name
        at = int(parameter.grad.abs().argmax())
        values = []
        for shift in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.view(-1)[at] += shift
                values.append(float(loss()))
                parameter.view(-1)[at] -= shift
        slope = (values[0] - values[1]) / 2e-6
        assert float(parameter.grad.view(-1)[at]) == pytest.approx(slope, rel=1e-4, abs=1e-6), name


def test_the_prior_of_a_count_falls_by_k(x: Tensor) -> None:
    run = runs(tiny(3), x)[0]
    probabilities = random_sites(run.model)["n"]["fn"].probs[0]
    expected = 0.2 ** torch.arange(4.0, dtype=torch.float64)
    torch.testing.assert_close(probabilities, expected / expected.sum(), rtol=1e-6, atol=0)


def test_without_objects_the_canvas_is_empty(x: Tensor) -> None:
    program = tiny()
    drawn = {name: value[0] for name, value in posterior(program, x).items()}
    places, looks = ([drawn[f"{kind}_{t}"] for t in (1, 2)] for kind in ("where", "what"))
    alone = program.render(places, looks)
    assert alone.min() >= 0
    canvases = program.canvas(torch.tensor([0, 1, 2, 0]), alone)
    assert not canvases[[0, 3]].any()
    torch.testing.assert_close(canvases[1], alone[0, 1])
    torch.testing.assert_close(canvases[2], alone[:, 2].sum(0))


def test_absent_objects_count_for_nothing(x: Tensor) -> None:
    program = tiny()
    latents = {**posterior(program, x), "n": torch.tensor([[0, 1, 0, 1]])}
    moved = {**latents, "where_2": latents["where_2"] + 3, "what_2": latents["what_2"] - 2}
    assert torch.equal(log_joint(program, x, latents), log_joint(program, x, moved))
    empty = log_joint(program, x, latents)[0, [0, 2]]
    on_black = program.likelihood(torch.zeros_like(x)).log_prob(x)[[0, 2]]
    torch.testing.assert_close(empty, on_black - math.log(1 + 0.2 + 0.2**2), rtol=1e-6, atol=0)


def test_objects_can_change_places(x: Tensor) -> None:
    program = tiny()
    latents = {**posterior(program, x, 2), "n": torch.full((2, 4), 2)}
    other = {
        **latents,
        **{f"{kind}_{t}": latents[f"{kind}_{3 - t}"] for kind in ("where", "what") for t in (1, 2)},
    }
    torch.testing.assert_close(log_joint(program, x, latents), log_joint(program, x, other), rtol=1e-12, atol=0)


def test_what_is_written_at_a_place_is_read_there_and_lies_in_its_box() -> None:
    program = AIR((1, 40, 40), None, 1, window=10, what=3)
    where = torch.tensor([[4.0, 1.2, -2.0]])
    alone = program.render([where], [torch.zeros(1, 3)])[0, 0, 0]
    left, top, right, bottom = program.boxes(where)[0].tolist()
    rows, columns = alone.nonzero().unbind(1)
    assert (left, right) == pytest.approx((float(columns.min()), float(columns.max())), abs=1.0)
    assert (top, bottom) == pytest.approx((float(rows.min()), float(rows.max())), abs=1.0)
    ramp = torch.linspace(0, 1, 40).expand(1, 1, 40, 40)
    seen = program.attend(ramp, where)[0, 0, 5]
    assert float(seen[0]) * 39 == pytest.approx(left + 0.5, abs=0.2)
    assert float(seen[-1]) * 39 == pytest.approx(right - 0.5, abs=0.2)


def test_levels_are_scored_as_levels(x: Tensor) -> None:
    program = tiny(levels=5)
    levels = (4 * x).round()
    drawn = sample(program, levels, 2)["x"]
    assert set(drawn.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert terms(program, levels).log_weights.isfinite().all()


def test_a_little_ink_gains_more_where_there_is_some_than_it_costs_where_there_is_none() -> None:
    """At the first level itself it would gain 3 times as much, and while nothing is found most of it is in a wrong place."""
    program = AIR((1, 24, 24), 17, 3, window=8)
    canvas = torch.zeros(1, 1, 24, 24, dtype=torch.float64, requires_grad=True)
    x = torch.zeros(1, 1, 24, 24, dtype=torch.float64)
    x[..., :12] = 10.0
    (slope,) = torch.autograd.grad(program.likelihood(canvas).log_prob(x).sum(), canvas)
    assert float(slope[..., :12].mean()) > 20 * float(-slope[..., 12:].mean()) > 0


def test_training_finds_a_square() -> None:
    """Canvases that are empty, or have one square: after some steps they are told apart."""
    torch.manual_seed(0)
    x = torch.zeros(64, 1, 12, 12)
    counts = torch.arange(64) % 2
    for row in counts.nonzero().flatten().tolist():
        top, left = torch.randint(0, 9, (2,)).tolist()
        x[row, 0, top : top + 4, left : left + 4] = 1
    torch.manual_seed(1)
    program = AIR((1, 12, 12), None, 1, window=4, what=2, hidden=32, layer=32)
    step = Step(SVI(program), adam(3e-3))
    for _ in range(250):
        step(x)
    assert torch.equal(posterior(program, x, 20)["n"].float().mean(0).round().long(), counts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (1, 20, 50)}, "window: expected 1 to 20 pixels"),
        ({"shape": (50, 50)}, r"shape: expected \(channel, height, width\)"),
        ({"objects": 0}, "objects: expected at least 1"),
        ({"k": 1.0}, "k: expected a number between 0 and 1"),
        ({"k": 0.0}, "k: expected a number between 0 and 1"),
        ({"levels": 1}, "levels: expected at least 2"),
        ({"sd": 0.0}, "sd: expected a positive"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AIR(**arguments)  # type: ignore[arg-type]  # one argument each


def test_scenes_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected shape \(batch, 1, 9, 8\)"):
        terms(tiny(), torch.rand(2, 3, 9, 8, dtype=torch.float64))


def test_counts_are_explored_in_the_first_steps_of_training_alone() -> None:
    program = AIR((1, 12, 12), None, 2, window=6, what=2, hidden=4, layer=4, explore=3)
    with torch.no_grad():
        program.aim[-1].bias[0] = -30.0  # sure that there is nothing
    x = torch.rand(5, 1, 12, 12)

    def least() -> float:
        return float(poutine.trace(program.guide).get_trace(x).nodes["n"]["fn"].probs.detach().min())

    found = [least() for _ in range(4)]
    torch.testing.assert_close(found, [share / 3 for share in (0.2, 0.2 * 2 / 3, 0.2 / 3, 0.0)], atol=1e-6, rtol=1e-4)
    program.steps_explored.zero_()
    with torch.no_grad():
        assert least() < 1e-6, "a check takes no step"
    assert int(program.steps_explored) == 0
    program.eval()
    assert least() < 1e-6
    with pytest.raises(ValueError, match="explore: expected a number of training steps"):
        AIR(explore=-1)
