"""A step of a DCGAN of MNIST's shape, critic's turn and generator's, against the same networks in a loop by hand."""

from collections.abc import Callable

import pyro
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from benchmarks.timing import interleaved, milliseconds, ratio
from inference import Adversarial, Step, Traced, adam, non_saturating
from ppmodels.models import GAN
from ppmodels.nn import ConvFeatures, ConvGenerator, Critic

SHAPE, LATENT, BATCH = (1, 28, 28), 64, 64


def networks(device: str) -> tuple[ConvGenerator, Critic]:
    """The networks of the recipe gan on MNIST."""
    torch.manual_seed(0)
    generator = ConvGenerator(LATENT, SHAPE, 256, (64, 32)).to(device)
    return generator, Critic(ConvFeatures(SHAPE, 256, (32, 64))).to(device)


def by_hand(x: Tensor, frozen: bool) -> Callable[[], None]:
    """A step of a plain torch loop; with `frozen`, the critic's gradients are not computed in the generator's turn."""
    generator, critic = networks(str(x.device))
    first, second = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999), fused=True) for net in (critic, generator))

    def step() -> None:
        with torch.no_grad():
            fake = generator.generated(torch.randn(BATCH, LATENT, device=x.device))
        loss = softplus(-critic(x)).mean() + softplus(critic(fake)).mean()
        first.zero_grad(set_to_none=True)
        loss.backward()
        first.step()
        if frozen:
            _frozen(critic, True)
        loss = softplus(-critic(generator.generated(torch.randn(BATCH, LATENT, device=x.device)))).mean()
        second.zero_grad(set_to_none=True)
        loss.backward()
        second.step()
        if frozen:
            _frozen(critic, False)

    return step


def ours(x: Tensor, traced: bool) -> Callable[[], object]:
    """A `Step` of `Adversarial`."""
    generator, critic = networks(str(x.device))
    objective = Adversarial(GAN(SHAPE, 256, LATENT, generator).to(x.device), critic, non_saturating)
    made = {"differentiate": Traced()} if traced else {}
    step = Step(objective, adam(2e-4, (0.5, 0.999)), **made)
    step.prepare(x)
    return lambda: step(x)


def report(device: str) -> None:
    """Prints the ratios."""
    x = torch.randint(256, (BATCH, *SHAPE), device=device).float()
    things: dict[str, Callable[[], object]] = {
        "by hand": by_hand(x, frozen=False),
        "by hand, critic frozen in the generator's turn": by_hand(x, frozen=True),
        "ours": ours(x, traced=False),
        "ours, traced once": ours(x, traced=True),
    }
    with pyro.validation_enabled(False):
        times = interleaved(things, rounds=20, calls=3)
    print(f"\none step of a DCGAN, 28×28 at batch {BATCH}: a turn of the critic and one of the generator")
    for name, some in times.items():
        print(f"  {name}: {milliseconds(some)}")
    for mine in ("ours", "ours, traced once"):
        for other in list(times)[:2]:
            print(f"  {mine} ÷ {other}: {ratio(times[mine], times[other])}")


def _frozen(critic: nn.Module, frozen: bool) -> None:
    for parameter in critic.parameters():
        parameter.requires_grad_(not frozen)
