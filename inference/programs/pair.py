"""Pair: a program made of any Pyro code, which keeps its parameters."""

import inspect
from collections.abc import Callable, Collection, Iterable
from functools import partial
from itertools import chain
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation, AutoMessenger
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

from inference.programs.autoguides import HiddenSites, take_over
from inference.programs.entries import Examples, rows_of
from inference.programs.program import Program, ProgramError, as_batch, localise, without_store


class Pair(nn.Module):
    """A program made of any Pyro code: functions, bound methods, PyroModules, and AutoGuides.

    Parameters live in this module: those of `modules`, of modules passed as `model` or `guide`, owning them as methods or
    named in them as functions, and every `pyro.param` statement met when it runs (adopted at the first call, so `fit` runs
    the program once before it makes optimizers; run it once before `load_state_dict`, too).

    Args:
        model: draws and observes; called as `model(*batch)`.
        guide: draws the model's latent sites; or an AutoGuide class (or a `functools.partial` of one), which is built
            here on this model; or an AutoGuide built on this model that has not run yet; or None where no latent sites
            are drawn.
        modules: networks that the functions use and that nothing else holds.
        hide: the sites that an AutoGuide class leaves out, as `poutine.block(model, hide=…)` does: finite ones that are
            marked `enumerate`, which are summed out.

    Raises:
        ProgramError: `guide` is an AutoGuide that has run elsewhere, or `hide` has nothing to be hidden from.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any] | type[AutoGuide] | AutoGuide | None = None,
        *modules: nn.Module,
        hide: Collection[str] = (),
    ) -> None:
        super().__init__()
        if isinstance(guide, AutoMessenger) or (isinstance(guide, type) and issubclass(guide, AutoMessenger)):
            raise ProgramError(
                "AutoMessenger guides run the model inside the guide, which the terms here do not follow. Use an AutoGuide, "
                "such as AutoNormal."
            )
        self._functions: dict[str, Callable[..., Any]] = {"model": model, "guide": guide or _draws_nothing}
        self._hidden = HiddenSites(hide)
        if hide and not _is_autoguide(guide):
            raise ProgramError(
                f"hide={[*hide]}: only an AutoGuide class, which is built here, hides sites of the model; got "
                f"{getattr(guide, '__name__', type(guide).__name__)}. A guide of your own just does not draw them, and a "
                "built AutoGuide hides them itself: AutoNormal(poutine.block(model, hide=[…]))."
            )
        # An AutoGuide traces its model beyond the reach of all handlers but those of the model itself.
        if isinstance(guide, AutoGuide):
            take_over(guide, self._without_store)
        elif _is_autoguide(guide):
            with without_store():
                self._functions["guide"] = self._functions["guide"](self._hidden.blocked(self.model))
        owners = chain.from_iterable(map(_owners, self._functions.values()))
        named = list(chain.from_iterable(map(_named, self._functions.values())))
        self.modules_used = nn.ModuleList(_distinct([*modules, *owners, *named]))
        self._copies = not named and not (modules and any(map(_is_plain_function, self._functions.values())))
        localise(self.modules_used.modules())
        self.adopted = nn.ParameterDict()
        self._constraints: dict[str, constraints.Constraint] = {}
        self.rows: int | None = None
        """The length of the batch from which an AutoGuide has learnt its latents."""

    @property
    def autoguide(self) -> AutoGuide | None:
        """The guide, where it is an AutoGuide."""
        guide = self._functions["guide"]
        return guide if isinstance(guide, AutoGuide) else None

    @property
    def tiles(self) -> bool:
        """Whether particles may be laid along the batch axis; an AutoGuide keeps the batch length of its first call."""
        return self.autoguide is None

    def model(self, *batch: Any) -> Any:
        """Runs the model; its `pyro.param` statements read this pair's parameters."""
        with without_store(self._adopt):
            return self._functions["model"](*batch)

    def guide(self, *batch: Any) -> Any:
        """Runs the guide; its `pyro.param` statements read this pair's parameters."""
        with without_store(self._adopt), self._hidden.checked(self.autoguide):
            drawn = self._functions["guide"](*batch)
        if self.autoguide is not None and self.rows is None:
            self.rows = rows_of(as_batch(batch))
        return drawn

    def laplace_approximation(self, *batch: Any) -> "Pair":
        """The same model with a normal around the point that an AutoLaplaceApproximation guide was fitted to.

        Its covariance is the inverse Hessian of -log p(x, z) there, in unconstrained coordinates; a guide with a density,
        so that weighted draws from it bound the evidence.

        Raises:
            ProgramError: the guide is no AutoLaplaceApproximation.
        """
        guide = self._functions["guide"]
        if not isinstance(guide, AutoLaplaceApproximation):
            raise ProgramError(
                f"a Laplace approximation starts from Pair(model, AutoLaplaceApproximation), fitted; this guide is a "
                f"{type(guide).__name__}."
            )
        with without_store(self._adopt), torch.enable_grad():
            normal = guide.laplace_approximation(*as_batch(batch))
        found = Pair(self.model, None, *self.modules_used)
        found._functions["guide"] = normal
        found.modules_used.append(normal)
        found.rows = self.rows
        return found

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copied or unpickled pair can not run plain functions: they would compute with the original's networks."""
        super().__setstate__(state)
        if not self._copies:
            self._functions = {"model": _refuse_to_run_a_copy, "guide": _refuse_to_run_a_copy}

    def _without_store(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, its `pyro.param` statements reading this pair's parameters."""

        def inside(*batch: Tensor) -> Any:
            with without_store(self._adopt):
                return function(*batch)

        return inside

    def _adopt(self, name: str, init: Any, constraint: constraints.Constraint) -> Tensor:
        key = _key(name)
        if isinstance(init, nn.Parameter):
            if not any(init is parameter for parameter in self.parameters()):
                raise ProgramError(
                    f"{name!r} is a parameter of a module that this pair does not hold, so that it would miss `.to`, eval "
                    "mode and files. Pass the module: Pair(model, guide, module)."
                )
            return init
        if key not in self.adopted:
            if init is None:
                raise ProgramError(f"pyro.param({name!r}) is read before any statement has given it an initial value.")
            value = torch.as_tensor(init() if callable(init) else init)
            with torch.no_grad():
                self.adopted[key] = nn.Parameter(transform_to(constraint).inv(value).clone().contiguous())
        if init is not None and not _same(self._constraints.setdefault(key, constraint), constraint):
            raise ProgramError(
                f"pyro.param({name!r}) stands under two constraints, {self._constraints[key]} and {constraint}, and is one "
                "value. Give it the same constraint everywhere, or two names."
            )
        self._constraints.setdefault(key, constraint)
        unconstrained = self.adopted[key]
        value = transform_to(self._constraints[key])(unconstrained)
        value = value.view_as(value)  # a tensor of its own, for the attribute that Pyro's plates look for
        value.unconstrained = lambda: unconstrained  # type: ignore[attr-defined]
        return value


def refuse_unfitted(program: Program) -> None:
    """Raises a ProgramError where an AutoGuide would learn the latent sites from the batch that it is asked about."""
    autoguide = program.autoguide if isinstance(program, Pair) else None
    if autoguide is not None and autoguide.prototype_trace is None:
        raise ProgramError(
            f"the {type(autoguide).__name__} has not been run, and learns the latent sites from the first batch. Fit it "
            "before it predicts."
        )


def arguments(program: Program, batch: Examples) -> dict[str, Any]:
    """The entries of the batch by the model's argument names."""
    written = program._functions["model"] if isinstance(program, Pair) else program.model
    named = inspect.signature(written).parameters.values()
    of_their_own = [each.name for each in named if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return dict(zip(of_their_own, batch, strict=False))


def _is_plain_function(function: Callable[..., Any]) -> bool:
    return inspect.isfunction(inspect.unwrap(function)) and function is not _draws_nothing


def _refuse_to_run_a_copy(*batch: Any) -> None:
    raise ProgramError(
        "this is a copy of a Pair of functions: it holds copies of the modules, and the functions go on computing with the "
        "originals. Make a second pair of new modules and load_state_dict(pair.state_dict()), or write the program as an "
        "nn.Module, which copies whole."
    )


def _key(name: str) -> str:
    """The name as one key of state_dict, which a dot would end; different names have different keys."""
    return name.replace("%", "%25").replace("/", "%2F").replace(".", "/")


def _same(first: constraints.Constraint, second: constraints.Constraint) -> bool:
    """Whether two constraints are one, as `interval(0, 1)` written twice is."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    mine, theirs = vars(first), vars(second)
    return mine.keys() == theirs.keys() and all(_equal(mine[name], theirs[name]) for name in mine)


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, constraints.Constraint):
        return _same(first, second)
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return torch.equal(torch.as_tensor(first), torch.as_tensor(second))
    return bool(first == second)


def _is_autoguide(guide: object) -> bool:
    factory = guide.func if isinstance(guide, partial) else guide
    return isinstance(factory, type) and issubclass(factory, AutoGuide)


def _draws_nothing(*batch: Any) -> None:
    """The guide of a model without latent sites: its ELBO is the exact log-likelihood."""


def _owners(function: Callable[..., Any]) -> list[nn.Module]:
    """The modules that a function is, is a method of or is bound to, also through Pyro's handlers."""
    inner = inspect.unwrap(function)
    bound = (*inner.args, *inner.keywords.values()) if isinstance(inner, partial) else ()
    inner = inner.func if isinstance(inner, partial) else inner
    candidates = [inner, getattr(inner, "__self__", None), *bound]
    return [candidate for candidate in candidates if isinstance(candidate, nn.Module)]


def _named(function: Callable[..., Any]) -> list[nn.Module]:
    """The modules that a plain function refers to by name, which no copy of it would replace."""
    inner = inspect.unwrap(function)
    inner = inspect.unwrap(inner.func) if isinstance(inner, partial) else inner
    if not inspect.isfunction(inner):
        return []
    seen = inspect.getclosurevars(inner)
    return [each for each in (*seen.nonlocals.values(), *seen.globals.values()) if isinstance(each, nn.Module)]


def _distinct(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return list({id(module): module for module in modules}.values())
