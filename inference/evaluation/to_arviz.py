"""A program's draws as ArviZ's data: what goes into which group."""

import warnings
from collections.abc import Sequence
from typing import Any

import pyro
import torch
from pyro.distributions import ImproperUniform
from torch import Tensor

from inference.evaluation.arviz_versions import Group, Variable, arviz_data, drawn
from inference.evaluation.axes import Axes, Coords, Dims, axes_of
from inference.evaluation.chunks import Chunks, Draws
from inference.evaluation.constants import constants_of
from inference.evaluation.given_shared import log_likelihoods, shared_latents
from inference.evaluation.likelihood import likelihood_of
from inference.evaluation.pareto import FEWEST_DRAWS, TAIL, threshold
from inference.evaluation.stages import stage
from inference.evaluation.weighted import Weighted, picked, resampled, weighted
from inference.programs.check import check_batch
from inference.programs.entries import Examples, rows_of
from inference.programs.execution import Run, is_of_values
from inference.programs.masks import hidden_as_nan
from inference.programs.noise import own_noise
from inference.programs.numbers import refuse_below
from inference.programs.program import Batch, Program, ProgramError, as_batch, evaluating
from inference.programs.sites import latents_in, layers, random_sites
from inference.programs.traces import runs


def to_arviz(
    program: Program,
    batch: Batch,
    draws: int = 1000,
    *,
    dims: Dims | None = None,
    coords: Coords | None = None,
    particles: int = 100,
    rows: int = 2000,
    seed: int = 0,
) -> Any:
    """Draws of the posterior, the prior and both predictives as ArviZ's data: an InferenceData, under ArviZ 1.x a DataTree.

    `posterior` has draws from the guide, resampled by Pareto-smoothed weights (Vehtari et al. 2024, arXiv 1507.02646): of
    the whole dataset at once where examples share latents, else of each example by itself. So what ArviZ computes is of the
    posterior, as far as k̂ is below its threshold. Draws are repeated: ESS and R-hat say nothing of them. Finite latents
    that the guide leaves out are drawn from p(k | x, z).

    `guide` has the draws as the guide made them, their `log_weights`, raw and smoothed, and k̂ (`khat`). `sample_stats` has
    log p(x, z) of the posterior's draws (`lp`), left-out finite latents summed, and log q(z | x) (`log_q`), in nats.

    `log_likelihood` is log p(x_i | θ) of each example, θ what examples share; their own latents are integrated out. Without
    shared latents it would be the same for every draw, and is left out. The attributes say why a group is left out.

    Axes are called by their plates, others `NAME_dim_0`, …; what the model is given and does not observe is `constant_data`.

    Args:
        program: the model and its fitted guide.
        batch: the examples; the whole dataset, where these share latents.
        draws: from the guide, of the posterior and of the prior; at least 25.
        dims: by variable, a list of names for its axes after chain and draw, as ArviZ has it; None keeps an axis's name.
        coords: by axis, what stands at its places.
        particles: draws of an example's own latents for each log p(x_i | θ).
        rows: how many draws × examples are run at once.
        seed: of all draws; the caller's generators are left as they are.

    Raises:
        ValueError: fewer than 25 draws, no particle or no row.
        ProgramError: the guide has a continuous latent at one value, or no draw with a density; the batch is a part of a
            dataset that shares latents; dims or coords name what is not there; or what `terms` raises.
    """
    refuse_below("draws", draws, FEWEST_DRAWS, TAIL)
    refuse_below("particles", particles, 1)
    refuse_below("rows", rows, 1)
    examples = as_batch(batch)
    with torch.no_grad(), evaluating(program), own_noise(seed):
        run = _judged_run(program, examples)
        constants = constants_of(program, run)
        axes = axes_of(run, constants, dims or {}, coords or {})
        chunks = Chunks(program, examples, run, draws, max(1, rows // rows_of(examples)))
        with stage(0.0, 0.3, "weights"):
            found = weighted(program, examples, draws, chunks.size)
        _warn_of_khat(found.smoothed.khat, draws)
        places = resampled(found.smoothed.log_weights)
        with stage(0.3, 0.4, "posterior"):
            posterior = chunks.completed({name: picked(places, value) for name, value in found.latents.items()})
        with stage(0.4, 0.5, "prior"):
            prior, without_prior = _prior(chunks)
        with stage(0.5, 0.9, "log-likelihood"):
            log_likelihood, how = _log_likelihood(chunks, posterior, particles, rows)
        with stage(0.9, 1.0, "posterior predictive"):
            replicated = chunks.observations(posterior)
        sites = {name: hidden_as_nan(site) for name, site in random_sites(run.model).items() if site["is_observed"]}
        observed = {name: value[0] for name, value in run.values(sites).items()}
        groups = {
            "posterior": Group(_drawn(axes, posterior, chunks.unobserved), _said_of(found)),
            "posterior_predictive": Group(_drawn(axes, replicated, chunks.observed)),
            "sample_stats": Group(_stats(run, found, places)),
            "log_likelihood": Group(_of_examples(run, axes, chunks.observed, log_likelihood), {"computed": how}),
            "prior": Group(_drawn(axes, prior, chunks.unobserved)),
            "prior_predictive": Group(_drawn(axes, prior, chunks.observed)),
            "guide": Group(_as_drawn(run, axes, found), {"weights": _WEIGHTS}),
            "observed_data": Group({name: Variable(axes.names[name], observed[name]) for name in chunks.observed}),
            "constant_data": Group({name: Variable(axes.names[name], value) for name, value in constants.items()}),
        }
    left_out = {"log_likelihood": how if log_likelihood is None else "", "prior": without_prior}
    said = {f"{group}_left_out": reason for group, reason in left_out.items() if reason}
    library = {"inference_library": "pyro", "inference_library_version": pyro.__version__}
    return arviz_data(groups, axes.coords, library | said)


_REPEATED = (
    "Draws from the guide, resampled by Pareto-smoothed weights: some stand here more than once, so that ESS and R-hat, "
    "which are for Markov chains, mean nothing. What tells whether the draws can be trusted is khat, in the group guide."
)
_WEIGHTS = (
    "log_weights are log p(x, z) - log q(z | x) in nats; of the smoothed ones the tail is a Pareto distribution's."
)
_CONSTANT = "without latents that examples share, log p(x_i) would be the same for all draws"
_NO_PLATE = "no plate counts the examples, so that there is one log p(x), of all the data"


def _judged_run(program: Program, batch: Examples) -> Run:
    """A run of the program, whose guide has a spread, on data of which the posterior is.

    Raises:
        ProgramError: the guide has a continuous latent at one value, or the batch is a part of what shares latents.
    """
    check_batch(program, batch)
    likelihood = likelihood_of(program, batch)
    if likelihood.point:
        raise ProgramError(
            "the guide has a continuous latent at one value (AutoDelta, or a Delta site): however its draws are weighted, "
            "they are none of the posterior. Fit a guide with a density, such as AutoNormal; around the point of an "
            "AutoLaplaceApproximation: Pair.laplace_approximation."
        )
    run = runs(program, batch)[0]
    if run.plate is not None and not run.per_example and run.dataset_size != rows_of(batch):
        raise ProgramError(
            f"the program shares latents between the {run.dataset_size} examples of its dataset, and the batch has "
            f"{rows_of(batch)}: these alone have another posterior. Give all examples as one batch."
        )
    return run


def _warn_of_khat(khat: Tensor, draws: int) -> None:
    """Warns the caller of `to_arviz` where the weights are too heavy-tailed."""
    above = int((khat > threshold(draws)).sum())
    if above:
        of = f" for {above} of {len(khat)} examples" if len(khat) > 1 else ""
        warnings.warn(
            f"k̂ of the weights is above {threshold(draws):.2f}{of}, {float(khat.max()):.2f} at most: there the draws of the "
            "posterior group are nearer to the guide than to the posterior. Take a wider guide, or one of a richer family.",
            stacklevel=3,
        )


def _said_of(found: Weighted) -> dict[str, str | int | float]:
    draws, khat = len(found.log_weights), found.smoothed.khat
    return {"draws": _REPEATED, "largest_khat": float(khat.max()), "khat_threshold": threshold(draws)}


def _drawn(axes: Axes, values: Draws, which: Sequence[str]) -> dict[str, Variable]:
    return {name: drawn(axes.names[name], values[name]) for name in which if name in values}


def _stats(run: Run, found: Weighted, places: Tensor) -> dict[str, Variable]:
    """log p(x, z) and log q(z | x) of the resampled draws, of each example or of the whole dataset."""
    values = {"lp": found.log_joint, "log_q": found.log_guide}
    return {name: _of_weights(run, picked(places, value)) for name, value in values.items()}


def _as_drawn(run: Run, axes: Axes, found: Weighted) -> dict[str, Variable]:
    weights = {
        "log_weights": _of_weights(run, found.log_weights),
        "smoothed_log_weights": _of_weights(run, found.smoothed.log_weights),
        "khat": Variable(_places(run), found.smoothed.khat.reshape([-1] * len(_places(run)))),
    }
    taken = sorted(weights.keys() & found.latents.keys())
    if taken:
        raise ProgramError(f"the sites {taken} have the names of what is said of all draws. Call them otherwise.")
    return _drawn(axes, found.latents, [*found.latents]) | weights


def _places(run: Run) -> tuple[str, ...]:
    """The axis of numbers that each example has for itself; none where all share them."""
    return (run.plate.name,) if run.per_example else ()


def _of_weights(run: Run, values: Tensor) -> Variable:
    return drawn(_places(run), values if _places(run) else values.squeeze(1))


def _prior(chunks: Chunks) -> tuple[Draws, str]:
    """All sites drawn from the prior; or none, and why."""
    latents = latents_in(chunks.run.model).items()
    improper = [name for name, site in latents if isinstance(layers(site["fn"])[-1], ImproperUniform)]
    if improper:
        return {}, f"the priors of {improper} are improper and have no draws"
    try:
        return chunks.prior(), ""
    except ValueError as error:
        if not is_of_values(error):
            raise
        return {}, f"a draw of the prior is no parameter of what follows, or overflows: {str(error).splitlines()[0]}"


def _log_likelihood(chunks: Chunks, posterior: Draws, particles: int, rows: int) -> tuple[Tensor | None, str]:
    """log p(x_i | θ) of the posterior's draws, and how it was found; or None, and why."""
    shared = {name: posterior[name] for name in shared_latents(chunks.run)}
    if chunks.run.plate is None:
        return None, _NO_PLATE
    if not shared:
        return None, _CONSTANT
    return log_likelihoods(chunks.program, chunks.batch, chunks.run, shared, particles, rows)


def _of_examples(run: Run, axes: Axes, observed: Sequence[str], values: Tensor | None) -> dict[str, Variable]:
    """The log-likelihood by the name of the observed site, as ArviZ has it; that of several sites is `joint`."""
    if values is None:
        return {}
    local = [name for name in observed if run.is_local(run.model.nodes[name])]
    if len(local) == 1:
        return {local[0]: drawn(axes.names[local[0]][:1], values)}
    return {"joint": drawn((run.plate.name,), values)}
