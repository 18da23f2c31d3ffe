"""Complexity of a network: parameters, multiply-accumulates with and without scans, activations, memory.

The network runs once on tensors that have a shape and no content, so an image of any size fits any machine.

Multiply-accumulates (MACs) of one image are counted as follows:

- Layers: a convolution or linear layer takes one MAC per weight and position, as in torch's flop counter (2 flops are
  1 MAC). Biases, norms, activations, pooling and resampling are not counted.
- Mixers: the layers in Mamba blocks and route scans, by the same rule. Counters that look at modules miss them in the
  published networks, where fused kernels replace the layers. They are counted as the model defines them, independent
  of the backend. A Mamba block of width v, inner width e, n states, rank r and a convolution of c cells takes
  2 v e + c e + e (r + 2 n) + r e + e v per step. A bidirectional one takes 2 (c e + e (r + 2 n) + r e) for its
  directions; one of Mamba-2 with m heads v (2 e + 2 n + m) + c (e + 2 n) + e v. A scan of d channels along a route
  takes d (r + 2 n) + r d per cell.
- Scans: a scan has no convolution or matrix product. It takes about 9 operations per state and step, the usual count
  for Mamba (products with delta, u, the decay and C, the exponential, the sums), 2 per channel and step for D u, and 2
  for a gate z. Again, 2 operations are 1 MAC: d channels and n states take d (9 n + 2 + 2 [z]) / 2 per step.
"""

import io
import weakref
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torch.utils.hooks import RemovableHandle

from mhsvm.layers import BidirectionalMamba, Mamba, Mamba2, RouteS6
from mhsvm.layers.plain import global_hooks_ignored

OPERATIONS_PER_STATE = 9
# Counted by the shapes of their inputs.
_COUNTED = (Mamba, BidirectionalMamba, Mamba2, RouteS6)


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one image.

    Attributes:
        layers: Convolutions and linear layers outside mixers, the number that papers report.
        mixers: Convolutions, linear layers and other matrix products in Mamba blocks and route scans.
        scan: The scans.
    """

    layers: int
    mixers: int
    scan: int

    def __add__(self, other: "Macs") -> "Macs":
        return Macs(*(one + another for one, another in zip(astuple(self), astuple(other), strict=True)))

    @property
    def without_scan(self) -> int:
        return self.layers + self.mixers

    @property
    def total(self) -> int:
        return self.layers + self.mixers + self.scan


@dataclass(frozen=True)
class Part:
    """Name, number of parameters and MACs of a part of a network."""

    name: str
    parameters: int
    macs: Macs


@dataclass(frozen=True)
class Complexity:
    """Complexity of a network for one image.

    Attributes:
        parameters: Number of parameters.
        macs: Multiply-accumulates.
        parts: Parts in the order of the network; their parameters and MACs add up to the totals.
        activations: Number of outputs of convolutions, matrix products and scans.
        tensor_bytes: Peak memory of all tensors during inference of a batch, with weights and images, without the
            workspaces of kernels.
        file_bytes: Size of the weights as written by `torch.save`.
    """

    parameters: int
    macs: Macs
    parts: tuple[Part, ...]
    activations: int
    tensor_bytes: int
    file_bytes: int


def measure_complexity(
    model: nn.Module, *, in_channels: int = 3, size: tuple[int, int] = (256, 256), batch: int = 1
) -> Complexity:
    """Measure the complexity of a network.

    Args:
        model: A network on the CPU, built with `backend="cpu"`. It is put into evaluation mode.
        in_channels: Channels of the image.
        size: (h, w) of the image in pixels.
        batch: Batch size; only the memory depends on it.
    Raises:
        ValueError: The network does not take such an image, or its scans use another backend.
    """
    model.eval()
    _check_backend(model)
    mixers = _MixerCounter(model)
    flops, observer = FlopCounterMode(display=False), _Observer(mixers)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    # the counter of operations registers global hooks, and the memory of a hooked network is another
    with mixers, fake, torch.no_grad(), flops, global_hooks_ignored(), observer:
        images = torch.empty(batch, in_channels, *size)
        observer.hold(images)
        model(images)

    def flops_of(path: str) -> int:
        # the counter prefixes the path of a module with the class of the network
        counts = flops.get_flop_counts().get(f"{type(model).__name__}.{path}" if path else "Global", {})
        return sum(counts.values())

    def macs_of(part: str) -> Macs:
        """MACs of a part, or of the whole network for ""."""
        within = [path for path in mixers.macs if not part or f"{path}.".startswith(f"{part}.")]
        layers = (flops_of(part) - sum(map(flops_of, within))) // 2
        whole = sum((mixers.macs[path] for path in within), Macs(layers=layers, mixers=0, scan=0))
        return Macs(*(total // batch for total in astuple(whole)))

    return Complexity(
        parameters=num_parameters(model),
        macs=macs_of(""),
        parts=tuple(Part(name, num_parameters(module), macs_of(name)) for name, module in _parts(model)),
        activations=(observer.activations + mixers.activations) // batch,
        tensor_bytes=observer.peak + _held_bytes(model),
        file_bytes=_file_bytes(model),
    )


def num_parameters(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _check_backend(model: nn.Module) -> None:
    others = {module.backend for module in model.modules() if isinstance(module, _COUNTED)} - {"cpu"}
    if others:
        raise ValueError(
            f"a network is measured with its scans on one backend; received {', '.join(sorted(others))}. "
            'Build it with backend="cpu"'
        )


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Direct children by name; a list of layers yields each layer."""
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{place}", layer) for place, layer in child.named_children())
        else:
            yield name, child


