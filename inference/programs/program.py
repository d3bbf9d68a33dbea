"""What a program is: a model and the guide that inverts it."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, Protocol

import pyro
import torch
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation, AutoMessenger
from pyro.nn import PyroModule
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.distributions import constraints, transform_to

Batch = Tensor | tuple[Tensor, ...]
"""Tensors that share their first axis, the examples; a program is called as `model(*batch)`."""


class ProgramError(ValueError):
    """What is wrong with a program or its batch: the site, what was expected, what came, what to do."""


class Program(Protocol):
    """A generative model and the guide that inverts it; structural, so no base class is needed.

    `model(*batch)` draws its sites in one plate over the batch, observes x and returns it.
    `guide(*batch)` draws the model's latent sites by the same names; with no latents it draws nothing.
    """

    @property
    def model(self) -> Callable[..., Any]: ...

    @property
    def guide(self) -> Callable[..., Any]: ...


def as_batch(batch: Batch | list[Tensor]) -> tuple[Tensor, ...]:
    """The batch as a tuple of tensors that share their first axis.

    Raises:
        ProgramError: it is not made of tensors, is empty, or its tensors disagree about the number of examples.
    """
    tensors = (batch,) if isinstance(batch, Tensor) else tuple(batch)
    for position, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise ProgramError(
                f"batch[{position}] is a {type(tensor).__name__}; expected a tensor whose first axis counts the "
                "examples. Convert it with torch.as_tensor."
            )
    lengths = [tensor.shape[0] if tensor.dim() else 0 for tensor in tensors]
    if not tensors or min(lengths) == 0 or len(set(lengths)) != 1:
        raise ProgramError(
            f"the tensors of a batch must share a first axis of at least one example; their shapes are "
            f"{[tuple(tensor.shape) for tensor in tensors]}. (A tuple is one batch; several batches go in a list.)"
        )
    return tensors


class _ParamSites(Messenger):
    """Answers `pyro.param` statements before they reach Pyro's global store."""

    def __init__(self, adopt: Callable[[str, Any, constraints.Constraint], Tensor]) -> None:
        super().__init__()
        self.adopt = adopt

    def _pyro_param(self, message: Any) -> None:
        # A PyroModule announces its own parameters by the same message, with a function that returns them.
        if message["value"] is None and message["fn"] == pyro.get_param_store().get_param:
            init = message["args"][1] if len(message["args"]) > 1 else None
            constraint = message["kwargs"].get("constraint", constraints.real)
            message["value"] = self.adopt(message["name"], init, constraint)


def _refuse(name: str, init: Any, constraint: constraints.Constraint) -> Tensor:
    if isinstance(init, nn.Parameter):  # pyro.module: the module keeps its own parameters
        return init
    raise ProgramError(
        f"pyro.param({name!r}) would write to Pyro's global store, where no optimizer here looks. "
        "Wrap the functions as Pair(model, guide), which adopts it, or make it an nn.Parameter of the program."
    )


@contextmanager
def without_store(adopt: Callable[[str, Any, constraints.Constraint], Tensor] = _refuse) -> Iterator[None]:
    """Runs Pyro code so that its parameters stay in their modules and the global store is never touched."""
    with pyro.settings.context(module_local_params=True), _ParamSites(adopt):
        yield


def localise(program: object) -> None:
    """Lets PyroModules that were built under Pyro's default setting run with parameters of their own."""
    for module in program.modules() if isinstance(program, nn.Module) else ():
        if isinstance(module, PyroModule) and not hasattr(module._pyro_context, "param_state"):
            module._pyro_context.param_state = {"params": {}, "constraints": {}}


