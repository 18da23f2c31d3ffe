"""Training steps and inference of the networks on every backend, checked, then timed eagerly in one run."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmarks.backends import choose_candidates
from benchmarks.fresh import choose_models
from benchmarks.model_check import CHECK_BATCH, CHECK_SIZE, OUTPUT_LIMITS, autocast, check_network
from mhsvm.losses import create_loss
from mhsvm.models import create_model
from mhsvm.ops.verify import ScanShape, make_scan_inputs, worst
from mhsvm.runtime.numerics import numerics
from mhsvm.runtime.timing import Candidate, peak_bytes, time_interleaved
from mhsvm.system import describe_device, read_versions
from mhsvm.training.optimizers import create_optimizer

log = logging.getLogger(__name__)

SCHEMA = 1
PHASES = ("training step", "inference")


@numerics(tf32=False, deterministic=False)
def bench_model(
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    models: Sequence[str] | None = None,
    backends: Sequence[str] | None = None,
    batch: int | None = None,
    size: int | None = None,
    seconds: float = 1.0,
) -> dict:
    """Check networks with fresh weights on the backends, then time them in one run.

    A training step is forward, BCE + Dice loss, backward and AdamW.

    Args:
        device: Where to run.
        dtype: float32, or bfloat16 for autocast.
        models: Names from `mhsvm.list_models()`; by default all but smp.
        backends: Names to compare; by default all that "auto" may choose and that can run.
        batch: Images at a time; by default 32 on a GPU, 1 on a CPU.
        size: Their side in pixels; by default 256 on a GPU, 128 on a CPU.
        seconds: How long to time each network in each phase, about.
    Returns:
        A report of plain types, as `python -m benchmarks model --json` writes it.
    Raises:
        ValueError: A name is unknown, a type is not offered, a backend cannot run here or is wrong.
    """
    if dtype not in OUTPUT_LIMITS:
        raise ValueError(f"networks are timed in float32 or bfloat16, not in {dtype}")
    on_gpu = device.type == "cuda"
    batch, size = batch or (32 if on_gpu else 1), size or (256 if on_gpu else 128)
    # stand for the scans of the networks, whose states have 16 numbers
    inputs = make_scan_inputs(ScanShape(1, 1, 1, 1, n=16), dtype=dtype, device=device)
    candidates, skipped = choose_candidates(backends, inputs)
    names = [scan.backend for scan in candidates]
    report = {
        "schema": SCHEMA,
        "benchmark": "model",
        "versions": read_versions(),
        "device": describe_device(device),
        "dtype": str(dtype).removeprefix("torch."),
        "check": f"against reference in float64, on {CHECK_BATCH} images of {CHECK_SIZE} x {CHECK_SIZE}",
        "batch": batch,
        "size": size,
        "results": [],
        "skipped": [{"backend": name, "reason": reason} for name, reason in skipped.items()],
    }
    for model in choose_models(models):
        log.info("%s", model)
        errors = check_network(model, names, dtype=dtype, device=device)
        runs = {
            name: _Run.of(model, backend=name, batch=batch, size=size, dtype=dtype, device=device) for name in names
        }
        for row in _time(runs, device=device, seconds=seconds):
            speed = {"images_per_s": batch / row["median_s"]}
            report["results"].append({"model": model, **row, **speed, "errors": _worst_errors(errors[row["backend"]])})
    return report


@dataclass(frozen=True)
class _Run:
    """A network in training, with the batch that it trains on."""

    model: nn.Module
    optimizer: Optimizer
    loss: nn.Module
    images: Tensor
    targets: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, name: str, *, backend: str, batch: int, size: int, dtype: torch.dtype, device: torch.device) -> "_Run":
        torch.manual_seed(0)
        model = create_model(name, backend=backend).to(device)
        images = 255 * torch.rand(batch, 3, size, size, device=device)
        targets = (torch.rand(batch, 1, size, size, device=device) < 0.2).float()
        return cls(model, create_optimizer("AdamW", model), create_loss("bce_dice"), images, targets, dtype)

    def train(self, i: int) -> None:
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.images.device, self.dtype):
            logits = self.model(self.images)
        self.loss(logits, self.targets).backward()
        self.optimizer.step()

    def infer(self, i: int) -> Tensor:
        self.model.eval()
        with torch.inference_mode(), autocast(self.images.device, self.dtype):
            return self.model(self.images)

    def held_bytes(self) -> int:
        """Memory kept between calls: weights, gradients, optimizer state and the batch."""
        weights = list(self.model.parameters())
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        states = [x for state in self.optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
        held = [*weights, *gradients, *states, *self.model.buffers(), self.images, self.targets]
        return sum(x.numel() * x.element_size() for x in held if x.device == self.images.device)


def _worst_errors(errors: dict[str, float]) -> dict[str, float]:
    """Error of the output, and the largest of the gradients under its name."""
    gradient, error = worst({key: e for key, e in errors.items() if key != "output"})
    return {"output": errors["output"], gradient: error}


def _time(runs: dict[str, _Run], *, device: torch.device, seconds: float) -> list[dict]:
    rows = []
    for phase in PHASES:
        candidates: dict[str, Candidate] = {
            name: run.train if phase == "training step" else run.infer for name, run in runs.items()
        }
        for name, timing in time_interleaved(candidates, device=device, seconds=seconds).items():
            beyond = peak_bytes(candidates[name], device)
            rows.append(
                {
                    "backend": name,
                    "phase": phase,
                    "parameters": sum(parameter.numel() for parameter in runs[name].model.parameters()),
                    **timing.to_dict(),
                    "peak_bytes": None if beyond is None else beyond + runs[name].held_bytes(),
                }
            )
        for run in runs.values():
            run.optimizer.zero_grad(set_to_none=True)
    return rows
