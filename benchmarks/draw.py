"""One SVI step of DRAW (T = 16, read 2, write 5, 256 units, z 100, batch 100), against the same step by hand in torch."""

from collections.abc import Callable

import pyro
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from benchmarks.timing import interleaved, milliseconds, ratio
from inference import SVI, Step, Traced, adam
from ppmodels import DRAW

SIDE, STEPS, READ, WRITE, HIDDEN, LATENT, BATCH, RATE, CLIP = 28, 16, 2, 5, 256, 100, 100, 1e-3, 10.0


class ByHand(nn.Module):
    """DRAW as one would write it in torch alone: one unroll gives the canvas and the KL in closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTMCell(2 * READ * READ + HIDDEN, HIDDEN)
        self.decoder = nn.LSTMCell(LATENT, HIDDEN)
        self.posterior = nn.Linear(HIDDEN, 2 * LATENT)
        self.read_window, self.write_window = nn.Linear(HIDDEN, 5), nn.Linear(HIDDEN, 5)
        self.patch = nn.Linear(HIDDEN, WRITE * WRITE)
        self.canvas = nn.Parameter(torch.zeros(SIDE, SIDE))
        self.register_buffer("pixel", torch.arange(1.0, SIDE + 1))

    def filters(self, numbers: Tensor, points: int) -> tuple[Tensor, Tensor, Tensor]:
        x, y, log_variance, log_stride, log_gain = numbers.unsqueeze(-1).unbind(1)
        index = torch.arange(1.0, points + 1, device=numbers.device) - points / 2 - 0.5
        offsets = index * (SIDE - 1) / (points - 1) * log_stride.exp()
        bands = []
        for centre in (y, x):
            means = (SIDE + 1) / 2 * (centre + 1) + offsets
            distance = self.pixel - means.unsqueeze(-1)
            bands.append((-distance.square() / (2 * log_variance.exp().unsqueeze(-1))).softmax(-1))
        return bands[0], bands[1], log_gain.exp().unsqueeze(-1)

    def loss(self, x: Tensor) -> Tensor:
        h = c = e = s = x.new_zeros(len(x), HIDDEN)
        canvas, divergence = self.canvas.expand(len(x), SIDE, SIDE), x.new_zeros(len(x))
        for _ in range(STEPS):
            error = x - canvas.sigmoid()
            rows, columns, gain = self.filters(self.read_window(h), READ)
            seen = [(gain * (rows @ image @ columns.mT)).flatten(1) for image in (x, error)]
            e, s = self.encoder(torch.cat((*seen, h), 1), (e, s))
            loc, scale = self.posterior(e).chunk(2, 1)
            scale = softplus(scale) + 1e-4
            divergence = divergence + 0.5 * (loc.square() + scale.square() - 1 - 2 * scale.log()).sum(1)
            h, c = self.decoder(loc + scale * torch.randn_like(loc), (h, c))
            rows, columns, gain = self.filters(self.write_window(h), WRITE)
            canvas = canvas + rows.mT @ self.patch(h).unflatten(1, (WRITE, WRITE)) @ columns / gain
        likelihood = -binary_cross_entropy_with_logits(canvas, x, reduction="none").sum((1, 2))
        return (divergence - likelihood).mean()


def by_hand(model: ByHand, x: Tensor) -> Callable[[], object]:
    """The step: fused Adam, gradients clipped by their norm."""
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    images = x[:, 0]

    def step() -> None:
        optimizer.zero_grad()
        model.loss(images).backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()

    return step


def report(device: str) -> None:
    """Prints the ratios; validation is off for all, as in a tuned loop."""
    x = torch.randint(0, 2, (BATCH, 1, SIDE, SIDE), device=device).float()
    step = Step(SVI(DRAW().to(device)), adam(RATE), clip=CLIP)
    traced = Step(SVI(DRAW().to(device)), adam(RATE), clip=CLIP, differentiate=Traced())
    for each in (step, traced):
        each.prepare(x)
    things = {"ours": lambda: step(x), "ours, traced": lambda: traced(x), "by hand": by_hand(ByHand().to(device), x)}
    with pyro.validation_enabled(False):
        times = interleaved(things, rounds=15, calls=1)
    print(f"SVI step, DRAW of {STEPS} steps, {HIDDEN} units, batch {BATCH}, validation off")
    for name, each in times.items():
        print(f"  {name:24} {milliseconds(each)}")
    for name in ("ours", "ours, traced"):
        print(f"  {name} / by hand: {ratio(times[name], times['by hand'])}   aim 1.15")
