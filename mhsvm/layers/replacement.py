"""Replace the convolutions of any network by another layer, such as a PVM layer."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Layer = Callable[[int, int], nn.Module]


@dataclass(frozen=True)
class Replaced:
    """A replaced convolution: its name in the network, and the parameters of it and of the new layer."""

    name: str
    parameters_before: int
    parameters_after: int


@dataclass(frozen=True)
class Replacement:
    """The result of `replace_convs`.

    Attributes:
        replaced: The convolutions that were replaced, in the order of the network.
        kept: Name -> reason, of the convolutions that were not; 1 x 1 and transposed ones are not among them.
        parameters_before, parameters_after: Those of the whole network.
    """

    replaced: tuple[Replaced, ...]
    kept: dict[str, str]
    parameters_before: int
    parameters_after: int

    def __str__(self) -> str:
        change = self.parameters_after / self.parameters_before - 1
        lines = [
            f"{len(self.replaced)} convolutions replaced: {self.parameters_before:,} parameters before, "
            f"{self.parameters_after:,} after ({change:+.2%})",
            *(f"kept {name}: {reason}" for name, reason in self.kept.items()),
        ]
        return "\n".join(lines)


def replace_convs(model: nn.Module, layer: Layer, *, kernel_size: int = 3, pool_strided: bool = False) -> Replacement:
    """Replace the square 2-D convolutions of a network, in place, by layers that keep the size of a map.

    A convolution is replaced if it keeps the size of a map: its padding is dilation * (kernel_size - 1) / 2 or "same".
    The new layer has its channels, device, float type and mode (training or evaluation), and initial weights. All
    groups and dilations are replaced alike. A convolution that the network has in several places is replaced by one
    layer in all of them.

    Args:
        model: The network. It is changed, also by a call that raises an error.
        layer: Makes a layer of (in_channels, out_channels), such as `PVMLayer` or `partial(PVMLayer, branches=2)`. If
            it raises ValueError, as `PVMLayer` does for 3 channels and 4 branches, the convolution is kept.
        kernel_size: Height and width of the filters that are replaced, odd.
        pool_strided: Replace convolutions with a stride too, by average pooling over stride x stride cells and then the
            layer, which gives maps of the same size. By default they are kept.
    Returns:
        Names and parameters of the layers that were replaced, and why other convolutions with such filters were kept.
    Raises:
        ValueError: Nothing was replaced, the network is itself a convolution, or `kernel_size` is even.
    Source: the plug-and-play study of Wu et al. 2024, arXiv 2403.20035.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is odd: such filters can keep the size of a map; received {kernel_size}")
    before = _num_parameters(model)
    found = [
        (name, module)
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.Conv2d) and module.kernel_size == (kernel_size, kernel_size)
    ]
    if any(not name for name, _ in found):
        raise ValueError("the network is itself a convolution, which has no place to be replaced in: call the layer")
    made: dict[nn.Conv2d, nn.Module] = {}
    replaced, kept = [], {}
    for name, conv in found:
        reason = _reason_to_keep(conv, pool_strided=pool_strided)
        if reason is None and conv not in made:
            try:
                made[conv] = _make(layer, conv)
            except ValueError as error:
                reason = str(error)
        if reason is not None:
            kept[name] = reason
            continue
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, made[conv])
        replaced.append(Replaced(name, _num_parameters(conv), _num_parameters(made[conv])))
    if not replaced:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(kept.items())[:3])
        raise ValueError(
            f"no convolution of {kernel_size} x {kernel_size} was replaced, {len(kept)} are kept "
            f"({reasons or 'none'}). Choose another `kernel_size`, or a `layer` for these channels"
        )
    return Replacement(tuple(replaced), kept, before, _num_parameters(model))


def _reason_to_keep(conv: nn.Conv2d, *, pool_strided: bool) -> str | None:
    """Why a convolution cannot be replaced; None if it can."""
    if type(conv) is not nn.Conv2d:
        return f"it is of the class {type(conv).__qualname__}, which may do more than convolve"
    if conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or conv._backward_pre_hooks:
        return "it has hooks, which would be lost"
    same = tuple(d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    if conv.padding not in (same, "same"):
        return f"its padding {conv.padding} changes the size of the map"
    if conv.stride != (1, 1) and not pool_strided:
        return f"its stride is {conv.stride[0]} x {conv.stride[1]}, and a layer keeps the size: see `pool_strided`"
    return None


def _make(layer: Layer, conv: nn.Conv2d) -> nn.Module:
    """The layer for a convolution, after pooling if that has a stride."""
    new = layer(conv.in_channels, conv.out_channels)
    if conv.stride != (1, 1):
        # ceil(h / stride) cells, as of a convolution
        pool = nn.AvgPool2d((conv.stride[0], conv.stride[1]), ceil_mode=True)
        new = nn.Sequential(pool, new)
    return new.to(device=conv.weight.device, dtype=conv.weight.dtype).train(conv.training)


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
