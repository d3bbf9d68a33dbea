"""One SVI step of a 784-400-50 VAE at batch 128, against the same step by hand in torch and by Pyro's own loop."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from benchmarks.timing import interleaved, milliseconds, ratio
from inference import SVI, Step, adam
from ppmodels import VAE, MLPDecoder, MLPEncoder, make_head
from ppmodels.data import Dataset, Shuffled, Split

SHAPE, LATENT, HIDDEN, BATCH, RATE = (1, 28, 28), 50, (400,), 128, 1e-3


def vae() -> VAE:
    return VAE(
        SHAPE,
        2,
        LATENT,
        encoder=MLPEncoder(SHAPE, 2, LATENT, HIDDEN, activation=nn.Softplus),
        decoder=MLPDecoder(LATENT, SHAPE, make_head(2), HIDDEN, activation=nn.Softplus),
    )


def by_hand(model: VAE, x: Tensor) -> Callable[[], object]:
    """The step as one would write it in torch alone, on the same networks: analytic KL, fused Adam, logits."""
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    flat = x.flatten(1)

    def step() -> None:
        optimizer.zero_grad()
        loc, scale = model.encoder.network(2 * flat - 1).chunk(2, -1)
        scale = softplus(scale) + 1e-4
        z = loc + scale * torch.randn_like(loc)
        logits = model.decoder.network(z)
        likelihood = -binary_cross_entropy_with_logits(logits, flat, reduction="none").sum(1)
        divergence = 0.5 * (loc.square() + scale.square() - 1 - 2 * scale.log()).sum(1)
        (divergence - likelihood).mean().backward()
        optimizer.step()

    return step


def by_pyro(networks: VAE, x: Tensor) -> Callable[[], object]:
    """The loop of Pyro's VAE example: `pyro.module`, `pyro.infer.SVI`, `pyro.optim.Adam` (fused), Trace_ELBO."""
    pyro.clear_param_store()
    encoder, decoder = networks.encoder.network, networks.decoder.network
    flat = x.flatten(1)

    def model(x: Tensor) -> None:
        pyro.module("decoder", decoder)
        with pyro.plate("data", x.shape[0]):
            loc = torch.zeros(x.shape[0], LATENT, dtype=x.dtype, device=x.device)
            scale = torch.ones(x.shape[0], LATENT, dtype=x.dtype, device=x.device)
            z = pyro.sample("latent", dist.Normal(loc, scale).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=decoder(z), validate_args=False).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module("encoder", encoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = encoder(2 * x - 1).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, softplus(scale) + 1e-4).to_event(1))

    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": RATE, "fused": True}), loss=pyro.infer.Trace_ELBO())
    return lambda: svi.step(flat)


def feed(device: str) -> Shuffled:
    """Batches of 50,000 binary images that are resident: feeding is an index."""
    images = torch.randint(0, 2, (50_000, *SHAPE), dtype=torch.uint8, device=device)
    few = Split(images[:100])
    return Shuffled(Dataset("noise", Split(images), few, few, 2), batch_size=BATCH)


def report(device: str) -> None:
    """Prints the ratios; validation is off for all three, as in a tuned loop."""
    x = torch.randint(0, 2, (BATCH, *SHAPE), device=device).float()
    step = Step(SVI(vae().to(device)), adam(RATE))
    step.prepare(x)
    batches, count = feed(device), iter(range(10**9))
    with pyro.validation_enabled(False):
        times = interleaved(
            {
                "ours": lambda: step(x),
                "by hand": by_hand(vae().to(device), x),
                "Pyro": by_pyro(vae().to(device), x),
                "feed": lambda: batches(next(count)),
            }
        )
    pyro.clear_param_store()
    print(f"SVI step, VAE 784-400-50, batch {BATCH}, validation off")
    for name, each in times.items():
        print(f"  {name:12} {milliseconds(each)}")
    print(f"  ours / by hand      {ratio(times['ours'], times['by hand'])}   aim 1.25")
    print(f"  ours / Pyro's loop  {ratio(times['ours'], times['Pyro'])}   aim 0.65")
    print(f"  feed / ours         {ratio(times['feed'], times['ours'])}   aim 0.02 (no binarisation noise)")
    print(f"  ours                {len(x) / min(times['ours']):.0f} examples/s, {1 / min(times['ours']):.0f} steps/s")
