import pytest
import torch

from mhsvm.ops.fused.layer_norm import layer_norm, triton_layer_norm


def make(*shape, gated=False, dtype=torch.float32, device="cpu"):
    """x, weight, bias and gate as leaves; some rows are far from 0, some constant."""
    generator = torch.Generator().manual_seed(shape[-1])
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    x.view(-1, shape[-1])[1::3] = 3.5
    x.view(-1, shape[-1])[-1] += 20
    weight, bias = (torch.randn(shape[-1], generator=generator, dtype=torch.float64) for _ in range(2))
    gate = torch.randn(*shape, generator=generator, dtype=torch.float64) * 3 if gated else None
    return [
        None if t is None else t.to(device, d).requires_grad_()
        for t, d in ((x, dtype), (weight, torch.float32), (bias, torch.float32), (gate, dtype))
    ]


@pytest.mark.interpreter
def test_triton_gives_the_type_that_is_asked_for(kernel_device):
    leaves = make(5, 24, dtype=torch.bfloat16, device=kernel_device)
    narrow = triton_layer_norm(*leaves[:3])
    with torch.autocast(kernel_device.type, dtype=torch.bfloat16):
        wide = triton_layer_norm(*leaves[:3])
        assert triton_layer_norm(*leaves[:3], autocast_output=True).dtype == torch.bfloat16
    assert wide.dtype == torch.float32
    # The interpreter rounds toward 0.
    torch.testing.assert_close(wide, narrow.float(), rtol=2**-7, atol=0)
    wide.sum().backward()
    assert leaves[0].grad.dtype == torch.bfloat16


@pytest.mark.interpreter
def test_triton_takes_no_rows(kernel_device):
    leaves = make(1, 8, gated=True, device=kernel_device)
    x, gate = (leaf.detach()[:0].requires_grad_() for leaf in (leaves[0], leaves[3]))
    y = triton_layer_norm(x, leaves[1], leaves[2], gate=gate)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 8)
    assert (leaves[1].grad == 0).all()


def test_a_case_by_hand():
    x = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    weight, bias = torch.tensor([2.0, 5.0]).double(), torch.tensor([0.5, 0.0]).double()
    expected = torch.tensor([[-1.5, 5.0]]).double()
    torch.testing.assert_close(layer_norm(x, weight, bias, eps=0.0), expected)
    gate = torch.tensor([[0.0, 2.0]]).double()
    torch.testing.assert_close(
        layer_norm(x, weight, bias, gate=gate, eps=0.0), expected * gate / (1 + torch.exp(-gate))
    )


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("autocast_output", [False, True])
def test_autocast_decides_on_the_type(gated, autocast_output):
    x, weight, bias, gate = make(3, 5, 8, gated=gated)
    plain = layer_norm(x, weight, bias, gate=gate, autocast_output=autocast_output)
    assert plain.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer_norm(x, weight, bias, gate=gate, autocast_output=autocast_output)
    assert y.dtype == (torch.bfloat16 if autocast_output else torch.float32)
    torch.testing.assert_close(y.float(), plain, rtol=1e-2, atol=1e-2)


def test_shapes_that_do_not_belong_together():
    x, weight = torch.ones(2, 3, 8), torch.ones(8)
    message = r"one number a channel, that is x.shape\[-1:\]; received x \(2, 3, 8\), weight \(3,\), bias \(8,\)"
    with pytest.raises(ValueError, match=message):
        layer_norm(x, torch.ones(3), weight)
    with pytest.raises(ValueError, match=r"the gate is shaped like x, \(2, 3, 8\); received \(2, 8\)"):
        layer_norm(x, weight, weight, gate=torch.ones(2, 8))
