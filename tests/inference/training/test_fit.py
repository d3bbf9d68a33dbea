"""The training loop: it learns, repeats, stops, and leaves everything else as it was."""

import json
import os
import signal
import threading
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import (
    ELBO,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from torch import Tensor, nn

from inference import (
    SVI,
    Compiled,
    Estimate,
    ImportanceWeighted,
    Objective,
    Pair,
    Player,
    ProgramError,
    Step,
    Traced,
    Validation,
    adam,
    elbo,
    evaluate,
    fit,
    importance,
)
from inference.programs.noise import mix
from inference.training.average import Average
from inference.training.differentiate import backward
from tests.problems import LinearGaussian, Mixture, SharedMean

X = LinearGaussian.data(64)


def _sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01)


@pytest.mark.parametrize(
    "objective",
    [
        lambda program: SVI(program),
        lambda program: SVI(program, particles=3),
        lambda program: SVI(program, Trace_ELBO()),
        lambda program: SVI(program, TraceGraph_ELBO()),
        lambda program: ImportanceWeighted(program, particles=4),
    ],
    ids=["terms", "particles", "trace", "graph", "iwae"],
)
def test_every_objective_closes_the_gap_of_a_linear_gaussian(objective) -> None:
    program = LinearGaussian(error=0.7)
    for name in ("weight", "bias"):
        getattr(program, name).requires_grad_(False)
    estimators = {"elbo": importance(200, elbo)}
    before = evaluate(program, X, estimators).mean("elbo")
    fit(Step(objective(program), adam(0.02), learning_rate=lambda step: 1 - step / 300), X, 300, progress=False)
    after = evaluate(program, X, estimators).mean("elbo")
    truth = float(program.log_evidence(X).mean())
    assert before < truth - 1.0
    assert truth - 0.1 < after < truth + 0.02


@pytest.mark.parametrize("estimator", [None, Trace_ELBO(), TraceMeanField_ELBO(), TraceGraph_ELBO()])
def test_losses_are_minus_the_elbo_per_example_whatever_the_plate_scale(estimator) -> None:
    class Scaled(SharedMean):
        """Twice the batch, so that Pyro scales by two."""

    x = torch.randn(10, dtype=torch.float64)
    program = Scaled(20, error=0.0).at(torch.cat([x, x]))
    objective = SVI(program, estimator)
    objective.prepare(x)
    # The duplicated data make every scaled half the whole: at the exact posterior its ELBO is the evidence.
    losses = torch.stack([objective.loss(x).detach() for _ in range(3)])
    expected = -program.log_evidence(torch.cat([x, x])) / 20
    if estimator is None or type(estimator) is Trace_ELBO:
        torch.testing.assert_close(losses, expected.expand(3), atol=1e-9, rtol=0)
    else:
        assert (losses - expected).abs().max() < 0.5


