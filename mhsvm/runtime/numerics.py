"""Precision and reproducibility: torch's global switches, set for the duration of a block."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch

_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
# torch 2.9 has switches by operation, which inherit: of all operations on a device, and of all devices.
_HAS_INHERITED_SWITCHES = hasattr(torch.backends, "fp32_precision")

Value = TypeVar("Value")


@contextmanager
def numerics(*, tf32: bool, deterministic: bool) -> Iterator[None]:
    """Set torch's switches for the block, with `convolutions_by_trial`.

    Args:
        tf32: Allow TF32 in matrix products and convolutions: a GPU rounds the factors of float32 products to 10
            mantissa bits. The relative error is about 1e-3, and these operations are up to eight times as fast.
        deterministic: Use algorithms with bitwise equal results in every run on one device. An operation without such
            an algorithm raises a RuntimeError.
    """
    # torch adds the attribute to this module when it is imported
    filling: Any = torch.utils.deterministic
    mode, was_filling = torch.get_deterministic_debug_mode(), filling.fill_uninitialized_memory
    if deterministic:
        # required by cuBLAS, which reads it from the environment only
        os.environ.setdefault(_CUBLAS_WORKSPACE, ":4096:8")
        torch.use_deterministic_algorithms(True)
        # filling new tensors finds errors, but is not needed for equal runs
        filling.fill_uninitialized_memory = False
    try:
        # restored in the reverse order: the switch of all operations before that of matrix products, which inherits it
        with _tf32_in_products(tf32), _tf32_in_convolutions(tf32), convolutions_by_trial():
            yield
    finally:
        filling.fill_uninitialized_memory = was_filling
        if deterministic:
            torch.set_deterministic_debug_mode(mode)


@contextmanager
def _tf32_in_products(allowed: bool) -> Iterator[None]:
    matmul, mkldnn = torch.backends.cuda.matmul, cast(Any, torch.backends.mkldnn)
    # "medium" is more than TF32
    precision = _read(torch.get_float32_matmul_precision) or "highest"
    switches = [matmul, mkldnn.matmul] if _HAS_INHERITED_SWITCHES else []
    values = [switch.fp32_precision for switch in switches]
    # the older switch sets the newer one too; torch's compiler may read either
    matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        _restore(switches, values)


@contextmanager
def _tf32_in_convolutions(allowed: bool) -> Iterator[None]:
    before = _read(lambda: torch.backends.cudnn.allow_tf32)
    with _convolutions_by_newer_switch(allowed) if before is None else _convolutions_by_older_switch(allowed, before):
        yield


@contextmanager
def _convolutions_by_older_switch(allowed: bool, before: bool) -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    switches = [cudnn.conv, cudnn.rnn] if _HAS_INHERITED_SWITCHES else []
    values = [switch.fp32_precision for switch in switches]
    cudnn.allow_tf32 = allowed
    for switch in switches:
        # off, the older switch would let the newer ones inherit
        switch.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        cudnn.allow_tf32 = before
        _restore(switches, values)


@contextmanager
def _convolutions_by_newer_switch(allowed: bool) -> Iterator[None]:
    cudnn: Any = torch.backends.cudnn
    chosen, inherited = "tf32" if allowed else "ieee", cudnn.fp32_precision
    cudnn.fp32_precision = chosen
    # those that have values of their own do not inherit this one
    own = [(switch, switch.fp32_precision) for switch in (cudnn.conv, cudnn.rnn) if switch.fp32_precision != chosen]
    for switch, _ in own:
        switch.fp32_precision = chosen
    try:
        yield
    finally:
        for switch, value in own:
            switch.fp32_precision = value
        _restore([cudnn], [inherited])


def _read(read: Callable[[], Value]) -> Value | None:
    """The value of an older switch, or None: torch refuses to read it where a newer one says otherwise."""
    try:
        return read()
    except RuntimeError:
        return None


def _restore(switches: Sequence[Any], values: Sequence[str]) -> None:
    for switch, value in zip(switches, values, strict=True):
        # a switch reads as the value that it inherits; it goes on inheriting if that is its former value
        switch.fp32_precision = "none"
        if switch.fp32_precision != value:
            switch.fp32_precision = value


@contextmanager
def convolutions_by_trial() -> Iterator[None]:
    """Let cuDNN time its algorithms for each new shape and use the fastest one.

    The choice can differ between processes, and then two runs differ by rounding. It is off if only deterministic
    algorithms are allowed.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        cudnn.benchmark = before
