"""What a network costs: parameters, multiply-accumulates with and without its scans, activations, memory.

It is run once on tensors that have a shape and no content, so that the size of image and machine do not matter.

How multiply-accumulates (MACs) are counted, for one image:

- convolutions and linear layers: one for each weight and place where it is applied, as torch's flop counter has it
  (2 flops are 1 MAC); biases, norms, activations, pooling and resampling count nothing;
- "mixers" are the same, of layers inside Mamba blocks and route scans: what counters of modules do not see of the
  published networks, where fused kernels take their place;
- the scan has no convolution or matrix product. Of each state and step it takes 9 operations (dt A, its exponential,
  times the state, dt B, times u, the sum, C times the state, its sum over the states, and the reading of the state),
  of each channel and step 2 for D u and 2 for a gate z, and 2 r where it projects the step size from r numbers itself,
  as scans along routes do: 2 operations are 1 MAC here, too. So for b sequences, l steps, d channels, n states:
  b l d (9 n + 2 + 2 [z] + 2 r) / 2.
"""

import io
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from mhsvm.layers import Mamba, RouteS6

# The operation that scans run as on the CPU, whatever the machine: its backend has to be "cpu" while it is counted.
_SCAN = torch.ops.mhsvm.cpu_scan
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
    flops = FlopCounterMode(display=False, custom_mapping={_SCAN: _scan_flops})
    observer = _Observer()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), flops, observer:
        images = torch.empty(batch, in_channels, *size)
        observer.hold(images)
        model(images)
    counts = {
        path: {operation: total // batch for operation, total in of_path.items()}
        for path, of_path in flops.get_flop_counts().items()
    }
    parts = tuple(Part(name, num_parameters(part), _macs(model, counts, name)) for name, part in _parts(model))
    return Complexity(
        parameters=num_parameters(model),
        macs=_macs(model, counts, ""),
        parts=parts,
        activations=observer.activations // batch,
        tensor_bytes=observer.peak + _held_bytes(model),
        file_bytes=_file_bytes(model),
    )


def num_parameters(module: nn.Module) -> int:
    """Numbers that are trained."""
    return sum(parameter.numel() for parameter in module.parameters())


def _scan_flops(u, delta, projected, weight, bias, A, B, C, D, z, *rest, **keywords) -> int:
    """Operations of a scan, from the shapes of its tensors; see `mhsvm.ops.cpu.autograd`."""
    b, _, length, _ = u
    m, k, d, n = A
    rank = 0 if weight is None else weight[-1]
    of_a_channel = OPERATIONS_PER_STATE * n + 2 * (D is not None) + 2 * (z is not None) + 2 * rank
    return b * m * k * length * d * of_a_channel


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


def _macs(model: nn.Module, counts: dict, name: str) -> Macs:
    """MACs of the part `name`, "" for all of the network."""

    def flops_of(path: str) -> dict:
        # the counter calls a module by its place below the network's class
        return counts.get(f"{type(model).__name__}.{path}" if path else "Global", {})

    mixers = [
        path
        for path, module in model.named_modules()
        if isinstance(module, (Mamba, RouteS6)) and f"{path}.".startswith(f"{name}." if name else "")
    ]
    scan = flops_of(name).get(_SCAN, 0)
    in_mixers = sum(sum(flops_of(path).values()) for path in mixers)
    everything = sum(flops_of(name).values())
    return Macs(layers=(everything - in_mixers) // 2, mixers=(in_mixers - scan) // 2, scan=scan // 2)


def _held_bytes(model: nn.Module) -> int:
    return sum(held.numel() * held.element_size() for held in (*model.parameters(), *model.buffers()))


def _file_bytes(model: nn.Module) -> int:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.getbuffer().nbytes


class _Observer(TorchDispatchMode):
    """Watches what operations put out, and how much of it is alive at once.

    Attributes:
        activations: Numbers that convolutions, matrix products and scans have put out.
        peak: Most bytes that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
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

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self.hold(tensor)
        if func._overloadpacket in flop_registry or func._overloadpacket is _SCAN:
            self.activations += tensors[0].numel()
        return out
