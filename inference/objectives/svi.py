"""Stochastic variational inference: minus the ELBO per example."""

from typing import Any

import torch
from pyro.infer import ELBO, RenyiELBO, ReweightedWakeSleep, TraceGraph_ELBO, TraceTailAdaptive_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from inference.objectives.baselines import check_baseline, control_variates, credited_above, squared_error
from inference.objectives.objective import Objective, Player
from inference.objectives.surrogate import bound_per_example
from inference.programs.bounds import elbo
from inference.programs.check import check_sites
from inference.programs.dtypes import explained_dtypes
from inference.programs.entries import rows_of
from inference.programs.enumeration import within_axes
from inference.programs.execution import executing
from inference.programs.expectation import refuse_exact
from inference.programs.numbers import refuse_below
from inference.programs.program import Batch, Program, ProgramError, as_batch, parameters
from inference.programs.sites import Site, batch_plate
from inference.programs.terms import terms_of
from inference.programs.traces import guide_runs, runs

_PARTICLES = "num_particles_vectorized"
"""Pyro's name for the plate of an estimator's particles."""


class SVI(Objective):
    """Variational inference by the ELBO; the loss is minus the dataset's ELBO over its size, in nats per example.

    Of a program without a batch plate it is minus the dataset's ELBO: all the data are one example.

    By default the ELBO is made of `Terms` (draws without reparameterisation by the score function, with a leave-one-out
    baseline where there are several particles; finite latents that the guide leaves out summed). A Pyro estimator is taken
    instead for enumeration in the guide (`TraceEnum_ELBO()`), analytic divergences (`TraceMeanField_ELBO()`),
    Rao-Blackwellised discrete latents (`TraceGraph_ELBO()`), user scales and auxiliary guide sites (`Trace_ELBO()`);
    `num_particles` is then its own.

    A baseline is a control variate of the draws without reparameterisation (Mnih & Gregor 2014, arXiv 1402.0030): a network
    that predicts, before a site is drawn, what its example will contribute to the ELBO. Its player `baseline` minimises the
    squared error, per example and whatever the dataset's size. The gradient of the ELBO has less variance, and no bias: the
    network's `forward` names what it is given, entries of the batch by the model's names and latents that the guide has
    drawn before the site, `(rows, ...)` each, and returns `(rows,)` nats, the rows being those of all particles. It takes
    the place of leave-one-out, which needs no fitting and two particles or more.

    Args:
        program: an `nn.Module` with `model` and `guide`.
        estimator: a Pyro ELBO with a differentiable loss, or None.
        particles: draws per example of the default estimator.
        baseline: an `nn.Module` for every site drawn by the score function, or an `nn.ModuleDict` of these by site, or None.

    Raises:
        ProgramError: the estimator is not an instance, or has no differentiable loss of its own; the baseline is no module,
            or stands beside an estimator.
    """

    def __init__(
        self,
        program: Program,
        estimator: ELBO | None = None,
        particles: int = 1,
        *,
        baseline: nn.Module | None = None,
    ) -> None:
        super().__init__(program)
        if baseline is not None and not isinstance(baseline, nn.Module):
            raise ProgramError(
                f"baseline: expected an nn.Module, got a {type(baseline).__name__}; its parameters are trained."
            )
        if baseline is not None and estimator is not None:
            raise ProgramError(
                f"baseline: it is for the default estimator, and {type(estimator).__name__} has ways of its own, such as "
                "infer={'baseline': ...}. Leave one of the two out."
            )
        refuse_below("particles", particles, 1)
        if estimator is not None and particles != 1:
            raise ProgramError(
                f"particles={particles} is for the default estimator: set num_particles of the estimator."
            )
        self.estimator = None if estimator is None else _differentiable(estimator)
        self.particles, self.baseline = particles, baseline

    def players(self) -> dict[str, Player]:
        players = {"loss": Player(parameters(self.program), self.loss, log_density=True)}
        if self.baseline is not None:
            players["baseline"] = Player(parameters(self.baseline), self.baseline_loss)
        return players

    def prepare(self, batch: Batch) -> None:
        super().prepare(batch)
        if self.baseline is None:
            return
        if {*parameters(self.baseline)} & {*parameters(self.program)}:
            raise ProgramError(
                "baseline and program share parameters, and would undo each other's steps; copy the module."
            )
        examples = as_batch(batch)
        with torch.no_grad(), explained_dtypes(self.baseline, examples):
            check_baseline(self.baseline, self.program, runs(self.program, examples)[0])

    def loss(self, batch: Batch) -> Tensor:
        """Minus the ELBO per example, in nats."""
        examples = as_batch(batch)
        if self.estimator is not None:
            with executing(self.program), within_axes(), _Plates() as plates:
                loss = self.estimator.differentiable_loss(self.program.model, self.program.guide, *examples)
            return loss / plates.dataset_size(rows_of(examples))
        found = runs(self.program, examples, self.particles)
        drawn = terms_of(self.program, found)
        if self.baseline is None:
            return -bound_per_example(elbo, drawn)
        credit = credited_above(control_variates(self.baseline, self.program, found), drawn)
        return -elbo(drawn.log_weights_for(elbo)).mean() / drawn.examples - credit

    def baseline_loss(self, batch: Batch) -> Tensor:
        """The baseline's squared error, in nats² per example; it sends no gradient to the program."""
        assert self.baseline is not None, "a player only where there is a baseline"
        with torch.no_grad():
            found = runs(self.program, as_batch(batch), self.particles)
            drawn = terms_of(self.program, found)
        return squared_error(control_variates(self.baseline, self.program, found), drawn)

    def check(self, batch: Batch) -> None:
        if self.estimator is not None:
            refuse_exact(guide_runs(self.program, batch)[0], type(self.estimator).__name__)
        check_sites(self.program, batch, own_densities=self.estimator is None)
        self.check_players(batch)


