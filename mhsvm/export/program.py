"""A network as a program of plain operations, recorded by torch.export: the form that other runtimes read.

Shape letters: b images, h w size, k classes.
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mhsvm.inference.probability import probabilities
from mhsvm.ops.dispatch import portable_operations
from mhsvm.text_file import first_line

if TYPE_CHECKING:
    from torch.export import ExportedProgram

IMAGES = ("uint8", "float32", "normalized")
OUTPUTS = ("probability", "logits")
# Between a recorded program and the network: their operations are the same.
_TOLERANCE = 1e-4


def record_program(
    network: nn.Module,
    *,
    size: tuple[int, int],
    normalize: Callable[[Tensor], Tensor] | None,
    image: str = "uint8",
    output: str = "probability",
    batch: int | None = None,
) -> "ExportedProgram":
    """Record a network with its normalization, run the program, and compare it with the network.

    Args:
        network: Any network of `mhsvm.create_model`; a copy of it is recorded, in float32 on the CPU.
        size: (h, w) of the images in pixels.
        normalize: Function from float images (b, 3, h, w), 0..255, to inputs; unused for "normalized".
        image: See `mhsvm.export_program`.
        output: "probability" or "logits".
        batch: Number of images of a call; None for any number.
    Raises:
        ValueError: A choice is unknown, the size does not fit the network, or the network cannot be recorded.
    """
    _check_choices(image, output, batch)
    network = _plain_copy(network)
    whole = _Program(network, None if image == "normalized" else normalize, image, output).eval()
    example = _example(network, image, batch or 2, size)
    with torch.no_grad(), portable_operations():
        # Before the recording: it checks the size, and computes tables that are constants of the program.
        expected = whole(example)
        program = _record(whole, example, dynamic=batch is None)
    _check_operators(program)
    found = program.module()(example)
    if not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ValueError(
            "the recorded program computes other values than the network: a layer keeps values from call to call, or "
            "decides by something that torch.export does not record. Replace it"
        )
    return program


class _Program(nn.Module):
    """Images -> probabilities or logits."""

    def __init__(
        self, network: nn.Module, normalize: Callable[[Tensor], Tensor] | None, image: str, output: str
    ) -> None:
        super().__init__()
        self.network = network
        self.normalize = normalize
        self.bytes = image == "uint8"
        self.output = output

    def forward(self, image: Tensor) -> Tensor:
        if self.bytes:
            image = image.permute(0, 3, 1, 2).float()
        if self.normalize is not None:
            image = self.normalize(image)
        logits = self.network(image)
        return probabilities(logits) if self.output == "probability" else logits


def _check_choices(image: str, output: str, batch: int | None) -> None:
    for name, value, known in (("image", image, IMAGES), ("output", output, OUTPUTS)):
        if value not in known:
            raise ValueError(f"{name} is one of {', '.join(known)}; received {value!r}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch is at least 1, or None for any number of images; received {batch}")


def _plain_copy(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode, float32, on the CPU, without gradients."""
    for name, module in network.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise ValueError(
                f"a program holds no hooks, and {name or 'the network'} ({type(module).__name__}) has one: remove it"
            )
    return copy.deepcopy(network).cpu().float().eval().requires_grad_(False)


def _example(network: nn.Module, image: str, batch: int, size: tuple[int, int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    channels = getattr(network, "in_channels", 3)
    if image == "normalized":
        return 255 * torch.rand((batch, channels, *size), generator=generator)
    if channels != 3:
        raise ValueError(
            f"a network of {channels} channels takes no RGB images: record it with image='normalized', "
            "which is its own input"
        )
    values = torch.randint(0, 256, (batch, *size, 3), generator=generator, dtype=torch.uint8)
    return values if image == "uint8" else values.permute(0, 3, 1, 2).float().contiguous()


def _record(whole: nn.Module, example: Tensor, *, dynamic: bool) -> "ExportedProgram":
    from torch.export import Dim, export

    shapes = ({0: Dim("batch")},) if dynamic else None
    try:
        program = export(whole, (example,), dynamic_shapes=shapes, strict=False)
    except RuntimeError as error:
        reason = first_line(str(error))
        raise ValueError(
            f"torch.export cannot record this network: {reason}. Layers of your own must be made of torch's "
            "operations, and must not read the values or the number of their inputs"
        ) from error
    # they would name the folders of this machine, in a fourth of a saved file
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _check_operators(program: "ExportedProgram") -> None:
    """Raise ValueError if the program has operators that only this process knows, or random numbers."""
    targets = {node.target for node in program.graph.nodes if node.op == "call_function"}
    operators = [x for x in targets if isinstance(x, torch._ops.OpOverload)]
    foreign = sorted(str(x) for x in operators if x.namespace not in ("aten", "prims"))
    if foreign:
        raise ValueError(
            f"the program would need operators that other runtimes lack: {', '.join(foreign)}. "
            "Compute these layers with torch's operations"
        )
    random = sorted(str(x) for x in operators if torch.Tag.nondeterministic_seeded in x.tags)
    if random:
        raise ValueError(f"a program gives the same result in every call, and a layer uses {', '.join(random)}")
