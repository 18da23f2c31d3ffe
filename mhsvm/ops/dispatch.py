"""The table of selective-scan backends, and how one is chosen.

A new backend is one file with a `selective_scan` and one row here.
"""

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mhsvm.ops import availability as triton_availability
from mhsvm.ops.routes import route_attention_autograd as triton_attention
from mhsvm.ops.routes import route_statistics_cpu as cpu_statistics
from mhsvm.ops.scan import chunked, mamba_ssm, reference
from mhsvm.ops.scan.cpu import scan as cpu
from mhsvm.ops.scan.triton import autograd as triton_scan

logger = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "MHSVM_BACKEND"


def _always_available() -> str | None:
    return None


def _any_input(u: Tensor, A: Tensor) -> str | None:
    return None


@dataclass(frozen=True)
class Backend:
    """One implementation of the selective scan.

    Attributes:
        name: What users write for `backend`.
        selective_scan: The implementation, with the signature of `reference.selective_scan`.
        route_scan: Its scan along the routes of a map, with the signature of `mhsvm.ops.route_scan` without
            `backend`; None composes it of re-ordering and `selective_scan`.
        route_statistics: Its `mhsvm.ops.route_statistics` without `backend`; None composes it of torch's operations.
        route_attention: Its Scan Route Attention for fused gates, with the signature of
            `composed_route_attention` without `statistics`; None composes it of statistics,
            gate and product.
        unavailable_reason: Why it cannot run on this machine, or None if it can.
        unsupported_reason: Why it cannot take these inputs (u, A), or None if it can.
        automatic: Whether "auto" may choose it.
        channels_last: Whether it reads (b, d, l) tensors faster if a step's channels lie side by side in memory.
        whole_steps: Whether its route_scan is faster where it is given the step size itself, without `dt_weight`.
        expected_on: Device type where it should run on every machine: there "auto" warns if it cannot.
    """

    name: str
    selective_scan: Callable[..., Tensor | tuple[Tensor, Tensor]]
    route_scan: Callable[..., Tensor] | None = None
    route_statistics: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    route_attention: Callable[..., Tensor] | None = None
    unavailable_reason: Callable[[], str | None] = _always_available
    unsupported_reason: Callable[[Tensor, Tensor], str | None] = _any_input
    automatic: bool = True
    channels_last: bool = False
    whole_steps: bool = False
    expected_on: str | None = None

    def reason_against(self, u: Tensor, A: Tensor) -> str | None:
        """Why it cannot scan these inputs on this machine, or None if it can."""
        return self.unavailable_reason() or self.unsupported_reason(u, A)


# The fastest first: "auto" takes the first row that can run.
_BACKENDS = (
    Backend(
        "triton",
        triton_scan.selective_scan,
        triton_scan.route_scan,
        route_attention=triton_attention.route_attention,
        unavailable_reason=triton_availability.unavailable_reason,
        unsupported_reason=triton_availability.unsupported_reason,
        channels_last=True,
        whole_steps=True,
        expected_on="cuda",
    ),
    Backend(
        "mamba_ssm",
        mamba_ssm.selective_scan,
        unavailable_reason=mamba_ssm.unavailable_reason,
        unsupported_reason=mamba_ssm.unsupported_reason,
    ),
    Backend(
        "cpu",
        cpu.selective_scan,
        cpu.route_scan,
        route_statistics=cpu_statistics.route_statistics,
        unavailable_reason=cpu.unavailable_reason,
        unsupported_reason=cpu.unsupported_reason,
        channels_last=True,
        expected_on="cpu",
    ),
    Backend("chunked", chunked.selective_scan),
    Backend("reference", reference.selective_scan, automatic=False),
)


def all_backends() -> tuple[Backend, ...]:
    """The whole table, with what cannot run on this machine, the fastest first."""
    return _BACKENDS


def list_backends() -> tuple[str, ...]:
    """Names of all backends that can run on this machine, the fastest first."""
    return tuple(backend.name for backend in _BACKENDS if backend.unavailable_reason() is None)


def requested_name(name: str) -> str:
    """The argument `backend` itself; for "auto" what the environment variable MHSVM_BACKEND names, if anything."""
    return (os.environ.get(ENVIRONMENT_VARIABLE) or "auto") if name == "auto" else name


def choose_backend(name: str, u: Tensor, A: Tensor) -> Backend:
    """The backend that shall scan these inputs.

    Args:
        name: A backend's name; or "auto": the one named by the environment variable MHSVM_BACKEND if it
            is set, else the fastest that takes these inputs here.
        u, A: The scan's arguments, for their device, type and size.
    Raises:
        ValueError: The name is unknown, or that backend cannot run here or on these inputs.
    """
    source = f"environment variable {ENVIRONMENT_VARIABLE}" if name == "auto" else "backend"
    name = requested_name(name)
    if name == "auto":
        return _choose_automatically(u, A)
    for backend in _BACKENDS:
        if backend.name == name:
            reason = backend.reason_against(u, A)
            if reason is not None:
                usable = ", ".join(row.name for row in _BACKENDS if row.reason_against(u, A) is None)
                raise ValueError(f"{source}: {name!r} cannot run: {reason}; use one of: auto, {usable}")
            return backend
    known = ", ".join(backend.name for backend in _BACKENDS)
    raise ValueError(f"{source}: unknown name {name!r}; known are: auto, {known}")


def _choose_automatically(u: Tensor, A: Tensor) -> Backend:
    backend = next(row for row in _BACKENDS if row.automatic and row.reason_against(u, A) is None)
    # A logger's call would break a compiled graph in two.
    if not torch.compiler.is_compiling():
        _log_choice(backend.name, u.device.type)
        _warn_of_missing(u.device.type)
    return backend


@functools.cache
def _log_choice(name: str, device_type: str) -> None:
    logger.info("selective scan on %s: backend 'auto' chose %r", device_type, name)


@functools.cache
def _warn_of_missing(device_type: str) -> None:
    for row in _BACKENDS:
        reason = row.unavailable_reason() if row.expected_on == device_type else None
        if reason is not None:
            logger.warning("selective scan on %s: the fast backend %r cannot run: %s", device_type, row.name, reason)
