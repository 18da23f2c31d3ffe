"""`mhsvm bench scan|model`: check the backends against the reference, then time them side by side."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from mhsvm.bench.model import bench_model
from mhsvm.bench.scan import bench_scan
from mhsvm.bench.verify import ScanShape
from mhsvm.build import build_device
from mhsvm.cli.console import ConsoleHandler, logging_to
from mhsvm.cli.options import positive
from mhsvm.cli.table import format_table
from mhsvm.data.atomic import replace_when_complete

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main(argv: Sequence[str] | None = None) -> int:
    """Time the scan, or whole networks, on every backend that can run here; what is wrong is not timed."""
    arguments = _parse(argv)
    device = build_device(arguments.device)
    common = {"device": device, "dtype": TYPES[arguments.dtype], "backends": arguments.backends}
    if arguments.seconds is not None:
        common["seconds"] = arguments.seconds
    with logging_to(ConsoleHandler()):
        if arguments.what == "scan":
            report = bench_scan(shapes=arguments.shapes, **common)
        else:
            report = bench_model(models=arguments.models, batch=arguments.batch, size=arguments.size, **common)
    print(_headline(report))
    print(_scan_table(report) if arguments.what == "scan" else _model_table(report))
    # a backend is left out for the same reason on every shape
    for name, reason in {row["backend"]: row["reason"] for row in report["skipped"]}.items():
        print(f"left out: {name}: {reason}")
    if arguments.json is not None:
        with replace_when_complete(arguments.json) as partial:
            partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(f"written: {arguments.json}")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mhsvm bench", description=main.__doc__, allow_abbrev=False)
    what = parser.add_subparsers(dest="what", required=True, metavar="scan|model")
    scan = what.add_parser("scan", help="the selective scan alone", allow_abbrev=False)
    scan.add_argument(
        "--shapes",
        nargs="+",
        type=_shape,
        metavar="b,d,l,g",
        help="samples, channels, steps, groups; default: those of the networks",
    )
    model = what.add_parser("model", help="a training step and inference of the networks", allow_abbrev=False)
    model.add_argument("--models", nargs="+", metavar="NAME", help="default: all")
    model.add_argument("--batch", type=positive, metavar="N", help="images at a time; default: 32 on a GPU, else 1")
    model.add_argument("--size", type=positive, metavar="PIXELS", help="side; default: 256 on a GPU, else 128")
    for command in (scan, model):
        command.add_argument("--device", default="auto", help="auto (the GPU if there is one), cpu, cuda, cuda:1, …")
        command.add_argument("--backends", nargs="+", metavar="NAME", help="default: all that can run, not reference")
        command.add_argument("--dtype", choices=TYPES, default="float32", help="default: float32")
        command.add_argument("--seconds", type=float, metavar="S", help="to time each backend for, about")
        command.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    return parser.parse_args(argv)


def _shape(text: str) -> ScanShape:
    sizes = text.split(",")
    if len(sizes) != 4 or not all(size.isdecimal() for size in sizes):
        raise argparse.ArgumentTypeError(f"takes four numbers b,d,l,g such as 32,384,4096,16, not {text!r}")
    try:
        return ScanShape(*map(int, sizes))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _headline(report: dict) -> str:
    device, versions = report["device"], report["versions"]
    lines = [
        f"{device['name']}: {device['model']}; torch {versions['torch']}, mhsvm {versions['mhsvm']}",
        f"{report['dtype']}; checked {report['check']}",
    ]
    if report["benchmark"] == "scan":
        lines.append(f"a copy moves {_rate(report['copy_bytes_per_s'])}")
    else:
        lines.append(f"batches of {report['batch']}, {report['size']} x {report['size']} pixels")
    return "\n".join(lines) + "\n"


def _scan_table(report: dict) -> str:
    header = ("b,d,l,g", "backend", "phase", "median", "quartiles", "useful", "rate", "of copy", "peak")
    rows = [
        (
            ",".join(str(row["shape"][key]) for key in "bdlg"),
            row["backend"],
            row["phase"],
            *_times(row),
            f"{row['useful_bytes'] / 1e6:.4g} MB",
            _rate(row["bytes_per_s"]),
            f"{row['share_of_copy_rate']:.1%}",
            _memory(row["peak_bytes"]),
        )
        for row in report["results"]
    ]
    return format_table(header, rows, right=header[3:])


def _model_table(report: dict) -> str:
    header = ("network", "parameters", "backend", "phase", "median", "quartiles", "images/s", "peak")
    rows = [
        (
            row["model"],
            f"{row['parameters']:,}",
            row["backend"],
            row["phase"],
            *_times(row),
            f"{row['images_per_s']:.1f}",
            _memory(row["peak_bytes"]),
        )
        for row in report["results"]
    ]
    return format_table(header, rows, right=("parameters", *header[4:]))


def _times(row: dict) -> tuple[str, str]:
    lower, upper = (f"{seconds * 1e3:.4g}" for seconds in row["quartiles_s"])
    return f"{row['median_s'] * 1e3:.4g} ms", f"{lower}-{upper}"


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e9:.4g} GB/s"


def _memory(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 2**20:,.0f} MiB"
