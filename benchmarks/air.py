"""A step of AIR, its count summed, against Pyro's way: Bernoulli steps, TraceGraph_ELBO and a neural baseline."""

from collections.abc import Callable

import pyro
import torch
from pyro.distributions import Bernoulli, Normal
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, softplus

from benchmarks.timing import interleaved, milliseconds, ratio
from inference import SVI, Step, Traced, adam
from ppmodels import AIR

BATCH, STEPS, PIXELS, SIDE, WINDOW, WHAT, HIDDEN, LAYER = 64, 2, 2500, 50, 28, 50, 256, 200


class ByScoreFunction(nn.Module):
    """The program of Pyro's AIR example, of the same sizes: its decoder and its canvas are written step by step."""

    def __init__(self) -> None:
        super().__init__()
        pixels = WINDOW * WINDOW
        self.decoder = nn.Sequential(nn.Linear(WHAT, LAYER), nn.ReLU(), nn.Linear(LAYER, pixels))
        self.look = nn.Sequential(nn.Linear(pixels, LAYER), nn.ReLU(), nn.Linear(LAYER, 2 * WHAT))
        self.find = nn.Sequential(nn.Linear(HIDDEN, LAYER), nn.ReLU(), nn.Linear(LAYER, 7))
        self.rnn = nn.LSTMCell(PIXELS + 4 + WHAT, HIDDEN)
        self.baseline_rnn = nn.LSTMCell(PIXELS + 4 + WHAT, HIDDEN)
        self.baseline = nn.Sequential(nn.Linear(HIDDEN, LAYER), nn.ReLU(), nn.Linear(LAYER, 1))

    def model(self, x: Tensor) -> None:
        pyro.module("air by score function", self)
        rows = len(x)
        canvas, there = x.new_zeros(rows, 1, SIDE, SIDE), x.new_ones(rows, 1)
        with pyro.plate("data", rows):
            for t in range(STEPS):
                there = pyro.sample(f"there_{t}", Bernoulli(0.01 * there).to_event(1))
                mask = there.squeeze(-1).bool()
                loc, scale = x.new_tensor([3.0, 0, 0]).expand(rows, 3), x.new_tensor([0.2, 1, 1]).expand(rows, 3)
                where = pyro.sample(f"where_{t}", Normal(loc, scale).to_event(1).mask(mask))
                zeros = x.new_zeros(rows, WHAT)
                what = pyro.sample(f"what_{t}", Normal(zeros, zeros + 1).to_event(1).mask(mask))
                patch = (self.decoder(what) - 2).sigmoid().view(rows, 1, WINDOW, WINDOW)
                grid = affine_grid(_theta(where), [rows, 1, SIDE, SIDE], align_corners=False)
                canvas = canvas + there.view(rows, 1, 1, 1) * grid_sample(patch, grid, align_corners=False)
            pyro.sample("x", Normal(canvas, 0.3).to_event(3), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("air by score function", self)
        rows, flat = len(x), x.flatten(1)
        last = x.new_zeros(rows, 4 + WHAT)
        last[:, 0] = 1
        state = own = None
        there = x.new_ones(rows, 1)
        with pyro.plate("data", rows):
            for t in range(STEPS):
                given = torch.cat((flat, last), 1)
                state = self.rnn(given, state)
                own = self.baseline_rnn(given.detach(), own)
                logit, loc, scale = self.find(state[0]).split([1, 3, 3], 1)
                expected = self.baseline(own[0]).squeeze(-1)
                gone_on = Bernoulli(logit.sigmoid() * there).to_event(1)
                there = pyro.sample(f"there_{t}", gone_on, infer={"baseline": {"baseline_value": expected}})
                mask = there.squeeze(-1).bool()
                place = Normal(loc + x.new_tensor([3.0, 0, 0]), softplus(scale)).to_event(1)
                where = pyro.sample(f"where_{t}", place.mask(mask))
                inverse = where[:, :1].clamp(min=1)
                theta = _theta(torch.cat((1 / inverse, -where[:, 1:] / inverse), 1))
                grid = affine_grid(theta, [rows, 1, WINDOW, WINDOW], align_corners=False)
                mean, spread = self.look(grid_sample(x, grid, align_corners=False).flatten(1)).chunk(2, 1)
                what = pyro.sample(f"what_{t}", Normal(mean, softplus(spread)).to_event(1).mask(mask))
                last = torch.cat((there, where, what), 1)


def _theta(where: Tensor) -> Tensor:
    zeros = torch.zeros_like(where[:, 0])
    rows = (where[:, 0], zeros, where[:, 1], zeros, where[:, 0], where[:, 2])
    return torch.stack(rows, 1).view(-1, 2, 3)


def by_pyro(x: Tensor) -> Callable[[], object]:
    program = ByScoreFunction().to(x.device)
    svi = pyro.infer.SVI(
        program.model, program.guide, pyro.optim.Adam({"lr": 1e-4, "fused": True}), loss=pyro.infer.TraceGraph_ELBO()
    )
    return lambda: svi.step(x)


def report(device: str) -> None:
    """Prints the ratios; validation is off, as in a tuned loop."""
    x = torch.rand(BATCH, 1, SIDE, SIDE, device=device)
    step = Step(SVI(AIR().to(device)), adam(1e-4))
    traced = Step(SVI(AIR().to(device)), adam(1e-4), differentiate=Traced())
    for each in (step, traced):
        each.prepare(x)
    pyro.clear_param_store()
    with pyro.validation_enabled(False):
        things = {
            "ours": lambda: step(x),
            "ours, traced": lambda: traced(x),
            "Pyro, TraceGraph and baseline": by_pyro(x),
        }
        times = interleaved(things, rounds=12, calls=1)
    pyro.clear_param_store()
    print(f"AIR on {SIDE}×{SIDE}, {STEPS} objects, batch {BATCH}, validation off")
    for name, each in times.items():
        print(f"  {name:30} {milliseconds(each)}")
    for name in ("ours", "ours, traced"):
        print(f"  {name} / Pyro's: {ratio(times[name], times['Pyro, TraceGraph and baseline'])}   aim 0.6")