class _Plates(Messenger):
    """Records the plates of a program that an estimator runs; the batch plate has the dataset's size."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[Site] = []

    def _pyro_post_sample(self, message: Any) -> None:
        frames = tuple(frame for frame in message["cond_indep_stack"] if frame.name != _PARTICLES)
        self.sites.append({"cond_indep_stack": frames})

    def dataset_size(self, rows: int) -> int:
        plate = batch_plate(self.sites, rows)
        size: int = 1 if plate is None else plate.full_size  # without a plate all the data are one example
        return size


class _DifferentiableGraph(TraceGraph_ELBO):
    """TraceGraph_ELBO with a loss whose value is minus the ELBO and whose gradient is that of its surrogate."""

    def differentiable_loss(self, model, guide, *args):  # type: ignore[no-untyped-def]
        value, surrogate_loss = self._loss_and_surrogate_loss(model, guide, args, {})
        return surrogate_loss - surrogate_loss.detach() - value.detach()


def _differentiable(estimator: ELBO) -> Any:  # an ELBO with differentiable_loss, which the base class lacks
    name = type(estimator).__name__
    if isinstance(estimator, type) and issubclass(estimator, ELBO):
        raise ProgramError(
            f"the estimator is the class {estimator.__name__}; pass an instance, {estimator.__name__}()."
        )
    if isinstance(estimator, RenyiELBO):
        raise ProgramError(
            "RenyiELBO scales its weights by the plate before taking their logarithmic mean, so with subsampling its "
            "value lies above the evidence. Use ImportanceWeighted(program, bound=renyi(alpha), particles=K)."
        )
    if isinstance(estimator, ReweightedWakeSleep):
        raise ProgramError(
            "ReweightedWakeSleep has two losses, which one player cannot follow, and one weight for the whole batch, scaled "
            "by the plate. Use WakeSleep(program, particles=K), whose players are the model and the guide."
        )
    if isinstance(estimator, TraceTailAdaptive_ELBO):
        raise ProgramError(
            "TraceTailAdaptive_ELBO weighs draws by their ranks, so that its loss is a surrogate and no bound that a number "
            "could stand for. Use SVI(program), or ImportanceWeighted(program, bound=renyi(alpha), particles=K)."
        )
    if type(estimator) is TraceGraph_ELBO:
        return _DifferentiableGraph(
            num_particles=estimator.num_particles,
            max_plate_nesting=estimator.max_plate_nesting,
            vectorize_particles=estimator.vectorize_particles,
        )
    if not hasattr(estimator, "differentiable_loss"):
        raise ProgramError(
            f"{name} has no differentiable loss. Use SVI(program) or one of Trace_ELBO(), TraceMeanField_ELBO(), "
            "TraceEnum_ELBO(), TraceGraph_ELBO()."
        )
    return estimator
