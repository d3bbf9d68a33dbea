"""DRAW: an image painted in steps on a canvas, each step seen and made through a moving window (Gregor et al., 2015)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import pyro
import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from ppmodels.distributions.levels import Shape
from ppmodels.nn.attention import ReadAll, ReadWindow, WriteAll, WriteWindow
from ppmodels.nn.conditioning import check_examples
from ppmodels.nn.encoders import image_shape
from ppmodels.nn.heads import Head, make_head
from ppmodels.nn.parameters import full_precision, positive, scale_parameters

State = tuple[Tensor, Tensor]
"""An LSTM's h and c, `(batch, hidden)` each."""

Weights = tuple[tuple[int, int], ...]
"""Which tensors some weights are, and how often each has been written into."""


class DRAW(nn.Module):
    """z_t ~ Normal(0, I), h_t = LSTM(z_t, h_t-1), c_t = c_t-1 + write(h_t), x under a head of c_T (arXiv 1502.04623).

    x is `(batch, *shape)`, float, whole levels 0..levels-1, or real numbers where `levels` is None; z, one site, is
    `(batch, glimpses, latent)`. The guide reads x and the error x - mean(c_t-1) at each step, runs decoder and canvas along,
    and gives z_t a normal q(z_t | x, z_1, …, z_t-1). Gradients are best clipped by their norm.

    `read` and `write` are how many filters a window has on a side; None reads, or writes, the whole image at once. `canvas`
    is c_0 at the start, `(head.outputs(channels), height, width)`, zero by default; `head.marginal(examples)` is a good
    one. `likelihood` is a head, or its name for `make_head`. Raises ValueError for what does not fit.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1, 28, 28),
        levels: int | None = 2,
        glimpses: int = 16,
        latent: int = 100,
        hidden: int = 256,
        read: int | None = 2,
        write: int | None = 5,
        canvas: Tensor | None = None,
        likelihood: Head | str | None = None,
    ) -> None:
        super().__init__()
        channels, height, width = self.shape = image_shape(shape)
        for name, count in (("glimpses", glimpses), ("latent", latent), ("hidden", hidden)):
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {count}")
        for name, points in (("read", read), ("write", write)):
            _check_window(name, points, (height, width))
        self.levels, self.glimpses, self.latent, self.hidden = levels, glimpses, latent, hidden
        self.head = likelihood if isinstance(likelihood, Head) else make_head(levels, likelihood)
        if self.head.levels != levels:
            raise ValueError(f"likelihood: expected a head of levels={levels}, got one of levels={self.head.levels}")
        seen, painted = (2 * channels, height, width), (self.head.outputs(channels), height, width)
        if canvas is not None and tuple(canvas.shape) != painted:
            raise ValueError(f"canvas: expected shape {painted}, of the head's parameters, got {tuple(canvas.shape)}")
        self.canvas = nn.Parameter(torch.zeros(painted) if canvas is None else canvas.clone())
        self.read = ReadAll(seen) if read is None else ReadWindow(hidden, read, seen)
        self.write = WriteAll(hidden, painted) if write is None else WriteWindow(hidden, write, painted)
        self.encoder = nn.LSTMCell(self.read.features + hidden, hidden)
        self.posterior = nn.Linear(hidden, 2 * latent)
        # The scales of the prior: with others, all steps' KL together drives the guide into the prior before x is seen.
        nn.init.constant_(self.posterior.bias[latent:], float(scale_parameters(torch.tensor(1.0))))
        self.decoder = nn.LSTMCell(latent, hidden)
        for cell in (self.encoder, self.decoder):  # they begin by remembering (Jozefowicz et al. 2015)
            nn.init.constant_(cell.bias_ih[hidden : 2 * hidden], 1.0)

    def model(self, x: Tensor) -> Tensor:
        """Draws z, observes x, and returns it (or a draw of it, where the observation is lifted)."""
        check_examples(x, self.shape, "DRAW")
        zeros = x.new_zeros(len(x), self.glimpses, self.latent)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", Normal(zeros, zeros + 1).to_event(2))
            drawn: Tensor = pyro.sample("x", self.head(self.paint(z)), obs=x)
        return drawn

    def guide(self, x: Tensor) -> Tensor:
        """Draws z from q(z | x)."""
        check_examples(x, self.shape, "DRAW")
        with pyro.plate("data", len(x)):
            z: Tensor = pyro.sample("z", Posterior(self, x))
        return z

    def paint(self, z: Tensor) -> Tensor:
        """c_T, the head's parameters `(batch, outputs, height, width)`, given z `(batch, glimpses, latent)`.

        Of a draw that carries its canvas it is that one, which follows the guide's parameters and not the draw: for a
        gradient by z itself, give a copy.
        """
        painted = _painted(z, self._weights())
        return list(self.strokes(z))[-1].canvas if painted is None else painted

    def strokes(self, z: Tensor) -> Iterator["Stroke"]:
        """The steps of the model, one after the other, given z `(batch, glimpses, latent)`."""
        stroke = self._blank(z)
        for z_t in z.unbind(1):
            stroke = self._next(stroke, z_t)
            yield stroke

    def infer(self, x: Tensor, choose: Callable[[int, Tensor, Tensor], Tensor]) -> "Inferred":
        """The steps of the guide: `choose(t, loc, scale)` says what z_t is, given the parameters of its normal."""
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        stroke, state, scaled = self._blank(x), self._start(x), self._scaled(x)
        for t in range(self.glimpses):
            error = scaled - self._scaled(self.head.expected(stroke.canvas))
            seen = self.read(stroke.h, torch.cat((scaled, error), 1))
            state = self.encoder(torch.cat((seen, stroke.h), 1), state)
            loc, scale = full_precision(self.posterior(state[0])).chunk(2, -1)
            scale = positive(scale)
            z_t = choose(t, loc, scale)
            stroke = self._next(stroke, z_t)
            steps.append((z_t, loc, scale))
        z, locs, scales = (torch.stack(each, 1) for each in zip(*steps, strict=True))
        return Inferred(z, Normal(locs, scales).to_event(2), stroke.canvas)

    def draw(self, x: Tensor, noise: Tensor) -> "Inferred":
        """The steps of the guide, its draws made of standard normal noise `(batch, glimpses, latent)`.

        The draws carry the canvas that was painted on the way, for `paint`.
        """
        inferred = self.infer(x, lambda t, loc, scale: loc + scale * noise[:, t])
        _carry(inferred.z, inferred.canvas, self._weights())
        return inferred

    def _next(self, before: "Stroke", z_t: Tensor) -> "Stroke":
        h, c = self.decoder(z_t, before.state)
        return Stroke((h, c), before.canvas + self.write(h))

    def _blank(self, like: Tensor) -> "Stroke":
        return Stroke(self._start(like), self.canvas.expand(len(like), *self.canvas.shape))

    def _start(self, like: Tensor) -> State:
        zeros = like.new_zeros(len(like), self.hidden)
        return zeros, zeros

    def _weights(self) -> Weights:
        """Which weights paint, as they are now."""
        parameters = (self.canvas, *self.decoder.parameters(), *self.write.parameters())
        return tuple((id(each), 0 if each.is_inference() else each._version) for each in parameters)

    def _scaled(self, x: Tensor) -> Tensor:
        """Levels to [0, 1], so that what is off reads as nothing; real numbers as they are."""
        return x if self.levels is None else x / (self.levels - 1)


class Stroke(NamedTuple):
    """A step of the model."""

    state: State
    canvas: Tensor
    """c_t, `(batch, outputs, height, width)`."""

    @property
    def h(self) -> Tensor:
        """h_t, `(batch, hidden)`, which says where the write window is, and where the next read window will be."""
        return self.state[0]


class Inferred(NamedTuple):
    """The steps of the guide."""

    z: Tensor
    """`(batch, glimpses, latent)`."""
    conditionals: TorchDistribution
    """q(z_t | x, z_1, …, z_t-1) of all steps, as one normal over `(glimpses, latent)`."""
    canvas: Tensor
    """c_T, `(batch, outputs, height, width)`."""


class Posterior(TorchDistribution):
    """q(z | x) = ∏_t q(z_t | x, z_1, …, z_t-1): batch `(batch,)`, event `(glimpses, latent)`."""

    arg_constraints: ClassVar = {}
    support: ClassVar = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(self, program: DRAW, x: Tensor) -> None:
        self.program, self.x = program, x
        self._last: tuple[Tensor, TorchDistribution] | None = None
        super().__init__(torch.Size((len(x),)), torch.Size((program.glimpses, program.latent)), validate_args=False)

    def expand(self, batch_shape: Shape, _instance: Any = None) -> Self:
        """Itself, for its own batch shape; ValueError for any other."""
        if torch.Size(batch_shape) != self.batch_shape:
            raise ValueError(
                f"DRAW's guide draws a batch of {tuple(self.batch_shape)}, and its plates ask for {tuple(batch_shape)}; "
                "call it with one example for each"
            )
        return self

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws of shape `sample_shape + (batch, glimpses, latent)`, each with noise of its own at every step."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.x.dtype, device=self.x.device)
        inferred = self.program.draw(self._rows(shape), noise.reshape(-1, *self.event_shape))
        if sample_shape:
            return inferred.z.reshape(shape)
        self._last = inferred.z, inferred.conditionals
        return inferred.z

    def conditionals(self, z: Tensor) -> TorchDistribution:
        """q(z_t | x, z_1, …, z_t-1) of all steps, at z `(…, batch, glimpses, latent)` whose leading axes become one."""
        if self._last is not None and z is self._last[0]:
            return self._last[1]
        given = z.reshape(-1, *self.event_shape)
        return self.program.infer(self._rows(z.shape), lambda t, loc, scale: given[:, t]).conditionals

    def log_prob(self, value: Tensor) -> Tensor:
        """log q(z | x) in nats, of values `(…, batch, glimpses, latent)`."""
        rows = value.reshape(-1, *self.event_shape)
        found: Tensor = self.conditionals(value).log_prob(rows)
        return found.reshape(value.shape[:-2])

    def _rows(self, shape: Sequence[int]) -> Tensor:
        """x for draws of that shape, `(rows, *shape of x)`."""
        return self.x.expand(*shape[:-3], *self.x.shape).reshape(-1, *self.x.shape[1:])


class _Painting(NamedTuple):
    """What a draw carries: the canvas that the guide painted, and all that it depends on."""

    canvas: Tensor
    weights: Weights
    value: int
    gradients: bool


_PAINTING = "ppmodels_painting"


def _carry(z: Tensor, canvas: Tensor, weights: Weights) -> None:
    """Lets z carry its canvas, so that the model need not paint it again and no one else has to keep it."""
    setattr(z, _PAINTING, _Painting(canvas, weights, _version(z), torch.is_grad_enabled()))


def _painted(z: Tensor, weights: Weights) -> Tensor | None:
    """The canvas that z carries, if it is what these weights would paint of z as it is; else None.

    Where gradients are computed, a view of the draws has a history of its own and is painted anew, and so is a draw with
    hooks, which the gradient of its canvas would pass by.
    """
    drawn = z if z._base is None or torch.is_grad_enabled() else z._base
    found: _Painting | None = getattr(drawn, _PAINTING, None)
    if found is None or found[1:] != (weights, _version(drawn), torch.is_grad_enabled()) or drawn._backward_hooks:
        return None
    is_whole = z is drawn or (z.is_contiguous() and z.shape == found.canvas.shape[:1] + drawn.shape[-2:])
    return found.canvas if is_whole else None


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _check_window(name: str, points: int | None, size: tuple[int, int]) -> None:
    height, width = size
    if points is not None and not (isinstance(points, int) and 2 <= points <= min(size)):
        raise ValueError(
            f"{name}: expected a window of 2 to {min(size)} filters a side in images of {height} × {width}, as one has no "
            f"stride, got {points}; None takes the whole image at once"
        )
