"""The one dispatch of all operations: which backend's implementation computes a call.

An operation is an `Operation` with a plain reference; backends register their implementations with it. The table of
backends is in `mhsvm.ops.backends`. A new operation is one file with its `Operation` and one with its kernels; a new
backend is one call of `register_backend`, and one of `Operation.register` for each operation that it computes.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mhsvm.nearest import did_you_mean
from mhsvm.ops.backends import PORTABLE, Backend, all_backends, find_backend

logger = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "MHSVM_BACKEND"

_left_to_compiler = ContextVar("_left_to_compiler", default=False)
_all_portable = ContextVar("_all_portable", default=False)


@dataclass(frozen=True)
class Implementation:
    """How a backend computes an operation.

    All callables take the operation's own arguments without `backend`, the first by position.

    Attributes:
        backend: Name of a row in the table of backends.
        run: Computes the operation.
        unsupported_reason: Why it cannot take these arguments, or None if it can; by default it takes all.
        worthwhile: Whether it is faster than the rows after it; if not, "auto" continues with these. A backend that is
            requested by name runs in any case. By default it is.
        traceable: Whether `run` is an operator of torch's compiler, or can be traced by it. If not, the reference
            replaces it under torch.compile, which fuses torch's operations itself.
    """

    backend: str
    run: Callable[..., Any]
    unsupported_reason: Callable[..., str | None] | None = None
    worthwhile: Callable[..., bool] | None = None
    traceable: bool = True

    def reason_against(self, *args: Any, **kwargs: Any) -> str | None:
        """Why it cannot compute such a call on this machine, or None if it can."""
        reason = _row(self.backend).unavailable_reason()
        if reason is None and self.unsupported_reason is not None:
            reason = self.unsupported_reason(*args, **kwargs)
        return reason


class Operation:
    """An operation: its reference and the implementations of other backends.

    Args:
        name: Unique name, for messages.
        reference: The operation by torch's operations, which take any input. Its first argument is a tensor or a
            sequence of tensors.
    Raises:
        ValueError: The name is taken.
    """

    def __init__(self, name: str, reference: Callable[..., Any]) -> None:
        if name in _OPERATIONS:
            raise ValueError(
                f"an operation has a name of its own: {name!r} is that of "
                f"{_full_name(_OPERATIONS[name].reference.run)}, so {_full_name(reference)} needs another"
            )
        self.name = name
        self.reference: Implementation = Implementation("reference", reference)
        self._implementations: dict[str, Implementation] = {}
        _OPERATIONS[name] = self

    def register(self, backend: str, run: Callable[..., Any], **attributes: Any) -> None:
        """Add a backend's implementation.

        Args:
            backend: Name of a row in the table of backends.
            run: Computes the operation, with the signature of the reference.
            attributes: Further attributes of `Implementation`.
        Raises:
            ValueError: The backend is unknown, or has an implementation of this operation.
        """
        if find_backend(backend) is None:
            raise ValueError(f"{self.name}: {_unknown(backend)}; add it by register_backend first")
        known = self.implementation(backend)
        if known is not None:
            raise ValueError(
                f"{self.name}: backend {backend!r} has the implementation {_full_name(known.run)}, and "
                f"{_full_name(run)} needs another backend"
            )
        self._implementations[backend] = Implementation(backend, run, **attributes)

    def implementation(self, backend: str) -> Implementation | None:
        """A backend's implementation, or None if it has none."""
        return self.reference if backend == "reference" else self._implementations.get(backend)

    def implementations(self) -> tuple[Implementation, ...]:
        """All implementations, the fastest first and the reference last."""
        found = (self._implementations.get(row.name) for row in all_backends())
        return (*(x for x in found if x is not None), self.reference)

    def __call__(self, backend: str, *args: Any, **kwargs: Any) -> Any:
        """Compute the operation on `choose(backend, …)`."""
        return self.choose(backend, *args, **kwargs).run(*args, **kwargs)

    def choose(self, backend: str, *args: Any, **kwargs: Any) -> Implementation:
        """The implementation that computes a call.

        Args:
            backend: A name from the table of backends: that backend's implementation, or the reference if it has none
                of this operation. "auto": the name in the environment variable MHSVM_BACKEND if it is set, else the
                first implementation that can run here, takes these arguments and is worthwhile, else the reference.
                While torch.export records, "auto" is "portable".
            args, kwargs: The operation's arguments.
        Raises:
            ValueError: The name is unknown, or that backend has an implementation that cannot run here or on these
                arguments.
        """
        name = requested_name(backend)
        if _is_all_portable() or (name == "auto" and is_exporting()):
            return self._implementations.get(PORTABLE, self.reference)
        if name == "auto":
            return self._choose_automatically(args, kwargs)
        implementation = self._implementations.get(name)
        if implementation is None:
            check_backend(backend)
            return self.reference
        if _is_left_to_compiler(implementation):
            return self.reference
        reason = implementation.reason_against(*args, **kwargs)
        if reason is not None:
            others = [x.backend for x in self.implementations() if x.reason_against(*args, **kwargs) is None]
            raise ValueError(
                f"{_source(backend)}: {name!r} cannot run {self.name}: {reason}; use one of: auto, {', '.join(others)}"
            )
        return implementation

    def _choose_automatically(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Implementation:
        chosen = self.reference
        compiling = torch.compiler.is_compiling()
        left_to_compiler = compiling or _left_to_compiler.get()
        for row in all_backends():
            x = self._implementations.get(row.name)
            if x is None or not row.automatic or (left_to_compiler and not x.traceable):
                continue
            if x.unsupported_reason is not None and x.unsupported_reason(*args, **kwargs) is not None:
                continue
            if x.worthwhile is not None and not x.worthwhile(*args, **kwargs):
                continue
            if row.unavailable_reason() is None:
                chosen = x
                break
            # A logger's call would split a compiled graph.
            if not compiling:
                _warn_of_missing(row, _device_type(args, kwargs))
        if not compiling:
            _report(self.name, chosen.backend, _device_type(args, kwargs))
        return chosen


_OPERATIONS: dict[str, Operation] = {}


def all_operations() -> tuple[Operation, ...]:
    """All operations whose files have been imported."""
    return tuple(_OPERATIONS.values())


def requested_name(backend: str) -> str:
    """The argument `backend` itself; for "auto" the name in the environment variable MHSVM_BACKEND, if there is one."""
    return (os.environ.get(ENVIRONMENT_VARIABLE) or "auto") if backend == "auto" else backend


def check_backend(backend: str) -> None:
    """Raise ValueError if the argument `backend`, or for "auto" the environment, names no backend."""
    name = requested_name(backend)
    if name != "auto" and find_backend(name) is None:
        raise ValueError(f"{_source(backend)}: {_unknown(name)}")


@contextmanager
def left_to_compiler() -> Iterator[None]:
    """Choose as under torch.compile: where an implementation is not traceable, the reference."""
    token = _left_to_compiler.set(True)
    try:
        yield
    finally:
        _left_to_compiler.reset(token)


@contextmanager
def portable_operations() -> Iterator[None]:
    """In the block, every operation is "portable", also where its caller names a backend."""
    token = _all_portable.set(True)
    try:
        yield
    finally:
        _all_portable.reset(token)


def is_exporting() -> bool:
    """Whether operations are recorded for another runtime: in `portable_operations`, or by torch.export."""
    # Not torch.compiler.is_exporting(), which is true in torch.compile, too, with torch 2.11; torch 2.6 has neither.
    return _is_all_portable() or getattr(torch.compiler, "_is_exporting_flag", False)


def _is_all_portable() -> bool:
    # The compiler of torch 2.11 cannot trace `get`, and torch.export without `strict` does not trace Python.
    return not torch.compiler.is_dynamo_compiling() and _all_portable.get()


def _is_left_to_compiler(implementation: Implementation) -> bool:
    return not implementation.traceable and (torch.compiler.is_compiling() or _left_to_compiler.get())


# Messages that have been logged: (backend, device type) and (operation, backend, device type).
_reported: set[tuple[str, ...]] = set()


def _report(operation: str, backend: str, device_type: str) -> None:
    """Log a choice of "auto" the first time."""
    if (operation, backend, device_type) in _reported:
        return
    _reported.add((operation, backend, device_type))
    logger.debug("%s on %s: backend 'auto' chose %r", operation, device_type, backend)
    if backend != "reference" and (backend, device_type) not in _reported:
        _reported.add((backend, device_type))
        logger.info("backend 'auto' on %s: chose %r, first for %s", device_type, backend, operation)


def _warn_of_missing(row: Backend, device_type: str) -> None:
    if row.expected_on == device_type and ("missing", row.name, device_type, "") not in _reported:
        _reported.add(("missing", row.name, device_type, ""))
        logger.warning(
            "backend 'auto' on %s: the fast backend %r cannot run: %s", device_type, row.name, row.unavailable_reason()
        )


def _device_type(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    x = args[0] if args else next(iter(kwargs.values()))
    return (x if isinstance(x, Tensor) else x[0]).device.type


def _row(name: str) -> Backend:
    row = find_backend(name)
    assert row is not None
    return row


def _source(backend: str) -> str:
    return f"environment variable {ENVIRONMENT_VARIABLE}" if backend == "auto" else "backend"


def _unknown(name: str) -> str:
    known = ["auto", *(row.name for row in all_backends())]
    return f"unknown name {name!r}; known are: {', '.join(known)}{did_you_mean(name, known)}"


def _full_name(function: Callable[..., Any]) -> str:
    function = getattr(function, "func", function)
    return f"{function.__module__}.{getattr(function, '__qualname__', function)}"
