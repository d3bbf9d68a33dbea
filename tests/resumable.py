"""Runs that are saved, killed and resumed, and a hash of all that they leave."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from inference import (
    SVI,
    Adversarial,
    Checkpoint,
    ImportanceWeighted,
    Pair,
    Step,
    Traced,
    Validation,
    adam,
    fit,
    parameter_groups,
    r1,
)
from inference.training.fitted import Fitted
from ppmodels.distributions import Implicit
from tests.problems import LinearGaussian

FEATURES, LATENT, STEPS = 6, 2, 6
DATA = torch.randn(40, FEATURES, generator=torch.Generator().manual_seed(0))


def batch_of(step: int) -> Tensor:
    return DATA[torch.randint(len(DATA), (8,), generator=torch.Generator().manual_seed(step))]


def made(network: Callable[[], nn.Module]) -> nn.Module:
    """A network with the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return network()


class VAE(nn.Module):
    """Dropout, BatchNorm, a tied and a transposed weight, and a buffer that no state_dict has."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(FEATURES, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.5))
        self.loc, self.log_scale = nn.Linear(5, LATENT), nn.Linear(5, LATENT)
        self.decoder = nn.Linear(LATENT, FEATURES)
        self.decoder.weight = nn.Parameter(torch.randn(LATENT, FEATURES).T)
        self.again = self.decoder
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.calls: Tensor

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1))
            return pyro.sample("x", dist.Normal(self.again(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        if self.training:
            self.calls += 1.0
        hidden = self.encoder(x) * (1.0 + self.calls / 100.0)
        with pyro.plate("data", len(x)):
            pyro.sample(
                "z", dist.Normal(self.loc(hidden), nn.functional.softplus(self.log_scale(hidden)) + 0.1).to_event(1)
            )


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(LATENT, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, FEATURES))

    def model(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1))
            return pyro.sample("x", Implicit(lambda: self.network(z), x.shape[:1], x.shape[1:]), obs=x)

    def guide(self, x: Tensor) -> None:
        pass


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(FEATURES, 8), nn.Softplus(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).squeeze(1)


def late_pair() -> Pair:
    """`pyro.param` statements, one of which is met in the fourth step for the first time."""

    def model(x: Tensor) -> None:
        loc = pyro.param("model.loc", torch.zeros(FEATURES))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(LATENT), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(loc + z.sum(-1, keepdim=True), 1.0).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        scale = pyro.param("scale", torch.ones(LATENT), constraint=constraints.positive)
        if len(x) == 5:
            scale = scale * pyro.param("late/scale", 2 * torch.ones(LATENT), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x[:, :LATENT] * 0.1, scale).to_event(1))

    return Pair(model, guide)


def late_batch(step: int) -> Tensor:
    return batch_of(step)[: 5 if step >= 3 else 8]


class Case(NamedTuple):
    step: Callable[[], Step]
    validation: Validation | None = None
    batches: Any = batch_of


def _vae_step() -> Step:
    return Step(
        SVI(made(VAE)),
        adam(0.01),
        seed=3,
        average=0.9,
        clip=5.0,
        learning_rate=lambda step: 1.0 / (1.0 + step),
    )


def _gan_step() -> Step:
    objective = Adversarial(made(Generator), made(Critic), penalty=r1(0.1), anneal=lambda step: 0.9**step, turns=2)
    return Step(objective, {"critic": adam(0.01), "program": lambda p: torch.optim.RMSprop(p, 0.01)}, average=0.5)


def _grouped_step() -> Step:
    program = made(VAE)
    groups = parameter_groups(lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True), {program.decoder: 0.001})
    return Step(SVI(program), groups, learning_rate=lambda step: 0.9**step)


def _still_step() -> Step:
    """One whose score stays, so that the fourth is the last."""
    return Step(SVI(LinearGaussian()), adam(0.0))


CASES = {
    "vae": Case(_vae_step, Validation(DATA[:16], every=2, patience=2)),
    "gan": Case(_gan_step),
    "momentum": Case(lambda: Step(SVI(made(VAE)), lambda p: torch.optim.SGD(p, 0.001, momentum=0.9, nesterov=True))),
    "iwae": Case(lambda: Step(ImportanceWeighted(made(VAE), particles=3), lambda p: torch.optim.Adam(p, foreach=True))),
    "groups": Case(_grouped_step, batches=[batch_of(0), batch_of(1), batch_of(2), batch_of(3)]),
    "adagrad": Case(lambda: Step(SVI(made(VAE)), torch.optim.Adagrad), batches=DATA),
    "traced": Case(lambda: Step(SVI(made(VAE)), adam(0.01), differentiate=Traced())),
    "patience": Case(_still_step, Validation(LinearGaussian.data(8), every=1, patience=3), LinearGaussian.data(8)),
    "pair": Case(lambda: Step(SVI(late_pair()), adam(0.01), average=0.9), batches=late_batch),
}


def digest(step: Step, fitted: Fitted, metrics: Path) -> str:
    """A hash of all that a run leaves: weights, those to go on from, buffers, optimizers, average, best, metrics."""
    tensors = [*step.objective.named_parameters(), *step.objective.named_buffers()]
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in fitted.history]
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert rows == [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    step.take_back()
    tensors += [*step.objective.named_parameters(), *step.objective.named_buffers()]
    if step.average is not None:
        tensors += step.average.state.items()
    for optimizer in step.optimizers.values():
        places = optimizer.state_dict()
        rows.append({"groups": places["param_groups"]})
        for place, state in places["state"].items():
            tensors += [(f"{place} {key}", torch.as_tensor(value)) for key, value in state.items()]
    found = hashlib.sha256(
        json.dumps([rows, fitted.best, fitted.stopped, fitted.steps, step.count], default=str).encode()
    )
    for name, value in sorted(tensors, key=lambda pair: pair[0]):
        found.update(
            name.encode() + str((value.dtype, value.stride())).encode() + value.detach().contiguous().numpy().tobytes()
        )
    return found.hexdigest()


def run(case: Case, folder: Path, steps: int = STEPS, checkpoint: Checkpoint | None = None, **settings: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    step, metrics = case.step(), folder / "metrics.jsonl"
    fitted = fit(
        step,
        case.batches,
        steps,
        validation=case.validation,
        metrics=metrics,
        record_every=1,
        progress=False,
        checkpoint=checkpoint,
        **settings,
    )
    return digest(step, fitted, metrics)


class Killed(Exception):
    pass


def killed_at(step_count: int) -> Callable[[Step, Any], None]:
    """A callback that ends a run at once, as a signal would."""

    def kill(step: Step, values: Any) -> None:
        if step.count == step_count:
            raise Killed

    return kill