def test_trace_graph_matches_its_own_gradients() -> None:
    x = Mixture.data(20)
    program = Mixture()
    objective = SVI(program, TraceGraph_ELBO())
    objective.prepare(x)
    torch.manual_seed(3)
    loss = objective.loss(x)
    loss.backward()
    ours = [parameter.grad.clone() for parameter in program.parameters() if parameter.grad is not None]
    program.zero_grad()
    torch.manual_seed(3)
    with pyro.settings.context(module_local_params=True):
        value = TraceGraph_ELBO().loss_and_grads(program.model, program.guide, x)
    theirs = [parameter.grad / 20 for parameter in program.parameters() if parameter.grad is not None]
    assert float(loss.detach()) == pytest.approx(value / 20)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_enumeration_trains_to_the_maximum_likelihood() -> None:
    from pyro.infer import config_enumerate

    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(150, generator=generator) - 2, torch.randn(50, generator=generator) + 2]).double()
    mixture = Mixture(2)
    mixture.scale = 1.0
    pair = Pair(config_enumerate(mixture.model))
    for parameter in (mixture.slope, mixture.intercept):
        parameter.requires_grad_(False)
    step = Step(SVI(pair, TraceEnum_ELBO(max_plate_nesting=1)), adam(0.05))
    found = fit(step, x, 400, progress=False)
    assert found.history[-1]["loss"] == pytest.approx(-mixture.log_evidence(x).mean().item(), abs=1e-3)
    assert mixture.logits.softmax(0).detach().min() == pytest.approx(0.25, abs=0.05)
    assert mixture.loc.detach().abs().min() == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (RenyiELBO(alpha=0), r"ImportanceWeighted\(program, bound=renyi"),
        (ReweightedWakeSleep(), r"WakeSleep\(program, particles=K\)"),
        (Trace_ELBO, r"pass an instance, Trace_ELBO\(\)"),
        (pyro.infer.EnergyDistance(), "has no differentiable loss"),
    ],
)
def test_estimators_without_meaning_here_are_refused(estimator, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        SVI(LinearGaussian(), estimator)


def _trained(steps: int, seed: int = 0, average: float | None = None) -> LinearGaussian:
    program = LinearGaussian(error=0.5)
    fit(Step(SVI(program), _sgd, seed, average=average), lambda step: X[step % 8 :: 8], steps, progress=False)
    return program


def test_a_run_is_a_function_of_its_seed_and_leaves_the_callers_noise() -> None:
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = _trained(20)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    second, other = _trained(20), _trained(20, seed=1)
    assert torch.equal(first.offset, second.offset)
    assert not torch.equal(first.offset, other.offset)


def test_a_run_in_two_halves_is_the_run_in_one() -> None:
    program = LinearGaussian(error=0.5)
    step = Step(SVI(program), _sgd)
    for part in (7, 13):
        fit(step, lambda count: X[count % 8 :: 8], part, progress=False)
    assert step.count == 20
    assert torch.equal(program.offset, _trained(20).offset)


def test_neighbouring_seeds_are_unrelated() -> None:
    seeds = [mix(a, b) for a in range(30) for b in range(30)]
    assert len(set(seeds)) == 900
    bits = torch.tensor([[seed >> k & 1 for k in range(63)] for seed in seeds]).double()
    # Each bit is fair within five standard errors (1/60), and no two words follow each other.
    assert (bits.mean(0) - 0.5).abs().max() < 5 / 60
    assert mix(1, 2) != mix(2, 1)


def test_batches_of_every_kind() -> None:
    for batches in (X, (X,), [X[:32], X[32:]], iter([X] * 5), lambda step: X, torch.utils.data.DataLoader(X, 32)):
        assert fit(Step(SVI(LinearGaussian())), batches, 5, progress=False).steps == 5


def test_metrics_are_recorded_as_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    found = fit(Step(SVI(LinearGaussian())), X, 50, metrics=path, record_every=20, progress=False)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 20, 40, 50]
    assert rows == found.history
    assert all(row.keys() == {"step", "loss", "loss/gradient", "seconds"} for row in rows)


def test_validation_stops_early_and_keeps_the_best_weights() -> None:
    train = X[:6]
    program = LinearGaussian(error=0.0)
    step = Step(SVI(program), adam(0.05))
    validation = Validation(X[6:], every=10, patience=3, estimator=importance(50, elbo))
    found = fit(step, train, 2000, validation=validation, progress=False)
    assert found.stopped == "early stopping"
    assert found.steps < 2000
    assert found.best is not None
    scores = {row["step"]: row["validation"] for row in found.history if "validation" in row}
    assert max(scores.values()) == found.best["score"] == scores[found.best["step"]]
    again = evaluate(program, X[6:], {"score": importance(50, elbo)}).mean("score")
    assert again == pytest.approx(found.best["score"], abs=1e-9)


def test_clipping_bounds_the_change() -> None:
    program = LinearGaussian(error=2.0)
    before = [parameter.detach().clone() for parameter in program.parameters()]
    metrics = Step(SVI(program), lambda p: torch.optim.SGD(p, lr=1.0), clip=1e-3)(X)
    change = torch.stack([(p - q).detach().norm() for p, q in zip(program.parameters(), before, strict=True)]).norm()
    assert float(metrics["loss/gradient"]) > 1.0
    assert float(change) == pytest.approx(1e-3, rel=1e-3)


def test_the_learning_rate_follows_its_schedule() -> None:
    step = Step(SVI(LinearGaussian()), adam(0.5), learning_rate=lambda count: 0.1**count)
    rates = []
    for _ in range(3):
        step(X)
        rates.append(step.optimizers["loss"].param_groups[0]["lr"])
    assert rates == pytest.approx([0.5, 0.05, 0.005])


def test_the_average_is_of_weights_and_buffers_are_the_latest() -> None:
    module = nn.BatchNorm1d(1)
    average = Average(module, 0.5)
    values = [1.0, 3.0, -2.0]
    expected = 0.0
    for index, value in enumerate(values):
        with torch.no_grad():
            module.bias.fill_(value)
        module.running_mean.fill_(value)
        module.num_batches_tracked.fill_(index)
        average.update()
        decay = min(0.5, (1 + index) / (10 + index))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert module.bias.item() == pytest.approx(expected)
        assert module.running_mean.item() == -2.0
        assert module.num_batches_tracked.item() == 2
    assert module.bias.item() == -2.0


def test_validation_scores_the_average() -> None:
    program = LinearGaussian(error=0.5)
    step = Step(SVI(program), adam(0.1), average=0.9)
    found = fit(step, X, 20, validation=Validation(X, every=20, estimator=importance(20, elbo)), progress=False)
    assert step.average is not None
    torch.testing.assert_close(program.offset.data, step.average.state["offset"])
    assert found.best is not None


def test_ctrl_c_ends_the_run_after_the_step() -> None:
    program = LinearGaussian(error=0.5)

    def press(step: Step, values: dict[str, Tensor]) -> None:
        if step.count == 4:
            os.kill(os.getpid(), signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    found = fit(Step(SVI(program), _sgd), lambda step: X[step % 8 :: 8], 20, callbacks=[press], progress=False)
    assert (found.steps, found.stopped) == (4, "interrupted")
    assert torch.equal(program.offset, _trained(4).offset)
    assert signal.getsignal(signal.SIGINT) is handler


def test_fit_works_outside_the_main_thread() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(fit(Step(SVI(LinearGaussian())), X, 2, progress=False)))
    thread.start()
    thread.join()
    assert found[0].steps == 2


def test_a_callback_may_end_the_run() -> None:
    found = fit(Step(SVI(LinearGaussian())), X, 9, callbacks=[lambda step, _: step.count == 3], progress=False)
    assert (found.steps, found.stopped) == (3, "callback")


def test_progress_is_plain_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    fit(Step(SVI(LinearGaussian())), X, 3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("step 3/3  loss ")
    assert "steps/s" in lines[-1]
    assert "s left" in lines[-1]


def test_players_take_turns_and_touch_only_their_own() -> None:
    class Duel(Objective):
        """One player pulls a number up, twice a step; the other pulls another down, through both."""

        def __init__(self) -> None:
            super().__init__(LinearGaussian())
            self.first = nn.Parameter(torch.tensor(0.0))
            self.second = nn.Parameter(torch.tensor(0.0))

        def players(self) -> dict[str, Player]:
            return {
                "up": Player([self.first], lambda batch: -self.first - self.second, turns=2),
                "down": Player([self.second], lambda batch: self.second + self.first),
            }

        def check(self, batch: Tensor) -> None: ...

    duel = Duel()
    optimizers = {"up": lambda p: torch.optim.SGD(p, lr=1.0), "down": lambda p: torch.optim.SGD(p, lr=0.5)}
    metrics = Step(duel, optimizers)(X)
    assert (duel.first.item(), duel.second.item()) == (2.0, -0.5)
    assert {"up", "down", "up/gradient", "down/gradient"} == metrics.keys()
    with pytest.raises(ProgramError, match=r"no optimizer was given for player 'down'; optimizers: \['up'\]"):
        Step(Duel(), {"up": optimizers["up"]})(X)


def test_autocast_runs_networks_in_half_precision_and_densities_in_full() -> None:
    dtypes = []

    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = nn.Linear(3, 2), nn.Linear(2, 3)

        def model(self, x: Tensor) -> Tensor:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                logits = self.decoder(z)
                dtypes.append(logits.dtype)
                return pyro.sample("x", dist.Normal(logits.float(), 1.0).to_event(1), obs=x)

        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.encoder(x).float(), 1.0).to_event(1))

    metrics = Step(SVI(Half()), autocast=torch.bfloat16)(X.float())
    assert dtypes[-1] == torch.bfloat16
    assert metrics["loss"].dtype == torch.float32


def test_a_player_without_parameters_is_refused() -> None:
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x.new_zeros(()), 1.0), obs=x[:, 0])

    with pytest.raises(ProgramError, match=r"player 'loss' has no trainable parameters\. Register the networks"):
        fit(Step(SVI(Pair(model))), X, 1, progress=False)


def test_lazy_modules_are_initialised_before_there_are_optimizers() -> None:
    class Lazy(LinearGaussian):
        def __init__(self) -> None:
            super().__init__()
            self.lazy = nn.LazyLinear(2, dtype=torch.float64)

        def guide(self, x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(self.lazy(x), scale_tril=self.tril.tril()))

    program = Lazy()
    del program.gain, program.offset
    before = None
    step = Step(SVI(program), adam(0.1))
    step.prepare(X)
    before = program.lazy.weight.detach().clone()
    step(X)
    assert not torch.equal(before, program.lazy.weight)


