"""Weights of UltraLight VM-UNet in the order in which the C engine reads them.

Matrices are stored with inputs first. Their outputs, and the channels of maps, are padded to multiples of 8 by zeros.
"""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mhsvm.layers.bridge import SkipBridge
from mhsvm.layers.mamba import Mamba
from mhsvm.layers.pvm import PVMLayer

_PAD = 8


class UltraLight(Protocol):
    """The parts of `mhsvm.models.UltraLightVMUNet` that the C engine reads; that file imports this one."""

    in_channels: int
    training: bool
    encoder: Any
    encoder_norms: Any
    bridge: Any
    decoder: Any
    decoder_norms: Any
    head: Any

    def modules(self) -> Iterator[Any]: ...
    def by_layers(self, x: Tensor) -> Tensor: ...


def pack_weights(model: UltraLight, *, significant_bits: int = 24) -> np.ndarray:
    """Float32 (n,), all weights of the network as `ultralight.c` reads them.

    With fewer significant bits than the 24 of float32, matrices are rounded. Vectors stay: biases and norms are few,
    and their rounding would change the output more than that of all matrices.
    """
    with torch.no_grad():
        parts = [part.detach().double().cpu().float().contiguous().numpy() for part in _parts(model)]
    return np.concatenate([(_rounded(part, significant_bits) if part.ndim > 1 else part).ravel() for part in parts])


def vector_places(model: UltraLight) -> np.ndarray:
    """Bool (n,), the packed weights that are part of a vector."""
    return np.concatenate([np.full(part.numel(), part.ndim < 2) for part in _parts(model)])


def _rounded(values: np.ndarray, significant_bits: int) -> np.ndarray:
    """Float32 values rounded to nearest, ties to even."""
    dropped = 24 - significant_bits
    if dropped == 0:
        return values
    bits = values.view(np.uint32)
    half = np.uint32((1 << (dropped - 1)) - 1) + ((bits >> dropped) & 1)
    return ((bits + half) >> dropped << dropped).view(np.float32)


def _parts(model: UltraLight) -> Iterator[Tensor]:
    for place, (layer, norm) in enumerate(zip(model.encoder, model.encoder_norms, strict=False)):
        # the channels of the image are not padded
        yield from _layer(layer, pad_inputs=place > 0)
        yield from (_padded(norm.weight), _padded(norm.bias))
    yield from _layer(model.encoder[5])
    if not isinstance(model.bridge, nn.Identity):
        yield from _bridge(model.bridge)
    for layer, norm in zip(model.decoder, model.decoder_norms, strict=True):
        yield from _layer(layer)
        yield from (_padded(norm.weight), _padded(norm.bias))
    head = model.head
    assert head.bias is not None
    for weight, bias in zip(head.weight.flatten(1), head.bias, strict=True):
        yield from (_padded(weight), bias)


def _layer(layer: nn.Module, *, pad_inputs: bool = True) -> Iterator[Tensor]:
    if isinstance(layer, PVMLayer):
        yield from _pvm(layer)
        return
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    kernel = layer.weight.permute(2, 3, 1, 0)  # (3, 3, c, o)
    if pad_inputs:
        kernel = _padded(kernel.mT).mT
    yield from (_padded(kernel), _padded(layer.bias))


def _pvm(layer: PVMLayer) -> Iterator[Tensor]:
    mixer = layer.mixer
    assert isinstance(mixer, Mamba)
    assert mixer.conv1d.bias is not None
    n, r = mixer.d_state, mixer.dt_rank
    low_rank, B, C = mixer.x_proj.weight.split((r, n, n))
    yield from (_padded(layer.norm.weight), _padded(layer.norm.bias), _padded(layer.skip_scale))
    yield _padded(mixer.in_proj.weight.T)
    yield from (_padded(mixer.conv1d.weight.squeeze(1).T), _padded(mixer.conv1d.bias))
    yield _padded(torch.cat([B, C, low_rank]).T)
    yield from (_padded(mixer.dt_proj.weight.T), _padded(mixer.dt_proj.bias))
    # the scan raises 2, not e, to powers of A
    yield from (_padded(-mixer.A_log.double().exp().T / math.log(2)), _padded(mixer.D))
    yield from (_padded(mixer.out_proj.weight.T), _padded(layer.proj.weight.T), _padded(layer.proj.bias))


def _bridge(bridge: SkipBridge) -> Iterator[Tensor]:
    assert bridge.spatial.bias is not None
    yield from (bridge.spatial.weight, bridge.spatial.bias, bridge.mix.weight)
    gates: list[Any] = list(bridge.gates)
    yield _padded(torch.cat([gate.weight.flatten(1) for gate in gates]).T)
    yield _padded(torch.cat([gate.bias for gate in gates]))


def _padded(x: Tensor) -> Tensor:
    """Pad the last axis to a multiple of 8 by zeros."""
    return nn.functional.pad(x, (0, -x.shape[-1] % _PAD))
