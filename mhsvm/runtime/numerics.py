"""How exactly, and how reproducibly, torch computes: switches of the process, set for a while."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def numerics(*, tf32: bool, deterministic: bool) -> Iterator[None]:
    """Compute in this way until the block ends; convolutions by trial, see `convolutions_by_trial`.

    Args:
        tf32: Let a GPU round the factors of float32 products to 10 bits of mantissa, in matrix products and
            convolutions; about 1e-3 of relative error for up to eight times the speed of these.
        deterministic: Only algorithms that give the same bits in every run on one device; an operation that has none
            raises a RuntimeError.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    # torch adds the attribute to this module when it is imported
    filling: Any = torch.utils.deterministic
    before = matmul.allow_tf32, cudnn.allow_tf32, filling.fill_uninitialized_memory
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    if deterministic:
        # cuBLAS asks for it, by the environment only
        os.environ.setdefault(_CUBLAS_WORKSPACE, ":4096:8")
        torch.use_deterministic_algorithms(True)
        # filling every new tensor helps to find errors, not to repeat a run
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
    """Let cuDNN time its algorithms on the first tensors of each shape, and take the quickest.

    It may choose otherwise in the next process, and two runs then differ by rounding: not where only deterministic
    algorithms are allowed.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        cudnn.benchmark = before
