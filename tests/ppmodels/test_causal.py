"""Causal networks: none looks ahead, each sees what its paper says, and incremental sampling equals one pass."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from ppmodels import CharRNN, DiagonalBiLSTM, GatedPixelCNN, PixelCNN, RowLSTM
from ppmodels.nn.causal import (
    AutoregressiveModel,
    DiagonalBiLSTMLayer,
    Mask,
    MaskedConv,
    ReLU,
    RowLSTMLayer,
    SamplingInputs,
    Sequential,
)
from ppmodels.nn.causal.image_lstm import diagonals
from ppmodels.nn.causal.lstm_scan import ScanOrder, cell, lstm_scan

Maker = Callable[..., AutoregressiveModel]

MODELS: dict[str, Maker] = {
    "char rnn": lambda shape, levels, layers=1, **kind: CharRNN(shape, levels, 12, layers, **kind),
    "row lstm": lambda shape, levels, layers=2, **kind: RowLSTM(shape, levels, 6, layers, **kind),
    "diagonal bilstm": lambda shape, levels, layers=2, **kind: DiagonalBiLSTM(shape, levels, 6, layers, **kind),
    "pixelcnn": lambda shape, levels, layers=2, **kind: PixelCNN(shape, levels, 12, layers, **kind),
    "gated pixelcnn": lambda shape, levels, layers=2, **kind: GatedPixelCNN(shape, levels, 12, layers, **kind),
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)

CASES = {
    "binary": {"shape": (1, 3, 5), "levels": 2},
    "binary, of a vector": {"shape": (1, 5, 3), "levels": 2, "context": 3},
    "grey levels, of a class": {"shape": (1, 5, 3), "levels": 5, "classes": 3},
    "colour": {"shape": (3, 3, 5), "levels": 3},
    "colour, of a map": {"shape": (3, 5, 3), "levels": 3, "context": (2, 5, 3)},
    "colour, discretized normal": {"shape": (3, 3, 1), "levels": 7, "likelihood": "discretized-normal"},
    "colour, logistic mixture": {"shape": (3, 3, 5), "levels": 16, "likelihood": "logistic-mixture", "context": 3},
    "two channels": {"shape": (2, 3, 3), "levels": 4},
    "one row, of a map": {"shape": (1, 1, 5), "levels": 2, "context": (2, 1, 5)},
    "one column": {"shape": (1, 5, 1), "levels": 2},
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def alive(model: AutoregressiveModel, size: float = 0.8) -> AutoregressiveModel:
    """The model in float64 with all its parameters drawn anew, biases among them: what can depend does so visibly."""
    model = model.double().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(0.0, size)
    return model


def context_for(model: AutoregressiveModel, n: int, dtype: torch.dtype = torch.float64) -> Tensor | None:
    """What `model` is called with for n images: labels in turn, or random numbers."""
    if model.classes:
        return torch.arange(n) % model.classes
    return torch.randn(n, *model.context_shape, dtype=dtype) if model.context_shape else None


def maps_for(model: AutoregressiveModel, n: int) -> Tensor | None:
    """What the network of `model` gets for such a context: `(n, maps, height or 1, width or 1)`."""
    context = model(context_for(model, n)).context
    return context[..., None, None] if context is not None and context.ndim == 2 else context


def in_order(images: Tensor) -> Tensor:
    """The values of images `(..., channel, height, width)` as they are drawn: raster order, channels innermost."""
    return images.movedim(-3, -1).flatten(-3)


def dependence(
    model: AutoregressiveModel, x: Tensor, maps: Tensor | None, steps: Sequence[int] | None = None
) -> Tensor:
    """Whether the parameters of each step move with each value of x, by gradients: bool `(steps, values)`.

    A step is a value, or a pixel where the channels depend on each other through the likelihood. A rectifier that is off
    for one image is on for another: x holds several, and one that moves is enough.
    """
    x = x.clone().requires_grad_()
    found = model.network(x, maps).unflatten(1, (-1, model.ordered))
    found = (found * torch.randn_like(found)).sum((0, 1))  # parameters of one step do not cancel under random weights
    each = in_order(found)
    rows = [torch.autograd.grad(each[step], x, retain_graph=True)[0] for step in steps or range(len(each))]
    return in_order(torch.stack(rows).abs().amax(1)) > 1e-14


def strictly_before(model: AutoregressiveModel) -> Tensor:
    """The values that each step may depend on: bool `(steps, values)`."""
    values = torch.arange(torch.Size(model.shape).numel())
    steps = torch.arange(len(values) * model.ordered // model.shape[0])
    return values * model.ordered // model.shape[0] < steps[:, None]


def critic_inputs(model: AutoregressiveModel, steps: Sequence[int] | None = None, draws: int = 4) -> Tensor:
    """`dependence` at images of random real numbers, of parameters that are drawn anew: the union over `draws`."""
    found = []
    for _ in range(draws):
        x = 2 * torch.rand(16, *model.shape, dtype=torch.float64) - 1
        found.append(dependence(alive(model), x, maps_for(model, len(x)), steps))
    return torch.stack(found).any(0)


def first_conv(model: AutoregressiveModel) -> MaskedConv:
    """The layer that hides the pixel itself."""
    return next(module for module in model.modules() if isinstance(module, MaskedConv))


# ---- no model looks ahead ----


@every_case
@every_model
def test_gradients_reach_back_and_never_ahead(make: Maker, case: dict) -> None:
    model = make(**case)
    seen, allowed = critic_inputs(model), strictly_before(model)
    assert not (seen & ~allowed).any()
    # What comes just before is always seen: the channels before in the pixel, and all of the pixel on the left.
    size, channels = model.shape[0] // model.ordered, model.shape[0]
    for step in range(1, len(seen)):
        first, column = step * size // channels * channels, step * size // channels % model.shape[2]
        start = first - channels if column else first
        assert seen[step, start : step * size].all()


FACTORISED = {name: case for name, case in CASES.items() if case.get("likelihood") != "logistic-mixture"}


@pytest.mark.parametrize("case", FACTORISED.values(), ids=FACTORISED)
@every_model
def test_a_changed_value_moves_no_conditional_before_or_at_it(make: Maker, case: dict) -> None:
    """By the distribution alone: each value is changed in turn, and p(xᵢ = k | x_<i) is read off at every level k."""
    model = make(**case)
    channels, height, width = model.shape
    values, levels = torch.Size(model.shape).numel(), model.levels
    found = []
    for _ in range(4):
        p = alive(model, 0.4)(context_for(model, 1))
        x = torch.randint(levels, (values,)).double()
        changed = (x + torch.eye(values, dtype=torch.float64) * torch.randint(1, levels, (values,))) % levels
        images = torch.cat((x.unsqueeze(0), changed)).view(-1, height, width, channels).permute(0, 3, 1, 2)
        conditionals = p.conditionals(images).base_dist
        log_p = in_order(
            torch.stack([conditionals.log_prob(torch.full_like(images, level)) for level in range(levels)])
        )
        found.append(((log_p[:, 1:] - log_p[:, :1]).abs() > 1e-9).any(0).T)
    moved = torch.stack(found).any(0)  # (value, value changed)
    assert not moved.triu().any()
    assert moved.any(1)[1:].all()


@pytest.mark.parametrize("case", ["binary", "colour", "colour, logistic mixture"])
@every_model
def test_a_first_layer_that_sees_its_own_pixel_is_found(make: Maker, case: str) -> None:
    """The same checks see a single wrong mask: they would be worth nothing otherwise."""
    model = make(**CASES[case])
    conv = first_conv(model)
    outputs, inputs = conv.weight.shape[:2]
    blocks = 2 if isinstance(model, GatedPixelCNN) else 1
    other = MaskedConv(inputs, outputs, 2 * conv.reach + 1, Mask.B, model.ordered, blocks, rows=conv.rows)
    assert (other.mask >= conv.mask).all()
    conv.mask.copy_(other.mask)
    seen = critic_inputs(model)
    size = model.shape[0] // model.ordered
    own = torch.stack([seen[step, step * size : (step + 1) * size].any() for step in range(len(seen))])
    assert own.all()  # every step sees itself
    before = strictly_before(model)
    assert (seen & ~before).sum() == own.numel() * size  # and nothing later


def test_masks_are_those_of_the_paper() -> None:
    """At the pixel itself A shows R nothing, G red, B red and green; B shows a channel itself as well."""
    before = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    for mask, expected in ((Mask.A, before), (Mask.B, before + torch.eye(3, dtype=torch.int64))):
        seen = MaskedConv(3, 6, 5, mask, channels=3).mask
        assert seen[:, :, 2, 2].tolist() == expected.repeat_interleave(2, 0).tolist()
        assert (seen[:, :, :2] == 1).all()
        assert (seen[:, :, 2, :2] == 1).all()
        assert (seen[:, :, 2, 3:] == 0).all()
        in_blocks = MaskedConv(3, 12, 5, mask, channels=3, blocks=2).mask
        assert torch.equal(in_blocks, torch.cat((seen, seen)))
        alone = MaskedConv(4, 4, 3, mask).mask[:, :, 1, 1]
        assert (alone == (1.0 if mask is Mask.B else 0.0)).all()


def test_a_walk_that_begins_with_an_open_layer_is_refused_on_a_walk() -> None:
    layers = Sequential(ReLU(), MaskedConv(1, 1, 3, Mask.A)).incremental(SamplingInputs(2, 3, None))
    layers.row()
    with pytest.raises(
        NotImplementedError, match="IncrementalReLU: expected a network's first layer to hide the pixel"
    ):
        layers.known(0, torch.zeros(2, 1))


# ---- what each model sees, of 11×11 pixels: `up` rows above, `right` columns to the right ----

SIDE = 11
FIELDS: dict[str, tuple[str, int, Callable[[Tensor, Tensor], Tensor]]] = {
    "char rnn": ("char rnn", 1, lambda up, right: right < SIDE),
    "diagonal bilstm": ("diagonal bilstm", 1, lambda up, right: right < SIDE),
    "diagonal bilstm, 3 layers": ("diagonal bilstm", 3, lambda up, right: right < SIDE),
    # From the row just above the first kernel reaches 3 to the right; each row further up, an LSTM moves by 1 to either
    # side. On the left there is 1 more for each layer, whose convolution looks that way in its row. Else it is a triangle.
    "row lstm": ("row lstm", 1, lambda up, right: (right <= up + 2) & (right >= -up - 4)),
    "row lstm, 3 layers": ("row lstm", 3, lambda up, right: (right <= up + 2) & (right >= -up - 6)),
    # Each block reaches 1 up and to either side, and to the left in its own row: `layers` + 3 up and to the left, but to
    # the right only while it goes up. right > up + 2 is the blind spot, of any number of layers.
    "pixelcnn": (
        "pixelcnn",
        2,
        lambda up, right: (up <= 5) & (right >= -5) & (right <= 3 + (up - 1).clamp(max=2)),
    ),
    "pixelcnn, 9 layers": ("pixelcnn", 9, lambda up, right: right <= up + 2),
    # A square of `layers` + 3, cut at the pixel: no blind spot.
    "gated pixelcnn": ("gated pixelcnn", 2, lambda up, right: (up <= 5) & (right.abs() <= 5)),
    "gated pixelcnn, 7 layers": ("gated pixelcnn", 7, lambda up, right: right < SIDE),
}


def expected_field(row: int, column: int, inside: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The pixels before that are inside: bool `(SIDE, SIDE)`."""
    rows, columns = torch.arange(SIDE)[:, None], torch.arange(SIDE)
    up, right = (row - rows).expand(SIDE, SIDE), (columns - column).expand(SIDE, SIDE)
    before = (up > 0) | ((up == 0) & (right < 0))
    return before & inside(up, right)


