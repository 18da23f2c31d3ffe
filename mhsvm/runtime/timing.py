"""Time several candidates in turn, so that a busy machine or a hot chip affects all of them equally."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

# Called with the number of the round, so that a candidate can use other inputs of the same shapes.
Candidate = Callable[[int], object]

_WARM_UP_ROUNDS = 2
_MIN_ROUNDS, _MAX_ROUNDS = 5, 500
_COPY_BYTES = 2**28


@dataclass(frozen=True)
class Timing:
    """Seconds that each call of a candidate took."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Lower and upper quartile."""
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return lower, upper

    def to_dict(self) -> dict[str, object]:
        return {"median_s": self.median, "quartiles_s": list(self.quartiles), "samples": len(self.seconds)}


def time_interleaved(
    candidates: Mapping[str, Candidate], *, device: torch.device, seconds: float = 0.5
) -> dict[str, Timing]:
    """Time every candidate once per round; each round starts with another candidate.

    On a GPU this is the time between two CUDA events. For a short kernel it includes the wait for the launch.

    Args:
        candidates: Functions by name.
        device: The device that the candidates use.
        seconds: Approximate time to spend on each candidate; there are at least five rounds.
    """
    for i in range(_WARM_UP_ROUNDS):
        _run_all(candidates, i)
    synchronize(device)
    start = time.perf_counter()
    _run_all(candidates, 0)
    synchronize(device)
    round_seconds = time.perf_counter() - start
    rounds = int(seconds * len(candidates) / max(round_seconds, 1e-9))
    rounds = min(max(rounds, _MIN_ROUNDS), _MAX_ROUNDS)
    taken = _measure_cuda(candidates, rounds, device) if device.type == "cuda" else _measure_cpu(candidates, rounds)
    return {name: Timing(tuple(seconds)) for name, seconds in taken.items()}


def capture(candidate: Candidate, *, num: int, device: torch.device) -> Candidate:
    """Capture `num` rounds of a candidate as CUDA graphs; the returned candidate replays them cyclically."""
    rounds, pool, side = [], torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)
    with torch.cuda.device(device):
        for i in range(num):
            # work has to run once before its capture, on a stream other than the default one
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                candidate(i)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                candidate(i)
            rounds.append(graph)
    return lambda i: rounds[i % num].replay()


def copy_rate(device: torch.device, *, seconds: float = 0.5) -> float:
    """Memory bandwidth: bytes that a large copy reads and writes per second."""
    source = torch.zeros(_COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    timing = time_interleaved({"copy": lambda i: target.copy_(source)}, device=device, seconds=seconds)
    return 2 * _COPY_BYTES / timing["copy"].median


def peak_bytes(candidate: Candidate, device: torch.device) -> int | None:
    """Peak memory that one call allocates on a GPU; None on a CPU.

    On a CPU the peak of the process is no measure, because a call can reuse memory that was freed before.
    """
    if device.type != "cuda":
        return None
    synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    candidate(0)
    return torch.cuda.max_memory_allocated(device) - before


def synchronize(device: torch.device) -> None:
    """Wait for the work of a GPU; do nothing on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _run_all(candidates: Mapping[str, Candidate], i: int) -> None:
    for candidate in candidates.values():
        candidate(i)


def _rounds(candidates: Mapping[str, Candidate], rounds: int) -> Iterator[tuple[int, str]]:
    names = itertools.cycle(candidates)
    for i in range(rounds):
        for _ in candidates:
            yield i, next(names)
        # rotate the order, so that a candidate does not always run after the same one and share its caches
        next(names)


def _measure_cpu(candidates: Mapping[str, Candidate], rounds: int) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for i, name in _rounds(candidates, rounds):
        start = time.perf_counter()
        candidates[name](i)
        taken[name].append(time.perf_counter() - start)
    return taken


def _measure_cuda(candidates: Mapping[str, Candidate], rounds: int, device: torch.device) -> dict[str, list[float]]:
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in candidates}
    # events belong to the current device
    with torch.cuda.device(device):
        for i, name in _rounds(candidates, rounds):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            candidates[name](i)
            end.record()
            events[name].append((start, end))
        torch.cuda.synchronize()
    return {name: [start.elapsed_time(end) * 1e-3 for start, end in pairs] for name, pairs in events.items()}
