"""`python -m benchmarks scan|model|train`: check against the reference, then time; `crowded` compares threads.

The library is imported after parsing, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.crowded import bench_crowded, crowded_rows
from mhsvm.cli.console import ConsoleHandler, logging_to
from mhsvm.cli.options import positive
from mhsvm.cli.parser import CommandParser
from mhsvm.table import format_table
from mhsvm.text_file import write_json

if TYPE_CHECKING:
    from mhsvm.ops.verify import ScanShape

TYPES = ("float32", "bfloat16", "float16")


def main(argv: Sequence[str] | None = None) -> int:
    """Time scans, networks on every available backend, or training; wrong candidates are not timed."""
    arguments = _parse(argv)
    with logging_to(ConsoleHandler()):
        report = _run(arguments)
    print(_headline(report))
    print(_TABLES[arguments.what](report))
    # the reason is the same for every shape
    for name, reason in {row["backend"]: row["reason"] for row in report.get("skipped", ())}.items():
        print(f"left out: {name}: {reason}")
    for row in report.get("wrong", ()):
        print(f"not timed: {row['reason']}")
    if arguments.json is not None:
        write_json(arguments.json, report, indent=1, allow_nan=True)
        print(f"written: {arguments.json}")
    return 1 if report.get("wrong") else 0


def _run(arguments: argparse.Namespace) -> dict:
    import torch

    from benchmarks.engine import bench_engine
    from benchmarks.model import bench_model
    from benchmarks.scan import bench_scan
    from benchmarks.train import bench_train
    from mhsvm.assemble import build_device
    from mhsvm.system import describe_device, read_versions

    if arguments.what == "crowded":
        times = {} if arguments.seconds is None else {"seconds": arguments.seconds}
        report = bench_crowded(threads=arguments.threads, rounds=arguments.rounds, baseline=arguments.baseline, **times)
        return report | {"device": describe_device(torch.device("cpu")), "versions": read_versions()}
    if arguments.what == "engine":
        report = bench_engine(rounds=arguments.rounds, baseline=arguments.baseline)
        return report | {"device": describe_device(torch.device("cpu")), "versions": read_versions()}
    common = {"device": build_device(arguments.device), "dtype": getattr(torch, arguments.dtype)}
    if arguments.seconds is not None:
        common["seconds"] = arguments.seconds
    if arguments.what == "scan":
        return bench_scan(shapes=arguments.shapes, backends=arguments.backends, captured=arguments.captured, **common)
    common |= {"models": arguments.models, "batch": arguments.batch}
    if arguments.what == "model":
        return bench_model(size=arguments.size, backends=arguments.backends, **common)
    return bench_train(mode=arguments.step, size=arguments.size, num_images=arguments.images, **common)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        prog="python -m benchmarks",
        description=main.__doc__,
        examples=("scan --backends cpu chunked", "train --models mhs_vm --batch 8 --json train.json"),
    )
    what = parser.add_subparsers(dest="what", required=True, metavar="scan|model|train|crowded|engine")
    scan = what.add_parser("scan", help="the selective scan alone", prog=f"{parser.prog} scan")
    scan.add_argument(
        "--shapes",
        nargs="+",
        type=_shape,
        metavar="b,d,l,g",
        help="samples, channels, steps, groups; default: those of the networks",
    )
    scan.add_argument("--captured", action="store_true", help="time each call as a CUDA graph; needs a GPU")
    model = what.add_parser("model", help="a training step and inference of the networks", prog=f"{parser.prog} model")
    model.add_argument("--models", nargs="+", metavar="NAME", help="default: all")
    model.add_argument("--batch", type=positive, metavar="N", help="images at a time; default: 32 on a GPU, else 1")
    model.add_argument("--size", type=positive, metavar="PIXELS", help="side; default: 256 on a GPU, else 128")
    train = what.add_parser(
        "train", help="training as it is done: a step, inference, epochs", prog=f"{parser.prog} train"
    )
    train.add_argument("--models", nargs="+", metavar="NAME", help="default: all")
    train.add_argument("--batch", type=positive, metavar="N", help="images of a step; default: the recipe's")
    train.add_argument("--size", type=positive, default=256, metavar="PIXELS", help="side; default: 256")
    train.add_argument("--images", type=positive, metavar="N", help="of an epoch; default: 1250 on a GPU, else 100")
    train.add_argument("--step", metavar="MODE", default="auto", help="as the setting train.step; default: auto")
    crowded = what.add_parser(
        "crowded", help="the CPU path alone and beside a busy process", prog=f"{parser.prog} crowded"
    )
    crowded.add_argument("--threads", type=positive, default=2, metavar="N", help="compared with one; default: 2")
    crowded.add_argument("--rounds", type=positive, default=7, metavar="N", help="of each measurement; default: 7")
    crowded.add_argument("--baseline", type=Path, metavar="FOLDER", help="another checkout to measure in the same run")
    engine = what.add_parser("engine", help="the C engine: CPU time of one image", prog=f"{parser.prog} engine")
    engine.add_argument("--rounds", type=positive, default=30, metavar="N", help="of each measurement; default: 30")
    engine.add_argument("--baseline", type=Path, metavar="FOLDER", help="another checkout to measure in the same run")
    for command in (scan, model):
        command.add_argument("--backends", nargs="+", metavar="NAME", help="default: all that can run, not reference")
    for command in (scan, model, train):
        command.add_argument("--device", default="auto", help="auto (the GPU if there is one), cpu, cuda, cuda:1, …")
        command.add_argument("--dtype", choices=TYPES, default="float32", help="default: float32")
    for command in (scan, model, train, crowded):
        command.add_argument("--seconds", type=float, metavar="S", help="to time each candidate for, about")
    for command in (scan, model, train, crowded, engine):
        command.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    return parser.parse_args(argv)


def _shape(text: str) -> ScanShape:
    from mhsvm.ops.verify import ScanShape

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
    ]
    if report["benchmark"] == "crowded":
        lines.append(f"UltraLight VM-UNet, 256 x 256 pixels, medians of {report['rounds']}")
        return "\n".join(lines) + "\n"
    if report["benchmark"] == "engine":
        lines.append(f"UltraLight VM-UNet, one image of 256 x 256 on one thread, medians of {report['rounds']}")
        return "\n".join(lines) + "\n"
    lines.append(f"{report['dtype']}; checked {report['check']}")
    if report["benchmark"] == "scan":
        calls = "CUDA graphs" if report["captured"] else "eager"
        lines.append(f"calls: {calls}; a copy moves {_rate(report['copy_bytes_per_s'])}")
    elif report["benchmark"] == "train":
        lines.append(f"{report['size']} x {report['size']} pixels; steps: {report['mode']}")
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


def _train_table(report: dict) -> str:
    header = ("network", "phase", "batch", "median", "quartiles", "images/s")
    rows = []
    for row in report["results"]:
        scaled = "of_linear" in row
        show = _memory if "bytes" in row else "{:.2f} of linear".format if scaled else _seconds
        quartiles = _times(row)[1] if "quartiles_s" in row else ""
        rate = f"{row['images_per_s']:.1f}" if "images_per_s" in row else ""
        found = show(row["bytes"] if "bytes" in row else row["of_linear"] if scaled else row["median_s"])
        rows.append((row["model"], row["phase"], str(row["batch"]), found, quartiles, rate))
    return format_table(header, rows, right=("batch", *header[3:]))


def _crowded_table(report: dict) -> str:
    several = f"{report['threads']} threads"
    header = ("checkout", "images/s of", "1 thread", several, "beside busy", "speedup", "beside/alone", "to baseline")
    return format_table(header, crowded_rows(report), right=header[2:])


def _engine_table(report: dict) -> str:
    from benchmarks.engine import engine_rows

    header = ("candidate", "error of probability", "CPU time", "to the last")
    return format_table(header, engine_rows(report), right=header[1:])


_TABLES = {
    "crowded": _crowded_table,
    "engine": _engine_table,
    "scan": _scan_table,
    "model": _model_table,
    "train": _train_table,
}


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds * 1e3:.4g} ms"


def _times(row: dict) -> tuple[str, str]:
    lower, upper = (f"{seconds * 1e3:.4g}" for seconds in row["quartiles_s"])
    return f"{row['median_s'] * 1e3:.4g} ms", f"{lower}-{upper}"


def _rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e9:.4g} GB/s"


def _memory(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 2**20:,.0f} MiB"
