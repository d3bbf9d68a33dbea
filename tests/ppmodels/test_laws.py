"""Laws: properties that every model must satisfy. A new model is one line of WITH_LATENTS or WITHOUT_LATENTS."""

import copy
from collections.abc import Callable

import pyro
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from inference import (
    SVI,
    Gradient,
    ImportanceWeighted,
    ProgramError,
    Step,
    Traced,
    WakeSleep,
    adam,
    check,
    elbo,
    evaluate,
    exact,
    fit,
    importance,
    posterior,
    reconstruct,
    sample,
    terms,
)
from inference.training.differentiate import backward
from ppmodels import (
    AIR,
    DRAW,
    VAE,
    CharRNN,
    ConvDecoder,
    ConvEncoder,
    DiagonalBiLSTM,
    Flow,
    FlowEncoder,
    GatedPixelCNN,
    MLPDecoder,
    PixelCNN,
    RowLSTM,
    make_head,
)

IMAGE = (1, 5, 4)
COLOUR = (3, 3, 2)


def _levels(levels: int, shape: tuple[int, ...] = IMAGE) -> Callable[[int], tuple[Tensor, ...]]:
    return lambda batch: (torch.randint(levels, (batch, *shape)).float(),)


def _labelled(batch: int) -> tuple[Tensor, ...]:
    return (*_levels(2)(batch), torch.randint(3, (batch,)))


def _with_map(batch: int) -> tuple[Tensor, ...]:
    return (*_levels(2)(batch), torch.randn(batch, 2, *IMAGE[1:]))


def _with_head(name: str, levels: int) -> VAE:
    return VAE(IMAGE, levels, 3, decoder=MLPDecoder(3, IMAGE, make_head(levels, name)))


Case = tuple[Callable[[], nn.Module], Callable[[int], tuple[Tensor, ...]]]
"""How to make a model, and how to make a batch of so many examples for it."""

WITH_LATENTS: dict[str, Case] = {
    "vae": (lambda: VAE(IMAGE, 2, 3), _levels(2)),
    "vae, categorical": (lambda: _with_head("categorical", 17), _levels(17)),
    "vae, discretized normal": (lambda: _with_head("discretized-normal", 256), _levels(256)),
    "vae, logistic mixture": (lambda: _with_head("logistic-mixture", 256), _levels(256)),
    "vae, normal": (lambda: VAE((6,), None, 3), lambda batch: (torch.randn(batch, 6),)),
    "vae, conditional": (lambda: VAE(IMAGE, 2, 3, classes=3), _labelled),
    "vae, convolutional, colour": (
        lambda: VAE(
            (3, 7, 9),
            256,
            3,
            encoder=ConvEncoder((3, 7, 9), 256, 3, (4, 8)),
            decoder=ConvDecoder(3, (3, 7, 9), make_head(256), (8, 4)),
        ),
        _levels(256, (3, 7, 9)),
    ),
    "vae, flow guide": (
        lambda: VAE(IMAGE, 2, 3, encoder=FlowEncoder(IMAGE, 2, 3, hidden=(8,), transforms=2)),
        _levels(2),
    ),
    "draw": (lambda: DRAW(IMAGE, 2, 3, 2, 8, write=3), _levels(2)),
    "draw, categorical": (lambda: DRAW(IMAGE, 17, 2, 3, 8, write=2), _levels(17)),
    "draw, logistic mixture, colour": (lambda: DRAW((3, 7, 9), 256, 2, 3, 8, 3, 3), _levels(256, (3, 7, 9))),
    "draw, without attention": (lambda: DRAW(IMAGE, 2, 3, 2, 8, read=None, write=None), _levels(2)),
    "air": (
        lambda: AIR(IMAGE, None, 2, 0.3, window=3, what=3, hidden=6, layer=5),
        lambda batch: (torch.rand(batch, *IMAGE),),
    ),
    "air, levels": (lambda: AIR(IMAGE, 5, 2, 0.3, window=3, what=3, hidden=6, layer=5), _levels(5)),
    "pixel vae": (lambda: VAE(IMAGE, 2, 3, decoder=GatedPixelCNN(IMAGE, 2, 6, 1, context=3)), _levels(2)),
}

