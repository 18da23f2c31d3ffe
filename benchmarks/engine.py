"""The C engine with and without AVX2 against the networks of this checkout and an older one: CPU time of one image."""

import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch

from mhsvm.models import create_model, ultralight_native
from mhsvm.models.ultralight_weights import pack_weights
from mhsvm.native import library
from mhsvm.native.binary import SOURCE, has_avx2
from mhsvm.native.network import NativeNetwork
from mhsvm.text_file import read_text

WEIGHTS, SIZE, LIMIT = "isic2017-wu-sorted", 256, 2e-5
_CHILD = Path(__file__).with_name("engine_child.py")


def bench_engine(*, rounds: int = 30, baseline: Path | None = None) -> dict:
    """Check the engine against float64, then time one image of 256 x 256 pixels on one thread, in turns.

    Args:
        rounds: Measurements of each; the median counts.
        baseline: Another checkout, whose backend `cpu` is measured in the same run.
    Returns:
        "results", rows with candidate, error (of the probability; None where it is not checked) and cpu_s.
    Raises:
        ValueError: There is no compiler, or the engine is wrong.
    """
    compiler = library.find_compiler()
    if compiler is None:
        raise ValueError(f"the benchmark compiles the engine: {library.missing_compiler()}")
    model = create_model("ultralight_vm_unet", pretrained=WEIGHTS).eval()
    image = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3)).astype(np.float32)
    runs: dict[str, Callable[[], float]] = {}
    errors: dict[str, float] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, flags in {"engine": (), **({"engine, AVX2": library.AVX2_FLAGS} if has_avx2() else {})}.items():
            path = folder / f"{len(runs)}.so"
            command = [*shlex.split(compiler), *library.FLAGS, *flags, str(SOURCE), "-o", str(path)]
            subprocess.run(command, check=True)
            engine = library.load(path)
            network = NativeNetwork(pack_weights(model), engine=engine, **ultralight_native.network_arguments(model))
            errors[name] = check_probability(network(image), image)
            runs[name] = lambda network=network: _cpu_time(lambda: network(image))
        for backend in ("native", "cpu"):
            child = stack.enter_context(_child(Path(__file__).parents[1], backend))
            runs[f"network, {backend}"] = lambda child=child: _ask(child)
        if baseline is not None:
            older = stack.enter_context(_child(baseline.resolve(), "cpu"))
            runs["baseline, cpu"] = lambda: _ask(older)
        times = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(run())
    rows = [
        {"candidate": name, "error": errors.get(name), "cpu_s": statistics.median(found)}
        for name, found in times.items()
    ]
    return {"benchmark": "engine", "compiler": compiler, "rounds": rounds, "results": rows}


def check_probability(logits: np.ndarray, image: np.ndarray) -> float:
    """The greatest difference of probabilities from float64.

    Raises:
        ValueError: It is above the limit.
    """
    exact = create_model("ultralight_vm_unet", pretrained=WEIGHTS, backend="reference").eval().double()
    with torch.inference_mode():
        expected = exact(torch.from_numpy(image).permute(0, 3, 1, 2).double()).sigmoid()
    error = float((torch.from_numpy(logits).double().sigmoid() - expected).abs().max())
    if not error <= LIMIT:
        raise ValueError(f"the engine is not timed: its probabilities are {error:.1e} from float64, above {LIMIT:g}")
    return error


def engine_rows(report: dict) -> list[tuple[str, ...]]:
    """A row of each candidate: error, CPU time, and its ratio to the last one."""
    last = report["results"][-1]["cpu_s"]
    return [
        (
            row["candidate"],
            "" if row["error"] is None else f"{row['error']:.1e}",
            f"{row['cpu_s'] * 1e3:.2f} ms",
            f"{row['cpu_s'] / last:.2f}",
        )
        for row in report["results"]
    ]


@contextmanager
def _child(tree: Path, backend: str) -> Iterator[subprocess.Popen]:
    own = os.environ | {"PYTHONPATH": str(tree), "MHSVM_BACKEND": backend}
    with subprocess.Popen(
        [sys.executable, "-c", read_text(_CHILD), WEIGHTS, str(SIZE)],
        cwd=tree,
        env=own,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as child:
        assert child.stdout is not None
        if child.stdout.readline() != "ready\n":
            raise ValueError(f"the benchmark's process does not start in {tree}: its error is above")
        try:
            yield child
        finally:
            child.kill()


def _ask(child: subprocess.Popen) -> float:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    return float(child.stdout.readline())


def _cpu_time(call: Callable[[], object], calls: int = 4) -> float:
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls
