"""One step of a VAE with a class that is summed out, by `terms` and by Pyro's TraceEnum_ELBO, on the same networks."""

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor, nn

from benchmarks.timing import interleaved, milliseconds, ratio
from inference import SVI, Step, adam

PIXELS, CLASSES, LATENT, HIDDEN, BATCH = 784, 10, 16, 256, 128


class ClassVAE(nn.Module):
    """k ~ Categorical, z ~ N(0, I), x | k, z; the guide draws z alone (Kingma et al. 2014, arXiv 1406.5298)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2 * LATENT))
        self.decoder = nn.Sequential(nn.Linear(CLASSES + LATENT, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, PIXELS))

    def model(self, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.OneHotCategorical(x.new_ones(CLASSES)), infer={"enumerate": "parallel"})
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1))
            shape = torch.broadcast_shapes(k.shape[:-1], z.shape[:-1])
            code = torch.cat([k.expand(*shape, CLASSES), z.expand(*shape, LATENT)], -1)
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(code)).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        loc, log_scale = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


def report(device: str) -> None:
    """Prints the ratio; validation is off for both, as in a tuned loop."""
    x = torch.randint(0, 2, (BATCH, PIXELS), device=device).float()
    ours = Step(SVI(ClassVAE().to(device)), adam(1e-3))
    pyros = Step(SVI(ClassVAE().to(device), TraceEnum_ELBO(max_plate_nesting=1)), adam(1e-3))
    for each in (ours, pyros):
        each.prepare(x)
    with pyro.validation_enabled(False):
        times = interleaved({"terms": lambda: ours(x), "TraceEnum_ELBO": lambda: pyros(x)}, calls=2)
    print(f"Step with {CLASSES} classes summed out, VAE {PIXELS}-{HIDDEN}-{LATENT}, batch {BATCH}, validation off")
    for name, each in times.items():
        print(f"  {name:24} {milliseconds(each)}")
    print(f"  terms / TraceEnum_ELBO: {ratio(times['terms'], times['TraceEnum_ELBO'])}")
