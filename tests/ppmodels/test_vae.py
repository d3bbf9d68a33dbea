"""The VAE as a program: shapes, precision, the meta device, training, state, labels, errors, and a cheap import."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyro
import pytest
import torch
from pyro.poutine import replay, trace, uncondition
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

import ppmodels
from ppmodels.models import VAE
from ppmodels.nn import HEADS, ConvDecoder, ConvEncoder, FlowEncoder, MLPDecoder, MLPEncoder, make_head

LEVELS = {"bernoulli": 2, "categorical": 8, "discretized-normal": 256, "logistic-mixture": 256, "normal": None}
SHAPES = [(1, 8, 8), (3, 7, 9)]


def example(shape: tuple[int, ...], levels: int | None, batch: int = 3) -> Tensor:
    return torch.randn(batch, *shape) if levels is None else torch.randint(0, levels, (batch, *shape)).float()


def build(shape: tuple[int, ...], levels: int | None, kind: str = "mlp", name: str | None = None) -> VAE:
    torch.manual_seed(0)
    head = make_head(levels, name)
    if kind == "conv":
        return VAE(shape, levels, 4, ConvEncoder(shape, levels, 4), ConvDecoder(4, shape, head))
    encoder = FlowEncoder(shape, levels, 4) if kind == "flow" else MLPEncoder(shape, levels, 4)
    return VAE(shape, levels, 4, encoder, MLPDecoder(4, shape, head))


def log_densities(vae: VAE, *batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p(x | z), log p(z) and log q(z | x) of one draw, each `(batch,)`."""
    guide = trace(vae.guide).get_trace(*batch)
    model = trace(replay(vae.model, trace=guide)).get_trace(*batch)
    guide.compute_log_prob()
    model.compute_log_prob()
    return model.nodes["x"]["log_prob"], model.nodes["z"]["log_prob"], guide.nodes["z"]["log_prob"]


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("kind", ["mlp", "conv", "flow"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_likelihood_on_every_network(name: str, kind: str, shape: tuple[int, ...]) -> None:
    vae = build(shape, LEVELS[name], kind, name)
    densities = log_densities(vae, example(shape, LEVELS[name]))
    for density in densities:
        assert density.shape == (3,)
        assert density.isfinite().all()
    likelihood, prior, posterior = densities
    (likelihood + prior - posterior).sum().backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("kind", ["mlp", "conv", "flow"])
def test_runs_on_the_meta_device(name: str, kind: str) -> None:
    with pyro.validation_enabled(False):
        vae = build((3, 7, 9), LEVELS[name], kind, name).to("meta")
        likelihood, prior, posterior = log_densities(vae, torch.zeros(2, 3, 7, 9, device="meta"))
        (likelihood + prior - posterior).mean().backward()
    assert all(parameter.grad is not None and parameter.grad.is_meta for parameter in vae.parameters())


def test_a_conditional_vae_runs_on_the_meta_device() -> None:
    with pyro.validation_enabled(False), torch.device("meta"):
        vae = VAE((1, 8, 8), 2, 4, classes=10)
        batch = torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
        likelihood, prior, posterior = log_densities(vae, *batch)
        (likelihood + prior - posterior).mean().backward()
    assert all(parameter.grad is not None and parameter.grad.is_meta for parameter in vae.parameters())


def test_float64_throughout() -> None:
    vae = build((1, 8, 8), 8).double()
    assert all(density.dtype == torch.float64 for density in log_densities(vae, example((1, 8, 8), 8).double()))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("kind", ["mlp", "conv", "flow"])
def test_log_probabilities_are_float32_under_autocast(name: str, kind: str) -> None:
    vae = build((1, 8, 8), LEVELS[name], kind, name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        densities = log_densities(vae, example((1, 8, 8), LEVELS[name]))
    assert all(density.dtype == torch.float32 and density.isfinite().all() for density in densities)


def test_the_densities_are_those_of_the_program() -> None:
    """log p(z) is the standard normal's, log q(z | x) the encoder's and log p(x | z) the decoder's."""
    vae, x = build((1, 8, 8), 8), example((1, 8, 8), 8)
    guide = trace(vae.guide).get_trace(x)
    model = trace(replay(vae.model, trace=guide)).get_trace(x)
    model.compute_log_prob()
    guide.compute_log_prob()
    z = guide.nodes["z"]["value"]
    torch.testing.assert_close(model.nodes["z"]["log_prob"], -0.5 * (z**2 + torch.tensor(2 * torch.pi).log()).sum(1))
    torch.testing.assert_close(guide.nodes["z"]["log_prob"], vae.encoder(x).log_prob(z))
    torch.testing.assert_close(model.nodes["x"]["log_prob"], vae.decoder(z).log_prob(x))
    assert torch.equal(vae.model(x), x)


def test_samples_are_drawn_by_lifting_the_observation() -> None:
    vae = build((1, 8, 8), 8)
    drawn = uncondition(vae.model)(torch.zeros(5, 1, 8, 8))
    assert drawn.shape == (5, 1, 8, 8)
    assert bool(drawn.any())
    assert vae.decoder(torch.zeros(1, 4)).support.check(drawn).all()


def train(vae: VAE, steps: int, *data: Tensor) -> tuple[float, float]:
    """Negative ELBO in nats per example before and after training, on all the data."""
    loss = pyro.infer.Trace_ELBO().differentiable_loss
    optimizer = torch.optim.Adam(vae.parameters(), 2e-3)

    def score() -> float:
        torch.manual_seed(1)
        with torch.no_grad():
            return float(loss(vae.model, vae.guide, *data)) / len(data[0])

    before = score()
    for _ in range(steps):
        index = torch.randint(0, len(data[0]), (128,))
        optimizer.zero_grad()
        (loss(vae.model, vae.guide, *(value[index] for value in data)) / 128).backward()
        optimizer.step()
    return before, score()


def digits() -> tuple[Tensor, Tensor]:
    bunch = load_digits()
    return torch.from_numpy(bunch.images).float().unsqueeze(1), torch.from_numpy(bunch.target).long()


def test_training_on_digits_lowers_the_loss() -> None:
    """From over 170 nats (uniform levels: 64 log 17 = 181) to under 105; independent pixels, z ignored, have 107."""
    x, _ = digits()
    before, after = train(build((1, 8, 8), 17), 250, x)
    assert before > 170
    assert after < 105


def test_a_conditional_vae_uses_its_labels() -> None:
    """Digits 0 and 1 need their label where z is too small to carry it: a shuffled label costs over 5 nats."""
    x, y = digits()
    x, y = (x[y < 2] > 7).float(), y[y < 2]
    torch.manual_seed(0)
    vae = VAE((1, 8, 8), 2, 1, classes=2)
    train(vae, 150, x, y)
    loss = pyro.infer.Trace_ELBO().differentiable_loss
    with torch.no_grad():
        z = vae.encoder(x, torch.eye(2)[y]).mean
        right, wrong = (vae.decoder(torch.cat((z, torch.eye(2)[label]), 1)).log_prob(x).mean() for label in (y, 1 - y))
        assert loss(vae.model, vae.guide, x, y).isfinite()
    assert right - wrong > 5


def test_the_guide_of_a_conditional_vae_is_given_the_label() -> None:
    torch.manual_seed(0)
    vae, (x, y) = VAE((1, 4, 4), 2, 3, classes=4), (torch.ones(2, 1, 4, 4), torch.tensor([1, 3]))
    q = pyro.poutine.trace(vae.guide).get_trace(x, y).nodes["z"]["fn"]
    torch.testing.assert_close(q.mean, vae.encoder(x, torch.eye(4)[y]).mean)
    assert not torch.equal(q.mean[0], q.mean[1])  # the images are equal, the labels are not


@pytest.mark.parametrize("kind", ["mlp", "conv", "flow"])
def test_state_returns_through_safetensors(kind: str, tmp_path: Path) -> None:
    vae, x = build((1, 8, 8), 8, kind), example((1, 8, 8), 8)
    save_file(vae.state_dict(), tmp_path / "vae.safetensors")
    other = build((1, 8, 8), 8, kind)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    z = torch.randn(3, 4)
    assert not torch.equal(other.decoder(z).log_prob(x), vae.decoder(z).log_prob(x))
    other.load_state_dict(load_file(tmp_path / "vae.safetensors"))
    assert torch.equal(other.decoder(z).log_prob(x), vae.decoder(z).log_prob(x))
    assert torch.equal(other.encoder(x).log_prob(z), vae.encoder(x).log_prob(z))


@pytest.mark.parametrize("shape", [(1, 28, 28), (6,)])
def test_the_defaults_serve_images_and_tables(shape: tuple[int, ...]) -> None:
    levels = 2 if len(shape) == 3 else None
    assert all(density.shape == (3,) for density in log_densities(VAE(shape, levels), example(shape, levels)))


def conditional() -> VAE:
    return VAE((1, 8, 8), 2, 4, classes=10)


def plain() -> VAE:
    return VAE((1, 8, 8), 2, 4)


X, Y = torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 9])


@pytest.mark.parametrize(
    ("make", "batch", "message"),
    [
        (plain, (torch.zeros(3, 1, 9, 8),), r"expected shape \(batch, 1, 8, 8\), got \(3, 1, 9, 8\); reshape it"),
        (plain, (torch.zeros(3, 64),), r"got \(3, 64\)"),
        (plain, (X.to(torch.uint8),), r"call x\.float\(\)"),
        (plain, (X, Y), "has no classes"),
        (conditional, (X,), r"call it with \(x, y\)"),
        (conditional, (X, Y + 1), r"expected labels 0\.\.9, got 1\.\.10"),
        (conditional, (X, Y - 1), r"got -1\.\.8"),
        (conditional, (X, Y[:2]), r"shape \(3,\), got torch.int64 of shape \(2,\)"),
        (conditional, (X, Y.float()), "expected int64 labels"),
    ],
)
def test_errors_say_what_to_do(make: Callable[[], VAE], batch: tuple[Tensor, ...], message: str) -> None:
    vae = make()
    for program in (vae.model, vae.guide):
        with pytest.raises(ValueError, match=message):
            program(*batch)


def test_grey_values_are_no_bernoulli_data() -> None:
    with pytest.raises(ValueError, match="support"):
        log_densities(plain(), X + 0.5)


def test_import_ppmodels_needs_no_torch() -> None:
    code = (
        "import sys, ppmodels\n"
        "assert not {'torch', 'pyro', 'numpy'} & set(sys.modules)\n"
        "assert set(ppmodels.__all__) <= set(dir(ppmodels))\n"
        "assert ppmodels.VAE.__name__ == 'VAE' and 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_public_name_is_there() -> None:
    assert all(getattr(ppmodels, name).__module__.startswith("ppmodels.") for name in ppmodels.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ppmodels.nothing
