"""Float64 programs with float64 data: float64 throughout; and what is said where the two do not agree."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal, AutoStructured
from torch import Tensor, nn

from inference import (
    SVI,
    Adversarial,
    Gradient,
    ImportanceWeighted,
    Objective,
    Pair,
    ProgramError,
    Step,
    Traced,
    adam,
    decode,
    evaluate,
    fit,
    importance,
    kl,
    log_joint,
    posterior,
    r1,
    reconstruct,
    sample,
    terms,
)
from inference.training.differentiate import backward

GENERATOR = torch.Generator().manual_seed(7)
LABELS = torch.randint(3, (8,), generator=GENERATOR)
X = torch.randn(8, 3, generator=GENERATOR, dtype=torch.float64)
BATCH = (LABELS, X)  # whole numbers first: they say nothing of the program's dtype


class Labelled(nn.Module):
    """z gives x and a label; the guide sees x."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.encoder, self.decoder, self.logits = nn.Linear(3, 2), nn.Linear(1, 3), nn.Linear(1, 3)

    def model(self, labels: Tensor, x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(self.decoder(z.unsqueeze(-1)), 1.0).to_event(1), obs=x)
            pyro.sample("labels", dist.Categorical(logits=self.logits(z.unsqueeze(-1))), obs=labels)

    def guide(self, labels: Tensor, x: Tensor) -> None:
        loc, scale = self.encoder(x).unbind(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale.exp()))


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.layer(torch.cat([x, z.unsqueeze(-1)], 1)).tanh().squeeze(-1)


def _adversarial(program: nn.Module) -> Objective:
    critic = Critic().double()
    return Adversarial(program, critic, kl, compare=("x", "z"), penalty=r1(), anneal=lambda step: 0.1)


