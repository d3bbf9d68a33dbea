"""One SVI step of a 784-400-50 VAE at batch 128, against the same step by hand in torch and by Pyro's own loop."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from benchmarks.timing import interleaved, milliseconds, ratio
from inference import SVI, Step, Traced, adam
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


def by_pyro(networks: VAE, x: Tensor, options: dict[str, object]) -> Callable[[], object]:
    """The loop of Pyro's VAE example: `pyro.module`, `pyro.infer.SVI`, `pyro.optim.Adam`, Trace_ELBO."""
    # Each loop under names of its own: the store would train the first one's parameters in the second.
    own = f"fused={options.get('fused', False)}"
    encoder, decoder = networks.encoder.network, networks.decoder.network
    flat = x.flatten(1)

    def model(x: Tensor) -> None:
        pyro.module(f"decoder, {own}", decoder)
        with pyro.plate("data", x.shape[0]):
            loc = torch.zeros(x.shape[0], LATENT, dtype=x.dtype, device=x.device)
            scale = torch.ones(x.shape[0], LATENT, dtype=x.dtype, device=x.device)
            z = pyro.sample("latent", dist.Normal(loc, scale).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=decoder(z), validate_args=False).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        pyro.module(f"encoder, {own}", encoder)
        with pyro.plate("data", x.shape[0]):
            loc, scale = encoder(2 * x - 1).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, softplus(scale) + 1e-4).to_event(1))

    svi = pyro.infer.SVI(model, guide, pyro.optim.Adam(options), loss=pyro.infer.Trace_ELBO())
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
    traced = Step(SVI(vae().to(device)), adam(RATE), differentiate=Traced())
    for each in (step, traced):
        each.prepare(x)
    batches, count = feed(device), iter(range(10**9))
    with pyro.validation_enabled(False):
        times = interleaved(
            {
                "ours": lambda: step(x),
                "ours, traced": lambda: traced(x),
                "by hand": by_hand(vae().to(device), x),
                "Pyro": by_pyro(vae().to(device), x, {"lr": RATE, "fused": True}),
                "Pyro, Adam as it comes": by_pyro(vae().to(device), x, {"lr": RATE}),
                "feed": lambda: batches(next(count)),
            }
        )
    pyro.clear_param_store()
    print(f"SVI step, VAE 784-400-50, batch {BATCH}, validation off")
    for name, each in times.items():
        print(f"  {name:24} {milliseconds(each)}")
    for name in ("ours", "ours, traced"):
        print(f"  {name} / by hand: {ratio(times[name], times['by hand'])}   aim 1.25")
        print(f"  {name} / Pyro's loop: {ratio(times[name], times['Pyro'])}   aim 0.65")
        print(f"  {name} / Pyro's loop, Adam as it comes: {ratio(times[name], times['Pyro, Adam as it comes'])}")
    print(f"  feed / ours: {ratio(times['feed'], times['ours'])}   aim 0.02 (no binarisation noise)")
    print(f"  ours: {len(x) / min(times['ours']):.0f} examples/s, {1 / min(times['ours']):.0f} steps/s")
