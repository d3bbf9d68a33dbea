"""DRAW as a program: against a loop by hand, what model and guide share, divergences, its start, and errors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from inference import (
    SVI,
    Gradient,
    ImportanceWeighted,
    Step,
    adam,
    annealed,
    elbo,
    evaluate,
    importance,
    posterior,
    sample,
    terms,
)
from inference.training.step import NonFinite
from ppmodels import DRAW, make_head
from ppmodels.models import draw
from ppmodels.models.draw import Posterior
from ppmodels.nn.parameters import positive

SHAPE = (1, 6, 5)


def tiny(levels: int | None = 2, shape: tuple[int, ...] = SHAPE, glimpses: int = 3, moved: float = 0.3) -> DRAW:
    """A small DRAW in float64 whose windows have been moved away from their start."""
    torch.manual_seed(0)
    program = DRAW(shape, levels, glimpses, 2, 8, read=2, write=3).double()
    for window in (program.read.window, program.write.window):
        torch.nn.init.normal_(window.linear.weight, std=moved)
    return program


def images(batch: int = 4, levels: int | None = 2, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if levels is None:
        return torch.randn(batch, *shape, generator=generator, dtype=torch.float64)
    return torch.randint(levels, (batch, *shape), generator=generator).double()


def by_hand(program: DRAW, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """log p(x | z) and log q(z | x) of binary images `(batch, 1, …)`, written out after the paper."""
    h = c = e = s = x.new_zeros(len(x), program.hidden)
    canvas = program.canvas.expand(len(x), -1, -1, -1)
    log_q = x.new_zeros(len(x))
    for t in range(program.glimpses):
        error = x - canvas.sigmoid()
        window = program.read.window(h)
        rows, columns = program.read.window.filters(window)
        patches = [torch.einsum("nih,njw,nhw->nij", rows, columns, image[:, 0]) for image in (x, error)]
        read = torch.cat([(window.gain[:, None, None] * patch).flatten(1) for patch in patches], 1)
        e, s = program.encoder(torch.cat((read, h), 1), (e, s))
        loc, scale = program.posterior(e).chunk(2, -1)
        log_q = log_q + Normal(loc, positive(scale)).log_prob(z[:, t]).sum(1)
        h, c = program.decoder(z[:, t], (h, c))
        window = program.write.window(h)
        rows, columns = program.write.window.filters(window)
        patch = program.write.patch(h).unflatten(1, (3, 3)) / window.gain[:, None, None]
        canvas = canvas + torch.einsum("nih,njw,nij->nhw", rows, columns, patch).unsqueeze(1)
    log_p = torch.distributions.Bernoulli(logits=canvas).log_prob(x).sum((1, 2, 3))
    return log_p, log_q


def test_the_densities_are_those_of_a_loop_by_hand() -> None:
    program, x = tiny(), images()
    z = torch.randn(4, 3, 2, dtype=torch.float64)
    found = terms(program, x, latents={"z": z.unsqueeze(0)})
    log_p, log_q = by_hand(program, x, z)
    torch.testing.assert_close(found.likelihood[0], log_p)
    torch.testing.assert_close(found.posterior[0], log_q)
    torch.testing.assert_close(found.prior[0], Normal(0.0, 1.0).log_prob(z).sum((1, 2)))


def test_draws_are_scored_as_given_values_are() -> None:
    program, x = tiny(), images()
    guide = Posterior(program, x)
    z = guide.rsample()
    torch.testing.assert_close(guide.log_prob(z), guide.log_prob(z.clone()), rtol=0, atol=0)
    many = guide.rsample(torch.Size((3, 2)))
    assert many.shape == (3, 2, 4, 3, 2)
    torch.testing.assert_close(guide.log_prob(many)[1, 1], guide.log_prob(many[1, 1].clone()))


OBJECTIVES: dict[str, Callable[[DRAW], SVI | ImportanceWeighted]] = {
    "svi": SVI,
    "iwae": lambda program: ImportanceWeighted(program, particles=3),
    "sticking": lambda program: ImportanceWeighted(program, elbo, 2, gradient=Gradient.STICKING_THE_LANDING),
    "doubly": lambda program: ImportanceWeighted(program, particles=3, gradient=Gradient.DOUBLY_REPARAMETERISED),
    "doubly, one": lambda program: ImportanceWeighted(program, particles=1, gradient=Gradient.DOUBLY_REPARAMETERISED),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_sharing_the_canvas_changes_nothing(objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are those of a model that paints from z alone, to the bit, and gradients but for the order of sums."""
    x, found = images(), []
    for share in (True, False):
        if not share:
            monkeypatch.setattr(draw, "_painted", lambda z, weights: None)
        program = tiny()
        torch.manual_seed(2)
        loss = OBJECTIVES[objective](program).loss(x)
        loss.backward()
        found.append([loss.detach(), *(parameter.grad for parameter in program.parameters())])
    assert torch.equal(found[0][0], found[1][0])
    for shared, alone in zip(*found, strict=True):
        torch.testing.assert_close(shared, alone, rtol=1e-9, atol=1e-12)


