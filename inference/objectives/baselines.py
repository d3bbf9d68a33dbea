"""Neural baselines: what an example's ELBO is expected to be before a site is drawn, as control variates of its score."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from inference.objectives.forward_inputs import asked_of
from inference.programs.densities import log_density
from inference.programs.execution import Run
from inference.programs.expectation import score_function_sites
from inference.programs.pair import arguments
from inference.programs.program import Program, ProgramError
from inference.programs.sites import Site, random_sites
from inference.programs.terms import Terms, terms_of


class ControlVariate(NamedTuple):
    """A site that is credited by the score function, and its baseline: `(particles, batch)` each."""

    score: Tensor
    """log q of the site's draws."""
    prediction: Tensor
    """The baseline's value, in nats, with a gradient to the baseline."""


def credited_above(variates: Iterable[ControlVariate], drawn: Terms) -> Tensor:
    """A zero whose gradient is that of the scores, each times its example's ELBO above the baseline, a mean per example.

    The baseline of a particle does not depend on the draw that it credits, so the gradient has no bias. What other
    particles have above theirs is not taken off too: beside a good baseline that adds variance, twice at two particles.
    """
    own = learning_signal(drawn)
    credits = [(each.score * (own - each.prediction.detach())).mean() for each in variates]
    total = torch.stack(credits).sum()
    return total - total.detach()


def squared_error(variates: Iterable[ControlVariate], drawn: Terms) -> Tensor:
    """The baselines' loss: the mean over draws and examples of their squared errors, in nats², the sites' added up."""
    own = learning_signal(drawn)
    return torch.stack([(own - each.prediction).square().mean() for each in variates]).sum()


def learning_signal(drawn: Terms) -> Tensor:
    """What an example contributes to the ELBO, whatever the size of the dataset is: `(particles, batch)` nats."""
    return (drawn.likelihood + drawn.prior - drawn.posterior).detach()


def control_variates(baseline: nn.Module, program: Program, found: list[Run]) -> list[ControlVariate]:
    """The control variates of runs, of which `check_baseline` has found nothing wrong."""
    each = [_of_run(baseline, program, run) for run in found]
    return [ControlVariate(*map(torch.cat, zip(*site, strict=True))) for site in zip(*each, strict=True)]


def check_baseline(baseline: nn.Module, program: Program, run: Run) -> None:
    """Raises a ProgramError where a baseline has nothing to do, or would be given what it must not know."""
    unscored = score_function_sites(random_sites(run.guide))
    networks = _by_site(baseline, unscored)
    if not unscored:
        raise ProgramError(
            f"baseline: the guide draws {[*random_sites(run.guide)] or 'nothing'}, all with gradients of their "
            "own (reparameterised), so that the score function credits nothing that could be predicted. Leave it out."
        )
    if networks.keys() != unscored.keys():
        raise ProgramError(
            f"baseline: the sites that the guide draws by the score function are {[*unscored]}, and the ModuleDict has "
            f"networks for {[*networks]}. Give each of these sites one, or one module for all."
        )
    _refuse_credit_of_others(program, run, unscored)
    for name, network in networks.items():
        known = _known(program, run, name)
        unknown = [each for each in asked_of(network, known) if each not in known]
        if unknown:
            raise ProgramError(
                f"baseline: the forward of {type(network).__name__} takes {unknown}, and before {name!r} is drawn only "
                f"{sorted(known)} are known. To know the draw, or what follows from it, would bias the gradient. Take any "
                "of these, by name; nn.ModuleDict({site: network}) gives each site a network of its own."
            )
        _prediction(network, program, run, name)


def _of_run(baseline: nn.Module, program: Program, run: Run) -> list[ControlVariate]:
    unscored = score_function_sites(random_sites(run.guide))
    networks = _by_site(baseline, unscored)
    found = []
    for name, site in unscored.items():
        score = log_density(name, site, run.plate).reshape(run.particles, run.examples)
        found.append(ControlVariate(score, _prediction(networks[name], program, run, name)))
    return found


def _refuse_credit_of_others(program: Program, run: Run, unscored: Mapping[str, Site]) -> None:
    """Raises a ProgramError where a draw counts for more than its own example."""
    shared = [name for name, site in unscored.items() if not run.is_local(site)]
    drawn = terms_of(program, [run])
    if shared or (drawn.shared is not None and not drawn.shared.come_first):
        raise ProgramError(
            f"baseline: the draws of {shared or [*unscored]} count for all examples, which share sites, and a baseline is "
            "of one example. Leave it out and take several particles, which are credited against each other; or draw "
            "what is shared first, with a reparameterised guide."
        )


def _by_site(baseline: nn.Module, sites: Iterable[str]) -> Mapping[str, nn.Module]:
    """The network of each site: its own of a ModuleDict, or one for all."""
    return dict(baseline.items()) if isinstance(baseline, nn.ModuleDict) else dict.fromkeys(sites, baseline)


def _known(program: Program, run: Run, name: str) -> dict[str, object]:
    """What is known before a site of the guide is drawn: the entries of the batch, and the latents of each row so far."""
    sites = random_sites(run.guide)
    before = [each for each in list(sites)[: list(sites).index(name)] if run.is_local(sites[each])]
    values = run.values({each: sites[each] for each in before})
    rows = {each: value.detach().flatten(0, 0 if run.plate is None else 1) for each, value in values.items()}
    return {**arguments(program, run.batch), **rows}


def _prediction(network: nn.Module, program: Program, run: Run, name: str) -> Tensor:
    """`(particles, batch)` nats, of a network that is given the rows of all particles."""
    known = _known(program, run, name)
    found: Tensor = network(**{each: known[each] for each in asked_of(network, known)})
    rows = run.particles * run.examples
    if tuple(found.shape) != (rows,):
        raise ProgramError(
            f"baseline: expected one number for each example before site {name!r}, shape ({rows},), got "
            f"{tuple(found.shape)}; let the forward of {type(network).__name__} end with .squeeze(1)."
        )
    return found.to(torch.promote_types(found.dtype, torch.float32)).reshape(run.particles, run.examples)
