"""Functions whose result is a constant for torch.compile."""

from collections.abc import Callable
from typing import TypeVar

_Function = TypeVar("_Function", bound=Callable)


def traced_constant(function: _Function) -> _Function:
    """Let torch.compile call `function` while it traces, and keep the result as a constant.

    Equals `torch.compiler.assume_constant_result` without importing torch's compiler, which takes seconds.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch reads it of any function
    return function
