"""The argument `backend` reaches every layer, and the reference launches no kernel."""

import os

import pytest
import torch

from mhsvm.data.augment import Augment
from mhsvm.losses import create_loss
from mhsvm.models import create_model
from tests.fixtures.networks import OWN_NETWORKS

SIZES = {
    "mhs_vm": {"dims": (8, 16), "depths": (1, 1), "decoder_depths": (1, 1), "d_state": 2},
    "vm_unet": {"dims": (8, 16), "depths": (1, 1), "decoder_depths": (1, 1), "d_state": 2},
    "ultralight_vm_unet": {"channels": (4, 4, 4, 4, 4, 4), "d_state": 2},
}


@pytest.fixture
def launches(monkeypatch, _triton):
    """Names of the Triton kernels that are launched."""
    names = []
    if os.environ.get("TRITON_INTERPRET") == "1":
        from triton.runtime.interpreter import GridExecutor as Launcher

        method = "__call__"
    else:
        from triton.runtime.jit import JITFunction as Launcher

        method = "run"
    original = getattr(Launcher, method)

    def launch(self, *args, **kwargs):
        names.append(self.fn.__name__)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Launcher, method, launch)
    return names


@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_every_layer_gets_it(name):
    model = create_model(name, backend="chunked", **SIZES.get(name, {}))
    assert {module.backend for module in model.modules() if hasattr(module, "backend")} == {"chunked"}


@pytest.mark.interpreter
@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_the_reference_launches_no_kernel(launches, kernel_device, name):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator).to(kernel_device)
    masks = torch.randint(256, (2, 32, 32), dtype=torch.uint8, generator=generator).to(kernel_device)
    model = create_model(name, backend="reference", **SIZES.get(name, {})).to(kernel_device)
    inputs, targets = Augment(augmentation="vmunet", backend="reference")(images, masks)
    output = model(inputs)
    # with deep supervision there are several outputs
    outputs = [output] if torch.is_tensor(output) else output
    loss = create_loss("bce_dice", backend="reference")
    sum(loss(logits, targets) for logits in outputs).backward()
    assert launches == []


@pytest.mark.interpreter
def test_launches_are_counted(launches, kernel_device, monkeypatch):
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    logits = torch.zeros(1, 1, 4, 4, device=kernel_device, requires_grad=True)
    create_loss("bce_dice")(logits, torch.zeros_like(logits, requires_grad=False)).backward()
    assert launches == ["bce_dice_fwd_kernel_sums", "bce_dice_fwd_kernel_loss", "bce_dice_bwd_kernel"]
