"""Timing several candidates side by side: interleaved, so that a busy machine or a hot chip meets all alike."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

# Called with the number of the round, by which a candidate may take other inputs of the same sizes.
Candidate = Callable[[int], object]

_WARM_UP_ROUNDS = 2
_MIN_ROUNDS, _MAX_ROUNDS = 5, 500
_COPY_BYTES = 2**28


@dataclass(frozen=True)
class Timing:
    """Seconds of each call of one candidate."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The spread: a quarter of the calls took less than the first, a quarter more than the second."""
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return lower, upper

    def to_dict(self) -> dict[str, object]:
        return {"median_s": self.median, "quartiles_s": list(self.quartiles), "samples": len(self.seconds)}


def time_interleaved(
    candidates: Mapping[str, Candidate], *, device: torch.device, seconds: float = 0.5
) -> dict[str, Timing]:
    """Time every candidate in turn, round after round, each round beginning with another one.

    On a GPU the time between two CUDA events: of a short kernel that includes the wait for its launch.

    Args:
        candidates: What to call, by name.
        device: Where they work.
        seconds: How long to time each candidate, about; at least five rounds are made.
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
    """A candidate's rounds as CUDA graphs: `num` of them, one after another, over and over."""
    rounds, pool, side = [], torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)
    with torch.cuda.device(device):
        for i in range(num):
            # a capture is of work that has run before, on another stream than the default one
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
    """Bytes that a large copy reads and writes in a second: what the memory can do."""
    source = torch.zeros(_COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    timing = time_interleaved({"copy": lambda i: target.copy_(source)}, device=device, seconds=seconds)
    return 2 * _COPY_BYTES / timing["copy"].median


def peak_bytes(candidate: Candidate, device: torch.device) -> int | None:
    """Memory that one call needs at most beyond what is allocated before; None on a CPU.

    There the high-water mark of the process tells little: freed memory stays with it, and a call takes from that.
    """
    if device.type != "cuda":
        return None
    synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    candidate(0)
    return torch.cuda.max_memory_allocated(device) - before


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
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
        # so that no candidate always follows the same one into the caches
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
    # events are of the current device
    with torch.cuda.device(device):
        for i, name in _rounds(candidates, rounds):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            candidates[name](i)
            end.record()
            events[name].append((start, end))
        torch.cuda.synchronize()
    return {name: [start.elapsed_time(end) * 1e-3 for start, end in pairs] for name, pairs in events.items()}
