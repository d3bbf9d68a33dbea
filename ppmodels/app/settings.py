"""Settings: the keyword parameters of a function that can be written as text, by name and type."""

import difflib
import inspect
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

REQUIRED = object()
"""In place of the default of a setting that has none."""
_PLAIN = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}
_PLAIN_NUMBER = re.compile(r"[-+.0-9A-Za-z]+")
"""Numbers as most programs write them; Python takes 1_000 and digits of other alphabets, too."""
_WRITTEN = {"true": True, "false": False}


class AtLeast(NamedTuple):
    """The smallest value of a setting, in its annotation."""

    value: int


Count = Annotated[int, AtLeast(1)]
"""A whole number of at least 1: how many layers, latents, units there are. A sequence of them is `Sequence[Count]`."""


@dataclass(frozen=True)
class Setting:
    """A parameter by its name, what it can be, and its default."""

    name: str
    kind: object
    """int, float, bool, str, `Sequence` (of int), or the tuple of texts among which to choose."""
    optional: bool
    """Whether it can be None."""
    default: object
    least: int | None = None
    """The smallest whole number that it or one of its sequence can be, where there is one."""

    @property
    def expected(self) -> str:
        """What it can be, in words."""
        if isinstance(self.kind, tuple):
            what = " or ".join(self.kind)
        elif self.kind is Sequence:
            what = "whole numbers, such as 32,64"
        else:
            what = _PLAIN[self.kind]  # type: ignore[index]  # one of the four
        if self.least is not None:
            what += f", {'each ' if self.kind is Sequence else ''}at least {self.least}"
        return f"{what} or none" if self.optional else what

    def parsed(self, text: str) -> object:
        """The value that a text stands for: "5", "0.5", "true", "tanh", "none", "32,64" (nothing is an empty sequence).

        Raises ValueError, naming the setting, for a text that is none.
        """
        try:
            return self.checked(self._read(text))
        except ValueError:
            raise self._refused(repr(text)) from None

    def checked(self, value: object) -> object:
        """The value, if it is of the setting's kind: a list as a tuple, a whole number as a float where one is expected.

        Raises ValueError, naming the setting, if it is not.
        """
        if value is None and self.optional:
            return None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # math.isfinite overflows on a whole number above the largest float.
        if self.kind is float and number and abs(value) <= sys.float_info.max:  # type: ignore[arg-type]  # a number
            return float(value)  # type: ignore[arg-type]
        if self.kind is Sequence and isinstance(value, list | tuple) and all(map(self._is_whole, value)):
            return tuple(value)
        if self.kind in (bool, str) and type(value) is self.kind:
            return value
        if self.kind is int and self._is_whole(value):
            return value
        if isinstance(self.kind, tuple) and value in self.kind:
            return value
        raise self._refused(repr(value))

    def holds(self, value: object) -> bool:
        """Whether the value is of the setting's kind."""
        try:
            self.checked(value)
        except ValueError:
            return False
        return True

    def _read(self, text: str) -> object:
        if self.optional and text == "none":
            return None
        if self.kind is Sequence:
            numbers = [each.strip() for each in text.split(",") if each.strip()]
            if not all(map(_PLAIN_NUMBER.fullmatch, numbers)):
                raise self._refused(repr(text))
            return [int(each) for each in numbers]
        if self.kind is bool:
            return _WRITTEN.get(text, text)
        if self.kind in (int, float) and not _PLAIN_NUMBER.fullmatch(text):
            raise self._refused(repr(text))
        return self.kind(text) if self.kind in (int, float) else text  # type: ignore[operator]  # int or float

    def _is_whole(self, value: object) -> bool:
        within = type(value) is int and abs(value) < 2**63  # what a size can be
        return within and (self.least is None or value >= self.least)  # type: ignore[operator]  # a number

    def _refused(self, got: str) -> ValueError:
        return ValueError(f"{self.name}: expected {self.expected}, got {got}")


