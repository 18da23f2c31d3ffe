"""Checks of this machine: versions, devices, and each backend against the reference, as tables."""

import os
import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor

from mhsvm.ops import route_scan
from mhsvm.ops.backends import all_backends
from mhsvm.ops.dispatch import ENVIRONMENT_VARIABLE
from mhsvm.ops.routes.route_scan import ROUTE_SCAN
from mhsvm.ops.scan.selective_scan import SELECTIVE_SCAN, sequence_scan
from mhsvm.ops.verify import (
    LIMITS,
    Expected,
    ScanShape,
    expected_route_scan,
    expected_scan,
    make_route_scan_inputs,
    make_scan_inputs,
    worst,
)
from mhsvm.system import describe_device, list_devices, read_versions
from mhsvm.table import format_table

WIDTH, NAME_WIDTH = 100, 14
TYPES = (torch.float32, torch.bfloat16)
# An odd length, several groups and every option: about a second per backend.
SHAPE = ScanShape(2, 48, 301, 4)


def check_machine() -> int:
    """Print versions, devices and backends, and check each backend; returns the exit status."""
    # the first GPU represents all GPUs
    devices = list_devices()[:2]
    print("versions")
    for name, version in read_versions().items():
        print(_entry(name, version or "not found"))
    print("\ndevices")
    for device in list_devices():
        print(_entry(str(device), _device_line(device)))
    print("\nbackends of the scans, the fastest first")
    for backend in all_backends():
        reason = backend.unavailable_reason()
        able = "ok" if backend.origin is None or reason is not None else f"ok: {backend.origin()}"
        print(_entry(backend.name, able if reason is None else f"cannot run: {reason}"))
    choices_hold = _print_choices(devices)
    print(f"\nchecks against reference in float64, (b, d, l, g) = ({SHAPE}): relative errors of whole tensors")
    rows = [row for device in devices for dtype in TYPES for row in _check_all(device, dtype)]
    header = ("device", "type", "backend", "operation", "output", "worst gradient", "limit", "result")
    print(format_table(header, rows, right=("output", "worst gradient", "limit")))
    failures = [row for row in rows if row[-1] != "ok"]
    return 0 if choices_hold and not failures else 1


def _entry(name: str, text: str) -> str:
    lines = textwrap.wrap(text, WIDTH - NAME_WIDTH - 4)
    names = [name, *[""] * (len(lines) - 1)]
    return format_table((), [("", *cells) for cells in zip(names, lines, strict=True)], min_widths=(0, NAME_WIDTH))


def _device_line(device: torch.device) -> str:
    facts = describe_device(device)
    memory = f"{int(facts['memory_bytes']) / 2**30:.0f} GiB"
    if device.type == "cuda":
        return f"{facts['model']}, {memory}, compute capability {facts['capability']}"
    return f"{facts['model']}, {facts['processors']} processors, {facts['threads']} threads of torch, {memory}"


def _print_choices(devices: Sequence[torch.device]) -> bool:
    """Print the choice of "auto" on each device; False if the environment names a backend that cannot run."""
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        print(_entry(ENVIRONMENT_VARIABLE, named))
    for device in devices:
        try:
            inputs = make_scan_inputs(ScanShape(1, 1, 1, 1), dtype=torch.float32, device=device)
            chosen = SELECTIVE_SCAN.choose("auto", **inputs).backend
        except ValueError as error:
            print(_entry("auto", f"on {device}: {error}"))
            return False
        print(_entry("auto", f"on {device}: {chosen}"))
    return True


def _check_all(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, ...]]:
    inputs = make_scan_inputs(SHAPE, dtype=dtype, device=device, gate=True)
    route_inputs, routes = make_route_scan_inputs(dtype=dtype, device=device)
    operations = (
        ("scan", SELECTIVE_SCAN, _scan_with_softplus, inputs, expected_scan(inputs)),
        (
            "route scan",
            ROUTE_SCAN,
            partial(route_scan, order=routes["order"], inverse=routes["inverse"]),
            route_inputs,
            expected_route_scan(route_inputs, routes),
        ),
    )
    for backend in all_backends():
        for name, operation, scan, arguments, expected in operations:
            implementation = operation.implementation(backend.name)
            u, others = arguments["u"], {key: value for key, value in arguments.items() if key != "u"}
            if implementation is None or implementation.reason_against(u, **others) is not None:
                continue
            result = _check(partial(scan, backend=backend.name), arguments, expected, limit=LIMITS[dtype])
            yield str(device), str(dtype).removeprefix("torch."), backend.name, name, *result


def _scan_with_softplus(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    *,
    backend: str,
) -> Tensor:
    y = sequence_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus=True, backend=backend)
    assert isinstance(y, Tensor), "the last state is not requested"
    return y


def _check(
    scan: Callable[..., Tensor], inputs: dict[str, Tensor], expected: Expected, *, limit: float
) -> tuple[str, ...]:
    """Errors of output and gradients, the limit and the verdict, as cells of a table."""
    # any error of a backend is a result of this check; the thread's future returns it without ending the command
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(expected.errors_of, scan, inputs)
    error = future.exception()
    if error is not None:
        return "-", "-", f"{limit:.0e}", f"FAILED: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    errors = future.result()
    name, largest = worst(errors)
    gradients = {key: value for key, value in errors.items() if key != "y"}
    verdict = "ok" if largest <= limit else f"WRONG: {name}"
    return f"{errors['y']:.1e}", f"{worst(gradients)[1]:.1e}", f"{limit:.0e}", verdict
