"""Binary cross-entropy and Dice against MONAI and torch, and extreme logits in the kernels."""

import pytest
import torch
import torch.nn.functional as F

from mhsvm.ops.fused.bce_dice import BCE_DICE, bce_dice, bce_dice_reference, triton_bce_dice

PLAIN = {"bce_weight": 1.0, "dice_weight": 1.0, "smooth": 1.0}
WEIGHED = {"bce_weight": 0.3, "dice_weight": 2.0, "smooth": 1e-3}


def of_other_libraries(logits, targets, *, bce_weight, dice_weight, smooth):
    # Imported here: it takes seconds, and the interpreter's process does not need it.
    from monai.losses import DiceLoss

    dice = DiceLoss(sigmoid=True, smooth_nr=smooth, smooth_dr=smooth)(logits, targets)
    return bce_weight * F.binary_cross_entropy_with_logits(logits, targets) + dice_weight * dice


def make(shape, *, soft=False, dtype=torch.float32, device="cpu"):
    """Logits that require a gradient, some extreme, and targets; the last map has no lesion."""
    generator = torch.Generator().manual_seed(sum(shape))
    logits = 4 * torch.randn(shape, generator=generator, dtype=torch.float64)
    targets = torch.rand(shape, generator=generator, dtype=torch.float64)
    targets = targets if soft else targets.round()
    targets[-1] = 0
    extremes = torch.tensor([200.0, -200.0, 0.0, 30.0, -30.0])[: logits[0, 0].numel()]
    logits[0, 0].view(-1)[: len(extremes)] = extremes.double()
    return logits.to(device, dtype).requires_grad_(), targets.to(device, torch.promote_types(dtype, torch.float32))


def loss_and_gradient(loss, logits, targets, **options):
    value = loss(logits, targets, **options)
    (gradient,) = torch.autograd.grad(1.7 * value, logits)
    return value, gradient


@pytest.mark.parametrize("options", [PLAIN, WEIGHED])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_reference_equals_other_libraries(monkeypatch, relative_error, options, soft, dtype, bound):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    logits, targets = make((3, 1, 9, 7), soft=soft, dtype=dtype)
    value, gradient = loss_and_gradient(bce_dice, logits, targets, **options)
    expected, expected_gradient = loss_and_gradient(of_other_libraries, logits, targets, **options)
    assert (value.dtype, gradient.dtype) == (dtype, dtype)
    assert relative_error(value, expected) < bound
    assert relative_error(gradient, expected_gradient) < bound


@pytest.mark.interpreter
@pytest.mark.parametrize("right", [True, False])
def test_triton_keeps_the_digits_of_extreme_logits(right, kernel_device):
    """Correct predictions of high confidence: the tiny gradient is not rounded to 0."""
    logits = torch.tensor([20.0, -20.0, 200.0, -200.0, 12.0, -12.0, 12.5, -12.5], device=kernel_device).view(1, 1, 2, 4)
    targets = (logits > 0).float() if right else (logits < 0).float()
    logits.requires_grad_()
    exact = logits.detach().double().requires_grad_()
    value, gradient = loss_and_gradient(triton_bce_dice, logits, targets, **PLAIN)
    expected, expected_gradient = loss_and_gradient(bce_dice_reference, exact, targets.double(), **PLAIN)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-45)


@pytest.mark.interpreter
def test_triton_takes_any_layout(relative_error, kernel_device):
    logits, targets = make((2, 3, 4, 6), device=kernel_device)
    expected, expected_gradient = loss_and_gradient(bce_dice_reference, logits, targets, **PLAIN)
    scattered = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    value, gradient = loss_and_gradient(triton_bce_dice, scattered, targets.mT.contiguous().mT, **PLAIN)
    assert relative_error(value, expected) < 1e-6
    assert relative_error(gradient, expected_gradient) < 1e-6


# numpy, in the interpreter, warns of inf - inf.
@pytest.mark.interpreter
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_triton_lets_what_is_not_finite_through(kernel_device):
    for bad in (float("nan"), float("inf")):
        logits, targets = make((2, 1, 5, 5), device=kernel_device)
        logits.detach()[0, 0, 4, 4] = bad
        value, gradient = loss_and_gradient(triton_bce_dice, logits, targets.fill_(0.5), **PLAIN)
        assert not value.isfinite()
        assert gradient[0].isnan().any() == (bad != bad)


def test_gradients_in_float64():
    logits, targets = make((2, 1, 3, 2), soft=True, dtype=torch.float64)
    logits = logits.detach().clamp(-5, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: bce_dice(x, targets, **WEIGHED), logits)


def test_torch_compile_joins_torchs_operations():
    logits, targets = make((2, 1, 4, 6), soft=True)
    compiled = torch.compile(bce_dice, backend="aot_eager", fullgraph=True)
    expected, expected_gradient = loss_and_gradient(bce_dice_reference, logits, targets, **WEIGHED)
    value, gradient = loss_and_gradient(compiled, logits, targets, **WEIGHED)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize(
    ("logits", "targets"), [((2, 1, 4, 4), (2, 4, 4)), ((2, 4, 4), (2, 4, 4)), ((0, 1, 4, 4), (0, 1, 4, 4))]
)
def test_bad_input(logits, targets):
    message = r"maps \(b, c, h, w\) of one shape, with a pixel at least; received \(\d, "
    with pytest.raises(ValueError, match=message):
        bce_dice(torch.ones(logits), torch.ones(targets), **PLAIN)


@pytest.mark.interpreter
def test_targets_have_no_gradient_in_kernels(kernel_device):
    logits, targets = make((1, 1, 3, 3), device=kernel_device)
    targets.requires_grad_()
    assert BCE_DICE.choose("auto", logits, targets, **PLAIN).backend == "reference"
    with pytest.raises(ValueError, match="'triton' cannot run bce_dice: its kernels give no gradient of the targets"):
        bce_dice(logits, targets, **PLAIN, backend="triton")
