"""Attend, infer, repeat: scenes of a number of objects, found one after the other (Eslami et al. 2016, arXiv 1603.08575)."""

import math
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro.distributions import Categorical, Normal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, logsigmoid, softplus

from ppmodels.distributions import DiscretizedNormal
from ppmodels.nn.conditioning import check_examples
from ppmodels.nn.parameters import full_precision, normal_vector, positive

WHERE_LOC, WHERE_SCALE = (3.0, 0.0, 0.0), (0.2, 1.0, 1.0)
"""The prior of an object's place: the inverse of its size, and two shifts."""
_BEYOND = 1.5
"""How many sd beyond the first and the last level no ink and full ink lie.

At the level itself a little ink too much would cost in proportion, and where objects are not found yet more than it gains:
the count then falls to 0 before a shape is learnt, and stays there.
"""
_EXPLORED = 0.2
"""How much of the guide's q(n) is uniform at the first training step."""
_EXACT: Any = {"expectation": "exact"}
"""Pyro's own type of these marks knows only its own."""


class AIR(nn.Module):
    """A scene of n objects, each of a place and a look; the guide finds them one by one, and n is summed exactly.

    n has P(n) ∝ kⁿ over 0..objects; `where_t` `(batch, 3)` is the inverse scale of object t and its shifts; `what_t`
    `(batch, what)` is decoded into a window, which an affine grid writes into the canvas. Objects beyond n are masked, and
    the canvas is without them. x is `(batch, *shape)`: real numbers about 0..1 under a normal of standard deviation `sd`
    where `levels` is None; else whole levels 0..levels-1 under a normal rounded to levels, its sd in units of their range.

    The guide, an LSTM on the image and the object before, draws all objects as if they were there, each where it sees one at
    a second look, and then n: log q(n) = Σ_{t≤n} log σ(l_t) + log σ(-l_{n+1}), where l_t has seen the objects before t. The
    site is marked for an exact expectation (`inference/programs/expectation.py`). In the first `explore` training steps a
    part of q(n) is uniform, from a fifth of it down to nothing: a count that is thought impossible would teach its objects
    nothing, and training can stay at one object for good.

    Raises ValueError for a shape that is no image of at least a window, fewer than one object, and k outside (0, 1).
    """

    log_prior: Tensor
    where_loc: Tensor
    where_scale: Tensor
    steps_explored: Tensor

    def __init__(
        self,
        shape: Sequence[int] = (1, 50, 50),
        levels: int | None = None,
        objects: int = 2,
        k: float = 0.01,
        window: int = 28,
        what: int = 50,
        hidden: int = 256,
        layer: int = 200,
        sd: float = 0.3,
        explore: int = 1000,
    ) -> None:
        super().__init__()
        _check(shape, levels, objects, k, window, sd, explore)
        self.explore = explore
        self.register_buffer("steps_explored", torch.zeros((), dtype=torch.long))
        self.shape, self.levels, self.objects, self.what, self.sd = tuple(shape), levels, objects, what, sd
        channels = shape[0]
        self.window = (channels, window, window)
        self.register_buffer("log_prior", torch.arange(objects + 1.0) * math.log(k), persistent=False)
        self.register_buffer("where_loc", torch.tensor(WHERE_LOC), persistent=False)
        self.register_buffer("where_scale", torch.tensor(WHERE_SCALE), persistent=False)
        pixels = channels * window * window
        self.decoder = nn.Sequential(nn.Linear(what, layer), nn.ReLU(), nn.Linear(layer, pixels))
        self.look = nn.Sequential(nn.Linear(pixels, layer), nn.ReLU(), nn.Linear(layer, 2 * what))
        self.find = nn.Sequential(nn.Linear(hidden, layer), nn.ReLU(), nn.Linear(layer, 3))
        last = nn.Linear(layer, 1 + 2 * 3)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.aim = nn.Sequential(nn.Linear(pixels + hidden, layer), nn.ReLU(), last)
        self.of_image = nn.Linear(math.prod(shape), 4 * hidden)
        self.of_last = nn.Linear(3 + what, 4 * hidden, bias=False)
        self.of_state = nn.Linear(hidden, 4 * hidden, bias=False)

    def model(self, x: Tensor) -> Tensor:
        """Draws n and the objects, observes x, and returns it (or a draw of it, where the observation is lifted)."""
        check_examples(x, self.shape, "AIR")
        rows = len(x)
        zeros = self.where_loc.new_zeros(rows, self.what)
        places, looks = [], []
        with pyro.plate("data", rows):
            n = pyro.sample("n", Categorical(logits=self.log_prior.expand(rows, -1)))
            for t in range(self.objects):
                place = Normal(self.where_loc.expand(rows, -1), self.where_scale.expand(rows, -1))
                places.append(pyro.sample(f"where_{t + 1}", place.to_event(1).mask(n > t)))
                looks.append(pyro.sample(f"what_{t + 1}", Normal(zeros, zeros + 1).to_event(1).mask(n > t)))
            drawn: Tensor = pyro.sample("x", self.likelihood(self.canvas(n, self.render(places, looks))), obs=x)
        return drawn

    def guide(self, x: Tensor) -> Tensor:
        """Draws the objects one by one, as if all were there, and then n."""
        check_examples(x, self.shape, "AIR")
        image = x if self.levels is None else x / (self.levels - 1)
        rows = len(x)
        of_image = self.of_image(image.flatten(1))
        last = of_image.new_zeros(rows, 3 + self.what)
        state = memory = of_image.new_zeros(rows, self.of_state.in_features)
        more = []
        with pyro.plate("data", rows):
            for t in range(self.objects):
                state, memory = _lstm(of_image + self.of_last(last) + self.of_state(state), memory)
                logit, place = self.locate(image, state)
                more.append(logit)
                where = pyro.sample(f"where_{t + 1}", place)
                glimpse = self.attend(image, where)
                what = pyro.sample(f"what_{t + 1}", normal_vector(self.look(glimpse.flatten(1))))
                last = torch.cat((where, what), -1)
            log_q = self._explored(_log_first_stop(torch.cat(more, -1)))
            n: Tensor = pyro.sample("n", Categorical(logits=log_q), infer=_EXACT)
        return n

    def _explored(self, log_q: Tensor) -> Tensor:
        """log q(n), in the first steps of training mixed with the uniform distribution; a step is counted as it is taken."""
        if not (self.explore and self.training and torch.is_grad_enabled()):
            return log_q
        share = _EXPLORED * (1 - self.steps_explored / self.explore).clamp(min=0)
        self.steps_explored += 1
        uniform = share.log() - math.log(self.objects + 1)
        return torch.logaddexp(log_q + (-share).log1p(), uniform.to(log_q))

    def render(self, places: Sequence[Tensor], looks: Sequence[Tensor]) -> Tensor:
        """Each object alone on a canvas: `(objects, batch, *shape)`, of values 0 to 1."""
        where, what = torch.stack([*places]), torch.stack([*looks])
        patches = full_precision(self.decoder(what) - 2).sigmoid().flatten(0, 1).unflatten(1, self.window)
        inverse, shift = _bounded(where.flatten(0, 1))
        size = [len(patches), *self.shape]
        grid = affine_grid(_affine(inverse, shift), size, align_corners=False)
        return grid_sample(patches, grid, align_corners=False).unflatten(0, where.shape[:2])

    def locate(self, image: Tensor, state: Tensor) -> tuple[Tensor, TorchDistributionMixin]:
        """The logit of a further object, `(batch, 1)`, and q(where): by a look at where the state takes it to be.

        Without that look a place is known to some pixels only, and the guide spends an object without ink on finding it.
        """
        glance = full_precision(self.find(state))
        seen = self.attend(image, self.where_loc + self.where_scale * glance).flatten(1)
        logit, shift, scale = full_precision(self.aim(torch.cat((seen, state), -1))).split([1, 3, 3], -1)
        loc = self.where_loc + self.where_scale * (glance + shift)  # in units of the prior
        return logit, Normal(loc, self.where_scale * positive(scale - 1)).to_event(
            1
        )  # it begins at a third of its width

    def attend(self, image: Tensor, where: Tensor) -> Tensor:
        """The window of the canvas at a place: `(batch, *window)`."""
        inverse, shift = _bounded(where)
        theta = _affine(1 / inverse, -shift / inverse.unsqueeze(-1))
        grid = affine_grid(theta, [len(image), *self.window], align_corners=False)
        return grid_sample(image.to(grid), grid, align_corners=False)

    def canvas(self, n: Tensor, rendered: Tensor) -> Tensor:
        """The sum of the first n objects, `(…, batch, *shape)` for n of `(…, batch)`."""
        there = [(n > t).to(rendered)[..., None, None, None] for t in range(self.objects)]
        return torch.stack([each * alone for each, alone in zip(there, rendered, strict=True)]).sum(0)

    def likelihood(self, canvas: Tensor) -> TorchDistributionMixin:
        """The distribution of x given the canvas."""
        if self.levels is None:
            return Normal(canvas, self.sd).to_event(3)
        top = self.levels - 1
        sd = top * self.sd
        loc = (top + 2 * _BEYOND * sd) * canvas - _BEYOND * sd
        return DiscretizedNormal(loc, canvas.new_tensor(sd).expand_as(canvas), self.levels).to_event(3)

    @torch.no_grad()
    def boxes(self, where: Tensor) -> Tensor:
        """The windows on the canvas, in pixels: left, top, right and bottom, `(…, 4)` of places `(…, 3)`."""
        inverse, shift = _bounded(where)
        centre, half = -shift / inverse.unsqueeze(-1), (1 / inverse).unsqueeze(-1)
        corners = torch.cat((centre - half, centre + half), -1)
        _, height, width = self.shape
        return (corners + 1) / 2 * corners.new_tensor([width, height, width, height]) - 0.5


