"""A traced graph of CUDA tensors, captured once as a CUDA graph and replayed by a single launch."""

import warnings

import torch
from torch import Tensor
from torch.fx import GraphModule

_Memory = tuple[tuple[object, ...], ...]


class Replayed:
    """Runs a graph: the first time as it is, then on CUDA tensors as a CUDA graph, whose kernels start without Python.

    The noise is that of the graph itself, by the default generator. Weights and buffers are read where they lie; a
    tensor that has moved, or one in the host's memory that has changed, makes the capture anew. Where a graph can not
    be captured it is run as it is, with a warning.
    """

    def __init__(self, graph: GraphModule) -> None:
        self._graph = graph
        self._attributes = [
            value
            for node in graph.graph.nodes
            if node.op == "get_attr" and isinstance(value := getattr(graph, str(node.target)), Tensor)
        ]
        self._warm = False
        self._capture: _Capture | None = None
        self._refused = False

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        on_cuda = bool(tensors) and all(tensor.is_cuda for tensor in tensors)
        if self._refused or not self._warm or not on_cuda:
            self._warm = True  # libraries make their workspaces in a first run, which no capture may
            return self._run(*tensors)
        memory = self._memory()
        if self._capture is None or self._capture.memory != memory:
            try:
                self._capture = _Capture(self._graph, tensors, memory)
            except RuntimeError as error:
                self._refused, self._capture = True, None
                warnings.warn(f"the step is traced, but can not be captured as a CUDA graph: {error}", stacklevel=3)
                return self._run(*tensors)
        return self._capture(*tensors)

    def _run(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self._graph(*tensors)
        return found

    def _memory(self) -> _Memory:
        """Where the graph's tensors lie; of those in the host's memory, whose values a capture holds, also their version."""
        return tuple((each.data_ptr(), None if each.is_cuda else each._version) for each in self._attributes)


class _Capture:
    """A graph's kernels, with the memory that they read and write."""

    def __init__(self, graph: GraphModule, tensors: tuple[Tensor, ...], memory: _Memory) -> None:
        self.memory = memory
        self._inputs = [tensor.clone() for tensor in tensors]
        self._kernels = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._kernels, capture_error_mode="thread_local"):
            self._outputs: tuple[Tensor, ...] = graph(*self._inputs)

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The outputs, of which all but the first are overwritten by the next call."""
        torch._foreach_copy_(self._inputs, list(tensors))
        self._kernels.replay()
        first, *others = self._outputs
        return first.clone(), *others