def fields(model: AutoregressiveModel) -> Iterator[tuple[int, int, Tensor]]:
    """Some pixels with what they see, bool `(SIDE, SIDE)`."""
    places = [(row, column) for row in (0, 4, 7, 10) for column in (0, 3, 6, 7, 10)]
    seen = critic_inputs(model, [row * SIDE + column for row, column in places], draws=2)
    for (row, column), each in zip(places, seen, strict=True):
        yield row, column, each.view(SIDE, SIDE)


@pytest.mark.parametrize(("name", "layers", "inside"), FIELDS.values(), ids=FIELDS)
def test_the_receptive_field(name: str, layers: int, inside: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Exactly these pixels: every one inside is seen, and none outside."""
    for row, column, seen in fields(MODELS[name]((1, SIDE, SIDE), 2, layers)):
        assert torch.equal(seen, expected_field(row, column, inside)), (row, column)


def test_without_the_pixel_before_the_diagonal_bilstm_has_a_hole() -> None:
    """The paper's own first layer: features beside the last pixel of a row do not know it, and no LSTM brings it on.

    It is seen within the first kernel's reach of 3 alone. This is what WrappedConv is for.
    """
    model = MODELS["diagonal bilstm"]((1, SIDE, SIDE), 2, 3)
    model.network.layers[0] = model.network.layers[0].conv
    for row, column, seen in fields(model):
        expected = expected_field(row, column, lambda up, right: right < SIDE)
        if row and column + 3 < SIDE - 1:
            expected[row - 1, SIDE - 1] = False
        assert torch.equal(seen, expected), (row, column)


@pytest.mark.parametrize(("name", "layers"), [("char rnn", 1), ("diagonal bilstm", 1), ("gated pixelcnn", 6)])
def test_no_channel_of_a_pixel_before_is_missed(name: str, layers: int) -> None:
    model = MODELS[name]((3, 3, 9), 3, layers)
    assert torch.equal(critic_inputs(model), strictly_before(model))


# ---- incremental sampling is one pass ----


def sampled_incrementally(model: AutoregressiveModel, x: Tensor, context: Tensor | None) -> Tensor:
    """The parameters that incremental sampling gives while x is written down, as `network` gives them.

    What is not written yet is noise, so that a layer which looks ahead gives other numbers.
    """
    written = torch.randint(model.levels, x.shape).to(x.dtype)
    found = torch.full((len(x), model.outputs, *model.shape[1:]), torch.nan, dtype=x.dtype)
    places = []
    for (examples, channels, row, column), parameters in model.incremental(written, context):
        assert parameters.shape == found.shape[:2]
        ours = torch.arange(model.outputs) % model.ordered == (channels.start if model.ordered > 1 else 0)
        found[:, ours, row, column] = parameters[:, ours]
        written[examples, channels, row, column] = x[examples, channels, row, column]
        places.append((row, column, channels.start))
    size = model.shape[0] // model.ordered
    assert all(first < second for first, second in pairwise(places))
    assert len(places) * size == torch.Size(model.shape).numel()
    return found


VARIANTS = {
    **{f"{name}, {case}": (make, options) for name, make in MODELS.items() for case, options in CASES.items()},
    "gated pixelcnn, kernel 1": (MODELS["gated pixelcnn"], {"shape": (3, 3, 5), "levels": 3, "kernel": 1}),
    "gated pixelcnn, kernel 5": (
        MODELS["gated pixelcnn"],
        {"shape": (1, 7, 9), "levels": 2, "kernel": 5, "context": 2},
    ),
    "pixelcnn, deep": (MODELS["pixelcnn"], {"shape": (1, 9, 11), "levels": 2, "layers": 5}),
    "row lstm, deep": (MODELS["row lstm"], {"shape": (1, 9, 11), "levels": 2, "layers": 5}),
    "diagonal bilstm, deep": (MODELS["diagonal bilstm"], {"shape": (1, 9, 11), "levels": 2, "layers": 5}),
    "char rnn, deep": (MODELS["char rnn"], {"shape": (3, 5, 3), "levels": 3, "layers": 3, "context": (2, 5, 3)}),
    "one pixel": (MODELS["diagonal bilstm"], {"shape": (3, 1, 1), "levels": 3}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize(("make", "case"), VARIANTS.values(), ids=VARIANTS)
def test_a_walk_gives_the_parameters_of_one_pass(make: Maker, case: dict, dtype: torch.dtype) -> None:
    model = alive(make(**case), 0.4).to(dtype)
    n = 3
    context = model(context_for(model, n, dtype)).context
    maps = context[..., None, None] if context is not None and context.ndim == 2 else context
    x = torch.randint(model.levels, (n, *model.shape)).to(dtype)
    at_once = model.network(model.standardise(x), maps)
    allowed = 1e-5 if dtype is torch.float32 else 1e-12
    torch.testing.assert_close(sampled_incrementally(model, x, context), at_once, rtol=allowed, atol=allowed)


@every_model
def test_walks_do_not_disturb_one_another(make: Maker) -> None:
    model = alive(make((1, 3, 5), 2), 0.4)
    first, second = (torch.randint(2, (2, 1, 3, 5)).double() for _ in range(2))
    passes = model.incremental(first, None), model.incremental(second, None)
    expected = [model.network(model.standardise(x), None) for x in (first, second)]
    for both in zip(*passes, strict=True):
        for ((_, _, row, column), parameters), whole in zip(both, expected, strict=True):
            torch.testing.assert_close(parameters, whole[:, :, row, column], rtol=1e-12, atol=1e-12)


# ---- the scan, against the same recurrences written out, one cell at a time ----


def plain_cell(inputs: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Output and state of an LSTM cell: input, forget and output gate, and the candidate."""
    take, keep, show, candidate = inputs.chunk(4, -1)
    state = keep.sigmoid() * before + take.sigmoid() * candidate.tanh()
    return show.sigmoid() * state.tanh(), state


def plain_scan(inputs: Tensor, weight: Tensor, order: ScanOrder, n: int) -> Tensor:
    """What `lstm_scan` says that it is, left to autograd: outputs of the step before, 0 beyond that step's range."""
    lines, h = len(inputs), inputs.shape[2] // 4
    nothing = inputs.new_zeros(n, h)
    found = []
    for line in range(lines):
        outputs: dict[int, Tensor] = {}
        states: dict[int, Tensor] = {}
        packed, done = [], 0
        for first, last in order.steps:
            new_outputs, new_states = {}, {}
            for position in range(first, last):
                window = torch.cat([outputs.get(position + offset, nothing) for offset in order.offsets], -1)
                gates = inputs[line, done : done + n] + window @ weight[line]
                new_outputs[position], new_states[position] = plain_cell(gates, states.get(position, nothing))
                packed.append(new_outputs[position])
                done += n
            outputs, states = new_outputs, new_states
        found.append(torch.cat(packed))
    return torch.stack(found)


ORDERS = {
    "rows": ScanOrder(5, ((0, 5),) * 3, (-1, 0, 1)),
    "one row": ScanOrder(4, ((0, 4),), (-1, 0, 1)),
    "one column": ScanOrder(1, ((0, 1),) * 4, (-1, 0, 1)),
    "diagonals": diagonals(3, 5)[0],
    "diagonals, tall": diagonals(5, 2)[0],
    "diagonals, one row": diagonals(1, 4)[0],
    "diagonals, one column": diagonals(4, 1)[0],
}


def scanned(order: ScanOrder, lines: int, n: int, h: int) -> tuple[Tensor, Tensor]:
    """Inputs and weights for a scan in `order`, float64."""
    cells = sum(last - first for first, last in order.steps)
    inputs = torch.randn(lines, cells * n, 4 * h, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(lines, len(order.offsets) * h, 4 * h, dtype=torch.float64, requires_grad=True)
    return inputs, weight


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_scan_and_its_gradient_are_those_of_a_plain_loop(order: ScanOrder) -> None:
    inputs, weight = scanned(order, lines=2, n=3, h=2)
    fast, plain = lstm_scan(inputs, weight, order, 3), plain_scan(inputs, weight, order, 3)
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
    upstream = torch.randn_like(fast)
    gradients = [torch.autograd.grad(found, (inputs, weight), upstream) for found in (fast, plain)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_gradient_of_a_scan_agrees_with_finite_differences(order: ScanOrder) -> None:
    inputs, weight = scanned(order, lines=2, n=2, h=1)
    assert torch.autograd.gradcheck(lambda *each: lstm_scan(*each, order, 2), (inputs, weight))


@pytest.mark.parametrize("needed", [0, 1])
def test_a_scan_gives_the_gradient_of_either_alone(needed: int) -> None:
    order = ORDERS["diagonals"]
    both = scanned(order, lines=1, n=2, h=2)
    expected = torch.autograd.grad(plain_scan(*both, order, 2).square().sum(), both[needed])
    both[1 - needed].requires_grad_(False)
    torch.testing.assert_close(torch.autograd.grad(lstm_scan(*both, order, 2).square().sum(), both[needed]), expected)


def test_a_cell_is_an_lstm_cell() -> None:
    inputs, before = torch.randn(3, 8, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    each = cell(inputs, before)
    output, state = plain_cell(inputs, before)
    torch.testing.assert_close(each.output, output)
    torch.testing.assert_close(each.state, state)


def plain_row_lstm(layer: RowLSTMLayer, x: Tensor) -> Tensor:
    """A cell at a time: three outputs and one state of the row above."""
    n, _, height, width = x.shape
    inputs, weight = layer.input_to_state(x, None), layer.state_to_state[0]
    nothing = x.new_zeros(n, weight.shape[1] // 4)
    outputs: dict[tuple[int, int], Tensor] = {}
    states: dict[tuple[int, int], Tensor] = {}
    for row in range(height):
        for column in range(width):
            above = torch.cat([outputs.get((row - 1, column + k), nothing) for k in (-1, 0, 1)], 1)
            gates = inputs[:, :, row, column] + above @ weight
            outputs[row, column], states[row, column] = plain_cell(gates, states.get((row - 1, column), nothing))
    return torch.stack([outputs[place] for place in sorted(outputs)], 2).unflatten(2, (height, width))


def plain_diagonal_lstm(inputs: Tensor, weight: Tensor) -> dict[tuple[int, int], Tensor]:
    """From the upper left corner, a cell at a time: the outputs above and on the left, and the state on the left."""
    n, _, height, width = inputs.shape
    nothing = inputs.new_zeros(n, weight.shape[1] // 4)
    outputs: dict[tuple[int, int], Tensor] = {}
    states: dict[tuple[int, int], Tensor] = {}
    for row in range(height):
        for column in range(width):
            seen = [outputs.get(place, nothing) for place in ((row - 1, column), (row, column - 1))]
            gates = inputs[:, :, row, column] + torch.cat(seen, 1) @ weight
            outputs[row, column], states[row, column] = plain_cell(gates, states.get((row, column - 1), nothing))
    return outputs


def plain_diagonal_bilstm(layer: DiagonalBiLSTMLayer, x: Tensor) -> Tensor:
    """From the left, and from the right on the mirrored image; what comes from the right is moved down by a row."""
    height, width = x.shape[2:]
    left, right = layer.input_to_state(x, None).chunk(2, 1)
    from_left = plain_diagonal_lstm(left, layer.state_to_state[0])
    from_right = plain_diagonal_lstm(right.flip(3), layer.state_to_state[1])
    cells = [
        from_left[row, column] + (from_right[row - 1, width - 1 - column] if row else 0.0)
        for row in range(height)
        for column in range(width)
    ]
    return torch.stack(cells, 2).unflatten(2, (height, width))


@pytest.mark.parametrize("size", [(3, 5), (5, 3), (1, 4), (4, 1)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["row", "diagonal"])
def test_a_recurrent_layer_is_its_recurrence(kind: str, channels: int, size: tuple[int, int]) -> None:
    layer: RowLSTMLayer | DiagonalBiLSTMLayer
    layer = RowLSTMLayer(6, 3, channels) if kind == "row" else DiagonalBiLSTMLayer(6, 3, size, channels)
    layer = layer.double()
    plain: Callable[..., Tensor] = plain_row_lstm if kind == "row" else plain_diagonal_bilstm
    x = torch.randn(2, 6, *size, dtype=torch.float64, requires_grad=True)
    found = [layer(x, None), plain(layer, x)]
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    wanted: list[Tensor | nn.Parameter] = [x, *layer.parameters()]
    upstream = torch.randn_like(found[0])
    gradients = [torch.autograd.grad(each, wanted, upstream, allow_unused=True) for each in found]
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