def count_strokes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the rows of each unroll of the model by itself."""
    rows: list[int] = []
    strokes = DRAW.strokes

    def counted(self: DRAW, z: Tensor) -> object:
        rows.append(len(z))
        return strokes(self, z)

    monkeypatch.setattr(DRAW, "strokes", counted)
    return rows


def test_the_model_paints_only_where_the_guide_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = count_strokes(monkeypatch)
    program, x = tiny(), images()
    SVI(program).loss(x)
    with torch.no_grad():
        terms(program, x, 5)
        assert rows == []
    latents = posterior(program, x, 2)
    terms(program, x, latents={"z": latents["z"].clone()})
    assert rows == [8]


def painted_as_it_should_be(program: DRAW, z: Tensor) -> None:
    torch.testing.assert_close(program.paint(z), program.paint(z.clone()), rtol=0, atol=0)


@torch.no_grad()
def test_a_canvas_is_not_used_once_anything_has_changed() -> None:
    program, x = tiny(), images(batch=3)
    z = Posterior(program, x).rsample()
    for parameter in (program.canvas, program.decoder.weight_hh, program.write.patch.bias):
        parameter.add_(0.1)
        painted_as_it_should_be(program, z)
    z = Posterior(program, x).rsample()
    z.mul_(2)
    painted_as_it_should_be(program, z)
    z = Posterior(program, x).rsample()
    for view in (z.transpose(0, 1), z[1:], z[:, :, :1].expand(z.shape), z.flip(0)):
        painted_as_it_should_be(program, view)
    painted_as_it_should_be(tiny(moved=0.7), z)


def test_a_canvas_without_gradients_is_not_used_where_there_are_some() -> None:
    program, x = tiny(), images()
    with torch.no_grad():
        z = Posterior(program, x).rsample()
    program.paint(z).sum().backward()
    assert program.decoder.weight_hh.grad is not None
    drawn = Posterior(program, x).rsample()
    assert program.paint(drawn.detach()).grad_fn is not program.paint(drawn).grad_fn, "a detached draw has no history"


@pytest.mark.parametrize("of", [lambda z: z, lambda z: z.view_as(z)], ids=["itself", "view"])
def test_hooks_on_a_draw_are_met_by_the_gradient_of_its_canvas(of: Callable[[Tensor], Tensor]) -> None:
    program = tiny()
    z = of(Posterior(program, images()).rsample())
    z.register_hook(torch.zeros_like)
    program.paint(z).sum().backward()
    assert program.posterior.weight.grad is not None
    assert not program.posterior.weight.grad.any()


def test_divergences_in_closed_form_are_those_of_the_draws() -> None:
    """Σ_t KL(q(z_t | x, z_<t) | p(z_t)) and log q - log p have the same mean; 6 standard errors, 1e-8 of false alarms."""
    program, x = tiny(), images(1)
    with torch.no_grad():
        torch.nn.init.normal_(program.posterior.weight, std=1.0)
        drawn = terms(program, x, 20_000)
        sampled = (drawn.posterior - drawn.prior)[:, 0]
        guide = Posterior(program, x.expand(20_000, *SHAPE))
        conditionals = guide.conditionals(guide.rsample()).base_dist
        closed = kl_divergence(conditionals, Normal(0.0, 1.0)).sum((1, 2))
    error = ((sampled.var() + closed.var()) / 20_000).sqrt()
    assert closed.std() > 0.01, "later steps depend on earlier draws"
    assert (sampled.mean() - closed.mean()).abs() < 6 * error
    assert closed.mean() > 20 * error


def test_every_step_of_the_prior_has_noise_of_its_own() -> None:
    """Correlations of 4,000 draws; 1e-7 of false alarms, and one noise for all steps would have correlations of 1."""
    z = sample(tiny(), images(1), 4000)["z"][:, 0].flatten(1)
    correlations = torch.corrcoef(z.T) - torch.eye(z.shape[1], dtype=z.dtype)
    assert correlations.abs().max() < 6 / 4000**0.5
    assert (z.mean(0).abs() < 6 / 4000**0.5).all()
    assert ((z.var(0) - 1).abs() < 6 * (2 / 4000) ** 0.5).all()


@torch.no_grad()
def test_an_untrained_program_can_learn() -> None:
    """Its guide is near the prior, so that no KL drives it away from x, and its z can be seen on the canvas.

    Painted through filters of a gain of 1, the logits of different z would differ by some hundredths.
    """
    torch.manual_seed(0)
    x = (torch.rand(50, 1, 28, 28) < 0.13).float()
    program = DRAW(canvas=make_head(2).marginal(x))
    drawn = terms(program, x)
    assert 0 < (drawn.posterior - drawn.prior).mean() < 0.02 * 16 * 100
    canvases = program.paint(torch.randn(200, 16, 100))
    assert canvases[:, 0, 10:18, 10:18].std(0).mean() > 0.1


def test_the_canvas_depends_on_every_step() -> None:
    program = tiny()
    z = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    program.paint(z).square().sum().backward()
    assert (z.grad != 0).all()
    last = [stroke.canvas for stroke in program.strokes(z.detach())]
    assert len(last) == 3
    torch.testing.assert_close(last[-1], program.paint(z.detach()))


@pytest.mark.parametrize(
    ("levels", "name"),
    [(2, "bernoulli"), (5, "categorical"), (256, "discretized-normal"), (256, "logistic-mixture"), (None, "normal")],
)
def test_the_canvas_can_start_at_each_pixel_by_itself(levels: int | None, name: str) -> None:
    """Under the head's marginal the data are likelier than under parameters of 0, and its mean is near theirs."""
    generator = torch.Generator().manual_seed(0)
    top = 1 if levels is None else levels - 1
    x = torch.distributions.Beta(2.0, 5.0).expand([500, 1, 4, 3]).sample() * torch.linspace(0.2, 1, 3) * top
    x = x if levels is None else (x + torch.rand(x.shape, generator=generator) * (levels < 10)).floor().clamp(0, top)
    head = make_head(levels, name)
    canvas = head.marginal(x)
    assert canvas.shape == (head.outputs(1), 4, 3)
    log_p = head(canvas.expand(500, -1, -1, -1)).log_prob(x).mean()
    assert log_p > head(torch.zeros(500, *canvas.shape)).log_prob(x).mean()
    off = head.expected(canvas.unsqueeze(0))[0] - x.mean(0)
    tolerance = 0.12 if name == "logistic-mixture" else 0.01  # one histogram for all pixels would be further off
    assert off.abs().max() < tolerance * top
    program = DRAW((1, 4, 3), levels, 1, 2, 4, 2, 2, canvas, name)
    assert torch.equal(program.canvas, canvas)


