"""What the kernels of a piece of work have to be compiled for, compiled before it runs, on all cores at once."""

from collections.abc import Callable

import torch
from torch import nn

from mhsvm.ops import triton_support
from mhsvm.ops.dispatch import requested_name


def compile_ahead(run: Callable[[], object], module: nn.Module, *, device: torch.device, num_processes: int) -> None:
    """Compile the Triton kernels that `run` will launch, where they run at all and have not been compiled before.

    `run` is called once, with kernels that write nothing, and on zeros where they would have written. It shall neither
    change weights, gradients or anything else but the buffers of `module`, nor use what it computes. What cannot be
    compiled ahead is compiled where it is launched.

    Args:
        device: What `run` computes on; nothing happens on others than GPUs.
        num_processes: At most so many processes compile.
    """
    if device.type != "cuda" or requested_name("auto") not in ("auto", "triton"):
        return
    if triton_support.interpreted() or triton_support.unavailable_reason() is not None:
        return
    # Triton is imported where it first runs
    from mhsvm.ops.compiling.dry_pass import dry_pass
    from mhsvm.ops.compiling.variants import compile_variants

    variants = dry_pass(run, module, device=device)
    # importing a module of others may do anything
    own = [variant for variant in variants if variant.source.fn.fn.__module__.startswith("mhsvm.")]
    compile_variants(own, num_processes=num_processes)