WITHOUT_LATENTS: dict[str, Case] = {
    "char rnn": (lambda: CharRNN(IMAGE, 2, 6), _levels(2)),
    "row lstm": (lambda: RowLSTM(IMAGE, 2, 4, 1), _levels(2)),
    "diagonal bilstm": (lambda: DiagonalBiLSTM(IMAGE, 2, 4, 1), _levels(2)),
    "pixelcnn": (lambda: PixelCNN(IMAGE, 2, 8, 1), _levels(2)),
    "gated pixelcnn": (lambda: GatedPixelCNN(IMAGE, 2, 6, 1), _levels(2)),
    "gated pixelcnn, conditional": (lambda: GatedPixelCNN(IMAGE, 2, 6, 1, classes=3), _labelled),
    "diagonal bilstm, of a map": (lambda: DiagonalBiLSTM(IMAGE, 2, 4, 1, context=(2, *IMAGE[1:])), _with_map),
    "row lstm, colour": (lambda: RowLSTM(COLOUR, 5, 3, 1), _levels(5, COLOUR)),
    "flow": (lambda: Flow(3, 2, (8,)), lambda batch: (torch.randn(batch, 3),)),
    "flow, conditional": (
        lambda: Flow(2, 1, (8,), 4, classes=3),
        lambda batch: (torch.randn(batch, 2), torch.randint(3, (batch,))),
    ),
    "pixelcnn, colour, logistic mixture": (lambda: PixelCNN(COLOUR, 256, 6, 1), _levels(256, COLOUR)),
}

MODELS = WITH_LATENTS | WITHOUT_LATENTS

OBJECTIVES: dict[str, Callable[[nn.Module], SVI | ImportanceWeighted]] = {
    "svi": SVI,
    "iwae": lambda program: ImportanceWeighted(program, particles=3),
    "sticking": lambda program: ImportanceWeighted(program, elbo, 2, gradient=Gradient.STICKING_THE_LANDING),
    "doubly": lambda program: ImportanceWeighted(program, particles=3, gradient=Gradient.DOUBLY_REPARAMETERISED),
}
OF_DRAWS = ("sticking", "doubly")  # gradients that follow draws, and refuse a program that makes none
OF_THE_ELBO = ("air", "air, levels")  # an expectation that is exact cancels from the weights: the ELBO alone trains it

every_objective = pytest.mark.parametrize(
    ("case", "objective"),
    [
        (name, each)
        for name in MODELS
        for each in OBJECTIVES
        if (name in WITH_LATENTS or each not in OF_DRAWS) and (name not in OF_THE_ELBO or each == "svi")
    ],
    indirect=["case"],
    ids=lambda value: value,
)


@pytest.fixture(params=MODELS, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Callable[[int], tuple[Tensor, ...]]]:
    make, batches = MODELS[request.param]
    return make(), batches


def test_preflight_finds_nothing(case) -> None:
    program, batches = case
    check(program, batches(4))


@every_objective
def test_the_objective_runs_where_there_are_no_values(case, objective: str) -> None:
    """On the meta device a constant made on the CPU, and every wait for a value, fails: a test for GPUs without one."""
    program, batches = case
    program = program.to("meta")
    batch = tuple(tensor.to("meta") for tensor in batches(4))
    on_meta = OBJECTIVES[objective](program).to("meta")
    with pyro.validation_enabled(False):
        loss = on_meta.loss(batch)
        loss.backward()
    assert loss.shape == ()
    assert all(parameter.grad is not None for parameter in program.parameters())


