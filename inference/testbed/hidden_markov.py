"""A hidden Markov model: finite states in a row, each seen through normal noise."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from inference.testbed.drawing import drawn
from inference.testbed.moments import Moments, of_finite


class HiddenMarkov(nn.Module):
    """Two states that mostly stay, x_t | s_t ~ N(loc of s_t, 1): the forward algorithm (Rabiner, 1989, Proc. IEEE 77).

    x is `(batch, steps)`. The sites are `state_0`, `state_1`, …, and marked for enumeration: `Pair(program.model)` has no
    guide and sums them out. The guide draws them in order, each from its distribution given the one before and what x says
    from there on, of which it leaves out the share `error`.
    """

    def __init__(self, steps: int = 4, error: float = 0.0) -> None:
        super().__init__()
        self.steps = steps
        self.initial = nn.Parameter(torch.tensor([0.6, 0.4], dtype=torch.float64).log())
        self.transition = nn.Parameter(torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64).log())
        self.loc = nn.Parameter(torch.tensor([-1.0, 1.5], dtype=torch.float64))
        self.error = nn.Parameter(torch.tensor(error, dtype=torch.float64))

    def model(self, x: Tensor) -> None:
        """Draws the states, observes x step by step."""
        with pyro.plate("data", len(x)):
            logits: Tensor = self.initial
            for t in pyro.markov(range(self.steps)):
                state = pyro.sample(f"state_{t}", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
                pyro.sample(f"x_{t}", dist.Normal(self.loc[state], 1.0), obs=x[:, t])
                logits = self.transition[state]

    def guide(self, x: Tensor) -> None:
        """Draws the states, each given the one before and the data from there on."""
        to_come = self._to_come(x)
        with pyro.plate("data", len(x)):
            logits: Tensor = self.initial
            for t in range(self.steps):
                state = pyro.sample(f"state_{t}", dist.Categorical(logits=logits + (1 - self.error) * to_come[t]))
                logits = self.transition[state]

    def log_evidence(self, x: Tensor) -> Tensor:
        """Summed backwards over the states."""
        return torch.logsumexp(self.initial.log_softmax(0) + self._to_come(x)[0], -1)

    def posterior(self, x: Tensor) -> dict[str, Moments]:
        """Of the number of each state."""
        to_come, moves = self._to_come(x), self.transition.log_softmax(1)
        at = [torch.softmax(self.initial + to_come[0], -1)]
        for t in range(1, self.steps):
            given_before = torch.softmax(moves + to_come[t].unsqueeze(1), -1)  # (batch, before, state)
            at.append((at[-1].unsqueeze(-1) * given_before).sum(1))
        return {f"state_{t}": of_finite(probabilities) for t, probabilities in enumerate(at)}

    def batch(self, n: int, seed: int = 0) -> Tensor:
        """n series of the model."""
        return drawn(self, torch.zeros(n, self.steps, dtype=torch.float64), seed)

    def _to_come(self, x: Tensor) -> list[Tensor]:
        """log p(x_t, …, x_T | s_t) of every step and state: `(batch, states)` each."""
        seen = dist.Normal(self.loc, 1.0).log_prob(x.unsqueeze(-1))  # (batch, steps, states)
        moves = self.transition.log_softmax(1)
        found = [seen[:, -1]]
        for t in range(self.steps - 2, -1, -1):
            found.insert(0, seen[:, t] + torch.logsumexp(moves + found[0].unsqueeze(1), -1))
        return found
