"""The selective scan of every backend in one run: checked against the reference, then timed.

Letters are those of `mhsvm.ops`.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial

import torch
from torch import Tensor

from benchmarks.backends import choose_candidates
from mhsvm.ops.dispatch import Implementation
from mhsvm.ops.scan.selective_scan import sequence_scan
from mhsvm.ops.verify import LIMITS, Expected, ScanShape, expected_scan, make_scan_inputs, worst
from mhsvm.runtime.timing import Candidate, capture, copy_rate, peak_bytes, time_interleaved
from mhsvm.system import describe_device, read_versions

log = logging.getLogger(__name__)

SCHEMA = 1

# Stages of MHS-VM with four heads at batch 32, the first of VM-UNet, and a Mamba block of UltraLight VM-UNet.
GPU_SHAPES = (
    ScanShape(32, 384, 4096, 16),
    ScanShape(32, 768, 1024, 16),
    ScanShape(32, 1536, 256, 16),
    ScanShape(32, 3072, 64, 16),
    ScanShape(32, 768, 4096, 4),
    ScanShape(32, 12, 1024, 1),
)
# The first and last of them for one image, and that Mamba block for a small batch.
CPU_SHAPES = (ScanShape(1, 384, 4096, 16), ScanShape(1, 3072, 64, 16), ScanShape(8, 12, 1024, 1))

# Backends that read the steps of a sequence fastest where they are contiguous; all others, the channels of a step.
_STEPS_LAST = ("mamba_ssm",)

PHASES = ("forward", "forward+backward")


def bench_scan(
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    shapes: Sequence[ScanShape] | None = None,
    backends: Sequence[str] | None = None,
    captured: bool = False,
    seconds: float = 0.5,
) -> dict:
    """Check the backends on each shape, then time them in one run.

    Args:
        device: Where to scan.
        dtype: Type of u, delta, B and C; the state is float32 in any case.
        shapes: By default those of the networks, at batch 32 on a GPU and at sizes that take seconds on a CPU.
        backends: Names to compare; by default all that "auto" may choose and that take such inputs.
        captured: Time each call as a CUDA graph, as in a captured network: without the time of Python and of the
            launches, for every backend alike.
        seconds: How long to time each backend in each phase, about.
    Returns:
        A report of plain types, as `python -m benchmarks scan --json` writes it.
    Raises:
        ValueError: A backend is unknown, cannot run here or is wrong: its largest error is named. `captured` is
            asked for on a CPU.
    """
    if captured and device.type != "cuda":
        raise ValueError(f"calls are captured as CUDA graphs, which need a GPU; the device is {device}")
    shapes = shapes or (GPU_SHAPES if device.type == "cuda" else CPU_SHAPES)
    report = {
        "schema": SCHEMA,
        "benchmark": "scan",
        "versions": read_versions(),
        "device": describe_device(device),
        "dtype": str(dtype).removeprefix("torch."),
        "captured": captured,
        "check": "against reference in float64, on the first and last sample of each shape",
        "copy_bytes_per_s": copy_rate(device, seconds=seconds),
        "results": [],
        "skipped": [],
    }
    for shape in shapes:
        log.info("scan of (b, d, l, g) = (%s)", shape)
        inputs = make_scan_inputs(shape, dtype=dtype, device=device)
        candidates, skipped = choose_candidates(backends, inputs)
        report["skipped"] += [{"shape": asdict(shape), "backend": name, "reason": why} for name, why in skipped.items()]
        expected = expected_scan(inputs)
        errors = {scan.backend: _check(scan, shape, inputs, expected) for scan in candidates}
        for row in _time(candidates, inputs, device=device, captured=captured, seconds=seconds):
            rate = useful_bytes(shape, dtype, row["phase"]) / row["median_s"]
            report["results"].append(
                {
                    "shape": asdict(shape),
                    **row,
                    "useful_bytes": useful_bytes(shape, dtype, row["phase"]),
                    "bytes_per_s": rate,
                    "share_of_copy_rate": rate / report["copy_bytes_per_s"],
                    "errors": errors[row["backend"]],
                }
            )
    return report


def useful_bytes(shape: ScanShape, dtype: torch.dtype, phase: str) -> int:
    """Bytes that have to be moved.

    Forward reads u, delta, B, C and writes y. Backward reads them and the gradient of y, and writes four gradients.
    Parameters, common to all samples, are too small to count.
    """
    sequence, projection = shape.b * shape.d * shape.l, shape.b * shape.g * shape.n * shape.l
    inputs, output = 2 * sequence + 2 * projection, sequence
    numbers = inputs + output if phase == "forward" else 3 * inputs + 2 * output
    return numbers * dtype.itemsize


def _check(
    scan: Implementation, shape: ScanShape, inputs: Mapping[str, Tensor], expected: Expected
) -> dict[str, float]:
    errors = expected.errors_of(_run_of(scan), _lay_out(inputs, scan))
    (name, error), limit = worst(errors), LIMITS[inputs["u"].dtype]
    # not the other way round: NaN is no pass
    if not error <= limit:
        raise ValueError(
            f"backend {scan.backend!r} is wrong and not timed: on (b, d, l, g) = ({shape}) its {name} is off by "
            f"{error:.1e} of its norm against the reference; the limit is {limit:.0e}"
        )
    return errors


def _time(
    scans: Sequence[Implementation],
    inputs: Mapping[str, Tensor],
    *,
    device: torch.device,
    captured: bool,
    seconds: float,
) -> list[dict]:
    rows = []
    for phase, make in zip(PHASES, (_forward, _forward_and_backward), strict=True):
        copies = {scan.backend: _copies(inputs, scan, device) for scan in scans}
        candidates = {scan.backend: make(scan, copies[scan.backend]) for scan in scans}
        timed = candidates
        if captured:
            timed = {name: capture(run, num=len(copies[name]), device=device) for name, run in candidates.items()}
        for name, timing in time_interleaved(timed, device=device, seconds=seconds).items():
            peak = peak_bytes(candidates[name], device)
            rows.append({"backend": name, "phase": phase, **timing.to_dict(), "peak_bytes": peak})
    return rows


def _forward(scan: Implementation, copies: Sequence[dict[str, Tensor]]) -> Candidate:
    run_scan = _run_of(scan)

    def run(i: int) -> Tensor:
        with torch.no_grad():
            return run_scan(**copies[i % len(copies)])

    return run


def _forward_and_backward(scan: Implementation, copies: Sequence[dict[str, Tensor]]) -> Candidate:
    run_scan = _run_of(scan)
    leaves = [{name: x.requires_grad_() for name, x in inputs.items()} for inputs in copies]
    # in the memory order of u, as the next layer would give it
    grad_y = [torch.ones_like(inputs["u"]) for inputs in copies]

    def run(i: int) -> tuple[Tensor, ...]:
        inputs = leaves[i % len(leaves)]
        return torch.autograd.grad(run_scan(**inputs), tuple(inputs.values()), grad_y[i % len(leaves)])

    return run


def _run_of(scan: Implementation) -> Callable[..., Tensor]:
    return partial(sequence_scan, delta_softplus=True, backend=scan.backend)


def _copies(inputs: Mapping[str, Tensor], scan: Implementation, device: torch.device) -> list[dict[str, Tensor]]:
    """The inputs laid out for a backend, several times where a GPU's cache would hold them from call to call."""
    num = 1
    if device.type == "cuda":
        size = sum(x.numel() * x.element_size() for x in inputs.values())
        num = math.ceil(2 * torch.cuda.get_device_properties(device).L2_cache_size / size)
    return [_lay_out(inputs, scan) for _ in range(num)]


def _lay_out(inputs: Mapping[str, Tensor], scan: Implementation) -> dict[str, Tensor]:
    """Copies of the inputs in the memory order that the backend reads fastest."""
    if scan.backend not in _STEPS_LAST:
        return {name: x.clone() for name, x in inputs.items()}
    return {
        name: x.movedim(1, -1).contiguous().movedim(-1, 1) if x.dim() > 2 else x.clone() for name, x in inputs.items()
    }
