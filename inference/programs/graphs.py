"""A function of tensors traced once, so that its operations can be run again without Python."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from inference.programs.program import ProgramError


def graph_of(function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]) -> GraphModule:
    """The operations that a function performs on inputs of these shapes, gradients included.

    What Python decides in that one run is fixed: loops, branches, floats, the training mode.

    Raises:
        ProgramError: the function reads values (`.item()`, `if tensor:`), which no graph can follow.
    """
    # Fake tensors draw no noise and train no running average while the function is being traced.
    # It counts the arguments of a function, those of a method wrongly.
    tracer = make_fx(lambda *tensors: function(*tensors), tracing_mode="fake", _allow_non_fake_inputs=True)
    try:
        with pyro.validation_enabled(False), _unlogged():  # validation reads values
            return _without_failures(tracer(*inputs))
    except RuntimeError as error:
        raise ProgramError(
            f"the program cannot be traced ({type(error).__name__}): it reads values while it runs. Use the default, "
            "Step(..., differentiate=backward)."
        ) from error


@contextmanager
def _unlogged() -> Iterator[None]:
    """A block in which torch does not print the errors of its fake tensors: they are caught, or raised all the same."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _without_failures(graph: GraphModule) -> GraphModule:
    """The graph without operations that raised an error, which was caught: a first attempt to run all particles at once."""
    for node in reversed(graph.graph.nodes):
        if (
            isinstance(node.target, OpOverload)
            and node.target._schema.returns
            and "val" not in node.meta
            and not node.users
        ):
            graph.graph.erase_node(node)
    graph.recompile()
    return graph


def hoisted(graph: GraphModule) -> GraphModule:
    """The graph with all that does not depend on its inputs computed once, here.

    A graph that writes into tensors is left as it is: what was computed once would be written over.
    """
    if any(_writes(node) for node in graph.graph.nodes):
        return graph
    found: dict[Node, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            found[node] = _attribute(graph, str(node.target))
        elif node.op == "call_function" and _known(node, found) and not _draws(node):
            args, kwargs = map_arg((node.args, node.kwargs), found.__getitem__)
            found[node] = node.target(*args, **kwargs)
    for place, (node, value) in enumerate(found.items()):
        needed = any(user not in found for user in node.users)
        if node.op == "call_function" and needed and isinstance(value, Tensor):
            name = f"_computed_once_{place}"
            graph.register_buffer(name, value)
            with graph.graph.inserting_before(node):
                node.replace_all_uses_with(graph.graph.get_attr(name))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def part_of(graph: GraphModule, outputs: slice) -> GraphModule:
    """The graph of some of its outputs alone, without the operations that only the others take."""
    part = Graph()
    found = part.graph_copy(graph.graph, {})
    assert isinstance(found, tuple)
    part.output(found[outputs])
    part.eliminate_dead_code()
    return GraphModule(graph, part)


def _known(node: Node, found: dict[Node, Any]) -> bool:
    return all(each in found for each in node.all_input_nodes)


def _writes(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _draws(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags


def _attribute(graph: GraphModule, path: str) -> Any:
    found: Any = graph
    for name in path.split("."):
        found = getattr(found, name)
    return found
