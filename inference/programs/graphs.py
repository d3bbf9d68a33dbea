"""A function of tensors traced once, so that its operations can be run again without Python."""

from collections.abc import Callable

import pyro
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from inference.programs.program import ProgramError


def graph_of(function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]) -> GraphModule:
    """The operations that a function performs on inputs of these shapes, gradients included.

    What Python decides in that one run is fixed: loops, branches, floats, the training mode.

    Raises:
        ProgramError: the function reads values (`.item()`, `if tensor:`), which no graph can follow.
    """
    # Fake tensors draw no noise and train no running average while the function is being traced.
    tracer = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)
    try:
        with pyro.validation_enabled(False):  # validation reads values
            return tracer(*inputs)
    except RuntimeError as error:
        raise ProgramError(
            f"the program cannot be traced ({type(error).__name__}): it reads values while it runs. Use the default, "
            "Step(..., differentiate=backward)."
        ) from error