def _held_bytes(model: nn.Module) -> int:
    return sum(held.numel() * held.element_size() for held in (*model.parameters(), *model.buffers()))


def _file_bytes(model: nn.Module) -> int:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.getbuffer().nbytes


class _MixerCounter:
    """Context that counts the Mamba blocks and route scans of a network by the shapes of their inputs.

    Attributes:
        macs: MACs of each mixer by its path in the network.
        activations: Number of outputs of their layers and scans.
        depth: Above 0 while a mixer runs.
    """

    def __init__(self, model: nn.Module) -> None:
        self._mixers = {path: each for path, each in model.named_modules() if isinstance(each, _COUNTED)}
        self.macs = dict.fromkeys(self._mixers, Macs(layers=0, mixers=0, scan=0))
        self.activations = 0
        self.depth = 0
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> None:
        for path, mixer in self._mixers.items():
            self._hooks.append(mixer.register_forward_pre_hook(partial(self._enter, path)))
            self._hooks.append(mixer.register_forward_hook(self._leave))

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _enter(self, path: str, mixer: nn.Module, inputs: tuple[Tensor]) -> None:
        self.depth += 1
        macs, activations = _mixer_costs(mixer, *inputs)
        self.macs[path] += macs
        self.activations += activations

    def _leave(self, *_: object) -> None:
        self.depth -= 1


def _mixer_costs(mixer: nn.Module, x: Tensor) -> tuple[Macs, int]:
    if isinstance(mixer, Mamba):
        return _mamba_costs(mixer, x)
    if isinstance(mixer, BidirectionalMamba):
        return _bidirectional_costs(mixer, x)
    if isinstance(mixer, Mamba2):
        return _mamba2_costs(mixer, x)
    assert isinstance(mixer, RouteS6)
    return _route_scan_costs(mixer, x)


def _mamba_costs(block: Mamba, x: Tensor) -> tuple[Macs, int]:
    """MACs and activations of a block for sequences (b, l, v)."""
    b, length, v = x.shape
    e, _, taps = block.conv1d.weight.shape
    n, r = block.d_state, block.dt_rank
    steps = b * length
    layers = 2 * v * e + taps * e + e * (r + 2 * n) + r * e + e * v
    scan = steps * e * (OPERATIONS_PER_STATE * n + 2 + 2) // 2
    activations = 2 * e + e + (r + 2 * n) + e + e + v
    return Macs(layers=0, mixers=steps * layers, scan=scan), steps * activations


def _bidirectional_costs(block: BidirectionalMamba, x: Tensor) -> tuple[Macs, int]:
    """MACs and activations of a block for sequences (b, l, v); the gate follows the sum of both directions."""
    b, length, v = x.shape
    e, n, r = block.out_proj.in_features, block.d_state, block.dt_rank
    steps = b * length
    layers = 2 * v * e + 2 * (block.d_conv * e + e * (r + 2 * n) + r * e) + e * v
    scan = steps * e * (2 * (OPERATIONS_PER_STATE * n + 2) + 2) // 2
    activations = 2 * e + 2 * (e + (r + 2 * n) + e + e) + v
    return Macs(layers=0, mixers=steps * layers, scan=scan), steps * activations


def _mamba2_costs(block: Mamba2, x: Tensor) -> tuple[Macs, int]:
    """MACs and activations of a block for sequences (b, l, v)."""
    b, length, v = x.shape
    e, n, heads = block.out_proj.in_features, block.d_state, len(block.D)
    convolved, steps = e + 2 * n, b * length
    projected = 2 * e + 2 * n + heads
    layers = v * projected + block.conv1d.kernel_size[0] * convolved + e * v
    scan = steps * e * (OPERATIONS_PER_STATE * n + 2 + 2) // 2
    return Macs(layers=0, mixers=steps * layers, scan=scan), steps * (projected + convolved + e + v)


def _route_scan_costs(scan: RouteS6, x: Tensor) -> tuple[Macs, int]:
    """MACs and activations of all heads and routes for a map (b, h, w, c)."""
    heads, routes, d, r = scan.dt_proj.shape
    n = scan.A_log.shape[-1]
    walked = x.shape[:3].numel() * heads * routes
    layers = d * (r + 2 * n) + r * d
    operations = walked * d * (OPERATIONS_PER_STATE * n + 2)
    return Macs(layers=0, mixers=walked * layers, scan=operations // 2), walked * (r + 2 * n + d + d)


class _Observer(TorchDispatchMode):
    """Records the outputs of operations and the memory that is alive.

    Attributes:
        activations: Number of outputs of convolutions and matrix products outside mixers.
        peak: Largest number of bytes that were alive at the same time.
    """

    def __init__(self, mixers: _MixerCounter) -> None:
        super().__init__()
        self._mixers = mixers
        self.activations = 0
        self.peak = 0
        self._alive = 0
        self._known: dict[int, weakref.ref] = {}

    def hold(self, tensor: Tensor) -> None:
        """Count the memory of a tensor until it is freed, once for all views of it."""
        storage = tensor.untyped_storage()
        key, num_bytes = id(storage), storage.nbytes()
        if key in self._known:
            return

        def release(_: weakref.ref) -> None:
            del self._known[key]
            self._alive -= num_bytes

        self._known[key] = weakref.ref(storage, release)
        self._alive += num_bytes
        self.peak = max(self.peak, self._alive)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self.hold(tensor)
        if func._overloadpacket in flop_registry and not self._mixers.depth:
            self.activations += tensors[0].numel()
        return out
