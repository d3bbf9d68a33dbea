"""python -m benchmarks.lotka_volterra: the rates of a Lotka-Volterra simulator, by a critic and by a long rejection ABC.

Twenty populations are observed at ten times each, made with known rates. Neither method knows a likelihood. The ABC draws
the rates from the prior, simulates twenty populations, and keeps the draws whose summaries are nearest to the observed
ones; the summaries are regressions of the rates on means and deviations of the series, first over the whole prior, then
over what is near (Fearnhead & Prangle, 2012, arXiv 1004.1112), and what is kept is adjusted along a local regression
(Beaumont et al., 2002).
"""

import argparse
import math
import time
from functools import partial
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from inference import Adversarial, Step, Traced, adam, both, fit, posterior, r1, r2
from ppmodels import HierarchicalImplicitModel, LotkaVolterra, NormalPosterior, NormalPrior
from ppmodels.app.plots import png
from ppmodels.app.recipe import cosine

NAMES = ("log prey births", "log prey eaten", "log predators raised", "log predator deaths")
TRUTH = torch.tensor([math.log(rate) for rate in (1.0, 0.01, 0.01, 0.5)])
PRIOR = torch.tensor([math.log(rate) for rate in (0.8, 0.012, 0.008, 0.6)])
SPREAD = 0.3
SERIES = 20


def simulator() -> LotkaVolterra:
    return LotkaVolterra(times=10, end=10.0, steps=100, start=(50.0, 50.0))


