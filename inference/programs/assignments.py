"""Whether a run with all values of the summed sites at once computes what a run with one value of each computes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from pyro.poutine.trace_struct import Trace
from torch import Tensor

from inference.programs.densities import unmasked_log_prob
from inference.programs.execution import is_of_values, is_out_of_memory
from inference.programs.masks import without_mask
from inference.programs.program import ProgramError
from inference.programs.sites import Site, is_implicit, is_summed, plates, random_sites

_TOLERANCE = 1e-3
"""Nats, and relative: what rounding never reaches and a wrong density hardly stays below."""

_ADVICE = (
    "All values stand along an axis to the left of the plates: let the model be broadcast over it. Write torch.where for "
    "`if`, table[k] for .item(), torch.broadcast_tensors before torch.cat, and axes as negative numbers, none of them a "
    "plate's; or draw the sites in the guide."
)


@contextmanager
def of_all_values(names: list[str]) -> Iterator[None]:
    """A block that runs a model with all values of some sites, which has run with one value of each.

    Raises:
        ProgramError: it does not run with all of them.
    """
    try:
        yield
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        special = isinstance(error, ProgramError | torch.linalg.LinAlgError)
        if special or is_out_of_memory(error) or is_of_values(error):
            raise
        said = str(error).partition("\n")[0]  # Pyro adds the shapes of all sites
        raise ProgramError(
            f"the model runs with one value of the sites {names}, and not with all of their values, which are summed out "
            f"({type(error).__name__}: {said}). {_ADVICE}"
        ) from error


def refuse_across_plates(trace: Trace) -> None:
    """Raises a ProgramError where a site of an enumerated trace depends on a summed one whose plate it is not in.

    The elements of a plate have one axis of values together, so that such a site would see them all as equal.
    """
    sites = random_sites(trace)
    summed = {site["infer"]["_enumerate_symbol"]: name for name, site in sites.items() if is_summed(site)}
    for name, site in sites.items():
        for symbol in _symbols(site):
            cause = summed.get(symbol)
            outside = [] if cause is None else sorted(_long_plates(sites[cause]) - _long_plates(site))
            if outside:
                raise ProgramError(
                    f"site {name!r} depends on the summed site {cause!r}, which stands in the plates {outside}, and it "
                    f"does not: what it takes from all elements of a plate can not be summed element by element. Let "
                    f"{cause!r} be drawn in a loop, `for i in range(n):`, a site for each; or draw it in the guide."
                )


def refuse_other_densities(drawn: Trace, whole: Trace, again: Callable[[], Trace]) -> None:
    """Raises a ProgramError where a site has another density in an enumerated trace than with the values drawn before.

    So it is where a model decides by a value, as by `if k.sum() > 1`, or takes something over the rows of a plate.

    Args:
        drawn: the trace of the model with one value of each summed site.
        whole: its trace with all of their values, all else being the same.
        again: gives the first trace anew, which differs where the model is random by itself, as dropout is.
    """
    unlike = _unlike(drawn, lambda name, site: _at(name, site, whole, drawn), whole)
    if not unlike:
        return
    same = again()
    if _unlike(drawn, lambda name, _: _density(name, same.nodes[name]), same):
        return
    names = [name for name, site in random_sites(whole).items() if is_summed(site)]
    raise ProgramError(
        f"the sites {unlike} have other densities where all values of the summed sites {names} stand side by side than "
        f"with one value of each: does the model take a sum, a mean or a decision over all of a tensor? {_ADVICE}"
    )


@torch.no_grad()
def _unlike(drawn: Trace, found: Callable[[str, Site], Tensor], other: Trace) -> list[str]:
    sites = random_sites(drawn)
    return [
        name
        for name, site in random_sites(other).items()
        if not is_implicit(site["fn"])
        and not _close(_density(name, sites[name], is_summed(site)) if name in sites else None, found(name, site))
    ]


def _close(first: Tensor | None, second: Tensor) -> bool:
    if first is None:
        return False
    first, second = torch.broadcast_tensors(first, second)
    return torch.allclose(first, second.to(first), rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)


def _density(name: str, site: Site, summed: bool = False) -> Tensor:
    """The log density of a site, as it is scored with all values: a summed one without its mask."""
    return unmasked_log_prob(name, {**site, "fn": without_mask(site["fn"])} if summed else site)


def _at(name: str, site: Site, whole: Trace, drawn: Trace) -> Tensor:
    """The log density of a site in an enumerated trace at the values that were drawn."""
    if "unscaled_log_prob" not in site["packed"]:
        return _density(name, site)
    log_prob: Tensor = site["packed"]["unscaled_log_prob"]
    axes = {whole.plate_to_symbol[frame.name]: frame for frame in plates(site).values() if frame.size > 1}
    index = []
    for symbol, size in zip(_symbols(site), log_prob.shape, strict=True):
        if symbol in axes:
            index.append(torch.arange(size, device=log_prob.device).reshape(size, *(1,) * (-axes[symbol].dim - 1)))
        else:
            index.append(_places(_of_symbol(whole, symbol), drawn.nodes))
    return log_prob[tuple(index)] if index else log_prob


def _places(summed: Site, drawn: Mapping[str, Site]) -> Tensor:
    """Which of its values a summed site had, laid out as its plates are."""
    value, event = drawn[summed["name"]]["value"], tuple(summed["fn"].event_shape)
    rows = value.dim() - len(event)
    support = summed["value"].reshape(-1, *(1,) * rows, *event)
    same = (support == value).reshape(*support.shape[:1], *value.shape[:rows], -1).all(-1)
    return same.long().argmax(0)


def _of_symbol(whole: Trace, symbol: str) -> Site:
    return next(site for site in random_sites(whole).values() if site["infer"].get("_enumerate_symbol") == symbol)


def _symbols(site: Site) -> str:
    """The names of the axes of a packed density."""
    return str(getattr(site["packed"].get("unscaled_log_prob"), "_pyro_dims", ""))


def _long_plates(site: Site) -> set[str]:
    return {name for name, frame in plates(site).items() if frame.size > 1}
