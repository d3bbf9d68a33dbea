"""Reweighted wake-sleep: the model by weighted draws of the guide, the guide by these draws and by the model's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from inference.objectives.objective import Objective, Player
from inference.objectives.weighted import refuse_own_subsample, refuse_part_of_the_data
from inference.programs.bounds import iwae
from inference.programs.check import check_sites, leaves_of
from inference.programs.dataset import Scope
from inference.programs.entries import Examples, leaves, rows_of
from inference.programs.execution import Latents
from inference.programs.expectation import refuse_exact
from inference.programs.noise import own_noise
from inference.programs.numbers import refuse_below
from inference.programs.program import Batch, Program, ProgramError, as_batch, buffers_kept
from inference.programs.simulate import simulated, simulated_latents, simulation
from inference.programs.sites import is_point, random_sites
from inference.programs.terms import Terms, guide_terms_of, terms_of
from inference.programs.traces import guide_runs, runs


class WakeSleep(Objective):
    """Fits a program with latents of any kind by reweighted wake-sleep (Bornschein & Bengio 2015, arXiv 1406.2751).

    No gradient passes a draw, so discrete latents need no score function. With K draws of the guide and their normalised
    weights w, per example:

    - the player `model` minimises minus the importance-weighted bound at these draws (wake-θ); its gradient is
      -Σ w ∇ log p(x, z), that of `ImportanceWeighted` with respect to the model.
    - the player `guide` minimises (1 - sleep) · -Σ w log q(z | x) (wake-φ), a cross-entropy of the posterior, with a bias
      of order 1/K, plus sleep · -log q(z' | x') at draws (x', z') of the model (sleep-φ), without bias. Both fit the guide
      by the inclusive KL(p ‖ q), the first on the data, the second on what the model takes for data.

    Le et al. (2019, arXiv 1805.10469) find sleep=0 best while the model is far from the data; `sleep=0.5` is the
    wake-sleep of Bornschein & Bengio; `sleep=1, particles=1` is that of Hinton et al. (1995). Asleep, entries of the
    batch that the model does not observe, such as covariates, and values hidden by a mask are the batch's own.

    All losses are per example and unscaled, so a subsampled plate changes nothing. Sites that all examples share need
    the whole dataset as one batch.

    Args:
        program: an `nn.Module` with `model` and `guide`, which share no parameters.
        particles: K.
        sleep: the share of sleep-φ in the guide's loss, from 0 to 1.

    Raises:
        ProgramError: an argument is out of its range.
    """

    def __init__(self, program: Program, particles: int = 5, sleep: float = 0.0) -> None:
        super().__init__(program)
        if not isinstance(sleep, int | float) or not 0.0 <= sleep <= 1.0:
            raise ProgramError(f"sleep: expected the share of sleep-φ, from 0 to 1; got {sleep!r}.")
        one = "as one particle has weight 1 whatever it is, and teaches the guide nothing but asleep (sleep=1)"
        refuse_below("particles", particles, 1 if sleep == 1.0 else 2, one)
        self.particles, self.sleep = particles, sleep
        self._of_guide: frozenset[str] | None = None

    def players(self) -> dict[str, Player]:
        """The players that have parameters: with a model that is known, the guide alone."""
        assert self._of_guide is not None, "`prepare` comes first"
        named = [(name, each) for name, each in self.program.named_parameters() if each.requires_grad]
        players = {
            "model": Player([p for name, p in named if name not in self._of_guide], self.model_loss, log_density=True),
            "guide": Player([p for name, p in named if name in self._of_guide], self.guide_loss),
        }
        return {name: player for name, player in players.items() if player.parameters} or players

    def prepare(self, batch: Batch) -> None:
        super().prepare(batch)
        refuse_exact(guide_runs(self.program, batch)[0], "WakeSleep")
        self._of_guide = self._guide_parameters(as_batch(batch))

    def scope(self, batch: Examples) -> Scope:
        found = super().scope(batch)
        self._of_guide = self._guide_parameters(batch)  # a batch of a new shape may have made parameters
        return found

    def check(self, batch: Batch) -> None:
        examples = as_batch(batch)
        check_sites(self.program, examples)
        with torch.no_grad():
            run = runs(self.program, examples)[0]
            refuse_own_subsample(run, rows_of(examples), instead="use SVI")
            refuse_part_of_the_data(terms_of(self.program, [run]))
        guide = random_sites(run.guide)
        points = [name for name, site in guide.items() if is_point(site)]
        auxiliary = [name for name, site in guide.items() if site["infer"].get("is_auxiliary")]
        if not guide or (
            points and (len(points) == len(guide) or not auxiliary)
        ):  # of an AutoGuide they have a density
            raise ProgramError(
                f"the guide {f'has all its mass at one value of {points}' if points else 'draws nothing'}, so there is no "
                "log q(z | x) for wake-sleep to fit. Give it a density, or use SVI."
            )
        if self.sleep > 0.0:
            self._refuse_blind_guide(examples, *simulated(self.program, examples))
        self.check_players(examples)

    def model_loss(self, batch: Batch) -> Tensor:
        """Minus the importance-weighted bound per example, in nats, with a gradient to the model alone (wake-θ)."""
        drawn = self._awake(as_batch(batch))
        shared = drawn.shared and drawn.shared._replace(posterior=drawn.shared.posterior.detach())
        still = drawn._replace(posterior=drawn.posterior.detach(), shared=shared)
        return -iwae(still.log_weights).mean() / drawn.examples

    def guide_loss(self, batch: Batch) -> Tensor:
        """The cross-entropy of the guide per example, in nats, awake and asleep by their shares (wake-φ, sleep-φ)."""
        examples = as_batch(batch)
        if self.sleep == 0.0:
            return self._wake_loss(examples)
        if self.sleep == 1.0:
            return self._sleep_loss(examples)
        return (1.0 - self.sleep) * self._wake_loss(examples) + self.sleep * self._sleep_loss(examples)

    def _wake_loss(self, examples: Examples) -> Tensor:
        drawn = self._awake(examples)
        weights = torch.softmax(drawn.log_weights.detach(), 0)
        return -(weights * drawn.log_guide).sum(0).mean() / drawn.examples

    def _sleep_loss(self, examples: Examples) -> Tensor:
        run = simulation(self.program, examples)
        drawn = guide_terms_of(guide_runs(self.program, run.batch, latents=simulated_latents(run))[0])
        size = 1 if run.plate is None or run.per_example else run.dataset_size
        return -drawn.log_guide.mean() / size

    def _refuse_blind_guide(self, examples: Examples, dreamt: Examples, latents: Latents) -> None:
        """Raises a ProgramError where log q(z | x) knows nothing of x: asleep, such a guide becomes the prior."""
        pairs = [*zip(leaves(examples), leaves(dreamt), strict=True)]
        drawn = [data for real, data in pairs if not real.equal(data)]
        if not all(data.is_floating_point() for data in drawn):
            return  # that a gradient reaches no whole numbers says nothing
        with buffers_kept(self.program), own_noise(0):
            real = guide_terms_of(guide_runs(self.program, examples, latents=latents)[0]).log_guide
        with buffers_kept(self.program), own_noise(0), torch.enable_grad():
            for data in drawn:
                data.requires_grad_(True)
            found = guide_terms_of(guide_runs(self.program, dreamt, latents=latents)[0]).log_guide
        if found.equal(real) and not _reached(found) & {id(data) for data in drawn}:
            raise ProgramError(
                "the guide does not depend on what the model observes (an AutoGuide, values for rows?), so that asleep "
                "it would be fitted to the prior. Amortise it: a network of x; or stay awake, WakeSleep(program, sleep=0)."
            )

    def _awake(self, examples: Examples) -> Terms:
        """The terms of the guide's draws, which carry no gradient."""
        with _Still():
            return terms_of(self.program, runs(self.program, examples, self.particles))

    def _guide_parameters(self, examples: Examples) -> frozenset[str]:
        """The names of the parameters on which log q depends; the frozen ones too, which may be trained later.

        Raises:
            ProgramError: log p(x, z) depends on them too, or log q is not known at a given z.
        """
        with torch.enable_grad(), buffers_kept(self.program), own_noise(0), _unfrozen(self.program):
            try:
                drawn = self._awake(examples)
            except (KeyError, NotImplementedError) as error:  # the draws themselves have gone well before
                raise ProgramError(
                    f"log q(z | x) can not be computed from the value of z alone ({error}): the guide's transform has no "
                    "inverse (Planar?). Take one that has, such as AffineAutoregressive, or use ImportanceWeighted(program)."
                ) from error
        shared = drawn.shared
        in_guide = _reached(drawn.posterior, *(() if shared is None else (shared.posterior,)))
        in_model = _reached(drawn.likelihood, drawn.prior, *(() if shared is None else (shared.prior,)))
        named = dict(self.program.named_parameters())
        both = sorted(name for name, each in named.items() if id(each) in in_guide & in_model)
        if both:
            raise ProgramError(
                f"model and guide share the parameters {both}, and the two losses of wake-sleep would pull them two ways. "
                "Give the guide a copy of its own (copy.deepcopy), or use ImportanceWeighted(program, particles=K)."
            )
        return frozenset(name for name, each in named.items() if id(each) in in_guide)


class _Still(Messenger):
    """Takes the gradient off what is drawn."""

    def _pyro_post_sample(self, message: Any) -> None:
        if isinstance(message["value"], Tensor) and not message["is_observed"]:
            message["value"] = message["value"].detach()


@contextmanager
def _unfrozen(program: nn.Module) -> Iterator[None]:
    """A block in which every parameter takes part in gradients."""
    frozen = [each for each in program.parameters() if not each.requires_grad and each.is_floating_point()]
    try:
        for each in frozen:
            each.requires_grad_(True)
        yield
    finally:
        for each in frozen:
            each.requires_grad_(False)


def _reached(*densities: Tensor) -> set[int]:
    """The identities of the tensors on which densities depend."""
    return {id(leaf) for each in densities if each.requires_grad for leaf in leaves_of(each)}
