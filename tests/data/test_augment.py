"""Normalization and affine transforms, against rotations and flips by torch and against the recipes."""

import math

import pytest
import torch

from mhsvm.data.augment import Augment, list_augmentations, list_normalizations

IDENTITY = torch.eye(2)
QUARTER = torch.tensor([[0.0, -1.0], [1.0, 0.0]])  # points (x right, y down) turn clockwise
MIRROR = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
FLIP = torch.tensor([[1.0, 0.0], [0.0, -1.0]])


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8, generator=generator)
    masks = torch.randint(256, (4, 16, 16), dtype=torch.uint8, generator=generator)
    return images, masks


def sample(name, num, seed=0):
    return Augment(augmentation=name).sample_transforms(num, torch.Generator().manual_seed(seed))


def distinct(moves, choices):
    """Share of `moves` (n, 2, 2) that equal each of `choices`."""
    return [torch.isclose(moves, choice, atol=1e-6).all(dim=(1, 2)).float().mean().item() for choice in choices]


def test_names():
    assert list_normalizations() == ("imagenet", "minmax")
    assert list_augmentations() == ("none", "ultralight", "vmunet")


def test_minmax_spans_0_to_255_over_all_channels_of_an_image():
    images = torch.tensor([[10, 60], [110, 35], [85, 60]], dtype=torch.uint8).view(1, 3, 1, 2)
    inputs, _ = Augment()(images, torch.zeros(1, 1, 2, dtype=torch.uint8))
    expected = torch.tensor([[0.0, 127.5], [255.0, 63.75], [191.25, 127.5]]).view(1, 3, 1, 2)
    torch.testing.assert_close(inputs, expected, rtol=0, atol=1e-4)


def test_minmax_leaves_an_even_image_finite():
    inputs, _ = Augment()(torch.full((1, 3, 2, 2), 77, dtype=torch.uint8), torch.zeros(1, 2, 2, dtype=torch.uint8))
    assert torch.equal(inputs, torch.zeros(1, 3, 2, 2))


def test_imagenet_uses_its_channel_statistics():
    augment = Augment(normalization="imagenet")
    inputs, _ = augment(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), torch.zeros(1, 1, 1, dtype=torch.uint8))
    expected = [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert inputs.flatten().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["minmax", "imagenet"])
def test_evaluation_only_normalizes(batch, name):
    images, masks = batch
    augment = Augment(normalization=name)
    inputs, targets = augment(images, masks)
    assert torch.equal(inputs, augment.normalize(images.float()))
    assert torch.equal(targets, (masks >= 128).float()[:, None])
    still = augment(images, masks, augment.sample_transforms(len(images), torch.Generator()))
    assert torch.equal(still[0], inputs)
    assert torch.equal(still[1], targets)


def test_quarter_turns_and_flips_are_exact(batch):
    images, masks = batch
    plain, soft = Augment(soft_targets=True)(images, masks)
    moves = {
        "clockwise": (QUARTER, lambda x: torch.rot90(x, -1, (2, 3))),
        "half": (QUARTER @ QUARTER, lambda x: torch.rot90(x, 2, (2, 3))),
        "counter-clockwise": (QUARTER.T, lambda x: torch.rot90(x, 1, (2, 3))),
        "mirror": (MIRROR, lambda x: x.flip(3)),
        "flip": (FLIP, lambda x: x.flip(2)),
        "turn, then mirror": (MIRROR @ QUARTER, lambda x: torch.rot90(x, -1, (2, 3)).flip(3)),
    }
    for name, (motion, expected) in moves.items():
        inputs, targets = Augment(soft_targets=True)(images, masks, motion.repeat(len(images), 1, 1))
        assert torch.equal(inputs, expected(plain)), name
        assert torch.equal(targets, expected(soft)), name


def test_each_sample_moves_by_its_own_motion(batch):
    images, masks = batch
    plain, _ = Augment()(images, masks)
    inputs, _ = Augment()(images, masks, torch.stack([IDENTITY, MIRROR, FLIP, QUARTER]))
    expected = torch.stack([plain[0], plain[1].flip(2), plain[2].flip(1), torch.rot90(plain[3], -1, (1, 2))])
    assert torch.equal(inputs, expected)


