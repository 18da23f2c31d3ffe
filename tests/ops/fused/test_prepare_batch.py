"""The kernels that make inputs and targets, against torch's way: on a GPU, or in Triton's interpreter."""

import os
import subprocess
import sys

import pytest
import torch

from mhsvm.data.augment import Augment
from mhsvm.ops.fused import prepare_batch as augment_launch
from mhsvm.ops.fused.prepare_batch import ChannelStatistics, prepare_batch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
STATISTICS = {"minmax": None, "imagenet": ChannelStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}

runs_kernels = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="needs a GPU; test_in_interpreter runs it without"
)


def make_batch(num, size, seed=0):
    """As they leave a data set: channels last."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(20, 230, (num, *size, 3), dtype=torch.uint8, generator=generator)
    masks = torch.randint(256, (num, *size), dtype=torch.uint8, generator=generator)
    return images.permute(0, 3, 1, 2), masks


def prepare(images, masks, motions, *, normalization="minmax", num_classes=1, soft_targets=False):
    """Inputs and targets by the kernels, and by torch on the CPU."""
    settings = {"num_classes": num_classes, "soft_targets": soft_targets}
    expected = Augment(normalization=normalization, **settings)(images, masks, motions)
    moved = None if motions is None else motions.to(DEVICE)
    statistics = STATISTICS[normalization]
    found = prepare_batch(images.to(DEVICE), masks.to(DEVICE), moved, statistics=statistics, **settings)
    for x, y in zip(found, expected, strict=True):
        assert (x.shape, x.dtype, x.is_contiguous()) == (y.shape, y.dtype, True)
    return tuple(x.cpu() for x in found), expected


@runs_kernels
@pytest.mark.parametrize("size", [(21, 21), (16, 30), (37, 21)])
@pytest.mark.parametrize(
    ("augmentation", "settings"),
    [
        (None, {"soft_targets": True}),
        (None, {"normalization": "imagenet"}),
        ("ultralight", {}),
        ("vmunet", {"normalization": "imagenet", "soft_targets": True}),
        ("vmunet", {"num_classes": 4}),
    ],
    ids=str,
)
def test_the_same_images_as_torch_makes(size, augmentation, settings):
    images, masks = make_batch(5, size)
    motions = augmentation and Augment(augmentation=augmentation).sample_transforms(5, torch.Generator().manual_seed(1))
    found, expected = prepare(images, masks, motions, **settings)
    same = torch.isclose(found[0], expected[0], rtol=1e-6, atol=1e-6).all(dim=1)
    assert same.float().mean() >= 0.999
    assert (found[1] == expected[1]).float().mean() >= 0.999
    if augmentation is None:
        assert same.all()
        assert torch.equal(found[1], expected[1])


@runs_kernels
@pytest.mark.parametrize("side", [16, 17])
def test_quarter_turns_and_flips_are_exact(side):
    quarter, mirror = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    turns = [torch.linalg.matrix_power(quarter, power) for power in range(4)]
    motions = torch.stack([*turns, *(mirror @ turn for turn in turns)])
    found, expected = prepare(*make_batch(8, (side, side)), motions)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    assert torch.equal(found[1], expected[1])


@runs_kernels
def test_extremes_are_those_of_all_of_an_image_and_of_no_other(monkeypatch):
    # more values than all programs read at once, and a last part of a block
    monkeypatch.setattr(augment_launch, "_SPANS", 2)
    monkeypatch.setattr(augment_launch, "_VALUES", 64)
    images = torch.full((3, 3, 11, 13), 100, dtype=torch.uint8)
    images[0, 2, 10, 12], images[0, 0, 0, 0] = 10, 210
    images[1, 1, 10, 0], images[1, 2, 5, 6] = 250, 90
    found, expected = prepare(images, torch.zeros(3, 11, 13, dtype=torch.uint8), None)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    assert found[0].amax(dim=(1, 2, 3)).tolist() == [255, 255, 0]
    assert found[0].amin(dim=(1, 2, 3)).tolist() == [0, 0, 0]


@runs_kernels
def test_memory_in_another_order_is_read_as_well():
    images, masks = make_batch(2, (9, 14))
    rows, columns = images.contiguous(), masks.transpose(1, 2).contiguous().transpose(1, 2)
    motions = Augment(augmentation="vmunet").sample_transforms(2, torch.Generator().manual_seed(3))
    (inputs, targets), _ = prepare(images, masks, motions)
    (same_inputs, same_targets), _ = prepare(rows, columns, motions.transpose(1, 2).contiguous().transpose(1, 2))
    assert torch.equal(inputs, same_inputs)
    assert torch.equal(targets, same_targets)


@pytest.mark.skipif(INTERPRETED, reason="is what runs the others there")
@pytest.mark.usefixtures("_triton")
def test_in_interpreter():
    # Triton reads the variable when it is imported
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", __file__, "-k", "not interpreter"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert "passed" in result.stdout
    assert "skipped" not in result.stdout