def _log_first_stop(more: Tensor) -> Tensor:
    """log q(n) of a walk that goes on from step t with logit `more[…, t]`, and ends after the last: `(…, steps + 1)`."""
    gone_on = torch.cat((torch.zeros_like(more[..., :1]), logsigmoid(more).cumsum(-1)), -1)
    return gone_on + torch.cat((logsigmoid(-more), torch.zeros_like(more[..., :1])), -1)


def _bounded(where: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse scale, at least 1 (an object as large as the canvas), and the shifts. At the prior's mean it is itself."""
    return 1 + softplus(where[..., 0] - 1, beta=4), where[..., 1:]


def _affine(scale: Tensor, shift: Tensor) -> Tensor:
    """Matrices `(batch, 2, 3)` that scale both axes alike and then shift."""
    zeros = torch.zeros_like(scale)
    rows = (torch.stack((scale, zeros), -1), torch.stack((zeros, scale), -1))
    return torch.cat((torch.stack(rows, -2), shift.unsqueeze(-1)), -1)


def _lstm(gates: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """The next state and memory of an LSTM."""
    into, forget, candidate, out = gates.chunk(4, -1)
    memory = forget.sigmoid() * memory + into.sigmoid() * candidate.tanh()
    return out.sigmoid() * memory.tanh(), memory


def _check(
    shape: Sequence[int], levels: int | None, objects: int, k: float, window: int, sd: float, explore: int
) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape: expected (channel, height, width), got {tuple(shape)}; give AIR images")
    if window < 1 or min(shape[1:]) < window:
        raise ValueError(
            f"window: expected 1 to {min(shape[1:])} pixels, the shorter side of the canvas, got {window}; choose a window "
            "about as large as an object"
        )
    if levels is not None and levels < 2:
        raise ValueError(f"levels: expected at least 2, or None for real numbers, got {levels}")
    if objects < 1:
        raise ValueError(f"objects: expected at least 1, the largest number in a scene, got {objects}")
    if not 0 < k < 1:
        raise ValueError(f"k: expected a number between 0 and 1, P(n + 1) over P(n), got {k}")
    if explore < 0:
        raise ValueError(f"explore: expected a number of training steps, 0 for none, got {explore}")
    if not 0 < sd < math.inf:
        raise ValueError(f"sd: expected a positive and finite standard deviation, got {sd}")
