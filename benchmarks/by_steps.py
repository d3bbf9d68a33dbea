"""AIR whose count is drawn object by object, as where it can not be summed: by score function, or wake-sleep."""

import pyro
import torch
from pyro.distributions import Bernoulli, Normal
from torch import Tensor, nn

from ppmodels import AIR
from ppmodels.models.air import _lstm
from ppmodels.nn.parameters import normal_vector


class ByStep(AIR):
    """The networks of AIR; whether there is a further object is drawn before it is looked for: `there_1`, `there_2`, …"""

    def model(self, x: Tensor) -> Tensor:
        rows = len(x)
        zeros = x.new_zeros(rows, self.what)
        k = float(self.log_prior[1].exp())
        there = x.new_ones(rows)
        n = x.new_zeros(rows)
        places, looks = [], []
        with pyro.plate("data", rows):
            for t in range(self.objects):
                there = pyro.sample(f"there_{t + 1}", Bernoulli(k * there))
                place = Normal(self.where_loc.expand(rows, -1), self.where_scale.expand(rows, -1))
                places.append(pyro.sample(f"where_{t + 1}", place.to_event(1).mask(there.bool())))
                looks.append(pyro.sample(f"what_{t + 1}", Normal(zeros, zeros + 1).to_event(1).mask(there.bool())))
                n = n + there
            drawn: Tensor = pyro.sample("x", self.likelihood(self.canvas(n, self.render(places, looks))), obs=x)
        return drawn

    def guide(self, x: Tensor) -> Tensor:
        rows = len(x)
        of_image = self.of_image(x.flatten(1))
        last = of_image.new_zeros(rows, 3 + self.what)
        state = memory = of_image.new_zeros(rows, self.of_state.in_features)
        there, n = x.new_ones(rows), x.new_zeros(rows)
        with pyro.plate("data", rows):
            for t in range(self.objects):
                state, memory = _lstm(of_image + self.of_last(last) + self.of_state(state), memory)
                logit, place = self.locate(x, state)
                there = pyro.sample(f"there_{t + 1}", Bernoulli(logit.squeeze(-1).sigmoid() * there))
                where = pyro.sample(f"where_{t + 1}", place.mask(there.bool()))
                look = normal_vector(self.look(self.attend(x, where).flatten(1)))
                what = pyro.sample(f"what_{t + 1}", look.mask(there.bool()))
                last = torch.cat((where, what), -1)
                n = n + there
        return n


class BeforeFirst(nn.Module):
    """What the ELBO is expected to be, given the scene."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.expected = _number(inputs)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.expected(x.flatten(1))
        return found


class BeforeSecond(nn.Module):
    """The same, given the first object too."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.expected = _number(inputs)

    def forward(self, x: Tensor, there_1: Tensor, where_1: Tensor, what_1: Tensor) -> Tensor:
        found: Tensor = self.expected(torch.cat((x.flatten(1), there_1.unsqueeze(1), where_1, what_1), 1))
        return found


def _number(inputs: int, hidden: int = 256) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1), nn.Flatten(0))
