"""Files of every mode, to the same pixels."""

import contextlib

import numpy as np
import pytest
from PIL import Image

from mhsvm.prepare import raster
from mhsvm.prepare.decode import MaskLevelsError, check_threshold, decode_grayscale, decode_image, decode_mask
from mhsvm.prepare.mask_levels import FAINT

RED, GREEN = (200, 30, 40), (20, 180, 60)
COLORS = np.array([[RED, GREEN], [GREEN, RED], [RED, RED]], np.uint8)
MASK = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_lossless_formats(encode, format):
    np.testing.assert_array_equal(decode_image(encode(COLORS, format)), COLORS)
    np.testing.assert_array_equal(decode_mask(encode(MASK * 255, format)), MASK)


def test_jpeg_and_cmyk_jpeg(encode):
    flat = np.full((16, 16, 3), RED, np.uint8)
    for image in (Image.fromarray(flat), Image.fromarray(flat).convert("CMYK")):
        decoded = decode_image(encode(image, "JPEG", quality=95))
        assert decoded.shape == (16, 16, 3)
        assert abs(decoded.astype(int) - RED).max() <= 3


def test_palette_with_and_without_transparency(encode):
    palette = Image.fromarray(COLORS).quantize(2)
    np.testing.assert_array_equal(decode_image(encode(palette)), COLORS)
    transparent = palette.getpixel((0, 0))
    decoded = decode_image(encode(palette, transparency=transparent))
    np.testing.assert_array_equal(decoded, np.where(COLORS == RED, 0, COLORS))


def test_gray_one_bit_and_sixteen_bit_images(encode):
    for pixels, expected in (
        (np.array([[0, 7, 255]], np.uint8), [0, 7, 255]),
        (np.array([[False, True, True]]), [0, 255, 255]),
        (np.array([[0, 7 * 257 + 100, 65535]], np.uint16), [0, 7, 255]),
    ):
        decoded = decode_image(encode(pixels))
        np.testing.assert_array_equal(decoded, np.repeat(np.array([expected], np.uint8)[..., None], 3, axis=2))


def test_alpha_is_composited_over_black(encode):
    alpha = np.array([[255, 0], [51, 255], [255, 255]], np.uint8)
    decoded = decode_image(encode(np.dstack([COLORS, alpha])))
    np.testing.assert_allclose(decoded, COLORS * (alpha[..., None] / 255), atol=1)
    cut_out = np.dstack([np.full(MASK.shape, 255, np.uint8), MASK * 255])
    np.testing.assert_array_equal(decode_mask(encode(Image.fromarray(cut_out, "LA"))), MASK)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_and_masks_are_turned_upright_alike(encode, orientation):
    mask = np.zeros((24, 40), np.uint8)
    mask[:8, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(encode(np.repeat(mask[..., None], 3, axis=2), "JPEG", quality=100, exif=exif))
    upright = decode_mask(encode(mask, "PNG", exif=exif))
    assert upright.shape == ((24, 40) if orientation <= 4 else (40, 24))
    np.testing.assert_array_equal(image[..., 0] > 127, upright == 1)
    corner = {1: (0, 0), 2: (0, 39), 3: (23, 39), 4: (23, 0), 5: (0, 0), 6: (0, 23), 7: (39, 23), 8: (39, 0)}
    assert upright[corner[orientation]] == 1
    assert upright.sum() == 8 * 16


@pytest.mark.parametrize(
    "levels", [MASK, MASK * 255, MASK.astype(bool), MASK * np.uint16(65535), MASK * 0, MASK * 0 + 255]
)
def test_binary_masks(encode, levels):
    decoded = decode_mask(encode(levels))
    np.testing.assert_array_equal(decoded, levels > 0)
    assert decoded.dtype == np.uint8


def test_binary_palette_counts_by_color_class_palette_by_index(encode):
    palette = Image.fromarray(MASK * 3, "P")
    palette.putpalette([0, 0, 0, 9, 9, 9, 8, 8, 8, 255, 255, 255])
    np.testing.assert_array_equal(decode_mask(encode(palette)), MASK)
    np.testing.assert_array_equal(decode_mask(encode(palette), num_classes=4), MASK * 3)


def test_gray_rgb_mask(encode):
    np.testing.assert_array_equal(decode_mask(encode(np.repeat(MASK[..., None] * 255, 3, axis=2))), MASK)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (np.array([[0, 128, 255]], np.uint8), "3 levels from 0 to 255"),
        (np.array([[0, 7]], np.uint8), "2 levels from 0 to 7"),
        (np.array([[1, 255]], np.uint8), "2 levels from 1 to 255"),
        (np.array([[0, 255]], np.uint16) * 100, "2 levels from 0 to 25500"),
        (np.array([[(0, 0, 0), (255, 0, 0), (255, 1, 0)]], np.uint8), "colors"),
    ],
)
def test_masks_that_are_none(encode, levels, message):
    with pytest.raises(MaskLevelsError, match=message):
        decode_mask(encode(levels))


def test_jpeg_mask_has_gray_levels(encode):
    mask = np.zeros((32, 32), np.uint8)
    mask[5:20, 7:23] = 255
    with pytest.raises(MaskLevelsError, match=r"\d+ levels from 0 to 255"):
        decode_mask(encode(mask, "JPEG"))