def test_a_traced_step_follows_schedules_buffers_and_noise() -> None:
    class Normed(LinearGaussian):
        def __init__(self) -> None:
            super().__init__(error=0.3)
            self.norm = nn.BatchNorm1d(3, dtype=torch.float64)
            self.dropout = nn.Dropout(0.3)

        def guide(self, x: Tensor) -> None:
            super().guide(self.dropout(self.norm(x)))

    results = []
    for differentiate in (backward, Traced()):
        program = Normed()
        objective = ImportanceWeighted(program, elbo, 2, beta=lambda step: 0.2 * step)
        fit(Step(objective, _sgd, differentiate=differentiate), lambda step: X[step % 4 :: 4], 9, progress=False)
        results.append(program.state_dict())
    for name, value in results[0].items():
        if value.is_floating_point():  # BatchNorm's count of batches has the traced run in it
            torch.testing.assert_close(value, results[1][name], atol=1e-12, rtol=0)


def test_a_program_that_looks_at_values_is_not_traced() -> None:
    class Looks(LinearGaussian):
        def model(self, x: Tensor) -> Tensor:
            return super().model(x if x.sum() > -1e9 else -x)

    with pytest.raises(ProgramError, match=r"cannot be traced.*reads values"):
        Step(SVI(Looks()), differentiate=Traced())(X)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # raised inside torch as it compiles
def test_a_compiled_step_trains_as_the_eager_one_does() -> None:
    """Inductor draws noise of its own, so the two agree in what they reach and exactly only without noise."""

    class Observed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(X.shape[1], dtype=X.dtype))

        def model(self, x: Tensor) -> Tensor:
            with pyro.plate("data", len(x)):
                return pyro.sample("x", dist.Normal(self.mean.exp(), 1.0).to_event(1), obs=x)

        def guide(self, x: Tensor) -> None: ...

    found = []
    for differentiate in (backward, Compiled()):
        program = Observed()
        step = Step(SVI(program), _sgd, differentiate=differentiate)
        losses = [float(step(X)["loss"]) for _ in range(5)]
        found.append([torch.tensor(losses), *program.state_dict().values()])
    torch.testing.assert_close(*found)


def test_where_nothing_can_be_compiled_the_traced_graph_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    class BackendCompilerFailed(RuntimeError): ...

    class InductorError(BackendCompilerFailed): ...  # as torch derives it

    def no_compiler(graph: object, dynamic: bool) -> object:
        def run(*batch: Tensor) -> object:
            raise InductorError("no C++ compiler")

        return run

    monkeypatch.setattr(torch, "compile", no_compiler)
    steps = [Step(SVI(LinearGaussian(error=0.3)), _sgd, differentiate=each) for each in (Traced(), Compiled())]
    with pytest.warns(UserWarning, match=r"traced, but can not be compiled here.*no C\+\+ compiler"):
        first = [float(step(X)["loss"]) for step in steps]
    second = [float(step(X)["loss"]) for step in steps]
    assert first[0] == first[1] != second[0] == second[1]


@pytest.mark.parametrize("turns", [1, 2])
def test_a_players_noise_does_not_depend_on_what_others_drew(turns: int) -> None:
    seen: dict[int, list[float]] = {}

    class Noisy(Objective):
        def __init__(self, draws: int) -> None:
            super().__init__(LinearGaussian())
            self.draws = draws
            self.weight = nn.Parameter(torch.tensor(0.0))

        def players(self) -> dict[str, Player]:
            return {
                "first": Player([self.weight], lambda batch: self.weight * torch.rand(self.draws).sum()),
                "second": Player([self.weight], self.second, turns),
            }

        def second(self, batch: Tensor) -> Tensor:
            seen.setdefault(self.draws, []).append(float(torch.rand(())))
            return self.weight * 1.0

        def check(self, batch: Tensor) -> None: ...

    for draws in (1, 7):
        fit(Step(Noisy(draws)), X, 3, progress=False)
    assert seen[1] == seen[7]
    assert len(set(seen[1])) == 3 * turns


@pytest.mark.parametrize("answer", [True, np.True_, torch.tensor(True), torch.ones(1, dtype=torch.bool)])
def test_every_kind_of_true_ends_the_run(answer: object) -> None:
    found = fit(Step(SVI(LinearGaussian())), X, 5, callbacks=[lambda step, _: answer], progress=False)
    assert (found.steps, found.stopped) == (1, "callback")


