"""Communication of processes that train one network together, started by torchrun.

Every process generates the same order and the same augmentation parameters, and takes its shard of each batch. Losses
and gradients are weighted by the size of the whole batch and summed, so a step equals that of one process with the
whole batch. All processes take decisions at the same place, and only the first one writes.
"""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")

# Environment variables that torchrun, or another launcher, sets.
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class LostProcess(RuntimeError):
    """Another process of this training has ended; its own output has the reason."""


@dataclass(frozen=True)
class World:
    """The processes of a training. The default is a single process, for which every method is free.

    All processes have to call a method at the same place. Every method can raise `LostProcess`.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        local_rank: Number of this process on its machine.
        restarts: Number of times that torchrun has restarted the processes after a failure.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def shard(self, rows: Tensor) -> Tensor:
        """Select the shard of rows (n,) of this process: n / size, rounded up or down, possibly empty."""
        return rows.tensor_split(self.size)[self.rank]

    @torch.no_grad()
    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors of one type and device over all processes, in place and with a single message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _report_lost_process():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view_as(x) for part, x in zip(parts, tensors, strict=True)])

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        count = torch.tensor(int(flag))
        with _report_lost_process():
            dist.all_reduce(count)
        return bool(count)

    def gather(self, value: object) -> list:
        """Collect the values of all processes, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        with _report_lost_process():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, function: Callable[[], Result]) -> Result:
        """Call a function in the first process only, and send its result to all.

        Raises:
            ValueError, OSError: Raised by the function in the first process; the others exit silently.
        """
        if self.size == 1:
            return function()
        result: list = [None]
        with self.together():
            if self.is_first:
                result = [function()]
        with _report_lost_process():
            dist.broadcast_object_list(result)
        return result[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """End all processes if a ValueError or OSError is raised in any of them.

        The first process with an error raises it, and the others exit silently. The block itself must not communicate.
        """
        error: ValueError | OSError | None = None
        try:
            yield
        except (ValueError, OSError) as caught:
            error = caught
        failed = [rank for rank, has_failed in enumerate(self.gather(error is not None)) if has_failed]
        if error is not None and failed[0] == self.rank:
            raise error
        if failed:
            # torchrun ends all processes when one exits: wait, so that the process with the error exits first
            with suppress(LostProcess):
                self.gather(None)
            raise SystemExit(2)


ALONE = World()


@contextmanager
def open_world() -> Iterator[World]:
    """Connect to the other processes that torchrun has started; without torchrun, yield a single process.

    Release captured steps inside the block: they have NCCL operations, and NCCL waits for them when it ends.
    """
    if any(name not in os.environ for name in _VARIABLES):
        yield ALONE
        return
    local_rank, restarts = int(os.environ["LOCAL_RANK"]), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    store, rank, size = next(dist.rendezvous("env://"))
    # after a restart, torchrun's store still has the addresses of the processes that ended
    store = dist.PrefixStore(f"start{restarts}", store)
    on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    # CPU tensors, such as flags, do not synchronize with a GPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", store=store, rank=rank, world_size=size)
    yield World(rank, size, local_rank, restarts)
    # captured steps in a reference cycle would block the end of NCCL forever
    gc.collect()
    # skipped after an error: other processes may have ended, and this call would wait for them
    dist.destroy_process_group()


@contextmanager
def _report_lost_process() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcess("another process of this training has ended: its own output has the reason") from error
