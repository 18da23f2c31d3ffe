"""The cost of a network, counted and timed, as tables and JSON."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby

import torch
from torch import nn
from yacs.config import CfgNode

from mhsvm.assemble import build_device, build_model, read_config
from mhsvm.complexity import Complexity, Macs, Part, measure_complexity
from mhsvm.runtime.graphs import GraphedModel
from mhsvm.runtime.timing import peak_bytes, time_interleaved
from mhsvm.system import describe_device
from mhsvm.table import format_table
from mhsvm.text_file import write_json


def measure(arguments: argparse.Namespace, settings: Sequence[str]) -> None:
    """Print the tables of a network, and write them where asked for."""
    config, devices = _config(arguments, settings), _devices(arguments.device)
    shape = (arguments.batch, config.model.in_channels, *arguments.size)
    complexity = measure_complexity(
        build_model(config, backend="cpu"), in_channels=shape[1], size=shape[2:], batch=shape[0]
    )
    print(f"{config.model.name}, images of {shape[1]} x {shape[2]} x {shape[3]}\n")
    print(_parts_table(complexity))
    print(f"\n{_totals(complexity)}")
    timings = []
    if not arguments.count_only:
        for device in devices:
            timings += _time(build_model(config), shape, device, seconds=arguments.seconds, counted=complexity)
        print(f"\n{_timing_table(timings, batch=arguments.batch)}")
    if arguments.json is not None:
        report = {"model": config.model.name, "shape": shape, "complexity": asdict(complexity), "timings": timings}
        write_json(arguments.json, report, indent=1, allow_nan=True)
        print(f"written: {arguments.json}")


def _config(arguments: argparse.Namespace, settings: Sequence[str]) -> CfgNode:
    named = [] if arguments.model is None else ["model.name", arguments.model]
    return read_config(arguments.config, [*settings, *named])


def _devices(name: str | None) -> list[torch.device]:
    if name is not None:
        return [build_device(name)]
    return [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]


def _time(
    model: nn.Module, shape: Sequence[int], device: torch.device, *, seconds: float, counted: Complexity
) -> list[dict]:
    """Measure latency and memory of inference on a device; on a GPU also as a CUDA graph."""
    model = model.to(device).eval()
    images = 255 * torch.rand(*shape, device=device)
    networks: dict[str, nn.Module] = {"eager": model}
    if device.type == "cuda":
        networks["CUDA graph"] = GraphedModel(model, shape)

    @torch.inference_mode()
    def infer(network: nn.Module) -> object:
        return network(images)

    candidates = {name: lambda i, network=network: infer(network) for name, network in networks.items()}
    timings = time_interleaved(candidates, device=device, seconds=seconds)
    beyond = peak_bytes(candidates["eager"], device)
    held = sum(held.numel() * held.element_size() for held in (*model.parameters(), *model.buffers(), images))
    return [
        {
            "device": str(device),
            "device_model": describe_device(device)["model"],
            "how": name,
            **timing.to_dict(),
            "images_per_s": shape[0] / timing.median,
            "peak_bytes": counted.tensor_bytes if beyond is None else beyond + held,
        }
        for name, timing in timings.items()
    ]


def _parts_table(complexity: Complexity) -> str:
    header = ("part", "parameters", "layers", "mixers", "scan")
    rows = []
    # one line for a list of layers without multiplications, such as norms
    for name, parts in groupby(complexity.parts, lambda part: part.name if part.macs.total else _list_of(part)):
        group = list(parts)
        rows.append((name, f"{sum(part.parameters for part in group):,}", *_millions(group[-1].macs)))
    rows.append(("all", f"{complexity.parameters:,}", *_millions(complexity.macs)))
    table = format_table(header, rows, right=header[1:])
    return f"{table}\nmillions of multiply-accumulates (MACs) an image"


def _list_of(part: Part) -> str:
    return part.name.partition(".")[0]


def _millions(macs: Macs) -> tuple[str, ...]:
    return tuple(f"{value / 1e6:.2f}" for value in (macs.layers, macs.mixers, macs.scan))


def _totals(complexity: Complexity) -> str:
    macs = complexity.macs
    rows = (
        ("parameters", f"{complexity.parameters:,}"),
        ("MACs as the papers count", f"{macs.layers / 1e9:.3f} G: layers outside of Mamba blocks and route scans"),
        ("MACs without the scan", f"{macs.without_scan / 1e9:.3f} G: with the mixers, the layers inside of them"),
        ("MACs with the scan", f"{macs.total / 1e9:.3f} G: the scan is {macs.scan / macs.total:.1%} of it"),
        ("activations", f"{complexity.activations / 1e6:.2f} M numbers"),
        ("weights file", f"{complexity.file_bytes / 1e3:,.1f} KB"),
        ("tensors held at once", f"{complexity.tensor_bytes / 2**20:,.1f} MiB"),
    )
    return format_table((), rows)


def _timing_table(timings: Sequence[dict], *, batch: int) -> str:
    header = ("device", "inference", "median", "quartiles", "images/s", "peak")
    rows = []
    for row in timings:
        lower, upper = (f"{seconds * 1e3:.4g}" for seconds in row["quartiles_s"])
        rows.append(
            (
                f"{row['device']}, {row['device_model']}",
                row["how"],
                f"{row['median_s'] * 1e3:.4g} ms",
                f"{lower}-{upper}",
                f"{row['images_per_s']:.1f}",
                f"{row['peak_bytes'] / 2**20:,.1f} MiB",
            )
        )
    table = format_table(header, rows, right=header[2:])
    return (
        f"{table}\nbatches of {batch}; peak on a GPU: the largest allocation of torch; on a CPU: tensors held at once"
    )