@pytest.mark.parametrize(("levels", "name"), [(2, "bernoulli"), (5, "categorical"), (None, "normal")])
def test_what_is_expected_is_the_mean(levels: int | None, name: str) -> None:
    head = make_head(levels, name)
    parameters = torch.randn(3, head.outputs(2), 4, 3)
    torch.testing.assert_close(head.expected(parameters), head(parameters).mean)


@pytest.mark.parametrize("name", ["discretized-normal", "logistic-mixture"])
def test_what_is_expected_is_near_the_mean_of_many_levels(name: str) -> None:
    head = make_head(256, name)
    parameters = 0.3 * torch.randn(3, head.outputs(1), 4, 3)
    both = torch.stack((head.expected(parameters).flatten(), head(parameters).mean.flatten()))
    assert torch.corrcoef(both)[0, 1] > 0.98
    assert (both[0] - both[1]).abs().max() < 30


@pytest.mark.slow
def test_bounds_close_by_annealing() -> None:
    program, x = tiny(glimpses=2), images(2)
    found = evaluate(program, x, {"elbo": importance(200, elbo), "iwae": importance(200), "ais": annealed(4)})
    assert found.mean("elbo") < found.mean("iwae")
    assert abs(found.mean("ais") - found.mean("iwae")) < 0.2


@pytest.mark.slow
def test_a_learning_rate_ten_times_too_large_ends_in_numbers() -> None:
    """A thousand steps, at which a window may go anywhere, leave finite parameters or are stopped by NonFinite."""
    program, x = tiny(glimpses=2).float(), images(8).float()
    step = Step(SVI(program), adam(1e-2), clip=10.0)
    try:
        for _ in range(1000):
            step(x)
    except NonFinite:
        pass
    assert all(parameter.isfinite().all() for parameter in program.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"glimpses": 0}, "glimpses: expected a whole number of at least 1, got 0"),
        ({"latent": 0}, "latent: expected a whole number"),
        ({"hidden": 8.0}, "hidden: expected a whole number of at least 1, got 8.0"),
        ({"write": 2.5}, "write: expected a window.*got 2.5"),
        ({"hidden": -1}, "hidden: expected a whole number"),
        ({"read": 6}, r"read: expected a window of 2 to 5 filters a side in images of 6 × 5.*got 6"),
        ({"write": 7}, "write: expected a window of 2 to 5 filters.*got 7; None takes the whole image"),
        ({"read": 1}, "one has no stride, got 1"),
        ({"shape": (30,)}, r"expected \(channel, height, width\), got \(30,\)"),
        ({"likelihood": make_head(17)}, "likelihood: expected a head of levels=2, got one of levels=17"),
        ({"likelihood": "bernouli"}, "expected one of bernoulli"),
        ({"canvas": torch.zeros(6, 5)}, r"canvas: expected shape \(1, 6, 5\).*got \(6, 5\)"),
    ],
)
def test_errors_say_what_does_not_fit(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DRAW(**({"shape": SHAPE, "write": 2} | settings))


@pytest.mark.parametrize("x", [torch.zeros(3, 3, 6, 5), torch.zeros(3, 1, 5, 6), torch.zeros(3, 30)])
def test_examples_of_another_shape_are_refused(x: Tensor) -> None:
    program = tiny()
    for run in (program.model, program.guide):
        with pytest.raises(ValueError, match=r"expected shape \(batch, 1, 6, 5\)"):
            run(x)
