"""The CPU path alone and beside a busy process, on one thread and on several, in this checkout and in an older one.

Every measured process stays alive and waits for its turn, so that all candidates are measured alternately in one run.
"""

import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mhsvm.openmp import WAITING
from mhsvm.text_file import read_text

WORKLOADS = ("one image", "images", "training")
_CHILD = Path(__file__).with_name("crowded_child.py")
Key = tuple[str, str, int, bool]


def bench_crowded(*, threads: int = 2, rounds: int = 7, seconds: float = 0.7, baseline: Path | None = None) -> dict:
    """Measure prediction and training of UltraLight VM-UNet at 256 x 256 pixels.

    Args:
        threads: Threads of the candidate; one thread is measured too.
        rounds: Measurements of each; the median counts.
        seconds: Length of a measurement.
        baseline: Another checkout to measure in the same run.
    Returns:
        "results", rows with tree ("this", "baseline"), workload, threads, busy, and the median of images per second.
    """
    trees = {"this": Path(__file__).resolve().parents[1]}
    if baseline is not None:
        trees["baseline"] = baseline.resolve()
    counts = sorted({1, threads})
    found: dict[Key, list[float]] = {}
    with ExitStack() as stack:
        children = {
            (tree, count): stack.enter_context(_child(path, count)) for tree, path in trees.items() for count in counts
        }
        neighbor = stack.enter_context(_busy_process())
        for _ in range(rounds):
            for busy in (False, True):
                os.kill(neighbor.pid, signal.SIGCONT if busy else signal.SIGSTOP)
                for workload in WORKLOADS:
                    for (tree, count), child in children.items():
                        found.setdefault((tree, workload, count, busy), []).append(_ask(child, workload, seconds))
    names = ("tree", "workload", "threads", "busy")
    rows = [
        dict(zip(names, key, strict=True)) | {"images_per_s": statistics.median(rates), "all": rates}
        for key, rates in found.items()
    ]
    return {"benchmark": "crowded", "threads": threads, "rounds": rounds, "seconds": seconds, "results": rows}


def crowded_rows(report: dict) -> list[tuple[str, ...]]:
    """A row of each tree and workload: images per second, and the ratios that count."""
    rates = {
        (row["tree"], row["workload"], row["threads"], row["busy"]): row["images_per_s"] for row in report["results"]
    }
    threads, rows = report["threads"], []
    for tree in dict.fromkeys(row["tree"] for row in report["results"]):
        for workload in WORKLOADS:
            one, several, beside = (
                rates[tree, workload, count, busy] for count, busy in ((1, False), (threads, False), (threads, True))
            )
            old = rates.get(("baseline", workload, threads, False), several)
            shown = (f"{rate:.1f}" for rate in (one, several, beside))
            ratios = (f"{ratio:.2f}" for ratio in (several / one, beside / several, several / old))
            rows.append((tree, workload, *shown, *ratios))
    return rows


@contextmanager
def _child(tree: Path, threads: int) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-c", read_text(_CHILD), str(threads)]
    # each checkout chooses for itself how its threads wait, as if it were started alone
    own = {name: value for name, value in os.environ.items() if WAITING.get(name) != value} | {"PYTHONPATH": str(tree)}
    with subprocess.Popen(
        command, cwd=tree, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as child:
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            raise ValueError(f"the benchmark's process does not start in {tree}: its error is above")
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def _busy_process() -> Iterator[subprocess.Popen]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            yield process
        finally:
            process.kill()


def _ask(child: subprocess.Popen, workload: str, seconds: float) -> float:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{workload} {seconds}\n")
    child.stdin.flush()
    return float(child.stdout.readline())