class Pair(nn.Module):
    """A program made of any Pyro code: functions, bound methods, PyroModules, and AutoGuides.

    Parameters live in this module: those of `modules`, of modules passed as `model` or `guide`, owning them as methods or
    named in them as functions, and every `pyro.param` statement met when it runs (adopted at the first call, so `fit` runs
    the program once before it makes optimizers; run it once before `load_state_dict`, too).

    Args:
        model: draws and observes; called as `model(*batch)`.
        guide: draws the model's latent sites, or an AutoGuide class (or a `functools.partial` of one), which is built
            here on this model, or None where the model has no latent sites.
        modules: networks that the functions use and that nothing else holds.

    Raises:
        ProgramError: `guide` is an AutoGuide that was built elsewhere.
    """

    def __init__(
        self, model: Callable[..., Any], guide: Callable[..., Any] | type[AutoGuide] | None = None, *modules: nn.Module
    ) -> None:
        super().__init__()
        if isinstance(guide, AutoGuide):
            kind = type(guide).__name__
            raise ProgramError(
                f"the guide is a {kind} built outside this pair, which would keep its values in Pyro's global store. "
                f"Pass the class: Pair(model, {kind}), or functools.partial({kind}, ...) with its options; of an "
                "AutoGuideList, a subclass whose __init__(self, model) appends its parts."
            )
        if isinstance(guide, AutoMessenger) or (isinstance(guide, type) and issubclass(guide, AutoMessenger)):
            raise ProgramError(
                "AutoMessenger guides run the model inside the guide, which the terms here do not follow. Use an AutoGuide, "
                "such as AutoNormal."
            )
        self._functions: dict[str, Callable[..., Any]] = {"model": model, "guide": guide or _draws_nothing}
        if _is_autoguide(guide):
            # It traces the model beyond the reach of all handlers but those of `self.model` itself.
            with without_store():
                self._functions["guide"] = self._functions["guide"](self.model)
        owners = chain.from_iterable(map(_owners, self._functions.values()))
        self.modules_used = nn.ModuleList(_distinct([*modules, *owners]))
        localise(self.modules_used)
        self.adopted = nn.ParameterDict()
        self._constraints: dict[str, constraints.Constraint] = {}

    @property
    def autoguide(self) -> AutoGuide | None:
        """The guide, where it is an AutoGuide."""
        guide = self._functions["guide"]
        return guide if isinstance(guide, AutoGuide) else None

    @property
    def tiles(self) -> bool:
        """Whether particles may be laid along the batch axis; an AutoGuide keeps the batch length of its first call."""
        return self.autoguide is None

    def model(self, *batch: Tensor) -> Any:
        """Runs the model; its `pyro.param` statements read this pair's parameters."""
        with without_store(self._adopt):
            return self._functions["model"](*batch)

    def guide(self, *batch: Tensor) -> Any:
        """Runs the guide; its `pyro.param` statements read this pair's parameters."""
        with without_store(self._adopt):
            return self._functions["guide"](*batch)

    def laplace_approximation(self, *batch: Tensor) -> "Pair":
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
            normal = guide.laplace_approximation(*batch)
        found = Pair(self.model, None, *self.modules_used)
        found._functions["guide"] = normal
        found.modules_used.append(normal)
        return found

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copied or unpickled pair can not run plain functions: they would compute with the original's networks."""
        super().__setstate__(state)
        if len(self.modules_used) and any(map(_is_plain_function, self._functions.values())):
            self._functions = {"model": _refuse_to_run_a_copy, "guide": _refuse_to_run_a_copy}

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


def arguments(program: Program, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """The tensors of the batch by the model's argument names."""
    written = program._functions["model"] if isinstance(program, Pair) else program.model
    named = inspect.signature(written).parameters.values()
    return dict(zip([each.name for each in named if each.kind is not each.VAR_POSITIONAL], batch, strict=False))


def _is_plain_function(function: Callable[..., Any]) -> bool:
    return inspect.isfunction(inspect.unwrap(function)) and function is not _draws_nothing


def _refuse_to_run_a_copy(*batch: Tensor) -> None:
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


def _draws_nothing(*batch: Tensor) -> None:
    """The guide of a model without latent sites: its ELBO is the exact log-likelihood."""


def _owners(function: Callable[..., Any]) -> list[nn.Module]:
    """The modules that a function is, is a method of, is bound to or refers to, also through Pyro's handlers."""
    inner = inspect.unwrap(function)
    bound = inner.args if isinstance(inner, partial) else ()
    candidates = [inner, getattr(inner, "__self__", None), *bound]
    if inspect.isfunction(inner):
        seen = inspect.getclosurevars(inner)
        candidates += [*seen.nonlocals.values(), *seen.globals.values()]
    return [candidate for candidate in candidates if isinstance(candidate, nn.Module)]


def _distinct(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return list({id(module): module for module in modules}.values())


def parameters(program: object) -> list[nn.Parameter]:
    """The trainable parameters of a program; empty where it is not a module."""
    if not isinstance(program, nn.Module):
        return []
    return [parameter for parameter in program.parameters() if parameter.requires_grad]


@contextmanager
def evaluating(program: object) -> Iterator[None]:
    """A block in which the program's modules are in eval mode; each has its own mode again afterwards."""
    modules = list(program.modules()) if isinstance(program, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextmanager
def buffers_kept(module: object) -> Iterator[None]:
    """A block in which a module may run in its own mode; running statistics and the like are afterwards as before."""
    buffers = list(module.buffers()) if isinstance(module, nn.Module) else []
    before = [buffer.detach().clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, kept in zip(buffers, before, strict=True):
                buffer.copy_(kept)
