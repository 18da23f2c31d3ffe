"""CUDA graphs: work on tensors of fixed shapes, recorded once and launched as a whole."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mhsvm.ops.compiling.ahead import compile_ahead
from mhsvm.runtime.numerics import convolutions_by_trial
from mhsvm.system import num_cores

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE as PoolHandle

# Calls before a capture: libraries make their workspaces, and kernels are compiled and chosen.
WARM_UP_CALLS = 3


def warm_up(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """Call a function as a capture will: on another stream than the default one."""
    device = inputs[0].device
    current, side = torch.cuda.current_stream(device), _side_stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        output = function(*inputs)
    current.wait_stream(side)
    return output


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    # always the same one: freed memory can be used again only on the stream that it was first used on
    return torch.cuda.Stream(device)


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Under autocast, casts of weights belong into a graph: those kept from before it are freed with their context."""
    enabled = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


class CapturedCall:
    """A function of tensors as a CUDA graph; to be called with tensors of the same shapes and types.

    The function has run before, under `warm_up`. It asks nothing of the device (`.item()`, copies from the CPU), and
    reads and writes other tensors where they lay when it was captured. Random numbers are new in every call, those of
    the device's generator, as they would be without a graph.

    Args:
        function: What to capture; it is not run.
        inputs: Its arguments, on a CUDA device.
        pool: Memory that graphs share which never run at the same time, from `torch.cuda.graph_pool_handle()`.
    """

    def __init__(self, function: Callable[..., Tensor], inputs: Sequence[Tensor], *, pool: "PoolHandle") -> None:
        self._inputs = [torch.empty_like(x).copy_(x) for x in inputs]
        self._graph = torch.cuda.CUDAGraph()
        # other threads may allocate page-locked memory meanwhile: that of the loader
        capture = torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local")
        with torch.cuda.device(inputs[0].device), capture:
            self._output = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run; the result is overwritten by the next call."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._output


class GraphedModel(nn.Module):
    """Inference of a network as a CUDA graph: one launch a batch instead of hundreds.

    The graph is captured at the first call and reads the weights where they lie then: changing them in place, as an
    optimiser and `load_state_dict` do, is seen; replacing or moving them is not. Any number of images is taken: they
    are run in batches of the shape, the last one filled up. A call puts the network into evaluation mode; no gradient
    is kept. On a CPU, which has no graphs, the network itself is called.

    Args:
        model: Takes images (b, c, h, w), returns one tensor with an entry an image.
        shape: (b, c, h, w) of a batch.
        pool: Memory of graphs that never run at the same time, such as those of a training; by default its own.
    Raises:
        ValueError: The shape is not one of a batch; in a call: images of another size, or none.
    """

    def __init__(self, model: nn.Module, shape: Sequence[int], *, pool: "PoolHandle | None" = None) -> None:
        super().__init__()
        if len(shape) != 4 or min(shape) < 1:
            raise ValueError(f"the shape of a graph's batch is (b, c, h, w), each at least 1; received {tuple(shape)}")
        self.model = model.eval()
        self.shape = tuple(shape)
        self._pool = pool
        self._call: CapturedCall | None = None

    def train(self, mode: bool = True) -> "GraphedModel":
        """It stays in evaluation mode, whatever is asked for."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Images (n, c, h, w), n at least 1 -> what the network returns for them, the caller's own."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape[1:] or len(images) == 0:
            raise ValueError(
                f"this graph takes images (n, {', '.join(map(str, self.shape[1:]))}), n at least 1; received "
                f"{tuple(images.shape)}. Make another GraphedModel for another size"
            )
        self.model.eval()
        if not images.is_cuda:
            return self.model(images)
        if self._call is None:
            self._call = self._capture(images)
        parts = [self._run(self._call, part) for part in images.split(self.shape[0])]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _capture(self, images: Tensor) -> CapturedCall:
        # what a first caller in inference mode would leave could not be written to outside of it
        with torch.inference_mode(False), torch.no_grad(), _without_autocast_cache(), convolutions_by_trial():
            batch = images.new_zeros(self.shape)
            call = functools.partial(warm_up, self.model, [batch])
            compile_ahead(call, self.model, device=batch.device, num_processes=num_cores())
            for _ in range(WARM_UP_CALLS):
                call()
            return CapturedCall(self.model, [batch], pool=self._pool or torch.cuda.graph_pool_handle())

    def _run(self, call: CapturedCall, part: Tensor) -> Tensor:
        missing = self.shape[0] - len(part)
        filled = torch.cat([part, part.new_zeros(missing, *self.shape[1:])]) if missing else part
        return call(filled)[: len(part)].clone()