OBJECTIVES = {
    "svi": (SVI, backward),
    "traced": (SVI, Traced()),
    "trace": (lambda program: SVI(program, Trace_ELBO()), backward),
    "mean field": (lambda program: SVI(program, TraceMeanField_ELBO()), backward),
    "graph": (lambda program: SVI(program, TraceGraph_ELBO()), backward),
    **{
        gradient.value: (lambda program, gradient=gradient: ImportanceWeighted(program, gradient=gradient), backward)
        for gradient in Gradient
    },
    "adversarial": (_adversarial, backward),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_stays_in_float64(name: str) -> None:
    made, differentiate = OBJECTIVES[name]
    program = Labelled().double()
    step = Step(made(program), adam(1e-2), average=0.9, differentiate=differentiate)
    metrics = [step(BATCH) for _ in range(3)][-1]
    assert {value.dtype for key, value in metrics.items() if "/" not in key} == {torch.float64}
    assert {value.dtype for value in (*program.parameters(), *step.average.state.values())} == {torch.float64}
    states = [state for each in step.optimizers.values() for state in each.state.values()]
    assert {state["exp_avg"].dtype for state in states} == {torch.float64}


def test_a_weight_in_training_is_not_rounded() -> None:
    program = Labelled().double()
    losses = []
    for beta in (0.1, 0.0, 1.0):
        objective = ImportanceWeighted(program, particles=1, beta=lambda step, beta=beta: beta)
        losses.append(Step(objective, lambda parameters: torch.optim.SGD(parameters, lr=0.0))(BATCH)["loss"])
    torch.testing.assert_close(losses[0], 0.9 * losses[1] + 0.1 * losses[2], rtol=0, atol=1e-12)
    adversarial = _adversarial(program)
    Step(adversarial)(BATCH)
    assert float(adversarial._annealed) == 0.1


def test_what_is_drawn_and_scored_is_float64() -> None:
    program = Labelled().double()
    latents = posterior(program, BATCH, 2)
    drawn = [latents, sample(program, BATCH, 2), reconstruct(program, BATCH, 2)]
    dtypes = {value.dtype for each in drawn for name, value in each.items() if name != "labels"}
    scored = terms(program, BATCH, 2), terms(program, BATCH, latents=latents)
    dtypes |= {value.dtype for each in scored for value in (each.likelihood, each.prior, each.posterior, each.score)}
    assert dtypes | {log_joint(program, BATCH, latents).dtype} == {torch.float64}
    table = Pair(lambda y: _labels(y, torch.zeros(3, dtype=torch.float64)))
    found = terms(table, LABELS)  # no latents and no other float: the zeros of prior and posterior are the program's
    assert {found.likelihood.dtype, found.prior.dtype, found.posterior.dtype} == {torch.float64}


def _labels(y: Tensor, logits: Tensor) -> None:
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


@pytest.mark.parametrize("guide", [AutoNormal, AutoMultivariateNormal, AutoDelta])
def test_autoguides_are_float64_where_the_model_is(guide: type) -> None:
    def model(x: Tensor, y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)

    pair = Pair(model, guide)
    fit(Step(SVI(pair), adam(1e-2)), (X.numpy(), X.sum(1).numpy()), 3, progress=False)
    assert {value.dtype for value in pair.parameters()} == {torch.float64}
    assert posterior(pair, (X, X.sum(1)))["w"].dtype == torch.float64
    assert evaluate(pair, (X, X.sum(1)), {"iwae": importance(3)}).mean("iwae") < 0


@pytest.mark.parametrize(
    ("program", "x", "said"),
    [
        (
            Labelled,
            X,
            r"batch\[1\] is float64, and the parameters are float32.*x.astype\('float32'\).*\.to\(torch.float64\)",
        ),
        (Labelled, X.numpy(), r"batch\[1\] is float64, and the parameters are float32"),
        (
            lambda: Labelled().double(),
            X.float(),
            r"batch\[1\] is float32, and the parameters are float64.*x.to\(torch.float64\)",
        ),
        (
            Labelled,
            (10 * X).to(torch.uint8),
            r"batch\[1\] is uint8, and the parameters are float32.*x.astype\('float32'\) of an array\. ",
        ),
    ],
    ids=["double data", "arrays", "double program", "bytes"],
)
def test_dtypes_that_do_not_agree_are_named(program, x: object, said: str) -> None:
    for use in (
        lambda: terms(program(), (LABELS, x), 2),
        lambda: fit(Step(SVI(program())), [(LABELS, x)], 2, progress=False),
        lambda: fit(Step(SVI(program(), Trace_ELBO())), (LABELS, x), 2, progress=False),
        lambda: evaluate(program(), (LABELS, x), {"iwae": importance(3)}),
        lambda: decode(program(), (LABELS, x), posterior(program(), (LABELS, x))),
    ):
        with pytest.raises(ProgramError, match=f"the batch and the Labelled have different dtypes: .*{said}"):
            use()


def test_a_program_without_parameters_is_of_torchs_default_dtype() -> None:
    """An AutoGuide has none before its first run, and arrays are float64 by default."""

    def model(x: Tensor, y: Tensor) -> None:
        weights = pyro.sample("weights", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ weights, 1.0), obs=y)

    batch = (X.numpy(), LABELS.double().numpy())
    with pytest.raises(ProgramError, match=r"batch\[0\] is float64.*without parameters makes is float32.*astype"):
        Step(SVI(Pair(model, AutoNormal)), adam())(batch)
    single = tuple(entry.astype("float32") for entry in batch)
    fit(Step(SVI(Pair(model, AutoNormal)), adam()), single, 2, progress=False)


def test_a_critic_and_a_guide_of_another_dtype_are_named() -> None:
    objective = Adversarial(Labelled().double(), Critic(), compare=("x", "z"))
    with pytest.raises(ProgramError, match=r"the batch and the Critic have different dtypes: batch\[1\] is float64"):
        Step(objective)(BATCH)

    def model(x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
        scale = pyro.sample("scale", dist.Gamma(x.new_ones(()), 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, scale).to_event(1), obs=x)

    pair = Pair(model, AutoStructured)  # some of its parameters have the default dtype
    with pytest.raises(ProgramError, match=r"the Pair has parameters of several dtypes: .*is float32, .*is float64"):
        terms(pair, X)
    assert terms(pair.double(), X).log_weights.dtype == torch.float64


def test_other_errors_are_not_explained_by_dtypes() -> None:
    class Broken(Labelled):
        def guide(self, labels: Tensor, x: Tensor) -> None:
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        terms(Broken(), BATCH)


def test_autocast_of_a_float64_program_is_refused() -> None:
    with pytest.raises(ProgramError, match=r"autocast=torch.bfloat16: the program has float64.*program.float\(\)"):
        Step(SVI(Labelled().double()), autocast=torch.bfloat16)(BATCH)


def test_arrays_of_numpys_default_train_a_float64_program() -> None:
    program = Labelled().double()
    before = terms(program, BATCH).log_weights.mean()
    fit(Step(SVI(program), adam(1e-2)), [(LABELS.numpy(), np.asarray(X))], 30, progress=False)
    assert terms(program, BATCH).log_weights.mean() > before