@pytest.mark.parametrize("answer", [False, np.False_, torch.tensor(False), None, 3, {"loss": 1.0}, torch.ones(())])
def test_what_else_a_callback_returns_does_not(answer: object) -> None:
    found = fit(Step(SVI(LinearGaussian())), X, 3, callbacks=[lambda step, _: answer], progress=False)
    assert (found.steps, found.stopped) == (3, "finished")


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (lambda step: fit(step, X, -1), "steps: expected a whole number of at least 0, got -1"),
        (lambda step: fit(step, X, 2.0), "steps: expected a whole number"),  # type: ignore[arg-type]
        (lambda step: fit(step, X, 2, record_every=0), "record_every: expected a whole number of at least 1, got 0"),
        (lambda step: Validation(X, every=0), "every: expected a whole number of at least 1"),
        (lambda step: Validation(X, patience=0), "patience: expected a whole number of at least 1"),
        (lambda step: fit(step, X, 2, validation=Validation([])), "the validation: there are no batches"),
        (lambda step: fit(step, X, 2, validation=Validation(X[:0])), "at least one example"),
    ],
)
def test_numbers_out_of_range_are_refused_before_the_first_step(refused, message: str) -> None:
    step = Step(SVI(LinearGaussian()))
    with pytest.raises(ProgramError, match=message):
        refused(step)
    assert step.count == 0


def test_no_steps_are_no_steps() -> None:
    step = Step(SVI(LinearGaussian()), average=0.9)
    found = fit(step, X, 0, progress=False)
    assert (found.steps, found.stopped, found.best, step.count) == (0, "finished", None, 0)


@pytest.mark.parametrize("patience", [1, 2])
def test_patience_is_the_number_of_scores_without_improvement(patience: int) -> None:
    class Falling:
        """Scores 0, 1, 0, 0, …"""

        kind, settings, calls = "none", {}, -1

        def __call__(self, program: object, batch: Tensor) -> Estimate:
            self.calls += 1  # the rehearsal is the first of all
            value = torch.full((len(X),), 1.0 if self.calls == 2 else 0.0)
            return Estimate(value, torch.zeros_like(value))

    validation = Validation(X, every=1, patience=patience, estimator=Falling())
    found = fit(Step(SVI(LinearGaussian())), X, 20, validation=validation, progress=False)
    assert (found.steps, found.stopped) == (2 + patience, "early stopping")
    assert found.best == {"step": 2.0, "score": 1.0}


@pytest.mark.parametrize(
    "estimator", [None, Trace_ELBO(), TraceMeanField_ELBO(), Trace_ELBO(num_particles=5, vectorize_particles=True)]
)
def test_the_loss_is_per_example_whatever_batch_the_program_was_prepared_on(estimator: ELBO | None) -> None:
    """A plate of 20 prepared on all 20 and trained on 5, and the other way: by the declared size each time."""

    class Quiet(SharedMean):
        """A guide without noise: the loss is known to the bit."""

        def guide(self, x: Tensor) -> None:
            pyro.sample("mean", dist.Delta(self.total, log_density=self.error))

        def model(self, x: Tensor) -> None:
            mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
            with pyro.plate("rows", self.size, subsample_size=len(x)):  # as many as there are particles
                pyro.sample("x", dist.Normal(mean, 1.0), obs=x)

    x = torch.randn(20, dtype=torch.float64)
    log_prior = dist.Normal(0.0, 1.0).log_prob(torch.zeros((), dtype=torch.float64))
    for first, then in ((x, x[:5]), (x[:5], x)):
        objective = SVI(Quiet(20), estimator)
        objective.prepare(first)
        expected = -(20 / len(then) * dist.Normal(0.0, 1.0).log_prob(then).sum() + log_prior) / 20
        torch.testing.assert_close(objective.loss(then).detach(), expected)


@pytest.mark.parametrize("kind", [Traced, Compiled])
def test_what_an_import_of_inductor_switches_is_put_back(kind, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiler(graph, dynamic: bool):
        torch.distributions.Distribution.set_default_validate_args(False)
        warnings.simplefilter("ignore")

        def run(*batch: Tensor) -> object:
            torch.distributions.Distribution.set_default_validate_args(False)
            return graph(*batch)

        return run

    monkeypatch.setattr(torch, "compile", compiler)
    before = torch.distributions.Distribution._validate_args, warnings.filters[:]
    Step(SVI(LinearGaussian()), differentiate=kind())(X)
    assert (torch.distributions.Distribution._validate_args, warnings.filters[:]) == before
