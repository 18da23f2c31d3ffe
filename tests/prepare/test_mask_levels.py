"""Masks with palettes, colors and transparency: read as their authors mean them, or refused; never empty in silence."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mhsvm.prepare.decode import decode_grayscale, decode_mask
from mhsvm.prepare.mask_levels import COARSE, COLORS, FAINT, TRANSPARENT, MaskLevelsError

MASK = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
BLACK, WHITE, RED, GRAY = (0, 0, 0), (255, 255, 255), (128, 0, 0), (128, 128, 128)


def palette(indices: np.ndarray, *entries: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette([channel for entry in entries for channel in entry] + [9] * (768 - 3 * len(entries)))
    return image


def colored(lesion, background, *, alpha=(255, 255), mask=MASK) -> Image.Image:
    """An RGBA mask: colors and alphas of lesion and background."""
    colors = np.where(mask[..., None] > 0, lesion, background)
    alphas = np.where(mask > 0, *alpha)
    return Image.fromarray(np.dstack([colors, alphas]).astype(np.uint8))


@pytest.mark.parametrize(
    "image",
    [
        palette(MASK, BLACK, RED),
        palette(MASK * 5, BLACK, WHITE, WHITE, GRAY, GRAY, RED),
        palette(MASK, BLACK, WHITE),
        palette(MASK, BLACK, BLACK),
        # black and white decide by color
        palette(1 - MASK, WHITE, BLACK),
        palette(MASK, BLACK, (1, 1, 1)),
        Image.fromarray(np.where(MASK[..., None] > 0, RED, BLACK).astype(np.uint8)),
    ],
)
def test_palettes_and_colors_that_are_read(encode, image):
    np.testing.assert_array_equal(decode_mask(encode(image)), MASK)


def test_a_palette_mask_that_is_all_lesion(encode):
    full = palette(np.ones_like(MASK), BLACK, RED)
    np.testing.assert_array_equal(decode_mask(encode(full)), np.ones_like(MASK))
    empty = palette(np.zeros_like(MASK), BLACK, RED)
    np.testing.assert_array_equal(decode_mask(encode(empty)), np.zeros_like(MASK))


@pytest.mark.parametrize("ending", ["GIF", "BMP", "TIFF", "PNG"])
def test_palettes_of_every_format(encode, ending):
    np.testing.assert_array_equal(decode_mask(encode(palette(MASK, BLACK, RED), ending)), MASK)


@pytest.mark.parametrize(
    "image",
    [
        palette(MASK, WHITE, RED),
        palette(MASK, RED, BLACK),
        palette(MASK + MASK[::-1], BLACK, RED, (0, 128, 0)),
        palette(MASK, WHITE, WHITE),
        Image.fromarray(np.where(MASK[..., None] > 0, RED, WHITE).astype(np.uint8)),
        Image.fromarray(np.full((2, 3, 3), RED, np.uint8)),
    ],
)
def test_palettes_and_colors_that_are_refused(encode, image):
    with pytest.raises(MaskLevelsError) as caught:
        decode_mask(encode(image))
    assert caught.value.rule in (COLORS, None)


@pytest.mark.parametrize(
    "image",
    [
        colored(WHITE, WHITE, alpha=(255, 0)),
        colored(RED, RED, alpha=(255, 0)),
        colored(RED, WHITE, alpha=(255, 0)),
        colored(WHITE, BLACK, alpha=(255, 0)),
        colored(WHITE, BLACK, alpha=(128, 128)),
        colored(WHITE, BLACK, alpha=(100, 0)),
        colored(RED, BLACK),
        Image.fromarray(np.dstack([MASK, np.full_like(MASK, 255)]), "LA"),
    ],
)
def test_transparency_that_is_read(encode, image):
    for format in ("PNG", "TIFF"):
        np.testing.assert_array_equal(decode_mask(encode(image, format)), MASK)


@pytest.mark.parametrize(
    "image",
    [
        # the lesion is transparent
        colored(WHITE, BLACK, alpha=(0, 255)),
        colored(BLACK, BLACK, alpha=(0, 255)),
        colored(BLACK, BLACK, alpha=(255, 0)),
        colored(BLACK, WHITE, alpha=(255, 0)),
        colored(WHITE, BLACK, alpha=(0, 0)),
        Image.fromarray(np.dstack([MASK, MASK]), "LA"),
    ],
)
def test_transparency_that_is_refused(encode, image):
    with pytest.raises(MaskLevelsError) as caught:
        decode_mask(encode(image))
    assert caught.value.rule is TRANSPARENT
    with pytest.raises(MaskLevelsError):
        decode_grayscale(encode(image))


def test_a_transparent_color_hides_no_lesion(encode):
    for pixels, key in ((MASK * 255, 255), (MASK * np.uint16(65535), 65535)):
        np.testing.assert_array_equal(decode_mask(encode(pixels, transparency=0)), MASK)
        with pytest.raises(MaskLevelsError) as caught:
            decode_mask(encode(pixels, transparency=key))
        assert caught.value.rule is TRANSPARENT
    with pytest.raises(MaskLevelsError):
        decode_mask(encode(palette(MASK, BLACK, RED), transparency=1))
    np.testing.assert_array_equal(decode_mask(encode(palette(MASK, BLACK, RED), transparency=0)), MASK)


def test_masks_without_lesion_stay_empty(encode):
    for image in (
        colored(WHITE, WHITE, alpha=(255, 0), mask=MASK * 0),
        colored(BLACK, BLACK, alpha=(0, 0)),
        colored(BLACK, BLACK),
    ):
        assert not decode_mask(encode(image)).any()


def test_faint_levels_are_not_advised_a_threshold(encode):
    for levels in (MASK * 7, MASK * np.uint16(300)):
        with pytest.raises(MaskLevelsError) as caught:
            decode_mask(encode(levels))
        assert caught.value.rule is FAINT
    with pytest.raises(MaskLevelsError) as caught:
        decode_mask(encode(MASK * 128))
    assert caught.value.rule is None


def test_sixteen_bit_colors_are_not_emptied():
    # Pillow reads the upper 8 bits of each channel, and writes no such file
    for lesion in (1, 65535):
        channels = np.repeat((MASK * np.uint16(lesion))[..., None], 3, axis=2)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
        chunks = {b"IHDR": struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0), b"IDAT": zlib.compress(rows), b"IEND": b""}
        content = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks.items()
        )
        if lesion == 1:
            with pytest.raises(MaskLevelsError) as caught:
                decode_mask(content)
            assert caught.value.rule is COARSE
        else:
            np.testing.assert_array_equal(decode_mask(content), MASK)


def test_class_masks(encode):
    levels = np.array([[0, 1, 2, 255]], np.uint8)
    np.testing.assert_array_equal(decode_mask(encode(palette(levels, BLACK, RED, GRAY)), 3), levels)
    opaque = np.full_like(levels, 255)
    np.testing.assert_array_equal(decode_mask(encode(Image.fromarray(np.dstack([levels, opaque]), "LA")), 3), levels)
    with pytest.raises(MaskLevelsError) as caught:
        decode_mask(encode(Image.fromarray(np.dstack([levels, opaque // 2]), "LA")), 3)
    assert caught.value.rule is TRANSPARENT
    with pytest.raises(MaskLevelsError) as caught:
        decode_mask(encode(np.where(MASK[..., None] > 0, RED, BLACK).astype(np.uint8)), 2)
    assert caught.value.rule is COLORS
