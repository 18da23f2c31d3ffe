"""How exactly, and how reproducibly, torch computes: switches of the process, set for a while."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def numerics(*, tf32: bool, deterministic: bool) -> Iterator[None]:
    """Compute in this way until the block ends.

    Args:
        tf32: Let a GPU round the factors of float32 products to 10 bits of mantissa, in matrix products and
            convolutions; about 1e-3 of relative error for up to eight times the speed of these.
        deterministic: Only algorithms that give the same bits in every run on one device; an operation that has none
            raises a RuntimeError.
    """
    matmul, cudnn, filling = torch.backends.cuda.matmul, torch.backends.cudnn, torch.utils.deterministic
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
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, filling.fill_uninitialized_memory = before
        if deterministic:
            torch.use_deterministic_algorithms(was_deterministic)
