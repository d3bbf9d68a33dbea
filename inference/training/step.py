"""One step of a game: every player takes its turns."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from inference.objectives.objective import Objective, Player
from inference.programs.check import first_non_finite
from inference.programs.noise import mix, own_noise, reseed
from inference.programs.program import Batch, ProgramError, as_batch
from inference.training.average import Average
from inference.training.differentiate import Differentiate, backward

Factory = Callable[[list[nn.Parameter]], Optimizer]
"""Makes the optimizer of a player's parameters."""


_MONITOR = 1 << 32
"""In place of a player, in the words that seed its noise."""
_ON_THE_WAY_BACK = (
    "every site is finite; the gradient is not (a square root, logarithm or division at 0 on the way back?)."
)


class NonFinite(ProgramError):
    """A loss or gradient that is not finite; the parameters are those from before the step."""


def adam(lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> Factory:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980), fused where the device has it: a fifth of a small step."""

    def factory(parameters: list[nn.Parameter]) -> Optimizer:
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
        return torch.optim.Adam(parameters, lr=lr, betas=betas, eps=eps, fused=fused)

    return factory


class Step:
    """One turn of every player, with its optimizers, its noise and its count.

    Noise is a function of (seed, step, process, player, turn): a run can be repeated, or resumed from its count alone,
    and the caller's own generators stay as they were.

    Args:
        objective: the game.
        optimizer: makes an optimizer from a list of parameters, for all players or by player.
        seed: of the noise.
        clip: the largest norm of a player's gradient, or None.
        learning_rate: a factor on the learning rate as a function of the step, or None.
        average: the decay of a moving average of weights and buffers, or None.
        autocast: the dtype in which networks run, such as `torch.bfloat16`, or None. Log-probabilities stay in float32:
            a density in half precision is refused.
        differentiate: `backward`, or `Traced()`, which spares small models most of a step's time.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Factory | Mapping[str, Factory] | None = None,
        seed: int = 0,
        *,
        clip: float | None = None,
        learning_rate: Callable[[int], float] | None = None,
        average: float | None = None,
        autocast: torch.dtype | None = None,
        differentiate: Differentiate = backward,
    ) -> None:
        self.objective, self.seed, self.count = objective, seed, 0
        self.clip, self.learning_rate, self.autocast = clip, learning_rate, autocast
        self.differentiate = differentiate
        self.players: dict[str, Player] = {}
        self.optimizers: dict[str, Optimizer] = {}
        self.average: Average | None = None
        self._optimizer = optimizer or adam()
        self._decay = average
        self._rates: dict[str, list[float]] = {}

    def prepare(self, batch: Batch) -> None:
        """Runs the program once, so that it has its parameters, checks it on this batch, and makes the optimizers.

        Raises:
            ProgramError: what `check` finds, or a player without parameters or without an optimizer.
        """
        if self.players:
            return
        with own_noise(mix(self.seed, 0)):
            self.objective.schedule(self.count)
            self.objective.prepare(batch)
            with self._autocast(as_batch(batch)):
                self.objective.check(batch)
        players = self.objective.players()
        for name, player in players.items():
            if not player.parameters:
                raise ProgramError(
                    f"the player {name!r} has no trainable parameters. Register the networks as submodules of the program, "
                    "or pass them: Pair(model, guide, *modules)."
                )
            self.optimizers[name] = self._factory(name)(player.parameters)
            self._rates[name] = [float(group["lr"]) for group in self.optimizers[name].param_groups]
        self.players = players
        if self._decay is not None:
            self.average = Average(self.objective.program, self._decay)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Takes one step on a batch; gives each player's loss and the norm of its gradient, as 0-d tensors.

        Raises:
            NonFinite: a loss or a gradient is not finite. No parameter has been touched by that turn.
        """
        self.prepare(batch)
        metrics: dict[str, Tensor] = {}
        with own_noise(mix(self.seed, self.count)):
            self.objective.schedule(self.count)
            for index, (name, player) in enumerate(self.players.items()):
                self._set_rate(name)
                for turn in range(player.turns):
                    reseed(mix(self.seed, self.count, _process(), index, turn))
                    metrics[name], metrics[f"{name}/gradient"] = self._turn(name, player, batch)
        if self.average is not None:
            self.average.update()
        self.count += 1
        return metrics

    def monitor(self, batch: Batch) -> dict[str, Tensor]:
        """What the objective has to say of this batch beside its losses, by noise of its own: no later step is changed."""
        with torch.no_grad(), own_noise(mix(self.seed, self.count, _process(), _MONITOR)):
            return self.objective.monitor(batch)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A block in which the program has its averaged weights, where an average is kept."""
        with self.average.applied() if self.average is not None else nullcontext():
            yield

    def _turn(self, name: str, player: Player, batch: Batch) -> tuple[Tensor, Tensor]:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        noise = torch.default_generator.get_state()
        try:
            with self._autocast(as_batch(batch)):
                loss = self.differentiate(player, as_batch(batch))
        except ValueError as error:  # Pyro's own validation meets NaN before the loss does
            found = "to satisfy the constraint" in str(error) or "to be within the support" in str(error)
            if isinstance(error, ProgramError) or not found:
                raise
            torch.default_generator.set_state(noise)
            site = first_non_finite(self.objective.program, batch)
            if site is None:
                raise
            raise NonFinite(self._stopped(name, site)) from error
        # Gradients of several processes are averaged here, before their norm is taken.
        gradients = [parameter.grad for parameter in player.parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not bool(torch.isfinite(loss + norm)):
            torch.default_generator.set_state(noise)
            site = first_non_finite(self.objective.program, batch)
            raise NonFinite(self._stopped(name, site or _ON_THE_WAY_BACK))
        if self.clip is not None:
            nn.utils.clip_grads_with_norm_(player.parameters, self.clip, norm)
        optimizer.step()
        return loss, norm

    def _stopped(self, name: str, where: str) -> str:
        return (
            f"the loss of player {name!r} or its gradient is not finite at step {self.count}; {where} No parameter was "
            "changed by this step. Lower the learning rate, clip the gradient, or bound the scale that vanished."
        )

    def _factory(self, name: str) -> Factory:
        if not isinstance(self._optimizer, Mapping):
            return self._optimizer
        if name not in self._optimizer:
            raise ProgramError(f"no optimizer was given for player {name!r}; optimizers: {sorted(self._optimizer)}.")
        return self._optimizer[name]

    def _set_rate(self, name: str) -> None:
        if self.learning_rate is not None:
            factor = self.learning_rate(self.count)
            for group, rate in zip(self.optimizers[name].param_groups, self._rates[name], strict=True):
                group["lr"] = rate * factor

    def _autocast(self, batch: tuple[Tensor, ...]) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(batch[0].device.type, dtype=self.autocast)


def _process() -> int:
    """The rank of this process among those that train together."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0
