"""What is saved of a part of a run, and how tensors stand in a file."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Saved(NamedTuple):
    """The state of one part of a run."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]
    """All that is no tensor, as JSON has it."""

    def under(self, name: str) -> dict[str, Tensor]:
        """The tensors below `name/`, by the rest of their names."""
        start = f"{name}/"
        return {each.removeprefix(start): value for each, value in self.tensors.items() if each.startswith(start)}


def under(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by names that begin with `name/`."""
    return {f"{name}/{each}": value for each, value in tensors.items()}


def packed(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors as a file has them, contiguous, real and on the CPU; and the forms of those that are not.

    The order of axes in memory is kept because torch's fused optimizers (2.13) pair a parameter with its state by memory.
    """
    contents, forms = {}, {}
    memory: set[int] = set()
    for name, value in tensors.items():
        real = torch.view_as_real(value.detach()) if value.is_complex() else value.detach()
        order = sorted(range(real.dim()), key=real.stride, reverse=True)
        if real.is_contiguous() or not real.permute(order).is_contiguous():
            order = [*range(real.dim())]
        if value.is_complex() or order != [*range(real.dim())]:
            forms[name] = {"order": order, "complex": value.is_complex()}
        contents[name] = real.permute(order).cpu().contiguous()
        place = contents[name].untyped_storage().data_ptr()
        if place in memory:  # a file can not share the memory of two tensors
            contents[name] = contents[name].clone()
        memory.add(place)
    return contents, forms


def unpacked(contents: Mapping[str, Tensor], forms: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a file, each in its form."""
    return {name: _formed(value, forms[name]) if name in forms else value for name, value in contents.items()}


def _formed(value: Tensor, form: Mapping[str, Any]) -> Tensor:
    order = form["order"]
    value = value.permute(sorted(range(len(order)), key=order.__getitem__))
    return torch.view_as_complex(value) if form["complex"] else value


@torch.no_grad()
def write(value: Tensor, saved: Tensor) -> None:
    """Writes what was saved into a tensor, in place."""
    if 0 not in value.stride() or not value.equal(saved.to(value)):  # an expanded constant can not be written to
        value.copy_(saved)


def described(tensor: Tensor) -> str:
    """A tensor's dtype and shape."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def plain(value: object) -> Any:
    """A setting as JSON has it, so that two can be compared; what has no numbers is known by its kind."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if is_plain(value) else type(value).__name__


def is_plain(value: object) -> bool:
    """Whether JSON has this."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def differences(saved: Any, here: Any, name: str = "") -> Iterator[str]:
    """Where two trees of settings differ, each place in words."""
    if isinstance(saved, dict) and isinstance(here, dict):
        for key in [*here, *(each for each in saved if each not in here)]:
            yield from differences(saved.get(key, _ABSENT), here.get(key, _ABSENT), f"{name} {key}".strip())
    elif isinstance(saved, list) and isinstance(here, list) and len(saved) == len(here):
        for place, pair in enumerate(zip(saved, here, strict=True)):
            yield from differences(*pair, f"{name}[{place}]")
    elif saved != here:
        yield f"{name}: {_shown(saved)} there, {_shown(here)} here"


_ABSENT = object()


def _shown(value: object) -> str:
    return "nothing" if value is _ABSENT else f"{value!r:.80}" if not isinstance(value, str) else f"{value:.80}"