def settings_of(function: Callable[..., Any]) -> dict[str, Setting]:
    """The keyword parameters of a function after its first, by name: those whose annotation or default is a setting's."""
    found = {}
    for parameter in _parameters(function):
        described = _described(parameter)
        if described is not None:
            default = REQUIRED if parameter.default is parameter.empty else parameter.default
            kind, optional, least = described
            found[parameter.name] = Setting(parameter.name, kind, optional, default, least)
    return found


def accepted(function: Callable[..., Any], values: Mapping[str, object]) -> dict[str, object]:
    """Of the values, those that are parameters of the function.

    Raises ValueError for a parameter without a default for which there is no value.
    """
    parameters = _parameters(function)
    missing = [each.name for each in parameters if each.default is each.empty and each.name not in values]
    if missing:
        raise ValueError(f"{missing[0]}: it has no default, and no value was given. Give it: --set {missing[0]}=…")
    return {each.name: values[each.name] for each in parameters if each.name in values}


def parsed(known: Mapping[str, Setting], texts: Sequence[str]) -> dict[str, object]:
    """Values by name from texts `name=value`. Raises ValueError for a text of another form, name or type."""
    values: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: expected name=value, such as --set latent=8")
        if name not in known:
            raise unknown(name, known)
        if name in values:
            raise ValueError(f"--set {name} is given twice; give it once")
        values[name] = known[name].parsed(value)
    return values


def unknown(name: str, known: Mapping[str, Setting]) -> ValueError:
    """The error of a name that is no setting: those that come close, and all."""
    close = difflib.get_close_matches(name, known, n=1)
    suggestion = f" Did you mean {close[0]}?" if close else ""
    return ValueError(f"{name!r} is no setting of this recipe.{suggestion} Its settings: {', '.join(sorted(known))}.")


def written(value: object) -> str:
    """A value as `--set` takes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, AttributeError, TypeError):  # an annotation that only a type checker can read
        signature = inspect.signature(function)
    except ValueError:  # written in C
        return []
    keywords = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each for each in list(signature.parameters.values())[1:] if each.kind in keywords]


def _described(parameter: inspect.Parameter) -> tuple[object, bool, int | None] | None:
    """What a parameter can be, whether it can be None, and its least; None for one that is no setting, as a function is."""
    if parameter.annotation is not parameter.empty and not isinstance(parameter.annotation, str):
        members, optional = _members(parameter.annotation)
        found = [(kind, _least(member)) for member in members if (kind := _kind(member)) is not None]
        return (found[0][0], optional, found[0][1]) if found else None
    default = parameter.default
    kind = _kind(tuple[int, ...]) if isinstance(default, tuple | list) else _kind(type(default))
    return None if kind is None else (kind, False, None)


def _members(annotation: object) -> tuple[list[object], bool]:
    """The types of a union without None, and whether None is one of them."""
    union = get_origin(annotation) in (Union, types.UnionType)
    members = list(get_args(annotation)) if union else [annotation]
    return [member for member in members if member is not type(None)], type(None) in members


def _least(annotation: object) -> int | None:
    """The smallest value that an annotation, or that of what is in a sequence, allows."""
    if get_origin(annotation) is Annotated:
        return next((each.value for each in get_args(annotation)[1:] if isinstance(each, AtLeast)), None)
    return next(filter(None, map(_least, get_args(annotation))), None)


def _bare(annotation: object) -> object:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _kind(annotation: object) -> object:
    annotation = _bare(annotation)
    if isinstance(annotation, type) and annotation in _PLAIN:
        return annotation
    origin, arguments = get_origin(annotation), tuple(map(_bare, get_args(annotation)))
    if origin is Literal and all(isinstance(choice, str) for choice in arguments):
        return arguments
    if origin in (Sequence, list, tuple) and arguments in ((int,), (int, ...)):
        return Sequence
    return None
