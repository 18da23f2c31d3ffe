"""Every public operation with each size 0 in turn: an empty result with its gradient, or the rule."""

import inspect

import pytest
import torch

from mhsvm.ops import route_attention, route_scan, route_statistics, selective_scan
from mhsvm.ops.dispatch import all_operations
from mhsvm.ops.fused.bce_dice import bce_dice
from mhsvm.ops.fused.branches import join_norm, split_norm
from mhsvm.ops.fused.causal_conv1d import causal_conv1d
from mhsvm.ops.fused.conv2d_silu import conv2d_silu
from mhsvm.ops.fused.group_norm import group_norm_gelu
from mhsvm.ops.fused.layer_norm import layer_norm
from mhsvm.ops.fused.linear import linear
from mhsvm.ops.fused.prepare_batch import prepare_batch
from mhsvm.ops.fused.skip_bridge import skip_bridge


def random(*shape):
    return torch.rand(*shape).requires_grad_()


def scan(backend, b=2, d=4, l=5, n=3, g=2):
    A, B, C = -torch.rand(d, n), random(b, g, n, l), random(b, g, n, l)
    u, bias = random(b, d, l), random(d)
    return selective_scan(u, random(b, d, l), A, B, C, random(d), random(b, d, l), bias, True, True, backend=backend)


def scan_along_routes(backend, b=2, l=6, m=2, d=3, k=2, n=3, r=2):
    order = torch.arange(l).expand(m, k, l).contiguous()
    projections = random(m, k, r + 2 * n, d), random(m, k, d, r), random(m, k, d)
    return route_scan(
        random(b, l, m, d), *projections, -torch.rand(m, k, d, n), random(m, k, d), order, order, backend=backend
    )


def attention(backend, b=2, m=2, k=4, l=6, d=3):
    return route_attention(random(b, m, k, l, d), backend=backend)


def statistics(backend, b=2, m=2, k=4, l=6, d=3):
    return route_statistics(random(b, m, k, l, d), backend=backend)


def norm(backend, b=2, c=4):
    return layer_norm(random(b, 3, c), random(c), random(c), gate=random(b, 3, c), backend=backend)


def keeping(backend, b=2, c=4, h=4, w=4, groups=2, resize="keep"):
    return group_norm_gelu(random(b, c, h, w), random(c), random(c), groups=groups, resize=resize, backend=backend)


def halving(backend, b=2, c=4, h=4, w=4):
    return keeping(backend, b, c, h, w, resize="halve")


def doubling(backend, b=2, c=4, h=4, w=4):
    return keeping(backend, b, c, h, w, resize="double")


def branches(backend, b=2, c=4, l=6, p=2):
    split = split_norm(random(b, c, l), random(c), random(c), random(1), branches=p, backend=backend)
    return join_norm(split.parts, split, backend=backend)


def convolution_of_steps(backend, b=2, d=4, l=5, f=3):
    return causal_conv1d(random(b, d, l), random(d, f), random(d), backend=backend)


def convolution_of_cells(backend, b=2, c=4, h=5, w=5):
    return conv2d_silu(random(b, c, h, w), random(c, 1, 3, 3), random(c), backend=backend)


def bridge(backend, b=2, c=4, h=6):
    gates = [random(c, c + 2), random(2, c + 2)], [random(c), random(2)]
    skips = [random(b, c, h, h), random(b, 2, h, h)]
    return skip_bridge(skips, random(1, 2, 7, 7), random(1), random(1, 1, 3), *gates, backend=backend)


def product(backend, b=2, c=4, o=3):
    return linear(random(b, 4, c), random(o, c), random(o), backend=backend)


def loss(backend, b=2, c=1, h=4, w=4):
    options = {"bce_weight": 1.0, "dice_weight": 1.0, "smooth": 1.0}
    return bce_dice(random(b, c, h, w), torch.rand(b, c, h, w), **options, backend=backend)


def batch(backend, b=2, h=4, w=4):
    images, masks = torch.zeros(b, 3, h, w, dtype=torch.uint8), torch.zeros(b, h, w, dtype=torch.uint8)
    return prepare_batch(images, masks, torch.eye(2).expand(b, 2, 2), backend=backend)


OPERATIONS = {
    scan: "selective_scan",
    scan_along_routes: "route_scan",
    attention: "route_attention",
    statistics: "route_statistics",
    norm: "layer_norm",
    keeping: "group_norm_gelu",
    halving: "group_norm_gelu",
    doubling: "group_norm_gelu",
    branches: "split_norm",
    convolution_of_steps: "causal_conv1d",
    convolution_of_cells: "conv2d_silu",
    bridge: "skip_bridge",
    product: "linear",
    loss: "bce_dice",
    batch: "prepare_batch",
}
SIZES = [
    pytest.param(call, name, id=f"{call.__name__}-{name}")
    for call in OPERATIONS
    for name in inspect.signature(call).parameters
    if name not in ("backend", "resize")
]


def outputs_of(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


def test_every_operation_is_in_the_table():
    known = {operation.name for operation in all_operations()}
    # join_norm is called with split_norm's result, and the last one is a whole network with tests of its own
    assert known - {"join_norm", "ultralight_vm_unet"} == set(OPERATIONS.values()) & known
    assert known >= set(OPERATIONS.values())


@pytest.mark.parametrize("name", ["reference", "chunked", "cpu"])
@pytest.mark.parametrize(("call", "size"), SIZES)
def test_a_size_of_0(call, size, name):
    shapes, refusal = [tuple(x.shape) for x in outputs_of(call(name))], None
    try:
        outputs = outputs_of(call(name, **{size: 0}))
    except ValueError as error:
        refusal = str(error)
    if refusal is not None:
        assert size != "b" or call is loss
        assert "received" in refusal or "got" in refusal
        return
    for output, shape in zip(outputs, shapes, strict=True):
        assert output.ndim == len(shape)
        assert output.isfinite().all()
        if size == "b":
            assert output.shape == (0, *shape[1:])
    if all(x.requires_grad for x in outputs):
        sum(x.sum() for x in outputs).backward()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"d": 0}, r"u is \(b, d, l\), all but b at least 1; received \(2, 0, 5\)"),
        ({"n": 0}, r"A is \(d, n\), all at least 1; received \(4, 0\)"),
        ({"l": 0}, "at least one step"),
    ],
)
def test_a_scan_has_channels_states_and_steps(sizes, message):
    with pytest.raises(ValueError, match=message):
        scan("auto", **sizes)
