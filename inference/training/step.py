"""One training step: every player takes its turns."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from inference.objectives.objective import Objective, Player
from inference.programs.alone import alone
from inference.programs.check import first_non_finite, outside_support
from inference.programs.dtypes import dtypes_of
from inference.programs.entries import Examples, leaves
from inference.programs.noise import mix, own_noise, reseed
from inference.programs.numbers import is_number, refuse_below
from inference.programs.program import Batch, ProgramError, as_batch
from inference.training.average import Average, State, refuse_decay, restore, snapshot
from inference.training.batches import Batches
from inference.training.differentiate import Differentiate, backward
from inference.training.factories import Factory, adam
from inference.training.optimizers import by_player, check_factories, clear_gradients, follow, made, set_rate
from inference.training.parameter_groups import ParameterGroups
from inference.training.weights import Weights, norm_of

_MONITOR = 1 << 32
"""Stands for a player in the seed of the monitor's noise."""
_IN_THE_BACKWARD_PASS = (
    "every site is finite; the gradient is not (a square root, logarithm or division at 0 in the backward pass?)."
)


class NonFinite(ProgramError):
    """A loss, a gradient or a weight is not finite; parameters and buffers are those from before the step."""

    indices: list[int] | None = None
    """The places in the data of the batch's examples, where the batches tell them by `indices(step)`."""
    moved: bool = False
    """Whether an optimizer had moved before, so that its own state is not that from before the step."""


