"""The kernels that make inputs and targets against the reference: on a GPU, or in Triton's interpreter."""

import pytest
import torch

from mhsvm.data.augment import NORMALIZATIONS, Augment
from mhsvm.ops.fused import prepare_batch as module
from mhsvm.ops.fused.prepare_batch import PREPARE_BATCH, prepare_batch, prepare_batch_reference, triton_prepare_batch

pytestmark = pytest.mark.interpreter


def make_batch(num, size, seed=0):
    """A batch in the memory order of a data set: channels last."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(20, 230, (num, *size, 3), dtype=torch.uint8, generator=generator)
    masks = torch.randint(256, (num, *size), dtype=torch.uint8, generator=generator)
    return images.permute(0, 3, 1, 2), masks


@pytest.fixture
def prepare(kernel_device):
    """Inputs and targets by the kernels, and by the reference on the CPU."""

    def run(images, masks, transforms, *, normalization="minmax", **settings):
        settings["normalize"] = NORMALIZATIONS[normalization]
        expected = prepare_batch_reference(images, masks, transforms, **settings)
        moved = None if transforms is None else transforms.to(kernel_device)
        found = triton_prepare_batch(images.to(kernel_device), masks.to(kernel_device), moved, **settings)
        for x, y in zip(found, expected, strict=True):
            assert (x.shape, x.dtype, x.is_contiguous()) == (y.shape, y.dtype, True)
        return tuple(x.cpu() for x in found), expected

    return run


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
def test_the_same_images_as_torch_makes(prepare, size, augmentation, settings):
    images, masks = make_batch(5, size)
    transforms = augmentation and Augment(augmentation=augmentation).sample_transforms(
        5, torch.Generator().manual_seed(1)
    )
    found, expected = prepare(images, masks, transforms, **settings)
    same = torch.isclose(found[0], expected[0], rtol=1e-6, atol=1e-6).all(dim=1)
    assert same.float().mean() >= 0.999
    assert (found[1] == expected[1]).float().mean() >= 0.999
    if augmentation is None:
        assert same.all()
        assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("side", [16, 17])
def test_quarter_turns_and_flips_are_exact(prepare, side):
    quarter, mirror = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    turns = [torch.linalg.matrix_power(quarter, power) for power in range(4)]
    transforms = torch.stack([*turns, *(mirror @ turn for turn in turns)])
    found, expected = prepare(*make_batch(8, (side, side)), transforms)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    assert torch.equal(found[1], expected[1])


def test_extremes_are_those_of_all_of_an_image_and_of_no_other(prepare, monkeypatch):
    # more values than all programs read at once, and an incomplete last tile
    monkeypatch.setattr(module, "_PARTS", 2)
    monkeypatch.setattr(module, "_VALUES", 64)
    images = torch.full((3, 3, 11, 13), 100, dtype=torch.uint8)
    images[0, 2, 10, 12], images[0, 0, 0, 0] = 10, 210
    images[1, 1, 10, 0], images[1, 2, 5, 6] = 250, 90
    found, expected = prepare(images, torch.zeros(3, 11, 13, dtype=torch.uint8), None)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    assert found[0].amax(dim=(1, 2, 3)).tolist() == [255, 255, 0]
    assert found[0].amin(dim=(1, 2, 3)).tolist() == [0, 0, 0]


def test_memory_in_another_order_is_read_as_well(prepare):
    images, masks = make_batch(2, (9, 14))
    rows, columns = images.contiguous(), masks.transpose(1, 2).contiguous().transpose(1, 2)
    transforms = Augment(augmentation="vmunet").sample_transforms(2, torch.Generator().manual_seed(3))
    (inputs, targets), _ = prepare(images, masks, transforms)
    (same_inputs, same_targets), _ = prepare(rows, columns, transforms.transpose(1, 2).contiguous().transpose(1, 2))
    assert torch.equal(inputs, same_inputs)
    assert torch.equal(targets, same_targets)


def test_a_normalization_that_no_kernel_has(kernel_device):
    images, masks = (x.to(kernel_device) for x in make_batch(2, (9, 14)))
    options = {"normalize": lambda x: x / 2}
    assert PREPARE_BATCH.choose("auto", images, masks).backend == "triton"
    assert PREPARE_BATCH.choose("auto", images, masks, **options).backend == "reference"
    assert torch.equal(prepare_batch(images, masks, **options)[0], images / 2)
    with pytest.raises(ValueError, match="'triton' cannot run prepare_batch: its kernels normalize by minmax or"):
        prepare_batch(images, masks, **options, backend="triton")
