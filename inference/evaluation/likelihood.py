"""What kind of number log p(x) is for a program: per example or not, discrete or a density, a point estimate or not."""

import math
from typing import Any, NamedTuple

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import biject_to, constraints

from inference.programs.entries import rows_of
from inference.programs.execution import Run
from inference.programs.program import Batch, Program, ProgramError, as_batch
from inference.programs.sites import Site, hides_values, is_discrete, is_implicit, is_point, layers, random_sites
from inference.programs.traces import guide_runs, runs


class Likelihood(NamedTuple):
    """What kind of number log p(x) is for a program."""

    per_example: bool
    dimensions: int | None
    """Values per example of the only observed site, where that is discrete."""
    without_bits: str
    """Why there are no bits per dimension; empty where there are."""
    kind: str
    dataset: int | None
    """The dataset's size, as the batch plate has it; None where there is no such plate."""
    point: bool
    """Whether the guide puts a continuous latent at one value, so that the weights bound nothing."""


def likelihood_of(program: Program, batch: Batch) -> Likelihood:
    """What kind of number log p(x) is, read from the sites of one batch.

    Raises:
        ProgramError: the program draws its own subsample of the batch, or the batch observes nothing.
    """
    run = runs(program, batch)[0]
    rows = rows_of(as_batch(batch))
    if run.plate is not None and run.plate.size != rows:
        raise ProgramError(
            f"plate {run.plate.name!r} draws its own subsample of {run.plate.size} from {rows} examples, so no number "
            "belongs to a given example. Pass batches to the program and use pyro.plate('data', len(x))."
        )
    observed = {name: site for name, site in random_sites(run.model).items() if site["is_observed"]}
    if not observed:
        raise ProgramError(
            "the batch observes nothing (an entry that is None?), so there is no log p(x) of it. Give it what the model "
            "observes; draws of what it does not are predict(program, batch)."
        )
    densities = {name: site for name, site in observed.items() if not is_implicit(site["fn"])}
    kinds = {"discrete" if is_discrete(site) else "density" for site in densities.values()}
    without_bits = _of_the_dataset(run) or _without_bits(observed)
    return Likelihood(
        per_example=not _of_the_dataset(run),
        dimensions=None if without_bits else _variables(next(iter(observed.values()))) // rows,
        without_bits=without_bits,
        kind=" and ".join(sorted(kinds)) or "implicit",
        dataset=None if run.plate is None else run.dataset_size,
        point=is_point_estimate(program, batch, run),
    )


def _of_the_dataset(run: Run) -> str:
    """Why a number is the whole dataset's; empty where it is an example's."""
    if run.plate is None:
        return "no plate counts the examples, and the number is the whole dataset's"
    if run.per_example:
        return ""
    return "latents are shared by all examples, and the number is the whole dataset's"


def _without_bits(observed: dict[str, Site]) -> str:
    """Why a program with a number for each example has no bits per dimension; empty where it has."""
    if len(observed) != 1:
        return f"the program observes {len(observed)} sites ({', '.join(observed) or 'none'}), and not one"
    ((name, site),) = observed.items()
    if is_implicit(site["fn"]):
        return f"site {name!r} has no density"
    if not is_discrete(site):
        return f"the likelihood of site {name!r} is a density"
    if hides_values(site):
        return f"a mask hides values of site {name!r}, which do not count"
    if not _variables(site):
        return f"the values of site {name!r} ({type(layers(site['fn'])[-1]).__name__}) are no variables of their own"
    return ""


def _variables(site: Site) -> int:
    """How many discrete variables a site has in all; 0 where its events are joint, as counts of a multinomial are."""
    support, value = site["fn"].support, site["value"]
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if isinstance(support, type(constraints.one_hot)):
        return int(value.numel() // value.shape[-1])
    return int(value.numel()) if support.event_dim == 0 else 0


def is_point_estimate(program: Program, batch: Batch, run: Run) -> bool:
    """Whether the guide puts a continuous latent at a value that depends on no random draw."""
    guide, model = random_sites(run.guide), random_sites(run.model)
    points = [
        name
        for name, site in model.items()
        if name in guide and is_point(guide[name]) and not is_point(site) and not is_discrete(site)
    ]
    if not points:
        return False
    following = _Following()
    with torch.enable_grad(), following:
        drawn = random_sites(guide_runs(program, batch)[0].guide)
        random = all(_follows(drawn[name]["value"], following.draws) for name in points)
    if not random:
        return True
    # With fewer random numbers than latents, some latents are functions of the others; with more, log q is not theirs.
    sizes = [_unconstrained_size(model[name]) for name in points]
    return None not in sizes and sum(filter(None, sizes)) != sum(map(Tensor.numel, following.draws))


class _Following(Messenger):
    """Makes the auxiliary draws of a guide leaves, so that autograd shows which values depend on them."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[Tensor] = []

    def _pyro_post_sample(self, message: Any) -> None:
        if message["infer"].get("is_auxiliary") and not is_point(message) and message["value"].is_floating_point():
            message["value"] = message["value"].detach().requires_grad_()
            self.draws.append(message["value"])


def _follows(value: Tensor, draws: list[Tensor]) -> bool:
    if not draws or not value.requires_grad:
        return False
    found = torch.autograd.grad(value.sum(), draws, allow_unused=True, retain_graph=True)
    return any(gradient is not None for gradient in found)


def _unconstrained_size(site: Site) -> int | None:
    """How many coordinates a value has; None where its support has no known ones."""
    shape = tuple(site["value"].shape)
    try:
        return math.prod(biject_to(site["fn"].support).inverse_shape(shape))
    except NotImplementedError:
        return None