def test_class_masks(encode):
    levels = np.array([[0, 1, 2, 255]], np.uint8)
    np.testing.assert_array_equal(decode_mask(encode(levels), num_classes=3), levels)
    np.testing.assert_array_equal(decode_mask(encode(levels.astype(np.uint16)), num_classes=3), levels)
    np.testing.assert_array_equal(decode_mask(encode(MASK.astype(bool)), num_classes=2), MASK)
    with pytest.raises(MaskLevelsError, match=r"^levels 2$"):
        decode_mask(encode(levels), num_classes=2)
    with pytest.raises(MaskLevelsError, match=r"^levels 3, 4, 5, 6, 7, …$"):
        decode_mask(encode(np.arange(20, dtype=np.uint8)[None]), num_classes=3)


# Of damaged TIFF and EXIF tags, Pillow also warns.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_files_are_value_errors(encode, picture):
    with pytest.raises(ValueError, match="no BMP, PNG, JPEG, TIFF, .* file, or a damaged one"):
        decode_image(b"no image")
    with pytest.raises(ValueError, match="damaged"):
        decode_image(b"")
    random = np.random.default_rng(0)
    whole = {format: picture(format=format) for format in ("PNG", "JPEG", "BMP", "TIFF")}
    for content in whole.values():
        with pytest.raises(ValueError, match=r"truncated|damaged|not enough|Truncated|-"):
            decode_image(content[: len(content) // 2])
    # Whatever bytes are changed, the outcome is pixels or a ValueError.
    for content in list(whole.values()) * 60:
        changed = np.frombuffer(content, np.uint8).copy()
        changed[random.integers(0, len(changed), 8)] = random.integers(0, 256, 8)
        with contextlib.suppress(ValueError):
            assert decode_image(changed.tobytes()).dtype == np.uint8


def test_other_pixels_and_frames(encode):
    floating = Image.fromarray(np.ones((4, 4), np.float32))
    with pytest.raises(ValueError, match=r"32-bit pixels \(mode F\): save it with 8 or 16 bits"):
        decode_image(encode(floating, "TIFF"))
    frames = [Image.fromarray(MASK * 255)] * 3
    with pytest.raises(ValueError, match="a TIFF of 3 frames; one is expected"):
        decode_mask(encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]))


def test_decompression_bomb(encode, monkeypatch):
    monkeypatch.setattr(raster, "LARGEST_IMAGE", 100)
    with pytest.raises(ValueError, match="11 x 10 pixels are more than 100"):
        decode_image(encode(np.zeros((10, 11), np.uint8)))
    assert decode_image(encode(np.zeros((10, 10), np.uint8))).shape == (10, 10, 3)


def test_pillows_own_bomb_limit(encode):
    declared = bytearray(encode(np.zeros((4, 4), np.uint8), "BMP"))
    declared[18:26] = np.array([20000, 20000], "<i4").tobytes()
    with pytest.raises(ValueError, match="decompression bomb"):
        decode_image(bytes(declared))


@pytest.mark.parametrize(
    ("pixels", "full"),
    [
        (np.array([[0, 51, 255]], np.uint8), 255),
        (np.array([[0, 1, 65535]], np.uint16), 65535),
        (np.array([[False, True]]), 1),
    ],
)
def test_gray_levels_are_fractions_of_full_scale(encode, pixels, full):
    levels = decode_grayscale(encode(pixels))
    assert levels.dtype == np.float32
    np.testing.assert_array_equal(levels, (pixels / full).astype(np.float32))


def test_colors_are_not_grayscale(encode):
    with pytest.raises(MaskLevelsError, match="colors"):
        decode_grayscale(encode(COLORS))


def test_gray_levels_are_thresholded_where_a_threshold_is_given(encode):
    soft = np.array([[0, 127, 128, 255]], np.uint8)
    assert decode_mask(encode(soft), threshold=0.5).tolist() == [[0, 0, 1, 1]]
    assert decode_mask(encode(soft.astype(np.uint16) * 257), threshold=0.5).tolist() == [[0, 0, 1, 1]]
    assert decode_mask(encode(soft), threshold=1.0).tolist() == [[0, 0, 0, 1]]
    with pytest.raises(MaskLevelsError, match="4 levels from 0 to 255"):
        decode_mask(encode(soft))


def test_a_mask_of_two_levels_is_not_thresholded(encode):
    assert decode_mask(encode(np.array([[0, 1]], np.uint8)), threshold=0.5).tolist() == [[0, 1]]
    assert decode_mask(encode(np.zeros((1, 2), np.uint8)), threshold=0.5).tolist() == [[0, 0]]


def test_a_threshold_never_empties_a_mask(encode):
    with pytest.raises(MaskLevelsError, match="3 levels from 0 to 38") as caught:
        decode_mask(encode(np.array([[0, 7, 38]], np.uint8)), threshold=0.5)
    assert caught.value.rule is FAINT


@pytest.mark.parametrize(
    ("threshold", "num_classes", "message"),
    [
        (0.0, 1, r"in \(0, 1\]; received 0. Level 128 is 0.5"),
        (128, 1, "received 128"),
        (float("nan"), 1, "received nan"),
        (0.5, 3, "class indices are not thresholded"),
    ],
)
def test_wrong_thresholds(threshold, num_classes, message):
    with pytest.raises(ValueError, match=message):
        check_threshold(threshold, num_classes)