@every_objective
def test_a_traced_step_is_the_same_step(objective: str, case, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["case"]
    make, batches = MODELS[name]
    batch, other = batches(6), batches(6)
    if name == "char rnn":  # torch's own LSTM: on a CPU its kernel can not be run from a graph
        with pytest.raises(ProgramError, match="its graph does not run"):
            Step(OBJECTIVES[objective](make()), adam(1e-2), differentiate=Traced())(batch)
        return
    losses = []
    for differentiate in (backward, Traced()):
        torch.manual_seed(2)
        step = Step(OBJECTIVES[objective](make()), adam(1e-2), differentiate=differentiate)
        losses.append([float(step(examples)["loss"]) for examples in (batch, other, batch, other)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("sleep", [0.0, 0.5])
@pytest.mark.parametrize("name", [name for name in WITH_LATENTS if name.startswith("vae")])
def test_wake_sleep_runs_without_values_and_is_the_same_traced(name: str, sleep: float) -> None:
    make, batches = WITH_LATENTS[name]
    batch, losses = batches(6), []
    for differentiate in (backward, Traced()):
        torch.manual_seed(2)
        step = Step(WakeSleep(make(), 3, sleep), adam(1e-2), differentiate=differentiate)
        losses.append([{player: float(value) for player, value in step(batch).items()} for _ in range(2)])
    assert losses[0] == losses[1]
    on_meta = step.objective.to("meta")
    with pyro.validation_enabled(False):
        for player in on_meta.players().values():
            gradients = torch.autograd.grad(player.loss(tuple(x.to("meta") for x in batch)), player.parameters)
            assert len(gradients) == len(player.parameters) > 0


@pytest.mark.gpu
@every_objective
def test_the_objective_trains_on_a_gpu(case, objective: str) -> None:
    program, batches = case
    program = program.to("cuda")
    batch = tuple(tensor.to("cuda") for tensor in batches(8))
    step = Step(OBJECTIVES[objective](program).to("cuda"), adam(1e-2), average=0.9)
    losses = [float(step(batch)["loss"]) for _ in range(30)]
    assert losses[-1] < losses[0]
    found = evaluate(program, batch, {"iwae": importance(50)})
    assert found.log_prob["iwae"].isfinite().all()


@pytest.mark.gpu
def test_a_step_captured_on_a_gpu_is_the_eager_one(case) -> None:
    program, batches = case
    batch = tuple(tensor.to("cuda") for tensor in batches(8))
    losses = []
    for differentiate in (backward, Traced()):
        step = Step(SVI(copy.deepcopy(program).to("cuda")), adam(1e-3), average=0.9, differentiate=differentiate)
        if isinstance(program, CharRNN) and differentiate is not backward:
            with pytest.raises(ProgramError, match="cannot be traced"):
                step(batch)
            return
        losses.append(torch.stack([step(batch)["loss"] for _ in range(5)]))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-3)


def test_per_example_numbers_depend_on_their_example_alone(case) -> None:
    program, batches = case
    program.eval()
    batch = batches(6)
    latents = posterior(program, batch, 2)
    whole = terms(program, batch, 2, latents).log_weights
    assert whole.shape == (2, 6)
    for rows in (slice(0, 1), slice(1, 6)):
        part = terms(
            program,
            tuple(tensor[rows] for tensor in batch),
            2,
            latents={name: value[:, rows] for name, value in latents.items()},
        ).log_weights
        torch.testing.assert_close(part, whole[:, rows], atol=2e-3, rtol=1e-5)


def test_densities_in_float32_are_those_of_float64(case) -> None:
    program, batches = case
    batch = batches(5)
    latents = posterior(program, batch, 2)
    single = terms(program, batch, latents=latents)
    double = terms(
        program.double(),
        tuple(tensor.double() if tensor.is_floating_point() else tensor for tensor in batch),
        latents={name: value.double() for name, value in latents.items()},
    )
    for first, second in zip(single[:3], double[:3], strict=True):
        assert second.dtype == torch.float64
        torch.testing.assert_close(first.double(), second, atol=5e-3, rtol=1e-4)


def test_bounds_are_ordered(case) -> None:
    """E[ELBO] ≤ E[IWAE]; an example may break it by six standard errors of its ELBO, their mean never.

    Where nothing is latent both are log p(x) itself, with any number of particles.
    """
    program, batches = case
    batch = batches(20)
    found = evaluate(program, batch, {"elbo": importance(100, elbo), "iwae": importance(100)})
    gap = found.log_prob["iwae"] - found.log_prob["elbo"]
    if posterior(program, batch):
        assert (gap > -6 * found.error["elbo"]).all()
        assert gap.mean() > 0
    else:
        known = evaluate(program, batch, {"one": importance(1, elbo), "exact": exact()})
        for bound in (known.log_prob["one"], found.log_prob["elbo"], found.log_prob["iwae"]):
            torch.testing.assert_close(bound, known.log_prob["exact"], rtol=1e-5, atol=1e-4)


def test_draws_have_the_shape_of_the_data_and_can_be_scored(case) -> None:
    program, batches = case
    batch = batches(4)
    prior = sample(program, batch, 3)
    again = reconstruct(program, batch, 3)
    assert prior["x"].shape == again["x"].shape == (3, *batch[0].shape)
    latents = posterior(program, batch, 3)
    assert prior.keys() == {"x", *latents}
    assert all(prior[name].shape == value.shape for name, value in latents.items())
    assert all(value.shape[:2] == (3, 4) for value in latents.values())
    drawn = (prior["x"][0].to(batch[0].dtype), *batch[1:])
    assert terms(program, drawn).log_weights.isfinite().all()


def test_weights_survive_a_file(case, request: pytest.FixtureRequest) -> None:
    program, batches = case
    name = request.node.callspec.params["case"]
    other = MODELS[name][0]()
    other.load_state_dict(safetensors.torch.load(safetensors.torch.save(program.state_dict())))
    batch = batches(3)
    latents = posterior(program, batch)
    torch.testing.assert_close(
        terms(program, batch, latents=latents).log_weights, terms(other, batch, latents=latents).log_weights
    )


def test_training_lowers_the_loss_and_repeats(case, request: pytest.FixtureRequest) -> None:
    make, batches = MODELS[request.node.callspec.params["case"]]
    batch = batches(16)
    losses = []
    for _ in range(2):
        torch.manual_seed(1)
        found = fit(Step(SVI(make()), adam(5e-3), clip=100.0), batch, 25, record_every=1, progress=False)
        losses.append([row["loss"] for row in found.history])
    assert losses[0] == losses[1]
    assert sum(losses[0][-5:]) < sum(losses[0][:5])


def test_networks_run_in_half_precision_and_densities_in_full(case) -> None:
    program, batches = case
    step = Step(SVI(program), adam(1e-3), autocast=torch.bfloat16)
    metrics = step(batches(4))
    assert metrics["loss"].dtype == torch.float32