def test_maps_that_are_not_square_keep_their_size_and_aspect():
    images = torch.randint(256, (1, 3, 8, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = torch.full((1, 8, 24), 255, dtype=torch.uint8)
    plain, _ = Augment()(images, masks)
    inputs, _ = Augment()(images, masks, MIRROR[None])
    assert torch.equal(inputs, plain.flip(3))
    inputs, targets = Augment()(images, masks, QUARTER[None])
    # the middle 8 x 8 square turns; what lay beside it has left the map, and what comes in is 0
    assert torch.equal(inputs[..., 8:16], torch.rot90(plain[..., 8:16], -1, (2, 3)))
    assert torch.equal(targets[..., 8:16], torch.ones(1, 1, 8, 8))
    outside = torch.ones(24, dtype=torch.bool)
    outside[8:16] = False
    assert not inputs[..., outside].any()
    assert not targets[..., outside].any()


def test_a_rotation_is_nearest_neighbor_with_corners_of_0(batch):
    images, masks = batch
    cos, sin = math.cos(math.radians(45)), math.sin(math.radians(45))
    motion = torch.tensor([[cos, -sin], [sin, cos]])
    inputs, targets = Augment(soft_targets=True)(images, masks, motion.repeat(len(images), 1, 1))
    plain, soft = Augment(soft_targets=True)(images, masks)
    for maps, moved in ((plain, inputs), (soft, targets)):
        assert not moved[..., [0, 0, -1, -1], [0, -1, 0, -1]].any()
        for before, after in zip(maps, moved, strict=True):
            assert set(after.unique().tolist()) <= {0.0, *before.unique().tolist()}
    # 6 to the right of the center, turned by 45 degrees clockwise, is nearest to 4 right and 4 down
    images = torch.zeros(1, 3, 17, 17, dtype=torch.uint8)
    images[..., 8, 14] = 255
    inputs, _ = Augment()(images, torch.zeros(1, 17, 17, dtype=torch.uint8), motion[None])
    assert inputs[0, 0, 12, 12] == 255
    assert inputs[0, 0, 4, 12] == 0


@pytest.mark.parametrize("name", ["ultralight", "vmunet"])
def test_image_and_mask_move_together(name):
    masks = torch.zeros(32, 33, 33, dtype=torch.uint8)
    masks[:, 4:20, 9:30] = 255
    images = masks[:, None].expand(-1, 3, -1, -1)
    augment = Augment(augmentation=name)
    inputs, targets = augment(images, masks, augment.sample_transforms(32, torch.Generator().manual_seed(0)))
    assert torch.equal(inputs[:, :1] / 255, targets)
    assert len({tuple(target.flatten().tolist()) for target in targets}) > 16


def test_hard_targets_are_lesion_from_half_coverage_on():
    masks = torch.tensor([0, 1, 127, 128, 254, 255], dtype=torch.uint8).view(1, 1, 6)
    images = torch.zeros(1, 3, 1, 6, dtype=torch.uint8)
    _, hard = Augment()(images, masks)
    _, soft = Augment(soft_targets=True)(images, masks)
    assert hard.dtype == soft.dtype == torch.float32
    assert hard.flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert soft.flatten().tolist() == pytest.approx([0, 1 / 255, 127 / 255, 128 / 255, 254 / 255, 1], abs=1e-7)


def test_class_indices_stay_what_they_are():
    masks = torch.tensor([[0, 1], [3, 255]], dtype=torch.uint8)[None]
    augment = Augment(num_classes=4, augmentation="vmunet")
    images = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    _, targets = augment(images, masks)
    assert targets.dtype == torch.int64
    assert targets.tolist() == masks.tolist()
    _, moved = augment(images, masks, MIRROR[None])
    assert moved.tolist() == [[[1, 0], [255, 3]]]


def test_ultralight_draws_what_its_recipe_says():
    num = 20_000
    moves = sample("ultralight", num).double()
    turns = [torch.linalg.matrix_power(QUARTER, power) for power in range(4)]
    eight = [flip @ turn for flip in (MIRROR, IDENTITY) for turn in turns]
    # 1/4 of the samples are left alone, 1/4 are turned and flipped only: a flip is always part of it, so that the
    # turns alone never come. The standard error of a share of 1/16 is 0.0017
    shares = distinct(moves, [choice.double() for choice in eight])
    assert shares == pytest.approx([1 / 16] * 4 + [1 / 4, 0, 0, 0], abs=0.012)
    # the others are rotated by 20..79 whole degrees, behind a turn and a flip or alone
    mirrored = torch.linalg.det(moves) < 0
    angles = torch.rad2deg(torch.atan2(moves[:, 1, 0], moves[:, 0, 0]))
    alone = angles[~mirrored & ~torch.isclose(moves, IDENTITY.double(), atol=1e-6).all(dim=(1, 2))]
    torch.testing.assert_close(alone, alone.round(), rtol=0, atol=1e-4)
    assert set(alone.round().int().tolist()) == set(range(20, 80))
    assert len(alone) / num == pytest.approx(1 / 4, abs=0.015)
    assert mirrored.double().mean().item() == pytest.approx(1 / 2, abs=0.015)


def test_vmunet_draws_what_its_recipe_says():
    num = 20_000
    moves = sample("vmunet", num).double()
    half_turn = (QUARTER @ QUARTER).double()
    # unrotated: each of the two flips with p 0.5
    shares = distinct(moves, [IDENTITY.double(), MIRROR.double(), FLIP.double(), half_turn])
    assert shares == pytest.approx([1 / 8] * 4, abs=0.012)
    angles = torch.rad2deg(torch.atan2(moves[:, 1, 0], moves[:, 0, 0])) % 360
    rotated = angles[(angles % 90).minimum(90 - angles % 90) > 1e-3]
    assert len(rotated) / num == pytest.approx(1 / 2, abs=0.015)
    # one angle a sample, evenly over the circle
    assert len(rotated.unique()) > 0.99 * len(rotated)
    histogram = torch.histc(rotated, bins=12, min=0, max=360) / len(rotated)
    assert histogram.tolist() == pytest.approx([1 / 12] * 12, abs=0.015)
    assert torch.linalg.det(moves).abs().tolist() == pytest.approx([1.0] * num, abs=1e-5)


@pytest.mark.parametrize("name", ["ultralight", "vmunet"])
def test_transforms_come_from_the_generator_alone(name):
    torch.manual_seed(1)
    first = sample(name, 64, seed=7)
    torch.manual_seed(2)
    assert torch.equal(first, sample(name, 64, seed=7))
    assert not torch.equal(first, sample(name, 64, seed=8))
    assert first.dtype == torch.float32
    assert first.shape == (64, 2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalization": "zscore"}, "unknown normalization 'zscore'; known: minmax, imagenet"),
        ({"augmentation": "flips"}, "unknown augmentation 'flips'; known: none, ultralight, vmunet"),
        ({"soft_targets": True, "num_classes": 3}, "soft targets require masks of one class"),
    ],
)
def test_what_cannot_be_built_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augment(**arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("normalization", list_normalizations())
@pytest.mark.parametrize("augmentation", list_augmentations())
@pytest.mark.parametrize("size", [(256, 256), (192, 256)])
@pytest.mark.parametrize("on_gpu", ["reference", "auto"])
def test_a_gpu_makes_the_same_images(normalization, augmentation, size, on_gpu):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (32, 3, *size), dtype=torch.uint8, generator=generator)
    masks = torch.randint(256, (32, *size), dtype=torch.uint8, generator=generator)
    augment = Augment(normalization=normalization, augmentation=augmentation)
    drawn = augment.sample_transforms(32, generator)
    inputs, targets = augment(images, masks, drawn)
    augment.backend = on_gpu
    gpu_inputs, gpu_targets = (x.cpu() for x in augment(images.cuda(), masks.cuda(), drawn.cuda()))
    same = torch.isclose(gpu_inputs, inputs, rtol=1e-5, atol=1e-4).all(dim=1)
    assert same.float().mean() >= 0.999
    assert (gpu_targets == targets).float().mean() >= 0.999