class OfSummaries(nn.Module):
    """T(x, theta), of four summaries of a series: regressions of the rates on it, as the prior predicts them.

    Twenty series have twenty numbers each, and a critic that sees these can learn the twenty by heart. The rates are given
    in units of a quarter of the prior's deviation, nearer to the posterior's, so that near ones are soon distinguished.
    """

    loc: Tensor
    scale: Tensor
    slopes: Tensor

    def __init__(self, theta: Tensor, x: Tensor) -> None:
        super().__init__()
        features = _of_one(x)
        self.register_buffer("loc", features.mean(0))
        self.register_buffer("scale", features.std(0))
        features = ((features - self.loc) / self.scale).double()
        ridge = 1e-3 * len(features) * torch.eye(features.shape[1], dtype=features.dtype)
        slopes = torch.linalg.solve(features.T @ features + ridge, features.T @ _centred(theta.double()))
        self.register_buffer("slopes", (slopes / (features @ slopes).std(0)).float())
        self.network = nn.Sequential(nn.Linear(8, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x: Tensor, theta: Tensor) -> Tensor:
        summary = (_of_one(x) - self.loc) / self.scale @ self.slopes
        rates = (4 * (theta - PRIOR) / SPREAD).expand(len(x), 4)
        found: Tensor = self.network(torch.cat((summary, rates), 1)).squeeze(1)
        return found


def by_a_critic(observed: Tensor, steps: int, repeats: int, penalty: float, seed: int) -> Tensor:
    """Draws of the rates `(2000, 4)` from a guide that is fitted by `Adversarial`."""
    torch.manual_seed(seed)
    some = simulator()
    theta = PRIOR + SPREAD * torch.randn(10_000, 4)
    critic = OfSummaries(theta, some.simulated(theta))
    model = HierarchicalImplicitModel(some, NormalPrior(PRIOR, SPREAD), NormalPosterior(PRIOR, 0.2))
    objective = Adversarial(model, critic, size=len(observed), penalty=both(r1(penalty), r2(penalty)))
    step = Step(
        objective,
        {"critic": adam(5e-3), "program": adam(1e-2)},
        seed,
        average=0.998,
        learning_rate=lambda step: cosine(step / steps),
        differentiate=Traced(),
    )
    fit(step, observed.repeat(repeats, 1, 1), steps, progress=False)
    with step.averaged():
        return posterior(model, observed, 2000)["theta"]


def by_rejection(observed: Tensor, draws: int, kept: int) -> Tensor:
    """Draws of the rates `(kept, 4)` that are nearest to the observations, adjusted by a local regression."""
    some = simulator()
    theta = PRIOR + SPREAD * torch.randn(draws, 4)
    features = torch.cat([_features(some.simulated(part.repeat_interleave(SERIES, 0))) for part in theta.split(1000)])
    theta, seen = theta.double(), _features(observed)  # in single precision the regression loses rank
    for count in (draws // 20, kept):  # the second time the regression knows the neighbourhood alone
        slopes = torch.linalg.lstsq(_centred(features), _centred(theta)).solution
        distance = ((features - seen) @ slopes / (features @ slopes).std(0)).square().sum(1)
        near = distance.topk(count, largest=False).indices
        theta, features = theta[near], features[near]
    summary = (features - seen) @ slopes
    local = torch.linalg.lstsq(torch.cat((summary, summary.new_ones(kept, 1)), 1), theta).solution
    return theta - summary @ local[:4]


def _of_one(x: Tensor) -> Tensor:
    """Populations, and their logarithms (of one more, by where they start) to second order at each time, `(n, 70)`."""
    logs = (x.clamp(min=0) + 1).log() - math.log(51)
    return torch.cat((x.flatten(1), logs.flatten(1), logs.square().flatten(1), logs.prod(1)), 1)


def _features(x: Tensor) -> Tensor:
    """Means and log deviations over each `SERIES` series, and the squares of the means, `(n, 60)`, in double precision."""
    series = x.double().flatten(1).unflatten(0, (-1, SERIES))
    mean = series.mean(1)
    return torch.cat((mean, (series.std(1) + 0.01).log(), mean.square()), 1)


def _centred(values: Tensor) -> Tensor:
    return values - values.mean(0)


def figure_of(posteriors: dict[str, Tensor]) -> Figure:
    """Histograms of each rate and scatter plots of each pair."""
    figure = Figure(figsize=(9, 9), layout="constrained", dpi=110)
    axes = figure.subplots(4, 4, sharex="col")
    for row in range(4):
        for column in range(4):
            panel = axes[row, column]
            if column > row:
                panel.set_visible(False)
                continue
            for name, theta in posteriors.items():
                if row == column:
                    panel.hist(theta[:, row].numpy(), 40, density=True, alpha=0.5, label=name)
                else:
                    panel.plot(theta[:, column], theta[:, row], ".", markersize=1.5, alpha=0.4)
            if row == column:
                panel.axvline(float(TRUTH[row]), color="k", linewidth=1, label="the truth")
            else:
                panel.plot([TRUTH[column]], [TRUTH[row]], "k+", markersize=10)
            panel.tick_params(labelsize=7)
        axes[row, 0].set_ylabel(NAMES[row], fontsize=8)
        axes[3, row].set_xlabel(NAMES[row], fontsize=8)
    axes[0, 0].legend(frameon=False, fontsize=7)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=10, help="How often a batch repeats the observations.")
    parser.add_argument("--penalty", type=float, default=1e-4, help="The weight of R1 and R2.")
    parser.add_argument("--draws", type=int, default=400_000, help="Of the ABC, twenty series each.")
    parser.add_argument("--kept", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--out", type=Path, default=Path("runs/predators.png"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    observed = simulator().simulated(TRUTH.expand(SERIES, 4))
    runs = {
        f"critic, seed {seed}": partial(
            by_a_critic, observed, arguments.steps, arguments.repeats, arguments.penalty, seed
        )
        for seed in arguments.seeds
    }
    posteriors: dict[str, Tensor] = {}
    print(f"truth {[round(float(value), 3) for value in TRUTH]}; prior ± {SPREAD}")
    for name, run in {
        "rejection ABC": partial(by_rejection, observed, arguments.draws, arguments.kept),
        **runs,
    }.items():
        began = time.perf_counter()
        theta = posteriors[name] = run()
        moments = ", ".join(
            f"{float(m):.3f} ± {float(s):.3f}" for m, s in zip(theta.mean(0), theta.std(0), strict=True)
        )
        print(f"{name}: {moments}; {time.perf_counter() - began:.0f} s", flush=True)
    shown = {name: posteriors[name] for name in (next(iter(runs)), "rejection ABC")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(png(figure_of(shown)))


if __name__ == "__main__":
    main()