class Step:
    """One turn of every player, with its optimizers, its noise and its count.

    Noise is a function of (seed, step, process, player, turn), so that a run can be repeated; the caller's generators
    stay as they were.

    Args:
        objective: what the program is fitted by.
        optimizer: makes an optimizer from a list of parameters, for all players or by player.
        seed: of the noise.
        clip: the largest norm of a player's gradient, above 0, or None.
        learning_rate: a factor on the learning rate as a function of the step, or None.
        average: the decay of a moving average of the weights, or None. Steps go on from the raw weights, whatever
            `averaged` or `leave` have put in their place.
        autocast: the dtype in which networks run, such as `torch.bfloat16`, or None. Log-probabilities stay in float32:
            a density in half precision is refused.
        differentiate: `backward`, or `Traced()`, which saves most of a small step's time.

    Raises:
        ProgramError: an argument is out of its range, or an optimizer was given in place of a function that makes one.
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
        if not isinstance(objective, Objective):
            raise ProgramError(
                f"objective: expected what a program is fitted by, such as SVI(program), got a {type(objective).__name__}."
            )
        if clip is not None and not (is_number(clip) and clip > 0):
            raise ProgramError(f"clip: expected a norm above 0, or None for no clipping; got {clip!r}.")
        if average is not None:
            refuse_decay(average)
        refuse_below("seed", seed, 0)
        if learning_rate is not None and not callable(learning_rate):
            raise ProgramError(
                f"learning_rate: expected a factor as a function of the step, got {learning_rate!r}. A constant is the "
                "optimizer's own: adam(1e-3)."
            )
        self.objective, self.seed, self.count = objective, seed, 0
        self.clip, self.learning_rate, self.autocast = clip, learning_rate, autocast
        self.differentiate = differentiate
        self.slowdown = 1.0
        """A factor on every learning rate, below 1 where a run has gone back from a step that was not finite."""
        self.optimizers: dict[str, Optimizer] = {}
        self.average: Average | None = None
        self._optimizer = adam() if optimizer is None else optimizer
        check_factories(self._optimizer)
        self._decay = average
        self._batches = Batches(objective)
        self._weights = Weights([])
        self._raw: tuple[State, State] | None = None
        self._moved = False

    def prepare(self, batch: Batch) -> None:
        """Runs the program once, so that it has its parameters, checks it on this batch, and makes the optimizers.

        Raises:
            ProgramError: what `check` finds, a player without parameters or without an optimizer, or no gradients.
        """
        _refuse_no_gradients(batch)
        if self.optimizers:
            return
        with own_noise(mix(self.seed, 0)):
            self.objective.schedule(self.count)
            self.objective.prepare(batch)
            self._refuse_autocast()
            self._players()  # a player without parameters is named before its loss is looked at
            with self._autocast(as_batch(batch)):
                self.objective.check(batch)
            self._batches.look_at(as_batch(batch))
        players = self._players()
        strange = sorted(self._optimizer.keys() - players.keys()) if isinstance(self._optimizer, Mapping) else []
        if strange:
            raise ProgramError(f"optimizer: there are no players {strange}, only {[*players]}; correct the names.")
        factories = {name: by_player(self._optimizer, name) for name in players}
        for factory in factories.values():
            if isinstance(factory, ParameterGroups):
                own = [player for name, player in players.items() if factories[name] is factory]
                factory.refuse_unused(parameter for player in own for parameter in player.parameters)
        self.optimizers = {name: made(factories[name], player.parameters) for name, player in players.items()}
        if self._decay is not None:
            self.average = Average(self.objective.program, self._decay)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Takes one step on a batch; gives each player's loss and the norm of its gradient, as 0-d tensors.

        Raises:
            NonFinite: a loss, a gradient, or a weight where an optimizer has moved it, is not finite. The parameters are
                those from before the step.
            ProgramError: the program can not be trained on batches that differ, or a schedule gives no number.
        """
        examples = as_batch(batch)
        self.prepare(examples)
        self.take_back()
        metrics: dict[str, Tensor] = {}
        self._moved = False
        with alone("a step"), own_noise(mix(self.seed, self.count)):
            self.objective.schedule(self.count)
            self._batches.meet(examples)
            players = self._players()
            self._keep(players)
            try:
                for index, (name, player) in enumerate(players.items()):
                    if self.learning_rate is not None or self.slowdown != 1.0:
                        set_rate(self.optimizers[name], self.learning_rate, self.count, self.slowdown)
                    for turn in range(player.turns):
                        reseed(mix(self.seed, self.count, _process(), index, turn))
                        metrics[name], metrics[f"{name}/gradient"] = self._turn(name, player, examples)
                if not self._weights.are_finite():
                    raise NonFinite(self._moved_away())
            except Exception as error:  # no step is left half done
                self._weights.put_back()
                if isinstance(error, NonFinite):
                    error.moved = self._moved
                raise
        if self.average is not None:
            self.average.update()
        self.count += 1
        return metrics

    def monitor(self, batch: Batch) -> dict[str, Tensor]:
        """The objective's metrics on this batch, as 0-d tensors by name, by noise of their own: no step is changed."""
        with torch.no_grad(), own_noise(mix(self.seed, self.count, _process(), _MONITOR)):
            return self.objective.monitor(batch)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A block in which the program has its averaged weights, where an average is kept."""
        with self.average.applied() if self.average is not None else nullcontext():
            yield

    def leave(self, state: State) -> None:
        """Puts a state into the program; the next step continues from the present one, unless the weights change before."""
        self._raw = snapshot(self.objective.program), {**state}
        restore(self.objective.program, state)

    def resume(self, count: int, slowdown: float, first: Batch) -> None:
        """Goes on as the step of that count, with the weights that it has now; `first` is the first batch of its run."""
        self.count, self.slowdown, self._raw = count, slowdown, None
        self._batches.meet(as_batch(first))

    def take_back(self) -> None:
        """Undoes `leave`, unless the program has been given other weights since; what is frozen stays as it was left."""
        if self._raw is None:
            return
        (raw, left), self._raw = self._raw, None
        held = {name: value for name, value in self.objective.program.named_parameters() if name in left}
        if all(value.equal(left[name].to(value)) for name, value in held.items()):
            frozen = {name for name, value in held.items() if not value.requires_grad}
            restore(self.objective.program, {name: value for name, value in raw.items() if name not in frozen})

    def _players(self) -> dict[str, Player]:
        players = self.objective.players()
        for name, player in players.items():
            if not player.parameters:
                frozen = sum(not parameter.requires_grad for parameter in self.objective.parameters())
                unfreeze = f"{frozen} are frozen: requires_grad_(True) trains them. " if frozen else ""
                raise ProgramError(
                    f"the player {name!r} has no trainable parameters. {unfreeze}Register the networks as submodules of the "
                    "program, or pass them: Pair(model, guide, *modules)."
                )
            if not isinstance(player.turns, int) or player.turns < 1:
                raise ProgramError(f"the player {name!r} has {player.turns!r} turns a step; give it 1 or more.")
        return players

    def _keep(self, players: Mapping[str, Player]) -> None:
        """Remembers the players' weights and all buffers; adds new or unfrozen parameters to their optimizers."""
        parameters = list(dict.fromkeys(each for player in players.values() for each in player.parameters))
        if not self._weights.are_of(parameters):
            self._weights = Weights(parameters, self.objective.buffers())
            for name, player in players.items():
                if name in self.optimizers:
                    follow(self.optimizers[name], by_player(self._optimizer, name), player.parameters)
                else:  # all that it fits was frozen before
                    self.optimizers[name] = made(by_player(self._optimizer, name), player.parameters)
        self._weights.keep()

    def _turn(self, name: str, player: Player, examples: Examples) -> tuple[Tensor, Tensor]:
        optimizer = self.optimizers[name]
        clear_gradients(optimizer)
        noise = torch.default_generator.get_state()
        try:
            with self._autocast(examples):
                loss = self.differentiate(player, examples)
        except (RuntimeError, IndexError, ValueError) as error:  # Pyro's own validation meets NaN before the loss does
            if isinstance(error, ProgramError):
                raise
            torch.default_generator.set_state(noise)
            outside = outside_support(self.objective.program, examples)
            if outside is not None:
                raise outside from error
            if "to satisfy the constraint" not in str(error) and "to be within the support" not in str(error):
                raise
            site = first_non_finite(self.objective.program, examples)
            if site is None:
                raise
            raise NonFinite(self._stopped(name, site)) from error
        # Gradients of several processes are averaged here, before their norm is taken.
        norm = norm_of([parameter.grad for parameter in player.parameters if parameter.grad is not None])
        if not math.isfinite(loss + norm):
            torch.default_generator.set_state(noise)
            site = first_non_finite(self.objective.program, examples)
            raise NonFinite(self._stopped(name, site or _IN_THE_BACKWARD_PASS))
        if self.clip is not None:
            nn.utils.clip_grads_with_norm_(player.parameters, self.clip, norm)
        self._moved = True
        try:
            optimizer.step()
        except RuntimeError as error:
            if "without overflow" not in str(error):
                raise
            raise NonFinite(self._moved_away()) from error  # the rate overflows the weights' dtype
        return loss, norm

    def _stopped(self, name: str, where: str) -> str:
        return (
            f"the loss of player {name!r} or its gradient is not finite at step {self.count}; {where} No parameter was "
            "changed by this step. Lower the learning rate, clip the gradient, or bound the scale that vanished."
        )

    def _moved_away(self) -> str:
        rates = sorted({float(group["lr"]) for each in self.optimizers.values() for group in each.param_groups})
        return (
            f"an optimizer moved weights out of the finite numbers at step {self.count}, where loss and gradient were "
            f"finite (learning rates {rates}). The parameters are those from before the step. Lower the learning rate."
        )

    def _refuse_autocast(self) -> None:
        if self.autocast is not None and torch.float64 in dtypes_of(self.objective.program):
            raise ProgramError(
                f"autocast={self.autocast}: the program has float64 parameters, whose networks autocast leaves as they are. "
                "Leave autocast out, or give a float32 program: program.float(), with float32 data."
            )

    def _autocast(self, batch: Examples) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(leaves(batch)[0].device.type, dtype=self.autocast)


def _process() -> int:
    """The rank of this process among those that train together."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _refuse_no_gradients(batch: Batch) -> None:
    if not torch.is_grad_enabled():
        raise ProgramError(
            "a step needs gradients, which torch.no_grad() or torch.inference_mode() has switched off around it. Take steps "
            "and call fit outside of such a block."
        )
    if any(tensor.is_inference() for tensor in leaves(as_batch(batch))):
        raise ProgramError(
            "the batch was made under torch.inference_mode(), so no gradient can pass it. Clone it outside: batch.clone()."
        )
