"""Precision and reproducibility: torch's global switches, set for the duration of a block."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def numerics(*, tf32: bool, deterministic: bool) -> Iterator[None]:
    """Set torch's switches for the block, with `convolutions_by_trial`.

    Args:
        tf32: Allow TF32 in matrix products and convolutions: a GPU rounds the factors of float32 products to 10
            mantissa bits. The relative error is about 1e-3, and these operations are up to eight times as fast.
        deterministic: Use algorithms with bitwise equal results in every run on one device. An operation without such
            an algorithm raises a RuntimeError.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # torch adds the attribute to this module when it is imported
    filling: Any = torch.utils.deterministic
    before = matmul.allow_tf32, cudnn.allow_tf32, filling.fill_uninitialized_memory
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    if deterministic:
        # required by cuBLAS, which reads it from the environment only
        os.environ.setdefault(_CUBLAS_WORKSPACE, ":4096:8")
        torch.use_deterministic_algorithms(True)
        # filling new tensors finds errors, but is not needed for equal runs
        filling.fill_uninitialized_memory = False
    try:
        with convolutions_by_trial():
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, filling.fill_uninitialized_memory = before
        if deterministic:
            torch.use_deterministic_algorithms(was_deterministic)


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
