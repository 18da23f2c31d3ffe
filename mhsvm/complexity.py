"""What a network costs: parameters, multiply-accumulates with and without its scans, activations, memory.

It is run once on tensors that have a shape and no content, so that the size of image and machine do not matter.

How multiply-accumulates (MACs) are counted, for one image:

- convolutions and linear layers: one for each weight and place where it is applied, as torch's flop counter has it
  (2 flops are 1 MAC); biases, norms, activations, pooling and resampling count nothing;
- "mixers" are the same, of the layers inside Mamba blocks and route scans: what counters of modules do not see of the
  published networks, where fused kernels take their place. They are counted as the model defines them, whatever
  products a backend makes of them. A Mamba block of width v, inner width e, n states, rank r and a convolution of c
  cells takes 2 v e + c e + e (r + 2 n) + r e + e v a step; a scan of d channels along a route d (r + 2 n) + r d a cell;
- the scan has no convolution or matrix product. Of each state and step it takes about 9 operations, the count that
  users of Mamba share (products with dt, u, the decay and C, the exponential, the sums), of each channel and step 2
  for D u, and 2 for a gate z: 2 operations are 1 MAC here, too. So d channels and n states take
  d (9 n + 2 + 2 [z]) / 2 a step.
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

from mhsvm.layers import Mamba, RouteS6

OPERATIONS_PER_STATE = 9


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one image.

    Attributes:
        layers: Convolutions and linear layers outside of mixers: what the papers print.
        mixers: Convolutions, linear layers and other matrix products of Mamba blocks and route scans.
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
    """A part of a network: its name there, its parameters and its MACs."""

    name: str
    parameters: int
    macs: Macs


@dataclass(frozen=True)
class Complexity:
    """What a network costs for one image.

    Attributes:
        parameters: Numbers that are trained.
        macs: See `Macs`.
        parts: In the order of the network; their parameters and MACs add up to all.
        activations: Numbers that convolutions, matrix products and scans put out.
        tensor_bytes: Of the tensors that inference of a batch holds at once, at most, weights and images included; what
            kernels take for themselves is not in it.
        file_bytes: Of the weights as `torch.save` writes them.
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
    """Count what a network costs.

    Args:
        model: On the CPU, built with `backend="cpu"`; put into evaluation mode.
        in_channels: Channels of the image.
        size: (h, w) of the image in pixels.
        batch: Images at a time; only the memory depends on it.
    Raises:
        ValueError: The network does not take such an image, or its scans run on another backend.
    """
    model.eval()
    _check_backend(model)
    mixers = _MixerCounter(model)
    flops, observer = FlopCounterMode(display=False), _Observer(mixers)
    with mixers, FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), flops, observer:
        images = torch.empty(batch, in_channels, *size)
        observer.hold(images)
        model(images)

    def flops_of(path: str) -> int:
        # the counter calls a module by its place below the network's class
        counts = flops.get_flop_counts().get(f"{type(model).__name__}.{path}" if path else "Global", {})
        return sum(counts.values())

    def macs_of(part: str) -> Macs:
        """Of a part by its name, of all of the network by ""."""
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
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in module.parameters())


def _check_backend(model: nn.Module) -> None:
    others = {module.backend for module in model.modules() if isinstance(module, (Mamba, RouteS6))} - {"cpu"}
    if others:
        raise ValueError(
            f"a network is counted with its scans on one backend; received {', '.join(sorted(others))}. "
            'Build it with backend="cpu"'
        )


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Direct parts by name; of a list of layers each."""
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
    """While open, counts the Mamba blocks and route scans of a network by what comes into them.

    Attributes:
        macs: Of each, by its path in the network.
        activations: Numbers that their layers and scans put out.
        depth: Above 0 while one of them is running.
    """

    def __init__(self, model: nn.Module) -> None:
        self._mixers = {path: each for path, each in model.named_modules() if isinstance(each, (Mamba, RouteS6))}
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
    assert isinstance(mixer, RouteS6)
    return _route_scan_costs(mixer, x)


def _mamba_costs(block: Mamba, x: Tensor) -> tuple[Macs, int]:
    """MACs and activations of a block on sequences (b, l, v)."""
    b, length, v = x.shape
    e, _, taps = block.conv1d.weight.shape
    n, r = block.d_state, block.dt_rank
    steps = b * length
    layers = 2 * v * e + taps * e + e * (r + 2 * n) + r * e + e * v
    scan = steps * e * (OPERATIONS_PER_STATE * n + 2 + 2) // 2
    activations = 2 * e + e + (r + 2 * n) + e + e + v
    return Macs(layers=0, mixers=steps * layers, scan=scan), steps * activations


def _route_scan_costs(scan: RouteS6, x: Tensor) -> tuple[Macs, int]:
    """MACs and activations of all heads and routes on a map (b, h, w, c)."""
    heads, routes, d, r = scan.dt_proj.shape
    n = scan.A_log.shape[-1]
    walked = x.shape[:3].numel() * heads * routes
    layers = d * (r + 2 * n) + r * d
    operations = walked * d * (OPERATIONS_PER_STATE * n + 2)
    return Macs(layers=0, mixers=walked * layers, scan=operations // 2), walked * (r + 2 * n + d + d)


class _Observer(TorchDispatchMode):
    """Watches what operations put out, and how much of it is alive at once.

    Attributes:
        activations: Numbers that convolutions and matrix products outside of mixers have put out.
        peak: Most bytes that were alive at once.
    """

    def __init__(self, mixers: _MixerCounter) -> None:
        super().__init__()
        self._mixers = mixers
        self.activations = 0
        self.peak = 0
        self._alive = 0
        self._known: dict[int, weakref.ref] = {}

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor's memory until it is freed, once for all its views."""
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
